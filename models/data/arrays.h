// Arrays of files as data sets: which of them are points, images or labels.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/platform/file.h"
#include "models/data/array_set.h"
#include "models/files/file_array.h"

namespace fluxion {

// A row-major array of an element type of ours, in memory or in a mapped file.
struct SourceArray {
  TensorType type;
  std::span<const std::byte> elements;  // aligned anyhow
  std::shared_ptr<const void> owner;    // of the elements
  // The mapped file that they lie in, if they do: it is checked after they were read.
  std::shared_ptr<const MappedFile> file = {};

  static SourceArray of(FileArray array);
};

// A .npy array: plain (not copied where it is stored as it is held), or compressed with gzip.
// `memory`: bytes that unpacking may take; empty: what is free. Throws IoError, FormatError,
// OutOfMemory.
SourceArray open_npy(const std::filesystem::path& path, std::optional<std::uint64_t> memory = {},
                     const WantedType& wanted = {});
// The same of bytes that `owner` holds.
SourceArray npy_in(std::span<const std::byte> bytes, const std::shared_ptr<const void>& owner,
                   const std::string& name, std::optional<std::uint64_t> memory = {},
                   const WantedType& wanted = {});

// [count, dimensions]: points, in floats or bytes. [count, height, width] and [count, height,
// width, 1 or 3]: images, in floats (taken as they are: they should lie in [-1, 1]), whole numbers
// in 0..255, or booleans (black and white). Throws FormatError for another shape or type, and for a
// value that is not finite or out of range, OutOfMemory where a conversion takes more than
// `memory`.
ArrayContent sample_content(const std::string& name, SourceArray array,
                            std::optional<std::uint64_t> memory = {});

// Whether an array could be the labels of `count` samples: whole numbers or booleans, [count] or
// [count, 1].
bool looks_like_labels(const TensorType& type, std::int64_t count);
// Throws FormatError, with what to do, for any other array. `name` stands for it in messages.
WantedType labels_wanted(const std::string& name, std::int64_t count);
// The labels of `count` samples. Throws FormatError for what is no such array, and for a label that
// is negative or no less than a million; OutOfMemory where they take more than `memory`.
std::vector<std::int32_t> labels_in(const std::string& name, const SourceArray& array,
                                    std::int64_t count, std::optional<std::uint64_t> memory = {});
// The elements of an array of whole numbers or booleans. Throws FormatError for other types,
// OutOfMemory.
std::vector<std::int64_t> whole_numbers(const std::string& name, const SourceArray& array,
                                        std::optional<std::uint64_t> memory = {});

}  // namespace fluxion
