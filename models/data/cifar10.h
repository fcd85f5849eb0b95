// CIFAR-10 in its binary version (https://www.cs.toronto.edu/~kriz/cifar.html): 32 x 32 RGB images
// of ten classes.
#pragma once

#include <filesystem>
#include <memory>

#include "models/data/data_set.h"

namespace fluxion {

// Whether the folder holds one of the files below.
bool is_cifar10_folder(const std::filesystem::path& folder);

// Reads data_batch_*.bin, or test_batch.bin for the test split: records of a label and 32 x 32
// bytes of red, of green and of blue. Class names come from batches.meta.txt where it is there.
// Throws IoError, FormatError.
std::unique_ptr<DataSet> cifar10(const std::filesystem::path& folder,
                                 const DataSetOptions& options = {});

}  // namespace fluxion
