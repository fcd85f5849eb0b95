// Dividing a call's scratch memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fluxion::cpu_backend {

// Hands out aligned pieces of scratch memory; without memory, counts the bytes.
class Carver {
 public:
  explicit Carver(std::byte* begin) : begin_(begin) {}
  template <class T>
  T* take(std::int64_t count) {
    T* piece = begin_ ? reinterpret_cast<T*>(begin_ + used_) : nullptr;
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return piece;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* begin_;
  std::size_t used_ = 0;
};

}  // namespace fluxion::cpu_backend
