// One file as a data set.
#pragma once

#include <filesystem>
#include <memory>

#include "models/data/data_set.h"

namespace fluxion {

// What a file holds decides, not its name: a .npy array, a .npz file of arrays, an IDX file; .npy
// and IDX compressed with gzip, too. For any other, the FormatError says what the file is and what
// to do with it. Throws IoError, NoTestPart.
std::unique_ptr<DataSet> data_file(const std::filesystem::path& path,
                                   const DataSetOptions& options = {});

// Throws FormatError, with what to do, for a folder that holds another version of a data set that is
// read, or files of arrays or records and neither pictures nor folders.
void check_known_folders(const std::filesystem::path& folder);

}  // namespace fluxion
