// CRC-32 as in zlib, gzip and PNG (ISO-HDLC: polynomial 0x04C11DB7 reflected). It detects bytes
// that a disk or a transfer damaged, but not deliberate changes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace fluxion {

inline std::uint32_t crc32(std::span<const std::byte> bytes) {
  static constexpr auto table = [] {
    std::array<std::uint32_t, 256> remainders{};
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      std::uint32_t rest = byte;
      for (int bit = 0; bit < 8; ++bit) rest = (rest >> 1) ^ ((rest & 1) != 0 ? 0xEDB88320u : 0u);
      remainders[byte] = rest;
    }
    return remainders;
  }();
  std::uint32_t rest = 0xFFFFFFFFu;
  for (const std::byte byte : bytes)
    rest = (rest >> 8) ^ table[(rest ^ std::to_integer<std::uint32_t>(byte)) & 0xFFu];
  return ~rest;
}

}  // namespace fluxion
