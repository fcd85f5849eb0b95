// argsort: each line along the axis is sorted by one thread, in scratch memory of the call.
#pragma once

#include <cstddef>

#include "backends/cpu/runtime/parallel.h"
#include "engine/program/program.h"

namespace fluxion::cpu_backend {

using SortFunction = void (*)(const OpKernel& kernel, std::byte* const* inputs, std::byte* output,
                              const ThreadPool& pool, std::byte* scratch);

// For values of this dtype; null if there is none.
SortFunction argsort_of(DType dtype);

// The scratch memory that it needs on this many threads.
std::size_t argsort_scratch_bytes(const OpKernel& kernel, int threads);

}  // namespace fluxion::cpu_backend
