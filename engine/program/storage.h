// How a device stores element types.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "engine/graph/shape.h"

namespace fluxion {

// A backend states in its capabilities how it keeps each dtype: for example bf16 as the f32 of the
// same number, or a boolean as the u32 0 or 1. Planning, allocation, upload, download and
// verification use it wherever they count or move device bytes. The values are the same numbers in
// every storage.
class Storage {
 public:
  // The host's storage: each dtype as itself, and each byte can be written alone.
  Storage();

  // Keeps elements of `dtype` as elements of `as`. Throws DTypeError unless `as` holds every value
  // of `dtype`: boolean and u8 as an integer, a 16-bit float as f32.
  Storage& keep(DType dtype, DType as);
  // The fewest bytes that the device writes at once, a power of two up to 64. Buffer sizes are
  // rounded up to a multiple of it; the bytes after the last element are padding. Throws Error for
  // any other number.
  Storage& write_together(std::size_t bytes);

  DType kept(DType dtype) const { return kept_[static_cast<std::size_t>(dtype)]; }
  std::size_t together() const { return together_; }
  bool operator==(const Storage&) const = default;

 private:
  static constexpr std::size_t dtypes = static_cast<std::size_t>(DType::f64) + 1;
  std::array<DType, dtypes> kept_;
  std::size_t together_ = 1;
};

// Device bytes of a tensor. Throws ShapeError if there are more than an address can count.
std::size_t bytes_of(const TensorType& type, const Storage& storage);
// Device bytes of the elements that take `host_bytes` on the host, without rounding up.
std::size_t kept_bytes(std::size_t host_bytes, DType dtype, const Storage& storage);

// Convert elements from the host's form to the device's, and back. `kept` must have
// kept_bytes(host.size(), ..) bytes (ShapeError).
void to_kept(std::span<const std::byte> host, DType dtype, const Storage& storage,
             std::span<std::byte> kept);
void from_kept(std::span<const std::byte> kept, DType dtype, const Storage& storage,
               std::span<std::byte> host);

}  // namespace fluxion
