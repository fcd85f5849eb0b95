#include "models/layers/image.h"

#include "engine/graph/op_names.h"

namespace fluxion {
namespace {

Dims dims(Pair pair) { return {pair[0], pair[1]}; }

std::string start(const char* function, Location where) {
  return std::string(function) + " (" + to_string(where) + "): ";
}

void check_image(const char* function, const Tensor& x, Location where) {
  require_tensor(x, function, "x", where);
  if (x.rank() != 4)
    throw ShapeError(start(function, where) +
                     "wants an image [batch, height, width, channels], got " + to_string(x.type()));
}

ContractAttributes dtypes(const Tensor& x, const Tensor& weight,
                          const ConvolutionOptions& options) {
  ContractAttributes dtypes = contraction_of(x.dtype(), weight.dtype());
  if (options.result) dtypes.result = *options.result;
  return dtypes;
}

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& weight, const ConvolutionOptions& options,
              Location where) {
  require_tensor(x, "conv2d", "x", where);
  require_tensor(weight, "conv2d", "weight", where);
  ConvAttributes attributes;
  attributes.stride = dims(options.stride), attributes.dilation = dims(options.dilation);
  attributes.low = dims(options.low), attributes.high = dims(options.high);
  attributes.groups = options.groups;
  attributes.contract_as(dtypes(x, weight, options));
  return make_node(Op::conv2d, attributes, {x, weight}, where);
}

Tensor conv2d_transpose(const Tensor& x, const Tensor& weight, const ConvolutionOptions& options,
                        Pair output_padding, Location where) {
  check_image("conv2d_transpose", x, where);
  require_tensor(weight, "conv2d_transpose", "weight", where);
  const std::int64_t groups = options.groups, channels = x.size(3);
  if (weight.rank() != 4 || groups < 1 || weight.size(2) != channels || channels % groups != 0)
    throw ShapeError(start("conv2d_transpose", where) + "weight " + to_string(weight.type()) +
                     " in " + std::to_string(groups) + " groups does not fit x " +
                     to_string(x.type()) + "; wants [height, width, in, out / groups]");
  // A correlation of the spread image with the flipped kernel, with a border so that it sees every
  // overlap.
  ConvAttributes attributes;
  attributes.dilation = dims(options.dilation), attributes.spread = dims(options.stride);
  attributes.groups = groups;
  attributes.contract_as(dtypes(x, weight, options));
  for (std::size_t k = 0; k < 2; ++k) {
    const std::int64_t border =
        options.dilation[k] * (weight.size(static_cast<std::int64_t>(k)) - 1);
    attributes.low[k] = border - options.low[k];
    attributes.high[k] = border - options.high[k] + output_padding[k];
  }
  // [.., in, out / groups] -> [.., in / groups, out]: the groups move from the rows to the columns.
  const std::int64_t height = weight.size(0), width = weight.size(1), in_group = channels / groups,
                     out_group = weight.size(3);
  const Tensor flipped = height * width == 1 ? weight : flip(weight, {0, 1}, where);
  const Tensor split = reshape(flipped, {height, width, groups, in_group, out_group}, where);
  const Tensor regrouped = reshape(transpose(split, {0, 1, 3, 2, 4}, where),
                                   {height, width, in_group, groups * out_group}, where);
  return make_node(Op::conv2d, attributes, {x, regrouped}, where);
}

Tensor avg_pool2d(const Tensor& x, Pair window, Pair stride, Location where) {
  check_image("avg_pool2d", x, where);
  for (std::size_t k = 0; k < 2; ++k)
    if (window[k] < 1 || stride[k] < 1 || window[k] > x.size(static_cast<std::int64_t>(k) + 1))
      throw ShapeError(start("avg_pool2d", where) + "a window of " + std::to_string(window[0]) +
                       " x " + std::to_string(window[1]) + " in steps of " +
                       std::to_string(stride[0]) + " x " + std::to_string(stride[1]) +
                       " does not fit into " + to_string(x.type()));
  const Tensor seen =
      make_node(Op::windows, WindowAttributes{dims(window), dims(stride), {1, 1}}, {x}, where);
  if (window != stride) return mean(seen, {3, 4}, false, where);
  // Windows side by side are cells of the image: the gradient is a stretched view.
  const std::int64_t batch = x.size(0), height = seen.size(1), width = seen.size(2),
                     channels = x.size(3);
  const Tensor whole =
      slice(x, {0, 0, 0, 0}, {batch, height * window[0], width * window[1], channels}, {1, 1, 1, 1},
            where);
  return mean(reshape(whole, {batch, height, window[0], width, window[1], channels}, where), {2, 4},
              false, where);
}

Tensor upsample_nearest2d(const Tensor& x, Pair factor, Location where) {
  check_image("upsample_nearest2d", x, where);
  const std::int64_t batch = x.size(0), height = x.size(1), width = x.size(2), channels = x.size(3);
  const Tensor repeated =
      broadcast_to(reshape(x, {batch, height, 1, width, 1, channels}, where),
                   {batch, height, factor[0], width, factor[1], channels}, where);
  return reshape(repeated, {batch, height * factor[0], width * factor[1], channels}, where);
}

Tensor group_norm(const Tensor& x, std::int64_t groups, double epsilon,
                  const std::optional<Tensor>& gamma, const std::optional<Tensor>& beta,
                  Location where) {
  check_image("group_norm", x, where);
  if (gamma) require_tensor(*gamma, "group_norm", "gamma", where);
  if (beta) require_tensor(*beta, "group_norm", "beta", where);
  const std::int64_t channels = x.size(3);
  if (groups < 1 || channels % groups != 0)
    throw ShapeError(start("group_norm", where) + std::to_string(groups) +
                     " groups do not divide the channels of " + to_string(x.type()));
  const std::int64_t batch = x.size(0), pixels = x.size(1) * x.size(2), members = channels / groups;
  const auto scaled = [&](const Tensor& normal) {
    Tensor y = reshape(normal, x.shape(), where);
    if (gamma) y = y * *gamma;
    if (beta) y = y + *beta;
    return y;
  };
  if (!x.device().costs().group_norm_by_channel) {
    const Tensor grouped = reshape(x, {batch, pixels, groups, members}, where);
    const Tensor deviation = centred(grouped, {1, 3}, where);
    return scaled(deviation * rsqrt(mean(square(deviation), {1, 3}, true, where) + epsilon, where));
  }
  if (x.elements() == 0) return scaled(x);  // no first pixel to take differences from
  // Sums over pixels run along the channels as they lie in memory; what is left are a few numbers a
  // channel. index_add and take carry them between channels and groups because they leave them in
  // memory, for every derivative too: read through a view, the channels of a group would be rows of
  // their own, too short to be fast.
  const Tensor flat = reshape(x, {batch, pixels, channels}, where);
  const Tensor group_of = reshape(
      broadcast_to(iota({groups, 1}, 0, DType::i32, x.device(), where), {groups, members}, where),
      {channels}, where);
  // Means over the pixels of each channel, as means over the channels of each group.
  const auto over_group = [&](const Tensor& means) {
    const Tensor none = zeros({batch, groups}, x.dtype(), x.device());
    return index_add(none, group_of, means, 1, where) / static_cast<double>(members);
  };
  const auto over_pixels = [&](const Tensor& values) {
    return sum(values, {1}, false, where) / static_cast<double>(pixels);
  };
  const auto per_channel = [&](const Tensor& values) {
    return reshape(take(values, group_of, 1, where), {batch, 1, channels}, where);
  };
  // A sum of large values is off by some units in their last place, which is much where they hardly
  // differ. So what is averaged are differences: of the pixels from the first of their channel, and
  // of these from the first of their group. The result does not depend on which values those are,
  // nor does its derivative.
  const Tensor pixel = stop_gradient(slice(flat, {0, 0, 0}, {batch, 1, channels}, {1, 1, 1}, where));
  const Tensor grouped = reshape(pixel, {batch, groups, members}, where);
  const Tensor first = slice(grouped, {0, 0, 0}, {batch, groups, 1}, {1, 1, 1}, where);
  const Tensor differences =
      over_pixels(flat - pixel) + reshape(grouped - first, {batch, channels}, where);
  const Tensor average = reshape(first, {batch, groups}, where) + over_group(differences);
  const Tensor deviation = flat - per_channel(average);
  const Tensor variance = over_group(over_pixels(square(deviation)));
  return scaled(deviation * per_channel(rsqrt(variance + epsilon, where)));
}

}  // namespace fluxion
