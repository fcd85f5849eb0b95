// Labelled grey images in MNIST's IDX files.
#pragma once

#include <filesystem>
#include <memory>

#include "models/data/data_set.h"

namespace fluxion {

// Whether the folder holds one of the files below.
bool is_idx_folder(const std::filesystem::path& folder);

// `path`: a folder that holds train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz]
// (t10k-.. for the test split), or one images file, whose labels file, if there is one beside it,
// has "images-idx3" replaced by "labels-idx1" in its name. Throws IoError listing what was looked
// for, FormatError.
std::unique_ptr<DataSet> idx_images(const std::filesystem::path& path,
                                    const DataSetOptions& options = {});

}  // namespace fluxion
