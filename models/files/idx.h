// The IDX format of MNIST and its relatives (http://yann.lecun.com/exdb/mnist): big-endian 0, 0,
// type, rank, sizes, then row-major data. Unsigned bytes only, plain or gzip-compressed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "engine/graph/shape.h"

namespace fluxion {

struct IdxArray {
  Shape shape;  // [images, rows, columns] or [labels]
  std::vector<std::uint8_t> values;
};

// Throws IoError, or FormatError before allocating what a header claims but the file does not hold.
IdxArray read_idx(const std::filesystem::path& path);
IdxArray parse_idx(std::span<const std::byte> bytes, std::string_view name = "IDX data");

}  // namespace fluxion
