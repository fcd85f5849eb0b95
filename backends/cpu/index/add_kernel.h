// index_add and scatter_add. One thread sums what arrives at an element, in order, in f64, and
// rounds once: results don't depend on the number of threads, nor on how many updates meet.
#pragma once

#include <cstddef>

#include "backends/cpu/runtime/parallel.h"
#include "engine/program/program.h"

namespace fluxion::cpu_backend {

using AddFunction = void (*)(const OpKernel& kernel, std::byte* const* inputs, std::byte* output,
                             const ThreadPool& pool, std::byte* scratch);

// For values of this dtype; null if there is none.
AddFunction index_add_of(DType dtype);
AddFunction scatter_add_of(DType dtype);

// The scratch memory that they need on this many threads.
std::size_t index_add_scratch_bytes(const OpKernel& kernel);
std::size_t scatter_add_scratch_bytes(const OpKernel& kernel, int threads);

}  // namespace fluxion::cpu_backend
