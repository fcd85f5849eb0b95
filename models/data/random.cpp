#include "models/data/random.h"

#include <array>
#include <bit>
#include <cmath>
#include <numbers>

#include "engine/graph/philox.h"

namespace fluxion {

namespace {

// Keeps these sequences apart from Op::random_bits under the same seed.
constexpr std::uint32_t host_data_key = 0x46D7A1E5u;

}  // namespace

RandomSequence::RandomSequence(std::uint64_t seed, std::uint64_t position, std::uint32_t purpose)
    : key_{static_cast<std::uint32_t>(seed) ^ host_data_key,
           static_cast<std::uint32_t>(seed >> 32)},
      counter_{0, static_cast<std::uint32_t>(position), static_cast<std::uint32_t>(position >> 32),
               purpose} {}

std::uint32_t RandomSequence::bits() {
  if (used_ == 4) {
    block_ = philox4x32(counter_, key_);
    ++counter_[0];
    used_ = 0;
  }
  return block_[static_cast<std::size_t>(used_++)];
}

float RandomSequence::uniform() { return static_cast<float>(bits() >> 8) * 0x1p-24f; }

float RandomSequence::normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_normal_;
  }
  const float radius = std::sqrt(-2.0f * std::log((static_cast<float>(bits() >> 8) + 1.0f) *
                                                  0x1p-24f));  // of (0, 1]: log stays finite
  const float angle = 2.0f * std::numbers::pi_v<float> * uniform();
  spare_normal_ = radius * std::sin(angle);
  has_spare_ = true;
  return radius * std::cos(angle);
}

std::int32_t RandomSequence::below(std::int32_t count) {
  // The high half of a 32 x 32 bit product (Lemire 2019), without his rejection: for the counts
  // used here the bias is below 1e-6.
  return static_cast<std::int32_t>(std::uint64_t{bits()} * static_cast<std::uint32_t>(count) >> 32);
}

std::uint64_t permuted(std::uint64_t index, std::uint64_t count, std::uint64_t seed,
                       std::uint64_t round) {
  if (count < 2) return index;
  // A balanced Feistel network permutes 2^(2 half) >= count numbers; those that fall outside are
  // sent round again until they fall inside.
  const int half = (std::bit_width(count - 1) + 1) / 2;
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  const std::array<std::uint32_t, 2> key{static_cast<std::uint32_t>(seed) ^ host_data_key,
                                         static_cast<std::uint32_t>(seed >> 32)};
  do {
    std::uint64_t left = index >> half, right = index & mask;
    for (std::uint32_t layer = 0; layer < 6; ++layer) {
      const auto block =
          philox4x32({static_cast<std::uint32_t>(right), static_cast<std::uint32_t>(round),
                      static_cast<std::uint32_t>(round >> 32), 0x80000000u | layer},
                     key);
      const std::uint64_t mixed = left ^ (block[0] & mask);
      left = right;
      right = mixed;
    }
    index = left << half | right;
  } while (index >= count);
  return index;
}

}  // namespace fluxion
