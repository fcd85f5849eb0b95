// Matrix products with an epilogue as compute shaders.
//
// A workgroup computes one tile of the results of one batch entry. Step by step it reads tiles of
// the operands through their views into shared memory and multiplies them in registers; the next
// step's elements are on their way meanwhile. Terms that share an operand share its tile. Then each
// invocation runs the epilogue over its part of the results.
//
// Where there are few tiles but many products per element, several workgroups sum parts of the
// products; a second dispatch adds the parts in a fixed order and runs the epilogue.
#pragma once

#include "backends/vulkan/kernel.h"
#include "backends/vulkan/kernels/gemm_tile.h"
#include "backends/vulkan/kernels/operand_view.h"
#include "backends/vulkan/kernels/tile_product.h"

namespace fluxion::vulkan_backend {

// Terms that are summed in one loop, over tiles of distinct operands.
struct TermGroup {
  std::vector<OperandView> lhs, rhs;
  std::vector<TileTerm> terms;
};
// Terms that share an operand come into one group as long as its tiles fit into shared memory.
std::vector<TermGroup> group_terms(const ContractKernel& kernel, const Storage& storage,
                                   const GemmTile& tile, std::uint32_t shared_limit);

GemmProblem problem_of(const ContractKernel& kernel);

// lower_contraction() with a tile and a number of parts of the caller's choice. Throws Error if the
// device can't run the tile.
KernelWork lower_contraction(const ContractKernel& kernel, const LoweringContext& context,
                             const GemmChoice& choice);

}  // namespace fluxion::vulkan_backend
