// The noise that samples begin with: that of sample i depends on a key and on i alone, whatever the
// batch and the count. It is drawn in blocks of samples_per_key samples, block b from
// normal(fold_in(key, b)).
#pragma once

#include <vector>

#include "engine/backend.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"

namespace fluxion {

inline constexpr std::int64_t samples_per_key = 64;

// The keys of a seed: of the noise that samples begin with, and of what stochastic steps draw on
// their way: fold_in(fold_in(of_steps, step), draw).
struct NoiseKeys {
  Tensor of_start, of_steps;
};
NoiseKeys noise_keys(std::uint64_t seed, const Device& device);

// Draws noise of one kind of sample. The last block is kept, so that rows in order cost no more
// than their number.
class SampleNoise {
 public:
  SampleNoise(Shape sample_shape, DType dtype, const Device& device);
  // Samples first .. first + count of this key, as f32, row-major [count, ..sample_shape], into
  // `to`. Not from several threads at once.
  void draw(const Tensor& key, std::int64_t first, std::int64_t count, std::span<float> to,
            const RunOptions& run = {});
  // What drawing a block needs, beside the key.
  std::size_t bytes() const;

 private:
  using Block = std::function<Tensor(const Tensor& key, const Tensor& number)>;
  Device device_;
  std::size_t elements_;
  Compiled<Block> block_;
  Tensor key_;                // that `kept_` was drawn from
  std::int64_t number_ = -1;  // of the block that `kept_` holds
  std::vector<float> kept_;
};

}  // namespace fluxion
