#include "models/layers/host_numbers.h"

#include "engine/graph/ops.h"

namespace fluxion {

Tensor tensor_of(const std::vector<double>& values, const Shape& shape, DType dtype,
                 const Device& device) {
  if (dtype == DType::f64) return Tensor::from(values, shape, device);
  const std::vector<float> rounded(values.begin(), values.end());
  return Tensor::from(rounded, shape, device).to(dtype);
}

std::vector<double> doubles_of(const Tensor& x) {
  if (x.dtype() == DType::f64) return x.to_host<double>();
  const std::vector<float> values = x.to(DType::f32).to_host<float>();
  return {values.begin(), values.end()};
}

}  // namespace fluxion
