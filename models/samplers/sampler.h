// Samplers: from noise at time 1 to data at time 0, step by step on a grid; the step is compiled
// once and reused.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "models/samplers/best_steps.h"
#include "models/samplers/solver.h"

namespace fluxion {

// One step from time t to s, [] or [batch] each, h = s - t < 0, of the kinds that need no more than
// that: meanflow, Euler, midpoint, Heun and RK4. Throws Error for the others.
Tensor sampler_step(SamplerKind kind, const Velocity& network, const Tensor& z, const Tensor& t,
                    const Tensor& s, const Tensor& labels = {});

// A network with its parameters, ready to draw samples.
class Sampler {
 public:
  // Throws Error as check(options) and check(steering) do, or for guidance without classes.
  Sampler(NetworkConfig network, Parameters parameters, SamplerOptions options = {},
          const std::optional<Steering>& steering = {});
  // Any callable as the network: of samples of that shape, with `classes` classes and the null
  // class after them (0: none). Path and prediction of the options are the predictor's.
  Sampler(Predictor predictor, Shape sample_shape, std::int64_t classes, DType dtype,
          const Device& device, SamplerOptions options,
          const std::optional<Steering>& steering = {});

  // From standard normal noise [batch, ..] to samples of that shape; labels i32 [batch] or empty.
  // Stochastic samplers draw the noise of samples 0, 1, .. of seed 0 on their way.
  Tensor operator()(const Tensor& noise, const Tensor& labels = {},
                    const RunOptions& run = {}) const;

  // All states on the way, [steps + 1, batch, ..], the noise first; of dopri5, one for each try, or
  // SamplerOptions::shown_steps.
  Tensor path(const Tensor& noise, const Tensor& labels = {}, const RunOptions& run = {}) const;

  // Called after each chunk of `sample` with the number of samples done.
  using Progress = std::function<void(std::int64_t done)>;

  struct Request {
    std::int64_t count = 1, batch = 64;
    std::uint64_t seed = 0;
    std::vector<std::int32_t> labels = {};  // one class per sample, or empty for none
    // [count, ..sample_shape]: standard normal numbers, or points of SamplerOptions::source, that
    // samples begin with, instead of the seed's.
    std::vector<float> noise = {};
    // [..sample_shape]: all samples begin with it under noise (SamplerOptions::begin).
    std::vector<float> data = {};
    Progress progress = {};
    // Called with every state on the way (number 0 where it begins) of samples first, first + 1, ..
    std::function<void(std::size_t state, std::int64_t first, std::span<const float> values)>
        visit = {};
  };
  // Samples, row-major [count, ..sample_shape], in chunks of `batch`; the last chunk is padded so
  // that one compiled step serves all. Without labels they are of the null class where the network
  // has classes. All noise of sample i depends on the seed and i alone, not on count or batch.
  // Throws Error for labels that are not in [0, num_classes] or not one per sample, and for noise
  // or data of another size.
  std::vector<float> sample(const Request& request, const RunOptions& run = {}) const;
  std::vector<float> sample(std::int64_t count, std::int64_t batch, std::uint64_t seed,
                            const std::vector<std::int32_t>& labels = {},
                            const RunOptions& run = {}, const Progress& progress = {}) const {
    return sample(
        {.count = count, .batch = batch, .seed = seed, .labels = labels, .progress = progress},
        run);
  }

  // Bytes that `sample` takes on the host, beside what a step takes on the device.
  static std::uint64_t host_bytes(const Shape& sample_shape, std::int64_t count,
                                  std::int64_t batch);

  // How often the step was traced.
  std::size_t traces() const;
  // Where the steps lie, noise first; of dopri5 its ends. With the costs of GridKind::best, where
  // it was looked for.
  const TimeGrid& grid() const;
  const std::optional<BestSteps>& best() const;
  // Network evaluations of a sample, as counted while sampling: the mean over all samples so far, 0
  // before the first. Guided ones count twice.
  double evaluations() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

// The steps that GridKind::best asks for: on the ways of some samples of the network, of each class
// in turn. Throws Error for other grids.
BestSteps find_best_steps(const SamplerOptions& options, const Predictor& predictor,
                          const Shape& sample_shape, std::int64_t classes, DType dtype,
                          const Device& device);
// The same options with the times of that grid: no steps are looked for again.
SamplerOptions with_times(SamplerOptions options, const TimeGrid& grid);

}  // namespace fluxion
