// The building blocks of networks: composites of engine ops, differentiated and fused like anything
// else. Weights have PyTorch's layouts, so the parameters of public checkpoints go in unchanged.
#pragma once

#include "engine/graph/ops.h"
#include "models/layers/precision.h"

namespace fluxion {

// x W' + b over the last axis: x [.., in], weight [out, in], bias [out] -> [.., out]. Runs as one
// matrix product over all rows, so that the gradient of the weight contracts over every row at
// once.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const Precision& precision = {}, Location where = Location::current());

// Appends axes of size 1 to `values` [batch] until it has `rank` axes, so that it broadcasts over
// the other axes of a sample.
Tensor per_sample(const Tensor& values, std::int64_t rank, Location where = Location::current());

// [cos a, sin a] with a[n, i] = t[n] time_scale frequencies[i]: t [batch] -> [batch, 2 half].
Tensor sinusoids(const Tensor& t, const std::vector<double>& frequencies, double time_scale = 1,
                 Location where = Location::current());
// The same with a[n, i] = t[n] time_scale max_period^(-i / half), half = dim / 2: t [batch]
// -> [batch, dim], cosines first, and a zero column if dim is odd. As in the public DiT and ADM
// code.
Tensor timestep_embedding(const Tensor& t, std::int64_t dim, double time_scale = 1,
                          double max_period = 10000, Location where = Location::current());

// The fixed position table of the public DiT: [grid * grid, dim], tokens row-major; columns sin(col
// f), cos(col f), sin(row f), cos(row f) with f_i = 10000^(-i / (dim / 4)). Throws ShapeError
// unless dim is a positive multiple of 4.
Tensor sincos_pos_embed_2d(std::int64_t dim, std::int64_t grid, DType dtype, const Device& device);

// [batch, height, width, channels] -> [batch, tokens, patch * patch * channels]; tokens row-major,
// feature (row * patch + column) * channels + channel.
Tensor patchify(const Tensor& x, std::int64_t patch, Location where = Location::current());
// The inverse of patchify for an image of height x width.
Tensor unpatchify(const Tensor& tokens, std::int64_t patch, std::int64_t height, std::int64_t width,
                  Location where = Location::current());

// x (1 + scale) + shift: x [batch, tokens, channels], shift and scale [batch, channels].
Tensor modulate(const Tensor& x, const Tensor& shift, const Tensor& scale,
                Location where = Location::current());

// Softmax attention of x [batch, tokens, channels] with itself: qkv_weight [3 channels, channels]
// gives q, k, v in this order, each split into `heads`; the heads, concatenated, pass through the
// output projection. The precision is that of both projections: the op for attention itself
// computes in the dtype of its operands, which is f32.
struct SelfAttentionWeights {
  Tensor qkv_weight, qkv_bias, proj_weight, proj_bias;
};
Tensor multihead_self_attention(const Tensor& x, std::int64_t heads,
                                const SelfAttentionWeights& weights,
                                const Precision& precision = {},
                                Location where = Location::current());

}  // namespace fluxion
