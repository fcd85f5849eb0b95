// How element types lie in a device's memory.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "engine/graph/shape.h"

namespace fluxion {

// A backend says in its capabilities how it keeps each dtype: bf16 as the f32 of the same number,
// say, or a boolean as the u32 0 or 1. Everything that counts or moves device bytes asks: planning,
// allocation, upload, download, verification. Values are the same numbers in every storage.
class Storage {
 public:
  // Each dtype as itself, each byte written alone: memory as the host has it.
  Storage();

  // Keeps elements of `dtype` as elements of `as`. Throws DTypeError unless `as` holds every value
  // of `dtype`: boolean and u8 as an integer, a 16-bit float as f32.
  Storage& keep(DType dtype, DType as);
  // The fewest bytes that are written at once, a power of two up to 64: sizes are rounded up to it,
  // and what lies between the last element and that size is nobody's.
  Storage& write_together(std::size_t bytes);

  DType kept(DType dtype) const { return kept_[static_cast<std::size_t>(dtype)]; }
  std::size_t together() const { return together_; }
  bool operator==(const Storage&) const = default;

 private:
  static constexpr std::size_t dtypes = static_cast<std::size_t>(DType::f64) + 1;
  std::array<DType, dtypes> kept_;
  std::size_t together_ = 1;
};

// Device bytes of a tensor. Throws ShapeError for more than an address can count.
std::size_t bytes_of(const TensorType& type, const Storage& storage);
// Device bytes of the elements of dtype `dtype` that `host_bytes` of the host hold, not rounded.
std::size_t kept_bytes(std::size_t host_bytes, DType dtype, const Storage& storage);

// Between the host's form and the device's. `kept` has kept_bytes(host.size(), ..) bytes.
void to_kept(std::span<const std::byte> host, DType dtype, const Storage& storage,
             std::span<std::byte> kept);
void from_kept(std::span<const std::byte> kept, DType dtype, const Storage& storage,
               std::span<std::byte> host);

}  // namespace fluxion
