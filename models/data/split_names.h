// Which part of a data set a folder or file holds, by the words that people use.
#pragma once

#include <string>

namespace fluxion {

enum class PartName {
  none,
  training,          // "train", "Training", "train2017", "training_set", ...
  held_out,          // "test", "val", "t10k", "testing_images", ...
  perhaps_held_out,  // words that are names of classes as well: "valid", "dev", "eval", ...
};

PartName part_named(const std::string& name);

// Of several held-out parts the first is the one with the lowest rank: test before val, as
// benchmarks do.
int held_out_rank(const std::string& name);

}  // namespace fluxion
