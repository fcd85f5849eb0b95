// The random part of a training step, made from a key inside the graph, and the interpolant that
// all flow objectives share.
#pragma once

#include "models/networks/network.h"
#include "models/objectives/times.h"

namespace fluxion {

// Labels of a batch: `label` i32 [batch], and `drop_mask` bool [batch], true where the null class
// is used instead. Both empty without classes.
struct Labels {
  Tensor label, drop_mask;
  std::int64_t null_class = 0;

  explicit operator bool() const { return static_cast<bool>(label); }
  // drop_mask ? null_class : label; empty without classes.
  Tensor dropped() const;
  // The null class for every row.
  Tensor null() const;
};

// z = (1 - t) x + t e, with t [batch] broadcast over the samples.
Tensor interpolate(const Tensor& x, const Tensor& e, const Tensor& t);

// What a flow objective draws: x and e [batch, ..], times t >= r [batch], rows whose r is to be t,
// labels.
struct FlowDraws {
  Tensor x, e, t, r;
  Tensor equal_mask;  // bool [batch]
  Labels labels;
};

// The same for rows [begin, end) of the batch.
FlowDraws rows(const FlowDraws& draws, std::int64_t begin, std::int64_t end);

struct DrawOptions {
  TimeSampler times = {};
  double equal_share = 0.75;  // of the rows, those with r = t
  bool fixed_share = false;   // the last rows of the batch have r = t, instead of random ones
  double label_dropout = 0.1;
};

// The number of leading rows with r != t under fixed_share: round((1 - equal_share) batch), at
// least 1 unless equal_share is 1, and not all unless it is 0 or the batch is 1.
std::int64_t unequal_rows(const DrawOptions& options, std::int64_t batch);
// The same where only both kinds together learn from the data: throws Error where a batch of 1 has
// room for one.
std::int64_t unequal_rows_beside_equal(const DrawOptions& options, std::int64_t batch);

// e ~ N(0, I); t and r the later and earlier of two times, or one and the same if equal_share is 1;
// masks. `labels` is empty without classes (num_classes 0). key u32[2].
FlowDraws draw(const DrawOptions& options, const Tensor& x, const Tensor& labels,
               std::int64_t num_classes, const Tensor& key);

}  // namespace fluxion
