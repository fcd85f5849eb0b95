// Data sets in NumPy's .npy files.
#pragma once

#include <filesystem>
#include <memory>

#include "models/data/data_set.h"

namespace fluxion {

// Elements <f4, <f8 (taken as they are: images should lie in [-1, 1]) or |u1 (0..255 for -1..1),
// with axes [count, dimensions] for points, [count, height, width] for grey images or [count,
// height, width, channels] for images of 1 or 3 channels. The file stays mapped, and is not copied.
// Labels are a file beside it: NAME.labels.npy for NAME.npy, or another name that says so
// (labels_beside.h); whole numbers from 0, [count].
// Throws IoError; FormatError for a file that is none of this or holds a value that is not finite;
// Error for the test split, which it has not.
std::unique_ptr<DataSet> npy_data(const std::filesystem::path& path,
                                  const DataSetOptions& options = {});

}  // namespace fluxion
