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
  std::filesystem::path part;            // the folder that holds this part of the set
  std::vector<ListedImage> images;       // by class, then by path
  std::vector<std::string> class_names;  // empty: unlabelled
  std::vector<std::string> warnings;     // files and folders left out, and what is doubtful
};

// Files named .png, .jpg or .jpeg, in any depth and by name in byte order, so that two listings
// agree; hidden files and folders are passed over, a folder that links lead to again is read once.
//
// A folder that holds one folder and nothing else is that folder: the walk goes down while there is
// one way. Where it finds a training part beside a held-out one, whatever words say so
// (split_names.h), these are the splits. Two or more sub-folders with images are classes, named
// after them and numbered in their order; what lies deeper belongs to the class above. Splits may
// also lie below the classes, if they do in each. A single sub-folder is a class only in a held-out
// part, if it is one of the training part.
//
// Throws IoError if the folder can't be read; Error if it has no such split or holds no images;
// and, if `labels` is set, where images lie beside sub-folders with images, or where it is not
// clear whether sub-folders are parts or classes.
ImageList list_images(const std::filesystem::path& folder, Split split, bool labels);

// By class, then by path with runs of digits compared as numbers: 2.png before 10.png.
void sort_by_number(std::vector<ListedImage>& images);

}  // namespace fluxion
