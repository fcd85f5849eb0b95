// Runs one op on whole, contiguous tensors in host memory. This defines every primitive.
#pragma once

#include <cstddef>
#include <span>

#include "engine/program/program.h"

namespace fluxion::reference_backend {

// buffers[b] is the memory of buffer b of the program. Throws Error for an op without a kernel:
// data and parameter, which are bound, and fused ops and regions, which planning replaces.
void run_op(const OpKernel& kernel, std::span<std::byte* const> buffers);

}  // namespace fluxion::reference_backend
