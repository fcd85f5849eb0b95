#include "models/networks/scope.h"

#include "models/layers/layers.h"

namespace fluxion {

Tensor Scope::linear(const Tensor& x) const {
  return fluxion::linear(x, (*this)("weight"), (*this)("bias"), precision);
}

Tensor convolve(const Scope& at, const Tensor& x, const ConvolutionOptions& options) {
  return product(at.precision, x, at("weight"), [&](const Tensor& a, const Tensor& b) {
    return conv2d(a, transpose(b, {2, 3, 1, 0}), options) + at("bias");
  });
}

Tensor with_dropout(const Tensor& x, const Running& running, std::uint32_t place) {
  if (running.dropout == 0) return x;
  const double kept = 1 - running.dropout;
  const Tensor drawn = uniform(fold_in(running.dropout_key, place), x.shape(), x.dtype());
  return x * (lt(drawn, kept).to(x.dtype()) * (1 / kept));
}

Tensor embed_time(const Scope& mlp, const Tensor& time, std::int64_t features, double time_scale) {
  return (mlp / "2").linear(
      silu((mlp / "0").linear(timestep_embedding(time, features, time_scale))));
}

void check_call(const char* network, const Shape& sample, std::int64_t classes, const Tensor& z,
                const Tensor& labels) {
  const std::string start = std::string(network) + ": ";
  Dims wanted = sample.dims();
  wanted.insert(wanted.begin(), z.rank() > 0 ? z.size(0) : 0);
  if (z.shape() != Shape(wanted))
    throw ShapeError(start + "wants z [batch, " + to_string(sample).substr(1) + ", got " +
                     to_string(z.type()));
  if (classes == 0) return;
  if (!labels)
    throw Error(start + "the network has " + std::to_string(classes) +
                " classes; pass labels, with the null class for none");
  if (labels.dtype() != DType::i32 || labels.shape() != Shape{z.size(0)})
    throw ShapeError(start + "wants labels i32[" + std::to_string(z.size(0)) + "], got " +
                     to_string(labels.type()));
}

void add_linear(std::map<std::string, Shape>& shapes, const std::string& name, std::int64_t in,
                std::int64_t out) {
  shapes[name + ".weight"] = {out, in};
  shapes[name + ".bias"] = {out};
}

}  // namespace fluxion
