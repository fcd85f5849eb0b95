// One op on whole, contiguous tensors in host memory: the definition of every primitive.
#pragma once

#include <cstddef>
#include <span>

#include "engine/program/program.h"

namespace fluxion::reference_backend {

// buffers[b] is the memory of buffer number b of the program. Throws Error for an op that has no
// kernel (leaves, and fused ops, which are expanded before).
void run_op(const OpKernel& kernel, std::span<std::byte* const> buffers);

}  // namespace fluxion::reference_backend
