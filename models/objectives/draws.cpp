#include "models/objectives/draws.h"

#include <algorithm>
#include <cmath>

#include "engine/graph/ops.h"
#include "models/layers/layers.h"

namespace fluxion {

Tensor Labels::dropped() const {
  if (!label || !drop_mask) return label;
  return where(drop_mask, static_cast<double>(null_class), label);
}

Tensor Labels::null() const {
  return label ? full_like(label, static_cast<double>(null_class)) : label;
}

Tensor interpolate(const Tensor& x, const Tensor& e, const Tensor& t) {
  const Tensor time = per_sample(t, x.rank());
  return (1.0 - time) * x + time * e;
}

FlowDraws rows(const FlowDraws& draws, std::int64_t begin, std::int64_t end) {
  const auto part = [&](const Tensor& tensor) {
    return tensor ? slice_axis(tensor, 0, begin, end) : tensor;
  };
  FlowDraws result = draws;
  for (Tensor* tensor : {&result.x, &result.e, &result.t, &result.r, &result.equal_mask,
                         &result.labels.label, &result.labels.drop_mask})
    *tensor = part(*tensor);
  return result;
}

std::int64_t unequal_rows(const DrawOptions& options, std::int64_t batch) {
  const auto rows = static_cast<std::int64_t>(
      std::llround((1 - options.equal_share) * static_cast<double>(batch)));
  const std::int64_t most = options.equal_share > 0 && batch > 1 ? batch - 1 : batch;
  return std::clamp<std::int64_t>(rows, options.equal_share < 1 ? 1 : 0, most);
}

std::int64_t unequal_rows_beside_equal(const DrawOptions& options, std::int64_t batch) {
  if (batch == 1 && options.equal_share > 0 && options.equal_share < 1)
    throw Error(
        "objective: some rows learn the velocity and others the map, and a batch of 1 has no two; "
        "take a batch of 2 or more");
  return unequal_rows(options, batch);
}

FlowDraws draw(const DrawOptions& options, const Tensor& x, const Tensor& labels,
               std::int64_t num_classes, const Tensor& key) {
  const std::int64_t batch = x.size(0);
  const std::vector<Tensor> keys = split_key(key, 4);
  FlowDraws draws;
  draws.x = x;
  draws.e = normal(keys[0], x.shape(), x.dtype());

  const auto times = [&](std::int64_t count) {
    return draw_times(options.times, keys[1], {count, batch}, x.dtype());
  };
  if (options.equal_share >= 1) {
    draws.t = draws.r = reshape(times(1), {batch});
  } else {
    if (options.times.stratified)
      throw Error("objective: two times a row can't both be stratified in one order");
    const Tensor both = times(2);
    draws.t = max(both, {0});
    draws.r = min(both, {0});
  }
  draws.equal_mask = options.fixed_share
                         ? ge(iota({batch}, 0, DType::i32, x.device()),
                              static_cast<double>(unequal_rows(options, batch)))
                         : lt(uniform(keys[2], {batch}, x.dtype()), options.equal_share);
  if (num_classes > 0) {
    if (!labels)
      throw Error("objective: the network has " + std::to_string(num_classes) +
                  " classes, but the batch has no labels");
    draws.labels = {labels, lt(uniform(keys[3], {batch}, x.dtype()), options.label_dropout),
                    num_classes};
  }
  return draws;
}

}  // namespace fluxion
