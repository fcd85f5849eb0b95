#include "engine/program/storage.h"

#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include "engine/error.h"

namespace fluxion {

namespace {

bool holds(DType as, DType dtype) {
  if (as == dtype) return true;
  switch (dtype) {
    case DType::boolean:
      return as == DType::u8 || as == DType::i32 || as == DType::u32;
    case DType::u8:
      return as == DType::i32 || as == DType::u32;
    case DType::bf16:
    case DType::f16:
      return as == DType::f32;
    default:
      return false;
  }
}

template <class To, class From, class Convert>
void convert_each(std::span<const std::byte> from, std::span<std::byte> to, Convert convert) {
  const std::size_t count = from.size() / sizeof(From);
  for (std::size_t i = 0; i < count; ++i) {
    From value;
    std::memcpy(&value, from.data() + i * sizeof(From), sizeof(From));
    const To converted = convert(value);
    std::memcpy(to.data() + i * sizeof(To), &converted, sizeof(To));
  }
}

void check_sizes(std::size_t host, DType dtype, const Storage& storage, std::size_t kept) {
  if (host % size_of(dtype) != 0 || kept_bytes(host, dtype, storage) != kept)
    throw ShapeError("storage: " + std::to_string(host) + " bytes of " +
                     std::string(to_string(dtype)) + " elements do not make " +
                     std::to_string(kept) + " bytes on the device");
}

}  // namespace

Storage::Storage() {
  for (std::size_t i = 0; i < dtypes; ++i) kept_[i] = static_cast<DType>(i);
}

Storage& Storage::keep(DType dtype, DType as) {
  if (!holds(as, dtype))
    throw DTypeError("storage: " + std::string(to_string(as)) + " can't hold every " +
                     std::string(to_string(dtype)) +
                     "; booleans and u8 are kept as wider integers, 16-bit floats as f32");
  kept_[static_cast<std::size_t>(dtype)] = as;
  return *this;
}

Storage& Storage::write_together(std::size_t bytes) {
  if (!std::has_single_bit(bytes) || bytes > 64)
    throw Error("storage: bytes written together must be a power of two up to 64, got " +
                std::to_string(bytes));
  together_ = bytes;
  return *this;
}

std::size_t bytes_of(const TensorType& type, const Storage& storage) {
  const auto elements = static_cast<std::uint64_t>(type.shape.elements());
  const std::uint64_t each = size_of(storage.kept(type.dtype));
  constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::ptrdiff_t>::max());
  if (elements > (most - storage.together()) / each)
    throw ShapeError(to_string(type) + " takes more bytes on the device than an address can count");
  const std::uint64_t together = storage.together();
  return static_cast<std::size_t>((elements * each + together - 1) / together * together);
}

std::size_t kept_bytes(std::size_t host_bytes, DType dtype, const Storage& storage) {
  return host_bytes / size_of(dtype) * size_of(storage.kept(dtype));
}

void to_kept(std::span<const std::byte> host, DType dtype, const Storage& storage,
             std::span<std::byte> kept) {
  check_sizes(host.size(), dtype, storage, kept.size());
  const DType as = storage.kept(dtype);
  if (as == dtype) {
    if (!host.empty()) std::memcpy(kept.data(), host.data(), host.size());
  } else if (dtype == DType::bf16) {
    convert_each<float, BFloat16>(host, kept, [](BFloat16 value) { return to_f32(value); });
  } else if (dtype == DType::f16) {
    convert_each<float, Float16>(host, kept, [](Float16 value) { return to_f32(value); });
  } else {  // u8, i32, u32; every byte but 0 is the boolean 1
    const auto number = [&](std::uint8_t value) -> std::uint8_t {
      return dtype == DType::boolean ? value != 0 : value;
    };
    if (as == DType::u8)
      convert_each<std::uint8_t, std::uint8_t>(host, kept, number);
    else
      convert_each<std::uint32_t, std::uint8_t>(
          host, kept, [&](std::uint8_t value) { return std::uint32_t{number(value)}; });
  }
}

void from_kept(std::span<const std::byte> kept, DType dtype, const Storage& storage,
               std::span<std::byte> host) {
  check_sizes(host.size(), dtype, storage, kept.size());
  const DType as = storage.kept(dtype);
  if (as == dtype) {
    if (!host.empty()) std::memcpy(host.data(), kept.data(), host.size());
  } else if (dtype == DType::bf16) {
    convert_each<BFloat16, float>(kept, host, [](float value) { return to_bf16(value); });
  } else if (dtype == DType::f16) {
    convert_each<Float16, float>(kept, host, [](float value) { return to_f16(value); });
  } else if (as == DType::u8) {
    convert_each<std::uint8_t, std::uint8_t>(kept, host, [](std::uint8_t value) { return value; });
  } else {
    convert_each<std::uint8_t, std::uint32_t>(
        kept, host, [](std::uint32_t value) { return static_cast<std::uint8_t>(value); });
  }
}

}  // namespace fluxion
