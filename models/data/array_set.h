// Finite sets that are one array in memory or in a mapped file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/data/data_set.h"

namespace fluxion {

struct ArrayContent {
  std::span<const std::byte> elements;  // [count, sample_shape..], row-major, aligned anyhow
  std::shared_ptr<const void> owner;    // of the elements
  std::function<void()> check = {};     // throws where the owner has lost some of them
  DType dtype = DType::u8;           // u8: levels, 0..255 for -1..1; f32 and f64: taken as they are
  std::int64_t count = 0;            // at least 1
  Shape sample_shape;                // [dimensions] or [height, width, channels], as stored
  std::vector<std::int32_t> labels;  // [count], not negative; empty: unlabelled
  std::vector<std::string> class_names;  // by label; empty: numbers
  std::vector<std::string> warnings;

  // Takes the elements over.
  ArrayContent with(std::vector<std::uint8_t> values) &&;
};

// Images are cut and resampled (SquareResize) and made grey or RGB as the options ask, each time
// they are asked for. The classes are those that have samples, in the order of their labels. The
// split is not looked at. Throws Error where the options do not fit.
std::unique_ptr<DataSet> array_set(std::string name, ArrayContent content,
                                   const DataSetOptions& options = {});

}  // namespace fluxion
