// Dividing a call's scratch memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fluxion::cpu_backend {

// The pieces of scratch memory begin at multiples of 64 bytes: a cache line, and the widest vector.
constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// Hands out aligned pieces of scratch memory; without memory, counts the bytes.
class Carver {
 public:
  explicit Carver(std::byte* begin) : begin_(begin) {}
  template <class T>
  T* take(std::int64_t count) {
    T* piece = begin_ ? reinterpret_cast<T*>(begin_ + used_) : nullptr;
    used_ += aligned(static_cast<std::size_t>(count) * sizeof(T));
    return piece;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* begin_;
  std::size_t used_ = 0;
};

}  // namespace fluxion::cpu_backend
