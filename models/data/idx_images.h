// Labelled grey images in MNIST's IDX files.
#pragma once

#include <filesystem>
#include <memory>

#include "models/data/data_set.h"

namespace fluxion {

// `path`: a folder that holds train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz] (t10k-.. for the test split), or one images file, whose
// labels file, if there is one beside it, has "images-idx3" replaced by "labels-idx1" in its name. Pixels 0..255 become -1..1. With
// `image_size` other than that of the file, images are resampled by area. Throws IoError listing what was looked for, FormatError.
std::unique_ptr<DataSet> idx_images(const std::filesystem::path& path, const DataSetOptions& options = {});

}  // namespace fluxion
