// Which files of a folder are images, and of which class.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "models/data/data_set.h"

namespace fluxion {

struct ListedImage {
  std::filesystem::path path;
  std::int32_t label = 0;
};

struct ImageList {
  std::vector<ListedImage> images;       // by class, then by path
  std::vector<std::string> class_names;  // empty: unlabelled
  std::vector<std::string> warnings;     // files and folders left out
};

// Files named .png, .jpg or .jpeg, in any depth and by name in byte order, so that two listings
// agree; hidden files and folders are passed over, a folder that links lead to again is read once.
// Two or more sub-folders with images are classes, named after them and numbered in their order;
// what lies deeper belongs to the class above. Where there are both train/ and one of test/, val/,
// valid/ or validation/, these are the splits and hold the sub-folders, and train/ says which
// classes there are. Throws IoError if the folder can't be read; Error if it has no such split,
// holds no images, or mixes images with classes and `labels` is set.
ImageList list_images(const std::filesystem::path& folder, Split split, bool labels);

}  // namespace fluxion
