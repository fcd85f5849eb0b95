// Compiled pipelines on disk. A driver may crash on a file that is not its own, so each file starts
// with a header of ours, and is ignored unless that and a hash of the rest are right.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "backends/vulkan/capabilities.h"

namespace fluxion::vulkan_backend {

// What a file holds: the driver's pipelines, or how fast tiles of matrix products are.
enum class CacheKind : std::uint8_t { pipelines, tiles };

// The content of a cache file for this device and driver.
std::vector<std::byte> encode_cache(std::span<const std::byte> data, const DeviceFacts& facts,
                                    CacheKind kind = CacheKind::pipelines);
// What it was made of, or nothing if the file is cut short, damaged, or of another kind, device,
// driver or version.
std::optional<std::vector<std::byte>> decode_cache(std::span<const std::byte> file,
                                                   const DeviceFacts& facts,
                                                   CacheKind kind = CacheKind::pipelines);

// The file of this device in `folder`.
std::filesystem::path cache_file(const std::filesystem::path& folder, const DeviceFacts& facts,
                                 CacheKind kind = CacheKind::pipelines);
// The folder that the environment states; empty: none.
std::filesystem::path default_cache_folder();

// Reads and decodes; a file that can't be read, or has more than `most_bytes` beside its header, is
// as good as none.
std::optional<std::vector<std::byte>> read_cache(const std::filesystem::path& file,
                                                 const DeviceFacts& facts,
                                                 CacheKind kind = CacheKind::pipelines,
                                                 std::size_t most_bytes = std::size_t{1} << 28);
// Replaces the file at once, so that another process sees all or nothing. A cache that can't be
// written costs time, and nothing else: returns whether it was.
bool write_cache(const std::filesystem::path& file, std::span<const std::byte> data,
                 const DeviceFacts& facts, CacheKind kind = CacheKind::pipelines);

}  // namespace fluxion::vulkan_backend
