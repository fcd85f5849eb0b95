#include "models/networks/mlp.h"

#include "models/layers/layers.h"
#include "models/networks/initialise.h"

namespace fluxion {
namespace {

std::string layer(std::size_t k, const std::string& name) { return "layers." + std::to_string(k) + "." + name; }

}  // namespace

Tensor apply(const MlpConfig& config, const Parameters& parameters, const Tensor& z, const Times& times) {
  if (z.rank() != 2 || z.size(1) != config.data_dim)
    throw ShapeError("mlp: wants z [batch, " + std::to_string(config.data_dim) + "], got " + to_string(z.type()));
  const Tensor second = second_time(times, config.second_time);
  Tensor h = concat({z, expand_dims(times.t, 1), expand_dims(second, 1)}, 1);
  const std::size_t layers = config.hidden.size();
  for (std::size_t k = 0; k <= layers; ++k) {
    h = linear(h, parameter(parameters, layer(k, "weight")), parameter(parameters, layer(k, "bias")));
    if (k < layers) h = silu(h);
  }
  return h;
}

std::map<std::string, Shape> parameter_shapes(const MlpConfig& config) {
  std::map<std::string, Shape> shapes;
  std::int64_t in = config.data_dim + 2;
  for (std::size_t k = 0; k <= config.hidden.size(); ++k) {
    const std::int64_t out = k < config.hidden.size() ? config.hidden[k] : config.data_dim;
    shapes[layer(k, "weight")] = {out, in};
    shapes[layer(k, "bias")] = {out};
    in = out;
  }
  return shapes;
}

Parameters initialise(const MlpConfig& config, const Tensor& key, DType dtype) {
  return initialise_each(parameter_shapes(config), key, [&](const std::string&, const Shape& shape, const Tensor& own_key) {
    return shape.rank() == 2 ? xavier_uniform(own_key, shape, dtype) : zeros(shape, dtype, key.device());
  });
}

void check(const MlpConfig& config) {
  constexpr std::int64_t widest = 1 << 24;  // keeps sizes read from a damaged file from overflowing
  if (config.data_dim < 1 || config.data_dim > widest)
    throw Error("mlp: data_dim must be in 1.." + std::to_string(widest) + ", got " + std::to_string(config.data_dim));
  for (const std::int64_t width : config.hidden)
    if (width < 1 || width > widest) throw Error("mlp: hidden widths must be in 1.." + std::to_string(widest) + ", got " + to_string(config.hidden));
}

}  // namespace fluxion
