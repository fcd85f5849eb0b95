// A multilayer perceptron over (z, t, second time), for data that are short vectors.
#pragma once

#include "models/networks/parameters.h"

namespace fluxion {

struct MlpConfig {
  std::int64_t data_dim = 2;
  std::vector<std::int64_t> hidden = {128, 128, 128};
  SecondTime second_time = SecondTime::difference;
  bool operator==(const MlpConfig&) const = default;
};

// h = [z, t, s]; then h = silu(layers.k(h)) for every hidden layer, and a last layer without activation. z [batch, data_dim]; parameters
// layers.<k>.weight [out, in], layers.<k>.bias [out].
Tensor apply(const MlpConfig& config, const Parameters& parameters, const Tensor& z, const Times& times);

std::map<std::string, Shape> parameter_shapes(const MlpConfig& config);
Parameters initialise(const MlpConfig& config, const Tensor& key, DType dtype);
void check(const MlpConfig& config);

}  // namespace fluxion
