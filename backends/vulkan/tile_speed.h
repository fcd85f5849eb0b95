// How fast each tile shape of matrix products is on a device, measured.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backends/vulkan/kernels/gemm_tile.h"
#include "engine/device.h"

namespace fluxion::vulkan_backend {

struct TileSpeed {
  GemmTile tile;
  double flops_per_second = 0;
};

class LogicalDevice;

// Where times come from: the device and its clock, or a test.
struct TileTiming {
  // Seconds of a product of n x n matrices with this tile. Throws Error if it can't run.
  std::function<double(const GemmTile& tile, std::int64_t n)> product;
  std::function<double()> now;  // seconds since any time
};
TileTiming timing_of(Backend& backend, const std::shared_ptr<LogicalDevice>& device);

// A product of n x n matrices of f32 with each tile that the device can run, in the order of
// gemm_tiles(), until `seconds` have passed; the call under way then is waited for. n: as large as
// takes a few milliseconds, at most 2048.
std::vector<TileSpeed> tile_speeds(const Device& device, double seconds);

// ShaderTarget::tile_factors as measured in about `seconds`: the tiles that the model thinks most
// of first. 1 for the model's choice and for a tile that there was no time for; between
// 1 / most_factor and most_factor for others.
inline constexpr float most_factor = 16;
std::vector<float> measure_factors(const ShaderTarget& target, const TileTiming& timing,
                                   double seconds);
// As they are kept on disk. Nothing for what does not fit the tiles of this version.
std::vector<std::byte> encode_factors(std::span<const float> factors);
std::optional<std::vector<float>> decode_factors(std::span<const std::byte> data);

}  // namespace fluxion::vulkan_backend
