// The IDX format of MNIST and its relatives (http://yann.lecun.com/exdb/mnist): big-endian 0, 0,
// type, rank, sizes, then row-major big-endian data, plain or gzip-compressed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>

#include "models/files/file_array.h"

namespace fluxion {

// [images, rows, columns] or [labels], mostly bytes; i8, i16, i32, f32 and f64 are read, too.
// Throws IoError, or FormatError before allocating what a header claims but the file does not hold.
// `memory`: bytes that unpacking may take; empty: what is free. Throws OutOfMemory.
FileArray read_idx(const std::filesystem::path& path, std::optional<std::uint64_t> memory = {},
                   const WantedType& wanted = {});
FileArray parse_idx(std::span<const std::byte> bytes, std::string_view name = "IDX data",
                    std::optional<std::uint64_t> memory = {}, const WantedType& wanted = {});

}  // namespace fluxion
