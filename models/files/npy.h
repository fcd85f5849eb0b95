// NumPy's .npy format, version 1: one array. Little-endian f8, f4, i8, i4, u1 and b1, row-major.
#pragma once

#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/error.h"
#include "engine/graph/shape.h"

namespace fluxion {

struct NpyArray {
  TensorType type;
  std::vector<std::byte> bytes;

  // The elements; T must be the element type (DTypeError).
  template <class T>
  std::vector<T> values() const {
    if (type.dtype != dtype_of<T>)
      throw DTypeError("npy: asked for " + std::string(to_string(dtype_of<T>)) + ", the array is " +
                       to_string(type));
    std::vector<T> result(bytes.size() / sizeof(T));
    if (!bytes.empty()) std::memcpy(result.data(), bytes.data(), bytes.size());
    return result;
  }
};

struct NpyHeader {
  TensorType type;
  std::size_t start = 0;  // of the elements, which fill the rest of the bytes exactly
};

// Throws FormatError. `name` stands for the file in messages. With a MappedFile, this reads an
// array without a copy.
NpyHeader parse_npy_header(std::span<const std::byte> bytes, std::string_view name = "npy data");

// Throws IoError or FormatError.
NpyArray read_npy(const std::filesystem::path& path);
NpyArray parse_npy(std::span<const std::byte> bytes, std::string_view name = "npy data");

// Replaces the file in one piece. Throws IoError, ShapeError where bytes and shape disagree,
// DTypeError for types that the format lacks.
void write_npy(const std::filesystem::path& path, const TensorType& type,
               std::span<const std::byte> bytes);
template <class T>
void write_npy(const std::filesystem::path& path, const std::vector<T>& values, Shape shape) {
  write_npy(path, TensorType{std::move(shape), dtype_of<T>}, std::as_bytes(std::span(values)));
}

}  // namespace fluxion
