// Layers on images [batch, height, width, channels].
#pragma once

#include <array>

#include "engine/graph/ops.h"

namespace fluxion {

using Pair = std::array<std::int64_t, 2>;  // of height and width

struct ConvolutionOptions {
  Pair stride{1, 1}, dilation{1, 1};
  Pair low{0, 0},
      high{
          0,
          0};  // rows and columns of zeros at the top and left, bottom and right; negative: cropped
  std::int64_t groups = 1;  // channels fall into this many groups, each with weights of its own
  std::optional<DType> result{};  // dtype, as of matmul: unless stated, that of the sums
};

// Cross-correlation (no flip of the kernel) with weight [kernel height, kernel width, in / groups,
// out]. Dtypes as of matmul. Output size (size + low + high - dilation (kernel - 1) - 1) / stride +
// 1, rounded down.
Tensor conv2d(const Tensor& x, const Tensor& weight, const ConvolutionOptions& options = {},
              Location where = Location::current());

// The adjoint of conv2d with the same options, weight [kernel height, kernel width, in, out /
// groups]: each input element adds the kernel into the output at stride steps; `low` and `high` are
// cropped. output_padding adds rows and columns at the bottom and right before cropping.
Tensor conv2d_transpose(const Tensor& x, const Tensor& weight,
                        const ConvolutionOptions& options = {}, Pair output_padding = {0, 0},
                        Location where = Location::current());

// Means over windows without padding; a last partial window is dropped.
Tensor avg_pool2d(const Tensor& x, Pair window, Pair stride, Location where = Location::current());

// y[n, i, j, c] = x[n, i / factor, j / factor, c].
Tensor upsample_nearest2d(const Tensor& x, Pair factor, Location where = Location::current());

// (x - mean) / sqrt(var + epsilon) over height, width and the channels of a group, population
// variance; times gamma plus beta, [channels], where given.
Tensor group_norm(const Tensor& x, std::int64_t groups, double epsilon,
                  const std::optional<Tensor>& gamma = {}, const std::optional<Tensor>& beta = {},
                  Location where = Location::current());

}  // namespace fluxion
