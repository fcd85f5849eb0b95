#include "models/images/jpeg_transform.h"

#include <algorithm>

namespace fluxion::jpeg {

namespace {

// Numbers with 13 bits behind the point. They are unsigned because damaged files overflow, and
// then wrap.
using Wrapping = std::uint32_t;
constexpr int point = 13;
// The first pass keeps this many bits more.
constexpr int extra = 2;

constexpr Wrapping fixed(double value) {
  return static_cast<Wrapping>(static_cast<std::int32_t>(value * (1 << point) + 0.5));
}

Wrapping rounded(Wrapping value, int bits) {
  return static_cast<Wrapping>(static_cast<std::int32_t>(value + (Wrapping{1} << (bits - 1))) >>
                               bits);
}

using Block = std::array<Wrapping, 64>;

// Eight transforms of length 8 side by side, along the first axis. The loop is over what is
// contiguous, for compilers that can use vectors.
Block pass(const Block& from, int bits) {
  Block to;
  for (std::size_t i = 0; i < 8; ++i) {
    const Wrapping x0 = from[i], x1 = from[8 + i], x2 = from[16 + i], x3 = from[24 + i],
                   x4 = from[32 + i], x5 = from[40 + i], x6 = from[48 + i], x7 = from[56 + i];
    const Wrapping turn = (x2 + x6) * fixed(0.541196100);
    const Wrapping even2 = turn - x6 * fixed(1.847759065), even3 = turn + x2 * fixed(0.765366865);
    const Wrapping even0 = (x0 + x4) << point, even1 = (x0 - x4) << point;
    const Wrapping z5 = (x7 + x3 + x5 + x1) * fixed(1.175875602);
    const Wrapping z1 = (x7 + x1) * fixed(0.899976223), z2 = (x5 + x3) * fixed(2.562915447);
    const Wrapping z3 = z5 - (x7 + x3) * fixed(1.961570560),
                   z4 = z5 - (x5 + x1) * fixed(0.390180644);
    const Wrapping odd0 = x1 * fixed(1.501321110) - z1 + z4,
                   odd1 = x3 * fixed(3.072711026) - z2 + z3,
                   odd2 = x5 * fixed(2.053119869) - z2 + z4,
                   odd3 = x7 * fixed(0.298631336) - z1 + z3;
    to[i] = rounded(even0 + even3 + odd0, bits);
    to[8 + i] = rounded(even1 + even2 + odd1, bits);
    to[16 + i] = rounded(even1 - even2 + odd2, bits);
    to[24 + i] = rounded(even0 - even3 + odd3, bits);
    to[32 + i] = rounded(even0 - even3 - odd3, bits);
    to[40 + i] = rounded(even1 - even2 - odd2, bits);
    to[48 + i] = rounded(even1 + even2 - odd1, bits);
    to[56 + i] = rounded(even0 + even3 - odd0, bits);
  }
  return to;
}

Block transposed(const Block& from) {
  Block to;
  for (std::size_t i = 0; i < 8; ++i)
    for (std::size_t k = 0; k < 8; ++k) to[8 * i + k] = from[8 * k + i];
  return to;
}

// Nearly all values are within the range: one comparison for both ends.
std::uint8_t sample(Wrapping value) {
  value += 128;
  if (value > 255) return static_cast<std::int32_t>(value) < 0 ? 0 : 255;
  return static_cast<std::uint8_t>(value);
}

}  // namespace

void inverse_transform(const std::array<std::int32_t, 64>& coefficients, std::uint8_t* samples,
                       std::size_t stride) {
  std::int32_t any = 0;
  for (std::size_t k = 1; k < 64; ++k) any |= coefficients[k];
  if (any == 0) {
    const std::uint8_t value = sample(rounded(static_cast<Wrapping>(coefficients[0]), 3));
    for (int y = 0; y < 8; ++y)
      std::fill_n(samples + static_cast<std::size_t>(y) * stride, 8, value);
    return;
  }
  Block input;
  std::copy(coefficients.begin(), coefficients.end(), input.begin());
  const Block columns = pass(input, point - extra);
  const Block rows = transposed(pass(transposed(columns), point + extra + 3));
  for (std::size_t y = 0; y < 8; ++y)
    for (std::size_t x = 0; x < 8; ++x) samples[y * stride + x] = sample(rows[8 * y + x]);
}

}  // namespace fluxion::jpeg
