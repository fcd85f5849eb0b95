// CRC-32 as in zlib, gzip and PNG (ISO-HDLC: polynomial 0x04C11DB7 reflected). It detects bytes
// that a disk or a transfer damaged, but not deliberate changes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace fluxion {

// Eight bytes at a time: table k has the remainders of a byte that k bytes follow.
inline std::uint32_t crc32(std::span<const std::byte> bytes) {
  static constexpr auto tables = [] {
    std::array<std::array<std::uint32_t, 256>, 8> remainders{};
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      std::uint32_t rest = byte;
      for (int bit = 0; bit < 8; ++bit) rest = (rest >> 1) ^ ((rest & 1) != 0 ? 0xEDB88320u : 0u);
      remainders[0][byte] = rest;
    }
    for (std::size_t k = 1; k < 8; ++k)
      for (std::size_t byte = 0; byte < 256; ++byte) {
        const std::uint32_t before = remainders[k - 1][byte];
        remainders[k][byte] = (before >> 8) ^ remainders[0][before & 0xFFu];
      }
    return remainders;
  }();
  std::uint32_t rest = 0xFFFFFFFFu;
  std::size_t at = 0;
  for (; bytes.size() - at >= 8; at += 8) {
    std::uint32_t next = 0;
    for (std::size_t k = 0; k < 8; ++k) {
      const std::uint32_t mixed = k < 4 ? rest >> (8 * k) : 0;
      next ^= tables[7 - k][(mixed ^ std::to_integer<std::uint32_t>(bytes[at + k])) & 0xFFu];
    }
    rest = next;
  }
  for (; at < bytes.size(); ++at)
    rest = (rest >> 8) ^ tables[0][(rest ^ std::to_integer<std::uint32_t>(bytes[at])) & 0xFFu];
  return ~rest;
}

}  // namespace fluxion
