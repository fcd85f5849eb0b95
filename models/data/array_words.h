// The words by which people name arrays: "x_train", "trainLabels", "Xtest",
// "t10k-images-idx3-ubyte".
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fluxion {

// The words of a name in lower case. They end where a lower-case letter is followed by a capital,
// and at what is neither letter nor digit; "xtrain" is "x" and "train".
std::vector<std::string> words_of_name(std::string_view name);

// "x", "images", "features", ..
bool means_samples(std::string_view word);
// "y", "labels", "targets", ..
bool means_labels(std::string_view word);

}  // namespace fluxion
