// A benchmark step against the same step computed by another program.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "engine/device.h"

namespace fluxion {

// Of one tensor: max |ours - theirs| / max |theirs|.
struct TensorDifference {
  std::string name;  // "u", "dudt", "loss", "gradients.<parameter>"
  double relative = 0;
};

// Reads a safetensors file with the metadata `network` (benchmark_network) and `task`
// ("flow_matching", "meanflow" or "meanflow_subset"), the inputs
//   x, e [batch, ..]   t, r [batch]   labels i32 [batch], for a network with classes
//   parameters.<name>, every one
// and what the other program made of them
//   u, dudt [batch, ..]   loss   gradients.<name>, every one
// (dudt not for flow matching; for the subset zero in its resting rows), computes the same with
// benchmark_loss and compares, the largest difference first. Throws IoError or FormatError for a
// file that is not like this.
std::vector<TensorDifference> compare_step(const std::filesystem::path& file, const Device& device);

}  // namespace fluxion
