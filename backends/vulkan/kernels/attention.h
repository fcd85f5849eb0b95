// Attention, its dual and its backward as compute shaders that never store the [queries, keys]
// matrix, after T. Dao, D. Fu, S. Ermon, A. Rudra, C. Re, "FlashAttention" (2022). The backward is
// two passes, by rows of queries and by rows of keys, so that every sum has one fixed order.
#pragma once

#include "backends/vulkan/kernel.h"
#include "backends/vulkan/kernels/attention_tile.h"

namespace fluxion::vulkan_backend {

// The most features of a head for which the device can run all passes
// (KernelLimits::max_attention_head).
std::int64_t max_attention_head(const ShaderTarget& target);

// lower_attention() with a tile of the caller's choice, which must be one of attention_tiles() for
// every pass of the op.
KernelWork lower_attention(const OpKernel& kernel, const LoweringContext& context,
                           const AttentionTile& tile);

}  // namespace fluxion::vulkan_backend
