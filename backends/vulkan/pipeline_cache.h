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

// The content of a cache file for this device and driver.
std::vector<std::byte> encode_cache(std::span<const std::byte> data, const DeviceFacts& facts);
// What the driver once gave, or nothing if the file is cut short, damaged, or another device's,
// driver's or version's.
std::optional<std::vector<std::byte>> decode_cache(std::span<const std::byte> file,
                                                   const DeviceFacts& facts);

// The file of this device in `folder`.
std::filesystem::path cache_file(const std::filesystem::path& folder, const DeviceFacts& facts);
// The folder that the environment states; empty: none.
std::filesystem::path default_cache_folder();

// Reads and decodes; a file that can't be read is as good as none.
std::optional<std::vector<std::byte>> read_cache(const std::filesystem::path& file,
                                                 const DeviceFacts& facts);
// Replaces the file at once, so that another process sees all or nothing. A cache that can't be
// written costs time, and nothing else: returns whether it was.
bool write_cache(const std::filesystem::path& file, std::span<const std::byte> data,
                 const DeviceFacts& facts);

}  // namespace fluxion::vulkan_backend
