#include "models/layers/layers.h"

#include <cmath>

namespace fluxion {
namespace {

std::string where_text(const std::string& function, Location where) {
  return function + " (" + to_string(where) + "): ";
}

// Numbers computed on the host in f64 and rounded once to the dtype asked for, so that no accuracy
// is lost on the way.
Tensor table(const std::vector<double>& values, const Shape& shape, DType dtype,
             const Device& device) {
  if (dtype == DType::f64) return Tensor::from(values, shape, device);
  return Tensor::from(std::vector<float>(values.begin(), values.end()), shape, device).to(dtype);
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Precision& precision,
              Location where) {
  require_tensor(x, "linear", "x", where);
  require_tensor(weight, "linear", "weight", where);
  require_tensor(bias, "linear", "bias", where);
  if (x.rank() < 1 || weight.rank() != 2 || x.shape().back() != weight.size(1))
    throw ShapeError(where_text("linear", where) + "x " + to_string(x.type()) +
                     " does not fit weight " + to_string(weight.type()) +
                     "; the last axis of x must be the second of weight");
  Shape shape = x.shape();
  const std::int64_t in = shape.back();
  std::int64_t rows = 1;
  for (std::int64_t axis = 0; axis + 1 < shape.rank(); ++axis) rows *= shape[axis];
  shape[shape.rank() - 1] = weight.size(0);
  return product(precision, reshape(x, {rows, in}, where), weight,
                 [&](const Tensor& a, const Tensor& b) {
                   const Tensor y = matmul(a, transpose(b, {1, 0}, where), where);
                   return add({reshape(y, shape, where), where}, {bias, where});
                 });
}

Tensor per_sample(const Tensor& values, std::int64_t rank, Location where) {
  require_tensor(values, "per_sample", "values", where);
  if (values.rank() != 1)
    throw ShapeError(where_text("per_sample", where) + "wants a tensor [batch], got " +
                     to_string(values.type()));
  Dims shape(static_cast<std::size_t>(rank), 1);
  shape.front() = values.size(0);
  return reshape(values, Shape(std::move(shape)), where);
}

Tensor sinusoids(const Tensor& t, const std::vector<double>& frequencies, double time_scale,
                 Location where) {
  require_tensor(t, "sinusoids", "t", where);
  const auto half = static_cast<std::int64_t>(frequencies.size());
  if (t.rank() != 1 || half < 1)
    throw ShapeError(where_text("sinusoids", where) + "wants t [batch] and frequencies, got " +
                     to_string(t.type()) + " and " + std::to_string(half));
  const Tensor angles = expand_dims(mul({t, where}, {time_scale, where}), 1, where) *
                        table(frequencies, {1, half}, t.dtype(), t.device());
  return concat({cos(angles), sin(angles)}, 1, where);
}

Tensor timestep_embedding(const Tensor& t, std::int64_t dim, double time_scale, double max_period,
                          Location where) {
  require_tensor(t, "timestep_embedding", "t", where);
  if (t.rank() != 1 || dim < 1)
    throw ShapeError(where_text("timestep_embedding", where) +
                     "wants t [batch] and dim >= 1, got " + to_string(t.type()) + " and dim " +
                     std::to_string(dim));
  const std::int64_t half = dim / 2;
  if (half == 0) return zeros({t.size(0), 1}, t.dtype(), t.device());
  std::vector<double> frequencies(static_cast<std::size_t>(half));
  for (std::int64_t i = 0; i < half; ++i)
    frequencies[static_cast<std::size_t>(i)] =
        std::exp(-std::log(max_period) * static_cast<double>(i) / static_cast<double>(half));
  const Tensor features = sinusoids(t, frequencies, time_scale, where);
  return dim % 2 == 0 ? features : pad(features, {0, 0}, {0, 1}, 0, where);
}

Tensor sincos_pos_embed_2d(std::int64_t dim, std::int64_t grid, DType dtype, const Device& device) {
  if (dim < 4 || dim % 4 != 0 || grid < 1)
    throw ShapeError(
        "sincos_pos_embed_2d: wants dim a positive multiple of 4 and grid >= 1, got dim " +
        std::to_string(dim) + ", grid " + std::to_string(grid));
  const std::int64_t quarter = dim / 4;
  std::vector<double> values;
  values.reserve(static_cast<std::size_t>(grid * grid * dim));
  for (std::int64_t row = 0; row < grid; ++row)
    for (std::int64_t column = 0; column < grid; ++column)
      for (const std::int64_t position : {column, row})
        for (const bool sine : {true, false})
          for (std::int64_t i = 0; i < quarter; ++i) {
            const double angle =
                static_cast<double>(position) *
                std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(quarter));
            values.push_back(sine ? std::sin(angle) : std::cos(angle));
          }
  return table(values, {grid * grid, dim}, dtype, device);
}

Tensor patchify(const Tensor& x, std::int64_t patch, Location where) {
  require_tensor(x, "patchify", "x", where);
  if (x.rank() != 4 || patch < 1 || x.size(1) % patch != 0 || x.size(2) % patch != 0)
    throw ShapeError(
        where_text("patchify", where) +
        "wants [batch, height, width, channels] with sides divisible by the patch size " +
        std::to_string(patch) + ", got " + to_string(x.type()));
  const std::int64_t batch = x.size(0), rows = x.size(1) / patch, columns = x.size(2) / patch,
                     channels = x.size(3);
  const Tensor blocks = reshape(x, {batch, rows, patch, columns, patch, channels}, where);
  return reshape(transpose(blocks, {0, 1, 3, 2, 4, 5}, where),
                 {batch, rows * columns, patch * patch * channels}, where);
}

Tensor unpatchify(const Tensor& tokens, std::int64_t patch, std::int64_t height, std::int64_t width,
                  Location where) {
  require_tensor(tokens, "unpatchify", "tokens", where);
  if (tokens.rank() != 3 || patch < 1 || height % patch != 0 || width % patch != 0 ||
      tokens.size(1) != (height / patch) * (width / patch) || tokens.size(2) % (patch * patch) != 0)
    throw ShapeError(where_text("unpatchify", where) + "tokens " + to_string(tokens.type()) +
                     " do not make an image of " + std::to_string(height) + " x " +
                     std::to_string(width) + " with patch size " + std::to_string(patch));
  const std::int64_t batch = tokens.size(0), rows = height / patch, columns = width / patch,
                     channels = tokens.size(2) / (patch * patch);
  const Tensor blocks = reshape(tokens, {batch, rows, columns, patch, patch, channels}, where);
  return reshape(transpose(blocks, {0, 1, 3, 2, 4, 5}, where), {batch, height, width, channels},
                 where);
}

Tensor modulate(const Tensor& x, const Tensor& shift, const Tensor& scale, Location where) {
  require_tensor(x, "modulate", "x", where);
  require_tensor(shift, "modulate", "shift", where);
  require_tensor(scale, "modulate", "scale", where);
  const Tensor factor = add({expand_dims(scale, 1, where), where}, {1.0, where});
  return add({mul({x, where}, {factor, where}), where}, {expand_dims(shift, 1, where), where});
}

Tensor multihead_self_attention(const Tensor& x, std::int64_t heads,
                                const SelfAttentionWeights& weights, const Precision& precision,
                                Location where) {
  require_tensor(x, "multihead_self_attention", "x", where);
  require_tensor(weights.qkv_weight, "multihead_self_attention", "qkv_weight", where);
  require_tensor(weights.qkv_bias, "multihead_self_attention", "qkv_bias", where);
  require_tensor(weights.proj_weight, "multihead_self_attention", "proj_weight", where);
  require_tensor(weights.proj_bias, "multihead_self_attention", "proj_bias", where);
  if (x.rank() != 3 || heads < 1 || x.size(2) % heads != 0)
    throw ShapeError(where_text("multihead_self_attention", where) +
                     "wants x [batch, tokens, channels] with channels divisible by the " +
                     std::to_string(heads) + " heads, got " + to_string(x.type()));
  const std::int64_t batch = x.size(0), tokens = x.size(1), channels = x.size(2);
  const Tensor qkv = linear(x, weights.qkv_weight, weights.qkv_bias, precision, where);
  const auto part = [&](std::int64_t index) {
    const Tensor columns = slice_axis(qkv, 2, index * channels, (index + 1) * channels, where);
    return transpose(reshape(columns, {batch, tokens, heads, channels / heads}, where),
                     {0, 2, 1, 3}, where);
  };
  const Tensor mixed = attention(part(0), part(1), part(2), {}, where);
  const Tensor joined =
      reshape(transpose(mixed, {0, 2, 1, 3}, where), {batch, tokens, channels}, where);
  return linear(joined, weights.proj_weight, weights.proj_bias, precision, where);
}

}  // namespace fluxion
