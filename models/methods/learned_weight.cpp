#include "models/methods/learned_weight.h"

#include "engine/graph/ops.h"
#include "models/layers/layers.h"

namespace fluxion {
namespace {

constexpr std::int64_t weight_width = 32;

}  // namespace

std::map<std::string, Shape> weight_shapes(std::int64_t inputs) {
  return {{"weight.0.weight", {weight_width, inputs}},
          {"weight.0.bias", {weight_width}},
          {"weight.1.weight", {1, weight_width}},
          {"weight.1.bias", {1}}};
}

Parameters fresh_weight(std::int64_t inputs, const Tensor& key) {
  Parameters parameters;
  for (const auto& [name, shape] : weight_shapes(inputs))
    parameters.emplace(name, name == "weight.0.weight" ? normal(key, shape, DType::f32)
                                                       : zeros(shape, DType::f32, key.device()));
  return parameters;
}

Tensor weight_of(const Parameters& learned, const Tensor& times) {
  const Tensor hidden =
      tanh(linear(times, learned.at("weight.0.weight"), learned.at("weight.0.bias")));
  return reshape(linear(hidden, learned.at("weight.1.weight"), learned.at("weight.1.bias")),
                 {times.size(0)});
}

}  // namespace fluxion
