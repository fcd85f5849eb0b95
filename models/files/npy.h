// NumPy's .npy format: one array (numpy/lib/format.py). Versions 1.0, 2.0 and 3.0 are read, with
// whole numbers, floats and booleans of either byte order, in row-major or Fortran order; version
// 1.0 is written, little-endian and row-major.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "models/files/file_array.h"

namespace fluxion {

using NpyArray = FileArray;

// A start of a file with all of any header that NumPy writes.
inline constexpr std::size_t npy_start_bytes = std::size_t{1} << 16;

struct NpyHeader {
  TensorType type;  // as held (held_as)
  StoredType stored;
  bool column_major = false;  // Fortran order, where that is another
  std::size_t start = 0;      // of the elements, which fill the rest of the bytes exactly

  std::uint64_t file_bytes() const;  // what a file with this header must have
  // Whether the bytes from `start` on are the array, as they lie.
  bool held_as_stored() const { return !column_major && is_held_as_stored(stored); }
};

bool is_npy(std::span<const std::byte> bytes);

// Throws FormatError. `name` stands for the file in messages. With a MappedFile, this reads an
// array without a copy where it is held_as_stored.
NpyHeader parse_npy_header(std::span<const std::byte> bytes, std::string_view name = "npy data");
// The same of the start of a file of `whole` bytes.
NpyHeader parse_npy_header(std::span<const std::byte> start, std::uint64_t whole,
                           std::string_view name);
// Of the start of a file whose size is not known: the header alone.
NpyHeader parse_npy_start(std::span<const std::byte> start, std::string_view name);

// Throws IoError or FormatError.
NpyArray read_npy(const std::filesystem::path& path);
// `memory`: bytes that elements may take which are not held as stored; empty: what is free.
NpyArray parse_npy(std::span<const std::byte> bytes, std::string_view name = "npy data",
                   std::optional<std::uint64_t> memory = {});

// Replaces the file in one piece. Throws IoError, ShapeError where bytes and shape disagree,
// DTypeError for types that the format lacks.
void write_npy(const std::filesystem::path& path, const TensorType& type,
               std::span<const std::byte> bytes);
template <class T>
void write_npy(const std::filesystem::path& path, const std::vector<T>& values, Shape shape) {
  write_npy(path, TensorType{std::move(shape), dtype_of<T>}, std::as_bytes(std::span(values)));
}

}  // namespace fluxion
