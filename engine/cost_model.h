// What suits one machine.
#pragma once

#include <cstdint>

namespace fluxion {

// Decides between two right plans, or two right formulas, for one device: a member of its
// Capabilities. Nothing here changes what is computed, only how fast. The planner, derivative rules
// and layers ask for these numbers (Device::costs); none of them has such a number of its own.
// The defaults are the CPU's.
struct CostModel {
  // Fusion: a value with several readers is computed again by each of them if it takes at most this
  // many elementwise ops from at most this many values in memory, ...
  int max_recomputed_ops = 24;
  int max_recomputed_sources = 4;
  // ... and reading those takes at most this many times the bytes of the value itself.
  double max_source_bytes = 1.25;
  // The most ops where every element would be computed many times, because its reader is larger.
  // (Never a transcendental one.)
  int max_stretched_ops = 4;

  // A row that stays resident between its reduction and what follows is the work of one core:
  // kernels that have fewer rows than this, ...
  std::int64_t min_resident_rows = 16;
  // ... each of more elements than this, are split at the reduction.
  std::int64_t max_lonely_row = 4096;

  // A sum of at most this many elements that lie apart, ...
  std::int64_t max_summed_views = 9;
  // ... in rows of at least this many elements, is a sum of views, not a reduction.
  std::int64_t min_summed_row = 8;

  // Products of fewer columns than this waste vectors: the transpose, which has as few rows, is
  // computed instead.
  std::int64_t min_product_columns = 8;

  // Convolutions with a kernel of their own for each channel (depthwise): a weighted sum of views
  // of the image; if false, one small product a channel.
  bool depthwise_as_views = true;
  // Images of fewer channels than this are padded a row of pixels at a time.
  std::int64_t min_padded_channels = 16;

  // Group norm sums over pixels first, each channel for itself, then over the channels of a group;
  // if false, over both together.
  bool group_norm_by_channel = true;

  // Directions in which a network is differentiated at once where a trace is exact.
  std::int64_t tangents_at_once = 64;
};

}  // namespace fluxion
