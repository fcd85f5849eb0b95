// Counting and dividing a call's scratch memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "engine/error.h"

namespace fluxion::cpu_backend {

// The pieces of scratch memory begin at multiples of 64 bytes: a cache line, and the widest vector.
constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// More than any machine has, or its addresses can count: what would need more is refused before
// anything is allocated.
inline constexpr std::int64_t most_scratch_bytes =
    sizeof(void*) > 4 ? std::int64_t{1} << 46 : std::int64_t{1} << 30;

// The product of some sizes, none of them negative. Throws OutOfMemory beyond most_scratch_bytes.
inline std::int64_t scratch_product(std::initializer_list<std::int64_t> factors) {
  std::int64_t product = 1;
  bool fits = true;
  for (const std::int64_t factor : factors)
    fits = fits && !__builtin_mul_overflow(product, factor, &product);
  if (!fits || product < 0 || product > most_scratch_bytes)
    throw OutOfMemory("cpu: a kernel's scratch memory would exceed " +
                      std::to_string(most_scratch_bytes) + " bytes");
  return product;
}
// Their sum, likewise.
inline std::size_t scratch_sum(std::initializer_list<std::size_t> terms) {
  std::size_t sum = 0;
  for (const std::size_t term : terms) {
    if (term > static_cast<std::size_t>(most_scratch_bytes)) scratch_product({-1});
    sum += term;
    scratch_product({static_cast<std::int64_t>(sum)});
  }
  return sum;
}

// Hands out aligned pieces of scratch memory; without memory, counts the bytes.
class Carver {
 public:
  explicit Carver(std::byte* begin) : begin_(begin) {}
  template <class T>
  T* take(std::int64_t count) {
    T* piece = begin_ ? reinterpret_cast<T*>(begin_ + used_) : nullptr;
    const auto bytes = static_cast<std::size_t>(scratch_product({count, sizeof(T)}));
    used_ = scratch_sum({used_, aligned(bytes)});
    return piece;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* begin_;
  std::size_t used_ = 0;
};

}  // namespace fluxion::cpu_backend
