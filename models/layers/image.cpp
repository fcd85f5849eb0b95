#include "models/layers/image.h"

#include <limits>
#include <vector>

namespace fluxion {
namespace {

std::string start(const char* function, Location where) { return std::string(function) + " (" + to_string(where) + "): "; }

void check_image(const char* function, const Tensor& x, Location where) {
  if (x.rank() != 4) throw ShapeError(start(function, where) + "wants an image [batch, height, width, channels], got " + to_string(x.type()));
}

// Elements at begin, begin + stride, .. of height and width, `count` of each.
Tensor strided(const Tensor& x, Pair begin, Pair count, Pair stride, Location where) {
  const auto stop = [&](std::size_t k) { return begin[k] + (count[k] - 1) * stride[k] + 1; };
  return slice(x, {0, begin[0], begin[1], 0}, {x.size(0), stop(0), stop(1), x.size(3)}, {1, stride[0], stride[1], 1}, where);
}

// What each kernel position sees, side by side: [batch, height, width, kernel height * kernel width, channels]. One gather of pixels, whose gradient
// is one scatter.
Tensor windows(const Tensor& x, Pair kernel, Pair out, Pair stride, Pair dilation, Location where) {
  const std::int64_t batch = x.size(0), width = x.size(2), channels = x.size(3), positions = kernel[0] * kernel[1];
  const Shape shape{batch, out[0], out[1], positions, channels};
  if (positions == 1) return reshape(strided(x, {0, 0}, out, stride, where), shape, where);
  if (x.size(1) * width > std::numeric_limits<std::int32_t>::max())
    throw ShapeError(start("conv2d", where) + "an image of " + to_string(x.type()) + " has more pixels than a 32-bit index counts");
  std::vector<std::int32_t> pixels;
  pixels.reserve(static_cast<std::size_t>(out[0] * out[1] * positions));
  for (std::int64_t i = 0; i < out[0]; ++i)
    for (std::int64_t j = 0; j < out[1]; ++j)
      for (std::int64_t p = 0; p < kernel[0]; ++p)
        for (std::int64_t q = 0; q < kernel[1]; ++q)
          pixels.push_back(static_cast<std::int32_t>((stride[0] * i + dilation[0] * p) * width + stride[1] * j + dilation[1] * q));
  const Tensor indices = Tensor::from(pixels, {static_cast<std::int64_t>(pixels.size())}, x.device(), where);
  return reshape(take(reshape(x, {batch, x.size(1) * width, channels}, where), indices, 1, where), shape, where);
}

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& weight, const ConvolutionOptions& options, Location where) {
  check_image("conv2d", x, where);
  const std::int64_t groups = options.groups;
  if (weight.rank() != 4 || groups < 1 || weight.size(2) * groups != x.size(3) || weight.size(3) % groups != 0)
    throw ShapeError(start("conv2d", where) + "weight " + to_string(weight.type()) + " in " + std::to_string(groups) + " groups does not fit x " +
                     to_string(x.type()) + "; wants [height, width, in / groups, out]");
  const Tensor padded = pad(x, {0, options.low[0], options.low[1], 0}, {0, options.high[0], options.high[1], 0}, 0, where);
  const Pair kernel{weight.size(0), weight.size(1)};
  Pair out;
  for (std::size_t k = 0; k < 2; ++k) {
    const std::int64_t room = padded.size(static_cast<std::int64_t>(k) + 1) - options.dilation[k] * (kernel[k] - 1) - 1;
    if (room < 0 || options.stride[k] < 1 || options.dilation[k] < 1)
      throw ShapeError(start("conv2d", where) + "the kernel of " + to_string(weight.type()) + " does not fit into " + to_string(padded.type()));
    out[k] = room / options.stride[k] + 1;
  }
  const std::int64_t batch = x.size(0), rows = batch * out[0] * out[1], positions = kernel[0] * kernel[1];
  const std::int64_t in_group = weight.size(2), out_channels = weight.size(3), out_group = out_channels / groups;
  const Tensor seen = windows(padded, kernel, out, options.stride, options.dilation, where);
  if (groups == 1) {
    const Tensor matrix = reshape(weight, {positions * in_group, out_channels}, where);
    return reshape(matmul(reshape(seen, {rows, positions * in_group}, where), matrix, where), {batch, out[0], out[1], out_channels}, where);
  }
  const Tensor per_group = transpose(reshape(seen, {rows, positions, groups, in_group}, where), {2, 0, 1, 3}, where);
  const Tensor matrices = transpose(reshape(weight, {positions * in_group, groups, out_group}, where), {1, 0, 2}, where);
  const Tensor product = matmul(reshape(per_group, {groups, rows, positions * in_group}, where), matrices, where);
  return reshape(transpose(product, {1, 0, 2}, where), {batch, out[0], out[1], out_channels}, where);
}

Tensor conv2d_transpose(const Tensor& x, const Tensor& weight, const ConvolutionOptions& options, Pair output_padding, Location where) {
  check_image("conv2d_transpose", x, where);
  const std::int64_t groups = options.groups, channels = x.size(3);
  if (weight.rank() != 4 || groups < 1 || weight.size(2) != channels || channels % groups != 0)
    throw ShapeError(start("conv2d_transpose", where) + "weight " + to_string(weight.type()) + " in " + std::to_string(groups) +
                     " groups does not fit x " + to_string(x.type()) + "; wants [height, width, in, out / groups]");
  // Zeros between the elements, stride - 1 of them, and a border so that a plain correlation with the flipped kernel sees every overlap.
  const std::int64_t batch = x.size(0), height = x.size(1), width = x.size(2);
  const Pair stride = options.stride;
  const Tensor spread = reshape(
      pad(reshape(x, {batch, height, 1, width, 1, channels}, where), {0, 0, 0, 0, 0, 0}, {0, 0, stride[0] - 1, 0, stride[1] - 1, 0}, 0, where),
      {batch, height * stride[0], width * stride[1], channels}, where);
  const Tensor placed = strided(spread, {0, 0}, {(height - 1) * stride[0] + 1, (width - 1) * stride[1] + 1}, {1, 1}, where);
  const Pair border{options.dilation[0] * (weight.size(0) - 1), options.dilation[1] * (weight.size(1) - 1)};
  const Tensor bordered = pad(placed, {0, border[0], border[1], 0}, {0, border[0] + output_padding[0], border[1] + output_padding[1], 0}, 0, where);

  // [.., in, out / groups] -> [.., in / groups, out]: the groups move from the rows to the columns.
  const std::int64_t in_group = channels / groups, out_group = weight.size(3);
  const Tensor flipped = reshape(flip(weight, {0, 1}, where), {weight.size(0), weight.size(1), groups, in_group, out_group}, where);
  const Tensor regrouped = reshape(transpose(flipped, {0, 1, 3, 2, 4}, where), {weight.size(0), weight.size(1), in_group, groups * out_group}, where);
  const Tensor full = conv2d(bordered, regrouped, {.stride = {1, 1}, .dilation = options.dilation, .groups = groups}, where);
  return slice(full, {0, options.low[0], options.low[1], 0},
               {full.size(0), full.size(1) - options.high[0], full.size(2) - options.high[1], full.size(3)}, {1, 1, 1, 1}, where);
}

Tensor avg_pool2d(const Tensor& x, Pair window, Pair stride, Location where) {
  check_image("avg_pool2d", x, where);
  Pair out;
  for (std::size_t k = 0; k < 2; ++k) {
    const std::int64_t room = x.size(static_cast<std::int64_t>(k) + 1) - window[k];
    if (room < 0 || window[k] < 1 || stride[k] < 1)
      throw ShapeError(start("avg_pool2d", where) + "a window of " + std::to_string(window[0]) + " x " + std::to_string(window[1]) +
                       " does not fit into " + to_string(x.type()));
    out[k] = room / stride[k] + 1;
  }
  Tensor total;
  for (std::int64_t p = 0; p < window[0]; ++p)
    for (std::int64_t q = 0; q < window[1]; ++q) {
      const Tensor part = strided(x, {p, q}, out, stride, where);
      total = total ? total + part : part;
    }
  return total / static_cast<double>(window[0] * window[1]);
}

Tensor upsample_nearest2d(const Tensor& x, Pair factor, Location where) {
  check_image("upsample_nearest2d", x, where);
  const std::int64_t batch = x.size(0), height = x.size(1), width = x.size(2), channels = x.size(3);
  const Tensor repeated =
      broadcast_to(reshape(x, {batch, height, 1, width, 1, channels}, where), {batch, height, factor[0], width, factor[1], channels}, where);
  return reshape(repeated, {batch, height * factor[0], width * factor[1], channels}, where);
}

Tensor group_norm(const Tensor& x, std::int64_t groups, double epsilon, const std::optional<Tensor>& gamma, const std::optional<Tensor>& beta,
                  Location where) {
  check_image("group_norm", x, where);
  const std::int64_t channels = x.size(3);
  if (groups < 1 || channels % groups != 0)
    throw ShapeError(start("group_norm", where) + std::to_string(groups) + " groups do not divide the channels of " + to_string(x.type()));
  // A group's elements come to lie along one axis, where layer normalisation takes them as one row.
  const Shape split{x.size(0), x.size(1), x.size(2), groups, channels / groups};
  const Tensor moved = transpose(reshape(x, split, where), {0, 3, 1, 2, 4}, where);
  const Tensor flat = layer_norm(reshape(moved, {x.size(0), groups, -1}, where), epsilon, {}, {}, where);
  Tensor y = reshape(transpose(reshape(flat, moved.shape(), where), {0, 2, 3, 1, 4}, where), x.shape(), where);
  if (gamma) y = y * *gamma;
  if (beta) y = y + *beta;
  return y;
}

}  // namespace fluxion
