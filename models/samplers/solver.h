// A stepper at work: its step compiled once, whatever the number of steps, and run from noise to
// data. The calls of the network are counted where they happen.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "engine/export/sample_noise.h"
#include "engine/graph/ops.h"
#include "models/samplers/steering.h"

namespace fluxion {

// The standard normal numbers of samples first, first + 1, .., [count, ..sample]: those of sample i
// depend on the key u32[2] and on i alone.
struct NoiseRows {
  Tensor key;
  std::int64_t first = 0;
};

// v_null + scale (v_label - v_null), as one call of the network on the doubled batch, for networks
// that learned both; scale 1 is no guidance. Outside of the times [low, high] the scale is 1.
Velocity guided(const Velocity& network, const Operand& scale, std::int64_t null_class,
                double low = 0, double high = 1e30);

// The predictor as the steps of `stepper` ask it: guided, and on the stepper's path. Path and
// prediction of the options are the predictor's own. `guidance`, a scalar, is a scale to be chosen
// later in place of that of the options.
Predictor stepped(Predictor predictor, const SamplerOptions& options, const Stepper& stepper,
                  std::int64_t null_class, const Tensor& guidance = {});

// A batch that a solver takes to data.
struct SolverBatch {
  Tensor noise;        // standard normal, [batch, ..]
  Tensor labels = {};  // i32 [batch]; empty for networks without classes
  // [..] or [batch, ..]: it begins at alpha data + sigma noise, with the numbers of the grid's
  // first point. Empty: at sigma noise.
  Tensor data = {};
  // Or at what this makes of the noise.
  std::function<Tensor(const Tensor& noise)> start = {};
  NoiseRows rows = {};     // of what stochastic steps draw
  std::int64_t used = -1;  // of the samples, those that count in evaluations(); -1: all
  // Sees every state on the way, that at the beginning first; of an empty batch as many, but that
  // of error control it sees no tries.
  std::function<void(const Tensor& z)> visit = {};
};

class Solver {
 public:
  // path and prediction of the options are the predictor's. null_class is that of guidance. Throws
  // Error as check(options) and steered() do.
  Solver(Predictor predictor, const SamplerOptions& options, std::int64_t null_class = 0,
         const std::optional<Steering>& steering = {});

  // To samples. Throws Error where error control does not arrive in options.steps tries.
  Tensor run(const SolverBatch& batch, const RunOptions& run = {}) const;

  const TimeGrid& grid() const;
  const Path& path() const;    // that it walks on
  std::size_t traces() const;  // of the step
  // Network evaluations of a sample, the mean over all since the solver was made; 0 before. Guided
  // ones count twice.
  double evaluations() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace fluxion
