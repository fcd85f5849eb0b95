// Dynamic loss scaling (Micikevicius et al. 2018, "Mixed Precision Training"): the loss is
// multiplied by a power of two before it is differentiated and the gradient divided by it, so that
// cotangents stay in the range of f16. Too large a scale shows as a gradient that is not finite.
#pragma once

#include "engine/graph/tree.h"

namespace fluxion {

struct LossScaleOptions {
  double initial = 32768;             // 2^15
  double least = 1, most = 16777216;  // 2^24
  std::int64_t interval = 1000;       // finite gradients in a row after which the scale doubles
  bool operator==(const LossScaleOptions&) const = default;
};
// Throws Error, saying what would be right, unless least <= initial <= most are powers of two that
// f32 holds and interval is at least 1.
void check(const LossScaleOptions& options);

struct LossScale {
  Tensor scale;    // f32
  Tensor finite;   // i32, finite gradients since the scale last changed
  Tensor skipped;  // i32, gradients so far that were not finite
  static auto members(auto& self) { return std::tie(self.scale, self.finite, self.skipped); }
};

LossScale initial_loss_scale(const LossScaleOptions& options, const Device& device);

// After a gradient: halved if it was not finite, doubled after `interval` that were.
LossScale next_loss_scale(const LossScaleOptions& options, const LossScale& now,
                          const Tensor& gradient_is_finite);

// A bool scalar: whether a norm is finite, and so is all that it is the norm of.
Tensor is_finite_norm(const Tensor& norm);

}  // namespace fluxion
