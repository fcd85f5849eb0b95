#include "models/files/file_array.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "engine/platform/machine.h"

namespace fluxion {

static_assert(std::endian::native == std::endian::little,
              "little-endian elements are used as they lie");

namespace {

using Kind = StoredType::Kind;

// The places, among the elements in row-major order, of elements whose first axis runs fastest.
class ColumnMajorPlaces {
 public:
  explicit ColumnMajorPlaces(const Shape& shape) : sizes_(shape.dims()), at_(sizes_.size()) {
    strides_.resize(sizes_.size());
    std::int64_t stride = 1;
    for (std::size_t axis = sizes_.size(); axis-- > 0; stride *= sizes_[axis])
      strides_[axis] = stride;
  }

  std::size_t next() {
    const std::int64_t place = place_;
    for (std::size_t axis = 0; axis < sizes_.size(); ++axis) {
      place_ += strides_[axis];
      if (++at_[axis] < sizes_[axis]) break;
      place_ -= strides_[axis] * sizes_[axis];
      at_[axis] = 0;
    }
    return static_cast<std::size_t>(place);
  }

 private:
  Dims sizes_, strides_, at_;
  std::int64_t place_ = 0;
};

template <class Stored>
Stored element(const std::byte* from, bool big_endian) {
  std::byte raw[sizeof(Stored)];
  std::memcpy(raw, from, sizeof raw);
  if (big_endian) std::reverse(std::begin(raw), std::end(raw));
  Stored value;
  std::memcpy(&value, raw, sizeof value);
  return value;
}

[[noreturn]] void refuse_element(std::string_view name, std::size_t index,
                                 const std::string& what) {
  throw FormatError(std::string(name) + ": element " + std::to_string(index) + " is " + what);
}

// Each Stored as a Held. Floats are moved as their bits.
template <class Stored, class Held>
std::vector<std::byte> convert(std::span<const std::byte> bytes, const StoredType& type,
                               const Shape& shape, bool column_major, std::string_view name) {
  const std::size_t count = bytes.size() / sizeof(Stored);
  std::vector<std::byte> result(count * sizeof(Held));
  ColumnMajorPlaces places(shape);
  for (std::size_t i = 0; i < count; ++i) {
    const Stored stored = element<Stored>(bytes.data() + i * sizeof(Stored), type.big_endian);
    if (type.kind == Kind::boolean && stored > Stored{1})
      refuse_element(name, i, "the byte " + std::to_string(stored) + ", not a boolean (0 or 1)");
    if (!std::in_range<Held>(stored))
      refuse_element(name, i, std::to_string(stored) + ", above the largest i64");
    const Held held = static_cast<Held>(stored);
    const std::size_t place = column_major ? places.next() : i;
    std::memcpy(result.data() + place * sizeof held, &held, sizeof held);
  }
  return result;
}

}  // namespace

DType held_as(const StoredType& type) {
  switch (type.kind) {
    case Kind::boolean:
      return DType::boolean;
    case Kind::signed_integer:
      return type.bytes == 8 ? DType::i64 : DType::i32;
    case Kind::unsigned_integer:
      return type.bytes == 1   ? DType::u8
             : type.bytes == 2 ? DType::i32
             : type.bytes == 4 ? DType::u32
                               : DType::i64;
    case Kind::floating:
      break;
  }
  return type.bytes == 2 ? DType::f16 : type.bytes == 4 ? DType::f32 : DType::f64;
}

bool is_held_as_stored(const StoredType& type) {
  return type.kind != Kind::boolean && !(type.big_endian && type.bytes > 1) &&
         static_cast<std::size_t>(type.bytes) == size_of(held_as(type)) &&
         !(type.kind == Kind::unsigned_integer && type.bytes == 8);
}

void require_memory(std::uint64_t bytes, std::string_view name,
                    std::optional<std::uint64_t> limit) {
  std::optional<std::uint64_t> free = available_memory_bytes();
  if (limit) free = std::min(free.value_or(*limit), *limit);
  if (free && *free < bytes)
    throw OutOfMemory(std::string(name) + ": it takes " + std::to_string(bytes) +
                      " bytes of memory, " + std::to_string(*free) +
                      " are free (a plain .npy file of little-endian f4, f8 or u1 is read without "
                      "being loaded)");
}

std::vector<std::byte> held_elements(std::span<const std::byte> bytes, const StoredType& type,
                                     const Shape& shape, bool column_major, std::string_view name,
                                     std::optional<std::uint64_t> memory) {
  require_memory(bytes.size() / static_cast<std::size_t>(type.bytes) * size_of(held_as(type)), name,
                 memory);
  column_major = column_major && shape.rank() > 1;
  if (!column_major && is_held_as_stored(type)) return {bytes.begin(), bytes.end()};
  const auto as = [&]<class Stored, class Held>(Stored, Held) {
    return convert<Stored, Held>(bytes, type, shape, column_major, name);
  };
  const bool negative = type.kind == Kind::signed_integer;
  switch (type.bytes) {
    case 1:
      return negative ? as(std::int8_t{}, std::int32_t{}) : as(std::uint8_t{}, std::uint8_t{});
    case 2:
      if (type.kind == Kind::floating) return as(std::uint16_t{}, std::uint16_t{});
      return negative ? as(std::int16_t{}, std::int32_t{}) : as(std::uint16_t{}, std::int32_t{});
    case 4:
      return as(std::uint32_t{}, std::uint32_t{});
    default:
      if (type.kind == Kind::unsigned_integer) return as(std::uint64_t{}, std::int64_t{});
      return as(std::uint64_t{}, std::uint64_t{});
  }
}

}  // namespace fluxion
