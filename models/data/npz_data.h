// Data sets in NumPy's .npz files: several arrays, each under a name.
#pragma once

#include <filesystem>
#include <memory>

#include "models/data/arrays.h"
#include "models/data/data_set.h"

namespace fluxion {

// Whether a zip archive holds .npy arrays.
bool is_npz(std::span<const std::byte> bytes, const std::string& name);

// The names tell which array is what: words such as x, images, data for samples, y, labels, targets
// for labels, train, test, val for the parts (x_train, test_labels, ..). Without such words an
// archive of one array of samples, or of arr_0 and arr_1 for samples and labels, is understood.
// Labels may also be a file beside it (labels_beside.h). Arrays of no use are left out with a
// warning. Throws IoError; FormatError for a damaged file and where the names tell not enough;
// NoTestPart.
std::unique_ptr<DataSet> npz_data(const std::filesystem::path& path,
                                  const DataSetOptions& options = {});

// The labels in a file of labels: a .npy array, or the only array of a .npz file. `memory`: bytes
// that unpacking may take; empty: what is free. Throws what npz_data does, and OutOfMemory.
SourceArray open_labels(const std::filesystem::path& path, const WantedType& wanted,
                        std::optional<std::uint64_t> memory = {});

}  // namespace fluxion
