// Philox-4x32-10, the counter-based generator of Salmon et al., "Parallel Random Numbers: As Easy
// as 1, 2, 3" (SC 2011). Every backend computes the same bits. There is no state: any element can
// be computed alone.
#pragma once

#include <array>
#include <cstdint>

namespace fluxion {

inline std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                               std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {
        static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

// Element i of Op::random_bits: word i % 4 of the block whose counter is (i/4 low, i/4 high,
// stream, domain).
inline std::array<std::uint32_t, 4> random_block(std::uint64_t block, std::uint32_t stream,
                                                 std::uint32_t domain,
                                                 std::array<std::uint32_t, 2> key) {
  return philox4x32(
      {static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), stream, domain},
      key);
}

}  // namespace fluxion
