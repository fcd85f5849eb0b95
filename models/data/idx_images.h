// Labelled grey images in MNIST's IDX files.
#pragma once

#include <filesystem>
#include <memory>

#include "models/data/data_set.h"

namespace fluxion {

// Whether the folder holds a file that is called like one of those below.
bool is_idx_folder(const std::filesystem::path& folder);

// `path`: a folder that holds train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz]
// (t10k-.. or another word for a held-out part for the test split), however their words are set
// apart; or one images file. Labels lie beside it (labels_beside.h); where its name says that they
// should and they do not, it is refused unless the options leave labels out. Throws IoError saying
// what was looked for, Error for a folder with several sets, FormatError.
std::unique_ptr<DataSet> idx_images(const std::filesystem::path& path,
                                    const DataSetOptions& options = {});

}  // namespace fluxion
