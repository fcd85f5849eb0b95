// The labels of an array of images, in a file beside it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace fluxion {

// What a file of arrays holds, by the words in its name: "train-images.idx3-ubyte.gz" is {train}
// images, in IDX.
struct ArrayFileName {
  std::vector<std::string> words;       // but those below, in alphabetical order
  bool images = false, labels = false;  // "images", "x", ..; "labels", "y", ..
  bool idx = false;                     // says that it is an IDX file
  bool operator==(const ArrayFileName&) const = default;
};
ArrayFileName array_file_name(const std::filesystem::path& path);

// The file of labels beside a file of images, by their names, which differ in the words for images
// and labels alone: NAME.labels.npy for NAME.npy, y_train.npy for x_train.npy,
// train-labels.idx1-ubyte[.gz] for train-images.idx3-ubyte[.gz]. Empty: there is none. Throws Error
// where several could be meant, or where a file of as many labels has a name that does not say
// whose. `memory`: bytes that looking into a file may take.
std::filesystem::path labels_beside(const std::filesystem::path& images, std::int64_t count,
                                    std::optional<std::uint64_t> memory = {});

// `count` whole numbers from 0 in a .npy, .npz or IDX file, axes [count] or [count, 1]. `memory`:
// bytes that unpacking may take; empty: what is free. Throws IoError, FormatError, OutOfMemory.
std::vector<std::int32_t> read_labels(const std::filesystem::path& path, std::int64_t count,
                                      std::optional<std::uint64_t> memory = {});

}  // namespace fluxion
