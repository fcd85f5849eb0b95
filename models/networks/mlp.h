// A multilayer perceptron over (z, t, second time), for data that are short vectors.
#pragma once

#include "models/networks/parameters.h"
#include "models/networks/running.h"

namespace fluxion {

struct MlpConfig {
  std::int64_t data_dim = 2;
  std::vector<std::int64_t> hidden = {128, 128, 128};
  SecondTime second_time = SecondTime::difference;
  std::int64_t frequencies =
      0;  // F: the first layer also sees cos and sin of z, 2 z, 4 z, .. 2^(F-1) z
  std::int64_t time_features = 0;  // sinusoidal features of each time; 0: the times themselves
  double time_scale = 1;           // multiplies a time before its sinusoidal features
  Running running = {};
  bool operator==(const MlpConfig&) const = default;
};

// h = silu(layers.k(h)) for every hidden layer, then a last layer without activation. The first
// layer sees h = [x, t, s], where x is z followed by its Fourier features (Tancik et al. 2020), if
// any, which let a small network be steep where the data are, and s is the second time; or, with
// time_features, h = x alone, and a linear map of the sinusoidal features [f(t), f(s)] is added to
// its output before the activation. z [batch, data_dim]; parameters layers.<k>.weight [out, in],
// layers.<k>.bias [out], and with time_features time_embedder.weight, time_embedder.bias.
Tensor apply(const MlpConfig& config, const Parameters& parameters, const Tensor& z,
             const Times& times);

std::map<std::string, Shape> parameter_shapes(const MlpConfig& config);
Parameters initialise(const MlpConfig& config, const Tensor& key, DType dtype);
void check(const MlpConfig& config);

}  // namespace fluxion
