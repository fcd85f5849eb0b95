// Random numbers on the host: a short private sequence for every sample, drawn from the Philox
// counter generator, so that any sample can be made again from (seed, position) alone.
#pragma once

#include <array>
#include <cstdint>

namespace fluxion {

class RandomSequence {
 public:
  // Sequences of different (seed, position, purpose) are independent.
  RandomSequence(std::uint64_t seed, std::uint64_t position, std::uint32_t purpose = 0);

  std::uint32_t bits();
  float uniform();  // [0, 1), 24 bits
  float uniform(float low, float high) { return low + (high - low) * uniform(); }
  float normal();                          // mean 0, variance 1 (Box-Muller)
  std::int32_t below(std::int32_t count);  // 0 .. count-1, count >= 1

 private:
  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 4> counter_, block_{};
  int used_ = 4;
  float spare_normal_ = 0;
  bool has_spare_ = false;
};

// Element `index` of a pseudo-random permutation of 0 .. count-1 chosen by (seed, round), without a
// table: a cycle-walking Feistel network.
std::uint64_t permuted(std::uint64_t index, std::uint64_t count, std::uint64_t seed,
                       std::uint64_t round);

}  // namespace fluxion
