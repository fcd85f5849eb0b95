// The images below a folder, as a tree.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace fluxion {

struct ImageTree {
  std::filesystem::path path;
  std::string name;                           // of the folder alone
  std::vector<std::filesystem::path> images;  // in it, not below
  std::vector<ImageTree> below;               // sub-folders that hold images, in whatever depth
  std::vector<std::string> empty;             // sub-folders that hold none
  bool read_before = false;  // links lead here from elsewhere: nothing of it is listed again
  std::size_t ignored = 0;   // files in it that are no images
  std::vector<std::string> ignored_examples, warnings;
};

// By its name: .png, .jpg or .jpeg.
bool is_image_file(const std::filesystem::path& path);

// By name in byte order, without what is hidden. Throws IoError if the folder itself can't be read.
ImageTree read_image_tree(const std::filesystem::path& folder);

// All images of the tree; files and sub-folders by name.
void collect_images(const ImageTree& tree, std::vector<std::filesystem::path>& images);

// What was left out, a line each.
std::vector<std::string> warnings_of(const ImageTree& tree);

}  // namespace fluxion
