// Images in a folder, one file each.
#pragma once

#include <filesystem>
#include <memory>

#include "models/data/data_set.h"

namespace fluxion {

// The PNG and JPEG files that list_images finds, as [size, size, channels]: the middle square,
// resampled if need be (SquareResize), in [-1, 1]. Without an image size all files must be squares
// of one size; without channels the set is grey if all of its files are, else RGB.
//
// Opening it looks at every file's structure, in parallel, and leaves out those that are damaged,
// with a warning. Pixels are decoded when a batch asks for them and then kept, as bytes, where all
// of them fit `options.memory`. A file whose pixels turn out to be damaged is replaced, from then
// on, by the next that is whole, with a warning. Batches depend on neither threads nor memory.
// Throws what list_images throws; Error if no file can be read, or sizes differ and none is asked
// for.
std::unique_ptr<DataSet> image_folder(const std::filesystem::path& folder,
                                      const DataSetOptions& options = {});

}  // namespace fluxion
