// Where trained classifiers are kept between evaluations.
#pragma once

#include <filesystem>

#include "models/data/data_set.h"

namespace fluxion {

// $XDG_CACHE_HOME/fluxion/classifiers, or ~/.cache/fluxion/classifiers; empty if neither variable
// names a folder.
std::filesystem::path classifier_cache();

// The file name for this data set: its own name, for people, and a checksum of shape, class names,
// size, some of its samples and the version of the classifier, so that another set never meets it.
// A classifier of half a set (EvaluationData without a test part) is another one than that of the
// whole.
std::string classifier_file_name(const DataSet& data, bool half = false);

}  // namespace fluxion
