// A graph file (docs/graph-files.md) whose header fits the bytes behind it, so that what they say is
// read.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "engine/export/crc32.h"

namespace fluxion::testing {

inline void seal(std::vector<std::byte>& file) {
  constexpr std::size_t checksum_at = 12, length_at = 16, header = 24;
  if (file.size() < header) return;
  const std::uint32_t checksum = crc32(std::span(file).subspan(header));
  const std::uint64_t length = file.size() - header;
  std::memcpy(file.data() + checksum_at, &checksum, sizeof checksum);
  std::memcpy(file.data() + length_at, &length, sizeof length);
}

}  // namespace fluxion::testing
