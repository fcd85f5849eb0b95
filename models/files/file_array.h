// Arrays as files store them - whole numbers and floats of several sizes, of either byte order, in
// either order of axes - and as this program holds them.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/error.h"
#include "engine/graph/shape.h"

namespace fluxion {

// A whole array in memory, row-major.
struct FileArray {
  TensorType type;
  std::vector<std::byte> bytes;

  // The elements; T must be the element type (DTypeError).
  template <class T>
  std::vector<T> values() const {
    if (type.dtype != dtype_of<T>)
      throw DTypeError("array: asked for " + std::string(to_string(dtype_of<T>)) + ", it holds " +
                       to_string(type));
    std::vector<T> result(bytes.size() / sizeof(T));
    if (!bytes.empty()) std::memcpy(result.data(), bytes.data(), bytes.size());
    return result;
  }
};

// An element type of a file.
struct StoredType {
  enum class Kind : std::uint8_t { boolean, signed_integer, unsigned_integer, floating };
  Kind kind = Kind::floating;
  int bytes = 4;  // 1 for booleans; 1, 2, 4 or 8 for whole numbers; 2, 4 or 8 for floats
  bool big_endian = false;
  bool operator==(const StoredType&) const = default;
};

// The type that holds its values: i32 for i8, i16 and u16, i64 for u64, else its own.
DType held_as(const StoredType& type);
// Whether elements of this type are held just as they are stored, and any bytes are elements.
bool is_held_as_stored(const StoredType& type);

// Throws OutOfMemory where so many bytes, which a small compressed file may claim, are more than is
// free, or than `limit`.
void require_memory(std::uint64_t bytes, std::string_view name,
                    std::optional<std::uint64_t> limit = {});

// Told the type of an array before its elements are unpacked; throws where it is not wanted.
using WantedType = std::function<void(const TensorType&)>;

// What the memory holds at most while so many bytes are unpacked: they grow into place, half of
// them twice at the last step.
inline std::uint64_t unpacking_bytes(std::uint64_t bytes) { return bytes + bytes / 2; }

// The elements as held: row-major, little-endian, of type held_as(type). `column_major`: the first
// axis runs fastest in `bytes`, which hold exactly the elements of `shape`. Throws FormatError for
// a boolean that is neither 0 nor 1, and for a u64 that no i64 holds; OutOfMemory as require_memory
// does.
std::vector<std::byte> held_elements(std::span<const std::byte> bytes, const StoredType& type,
                                     const Shape& shape, bool column_major, std::string_view name,
                                     std::optional<std::uint64_t> memory = {});

}  // namespace fluxion
