// How fast each tile shape of matrix products is on a device, measured.
#pragma once

#include <vector>

#include "backends/vulkan/kernels/gemm_tile.h"
#include "engine/device.h"

namespace fluxion::vulkan_backend {

struct TileSpeed {
  GemmTile tile;
  double flops_per_second = 0;
};

// A product of n x n matrices of f32 with each tile that the device can run, in the order of
// gemm_tiles(), until `seconds` have passed; the call under way then is waited for. n: as large as
// takes a few milliseconds, at most 2048.
std::vector<TileSpeed> tile_speeds(const Device& device, double seconds);

}  // namespace fluxion::vulkan_backend
