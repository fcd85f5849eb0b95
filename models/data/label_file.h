// Labels in a file beside the one that holds the samples.
#pragma once

#include <filesystem>

namespace fluxion {

struct LabelFile {
  std::filesystem::path path;  // empty: there is none
  bool certain = false;        // named for nothing but these samples
};

// The file with the labels of a .npy or .npz file of samples: NAME.labels.npy (certain), or the
// same name with labels for images, label for image, y for x, where that is a word of it:
// train_images.npy and train_labels.npy, x_train.npy and y_train.npy. Letter case does not matter,
// nor which of .npy, .npz and .npy.gz it ends in.
LabelFile label_file_beside(const std::filesystem::path& samples);

}  // namespace fluxion
