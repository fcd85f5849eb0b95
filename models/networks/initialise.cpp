#include "models/networks/initialise.h"

#include <cmath>

#include "engine/graph/ops.h"

namespace fluxion {

Tensor xavier_uniform(const Tensor& key, const Shape& shape, DType dtype) {
  return xavier_uniform(key, {shape[0], shape.elements() / shape[0]}, shape, dtype);
}

Tensor xavier_uniform(const Tensor& key, std::array<std::int64_t, 2> outputs_inputs,
                      const Shape& shape, DType dtype) {
  const double bound = std::sqrt(6.0 / static_cast<double>(outputs_inputs[0] + outputs_inputs[1]));
  return (uniform(key, shape, dtype) * 2.0 - 1.0) * bound;
}

Tensor fan_in_uniform(const Tensor& key, const Shape& shape, std::int64_t inputs, DType dtype) {
  return (uniform(key, shape, dtype) * 2.0 - 1.0) / std::sqrt(static_cast<double>(inputs));
}

Parameters initialise_each(
    const std::map<std::string, Shape>& shapes, const Tensor& key,
    const std::function<Tensor(const std::string&, const Shape&, const Tensor&)>& make) {
  Parameters parameters;
  std::uint32_t number = 0;
  for (const auto& [name, shape] : shapes) {
    const Tensor value = make(name, shape, fold_in(key, number++));
    eval(value);
    parameters.emplace(name, value);
  }
  return parameters;
}

}  // namespace fluxion
