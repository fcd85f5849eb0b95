// Stable sorting of lines by u32 keys, in memory of the kernel.
#pragma once

#include <functional>

#include "backends/vulkan/kernels/index_op.h"

namespace fluxion::vulkan_backend {

// Gives the key of element `position` of `line`, in the shader for which it was made.
using LoadKey = std::function<spirv::Value(spirv::Value line, spirv::Value position)>;
// Stores that the element at `position`, with this key, comes at place `rank` of its line.
using StoreSorted = std::function<void(spirv::Value line, spirv::Value rank, spirv::Value key,
                                       spirv::Value position)>;

// Sorts `lines` lines of `length` keys each. The first pass loads the keys, the last one stores
// what comes out; both may bind what they need when they are asked for.
void sort_lines(OpWork& work, std::int64_t lines, std::int64_t length,
                const std::function<LoadKey(OpShader&)>& load,
                const std::function<StoreSorted(OpShader&)>& store);

// The number of the `count` ascending keys from element `first` of a buffer on that are below
// `key`; or that are below or equal, where `inclusive` holds. `count` is at most `most`.
spirv::Value keys_before(const spirv::Buffer& keys, spirv::Value first, spirv::Value count,
                         std::int64_t most, spirv::Value key, spirv::Value inclusive);

}  // namespace fluxion::vulkan_backend
