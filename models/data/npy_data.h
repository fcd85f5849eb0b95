// Data sets in NumPy's .npy files.
#pragma once

#include <filesystem>
#include <memory>

#include "models/data/data_set.h"

namespace fluxion {

// One array of points or images (arrays.h says which). It stays mapped, and is not copied, where it
// is stored as it is held: little-endian and row-major. Labels are a file beside it:
// NAME.labels.npy for NAME.npy, or another name that says so (labels_beside.h). Throws IoError;
// FormatError for a file that is none of this or holds a value that is not finite; Error for the
// test split, which it has not.
std::unique_ptr<DataSet> npy_data(const std::filesystem::path& path,
                                  const DataSetOptions& options = {});

}  // namespace fluxion
