// CRC-32 as in zlib, gzip and PNG (ISO-HDLC: polynomial 0x04C11DB7 reflected). It detects bytes
// that a disk or a transfer damaged, but not deliberate changes.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace fluxion {

namespace crc32_detail {

// Bit 31 stands for x^0, bit 0 for x^31.
inline constexpr std::uint32_t polynomial = 0xEDB88320u, one = 0x80000000u;

constexpr std::uint32_t times_x(std::uint32_t a) {
  return (a >> 1) ^ ((a & 1) != 0 ? polynomial : 0u);
}

constexpr std::uint32_t product(std::uint32_t a, std::uint32_t b) {
  std::uint32_t sum = 0;
  for (; a != 0; a <<= 1, b = times_x(b))
    if ((a & one) != 0) sum ^= b;
  return sum;
}

// What so many bytes that follow multiply a remainder by: x^(8 bytes).
constexpr std::uint32_t shift_by(std::size_t bytes) {
  std::uint32_t result = one, factor = one >> 8;  // x^8
  for (; bytes != 0; bytes >>= 1, factor = product(factor, factor))
    if ((bytes & 1) != 0) result = product(result, factor);
  return result;
}

// Table k has the remainders of a byte that k bytes follow.
inline constexpr auto tables = [] {
  std::array<std::array<std::uint32_t, 256>, 8> remainders{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t rest = byte;
    for (int bit = 0; bit < 8; ++bit) rest = times_x(rest);
    remainders[0][byte] = rest;
  }
  for (std::size_t k = 1; k < 8; ++k)
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t before = remainders[k - 1][byte];
      remainders[k][byte] = (before >> 8) ^ remainders[0][before & 0xFFu];
    }
  return remainders;
}();

inline std::uint32_t after_byte(std::uint32_t rest, std::byte byte) {
  return (rest >> 8) ^ tables[0][(rest ^ std::to_integer<std::uint32_t>(byte)) & 0xFFu];
}

inline std::uint32_t after_word(std::uint32_t rest, const std::byte* from) {
  static_assert(std::endian::native == std::endian::little);
  std::uint64_t word = 0;
  std::memcpy(&word, from, 8);
  word ^= rest;
  const auto of = [&](std::size_t k) { return tables[7 - k][(word >> (8 * k)) & 0xFFu]; };
  return ((of(0) ^ of(1)) ^ (of(2) ^ of(3))) ^ ((of(4) ^ of(5)) ^ (of(6) ^ of(7)));
}

}  // namespace crc32_detail

inline std::uint32_t crc32(std::span<const std::byte> bytes) {
  using namespace crc32_detail;
  const std::byte* next = bytes.data();
  std::size_t left = bytes.size();
  std::uint32_t rest = 0xFFFFFFFFu;
  // Each word waits for the one before it, so four parts are gone through side by side; the
  // remainder of a part is then shifted by those behind it.
  constexpr std::size_t worthwhile = 4096;
  if (left >= worthwhile) {
    const std::size_t part = left / 32 * 8;
    std::uint32_t first = rest, second = 0, third = 0, fourth = 0;
    for (const std::byte* const end = next + part; next != end; next += 8) {
      first = after_word(first, next);
      second = after_word(second, next + part);
      third = after_word(third, next + 2 * part);
      fourth = after_word(fourth, next + 3 * part);
    }
    const std::uint32_t shift = shift_by(part);
    rest = first;
    for (const std::uint32_t later : {second, third, fourth}) rest = product(rest, shift) ^ later;
    next += 3 * part;
    left -= 4 * part;
  }
  for (; left >= 8; next += 8, left -= 8) rest = after_word(rest, next);
  for (; left > 0; ++next, --left) rest = after_byte(rest, *next);
  return ~rest;
}

}  // namespace fluxion
