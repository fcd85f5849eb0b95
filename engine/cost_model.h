// What is fast on one machine, as numbers.
#pragma once

#include <cstdint>
#include <limits>

namespace fluxion {

// Chooses between correct plans, or correct formulas, for one device; a member of its Capabilities.
// Nothing here changes what is computed, only how fast. The planner, the derivative rules and the
// layers read these numbers (Device::costs) and have none of their own. The defaults suit the CPU.
struct CostModel {
  // Fusion: each reader of a value recomputes it if it takes at most this many elementwise ops
  // from at most this many values in memory, ...
  int max_recomputed_ops = 24;
  int max_recomputed_sources = 4;
  // ... and reading those takes at most this many times the bytes of the value itself.
  double max_source_bytes = 1.25;
  // At most this many ops are recomputed for a reader that is larger than the value, and so
  // computes each element many times. A transcendental op never is.
  int max_stretched_ops = 4;

  // A row that stays resident between its reduction and the ops after it is the work of one core.
  // A kernel with fewer rows than this, ...
  std::int64_t min_resident_rows = 16;
  // ... each of more elements than this, is split at the reduction.
  std::int64_t max_lonely_row = 4096;

  // A sum of at most this many elements that are not adjacent in memory, ...
  std::int64_t max_summed_views = 9;
  // ... in rows of at least this many elements, is a sum of views, not a reduction.
  std::int64_t min_summed_row = 8;

  // Both operands of the gradient of a convolution's weights are packed, the left one in strips of
  // a tile's few rows, the right one in those of whole vectors. So the narrower one is best on the
  // left, where it is the cotangent, of at most this many channels. (Fewer columns than a vector
  // has lanes would waste the others.)
  std::int64_t max_turned_channels = std::numeric_limits<std::int64_t>::max();

  // A depthwise convolution (one kernel per channel) is a weighted sum of views of the image; if
  // false, one small product per channel.
  bool depthwise_as_views = true;
  // An image with fewer channels than this is padded one row of pixels at a time.
  std::int64_t min_padded_channels = 16;

  // Group norm sums each channel over its pixels first, then over the channels of a group; if
  // false, over both at once.
  bool group_norm_by_channel = true;

  // How many directions an exact trace of a Jacobian pushes through the network at once.
  std::int64_t tangents_at_once = 64;
};

}  // namespace fluxion
