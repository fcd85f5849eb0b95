#include "models/networks/mlp.h"

#include <cmath>

#include "engine/single_precision.h"
#include "models/layers/layers.h"
#include "models/networks/initialise.h"
#include "models/networks/scope.h"

namespace fluxion {
namespace {

std::string layer(std::size_t k, const std::string& name) {
  return "layers." + std::to_string(k) + "." + name;
}

// [z, cos z, sin z, cos 2z, sin 2z, ..] along the last axis.
Tensor with_frequencies(const Tensor& z, std::int64_t frequencies) {
  std::vector<Tensor> parts{z};
  for (std::int64_t k = 0; k < frequencies; ++k) {
    const Tensor angle = z * std::ldexp(1.0, static_cast<int>(k));
    parts.push_back(cos(angle));
    parts.push_back(sin(angle));
  }
  return concat(parts, 1);
}

}  // namespace

Tensor apply(const MlpConfig& config, const Parameters& parameters, const Tensor& z,
             const Times& times) {
  if (z.rank() != 2 || z.size(1) != config.data_dim)
    throw ShapeError("mlp: wants z [batch, " + std::to_string(config.data_dim) + "], got " +
                     to_string(z.type()));
  const Tensor second = second_time(times, config.second_time);
  const auto features = [&](const Tensor& time) {
    return config.time_features > 0
               ? timestep_embedding(time, config.time_features, config.time_scale)
               : expand_dims(time, 1);
  };
  const Tensor conditions = concat({features(times.t), features(second)}, 1),
               seen = with_frequencies(z, config.frequencies);
  Tensor h = config.time_features > 0 ? seen : concat({seen, conditions}, 1);
  const Scope root{parameters, "", config.running.precision};
  const std::size_t layers = config.hidden.size();
  for (std::size_t k = 0; k <= layers; ++k) {
    h = (root / ("layers." + std::to_string(k))).linear(h);
    if (k == 0 && config.time_features > 0) h = h + (root / "time_embedder").linear(conditions);
    if (k < layers) h = silu(h);
  }
  return h;
}

std::map<std::string, Shape> parameter_shapes(const MlpConfig& config) {
  std::map<std::string, Shape> shapes;
  std::int64_t in =
      config.data_dim * (1 + 2 * config.frequencies) + (config.time_features > 0 ? 0 : 2);
  for (std::size_t k = 0; k <= config.hidden.size(); ++k) {
    const std::int64_t out = k < config.hidden.size() ? config.hidden[k] : config.data_dim;
    shapes[layer(k, "weight")] = {out, in};
    shapes[layer(k, "bias")] = {out};
    in = out;
  }
  if (config.time_features > 0) {
    const std::int64_t width = config.hidden.empty() ? config.data_dim : config.hidden.front();
    shapes["time_embedder.weight"] = {width, 2 * config.time_features};
    shapes["time_embedder.bias"] = {width};
  }
  return shapes;
}

Parameters initialise(const MlpConfig& config, const Tensor& key, DType dtype) {
  return initialise_each(parameter_shapes(config), key,
                         [&](const std::string&, const Shape& shape, const Tensor& own_key) {
                           return shape.rank() == 2 ? xavier_uniform(own_key, shape, dtype)
                                                    : zeros(shape, dtype, key.device());
                         });
}

void check(const MlpConfig& config) {
  constexpr std::int64_t widest = 1 << 24;  // keeps sizes read from a damaged file from overflowing
  if (config.data_dim < 1 || config.data_dim > widest)
    throw Error("mlp: data_dim must be in 1.." + std::to_string(widest) + ", got " +
                std::to_string(config.data_dim));
  if (config.frequencies < 0 || config.frequencies > 16)
    throw Error("mlp: frequencies must be in 0..16, got " + std::to_string(config.frequencies));
  constexpr std::size_t most_layers = 1024;
  if (config.hidden.size() > most_layers)
    throw Error("mlp: at most " + std::to_string(most_layers) + " hidden layers, got " +
                std::to_string(config.hidden.size()));
  for (const std::int64_t width : config.hidden)
    if (width < 1 || width > widest)
      throw Error("mlp: hidden widths must be in 1.." + std::to_string(widest) + ", got " +
                  to_string(config.hidden));
  if (config.time_features < 0 || config.time_features == 1 || config.time_features > 1 << 20)
    throw Error("mlp: time_features must be 0 or in 2..1048576, got " +
                std::to_string(config.time_features));
  if (!fits_single(config.time_scale))
    throw Error("mlp: time_scale must be 0 or a number that single precision holds");
}

}  // namespace fluxion
