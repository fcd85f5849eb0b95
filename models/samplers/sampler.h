// Samplers: from noise at time 1 to data at time 0, step by step on an even grid; the step is
// compiled once and reused.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "models/networks/network.h"

namespace fluxion {

enum class SamplerKind {
  meanflow,   // z + h u(z, t, s): one network call per step, exact for a perfect average velocity
  ode_euler,  // on v(z, t) = u(z, t, t): one call
  ode_heun,   // two calls
  ode_rk4,    // the classical Runge-Kutta step: four calls
};
std::string to_string(SamplerKind kind);
SamplerKind sampler_kind_from(const std::string& name);  // throws FormatError for an unknown name

// One step from time t to s, [] or [batch] each, h = s - t < 0.
Tensor sampler_step(SamplerKind kind, const Velocity& network, const Tensor& z, const Tensor& t,
                    const Tensor& s, const Tensor& labels = {});

// v_null + scale (v_label - v_null), as one call of the network on the doubled batch. For networks
// that learned both; scale 1 is no guidance.
Velocity guided(const Velocity& network, double scale, std::int64_t null_class);

struct SamplerOptions {
  SamplerKind kind = SamplerKind::meanflow;
  std::int64_t steps = 1;
  double guidance = 1;  // classifier-free guidance scale of velocity models; 1: none
};

// A network with its parameters, ready to draw samples.
class Sampler {
 public:
  // Throws Error for steps < 1, or for guidance without classes.
  Sampler(NetworkConfig network, Parameters parameters, SamplerOptions options = {});

  // From noise [batch, ..] to samples of that shape; labels i32 [batch] or empty.
  Tensor operator()(const Tensor& noise, const Tensor& labels = {},
                    const RunOptions& run = {}) const;

  // All states on the way, [steps + 1, batch, ..], the noise first.
  Tensor path(const Tensor& noise, const Tensor& labels = {}, const RunOptions& run = {}) const;

  // Called after each chunk of `sample` with the number of samples done.
  using Progress = std::function<void(std::int64_t done)>;

  // `count` samples, row-major [count, ..sample_shape], in chunks of `batch`; the last chunk is
  // padded so that one compiled step serves all. labels: one class per sample, or empty for none
  // (the null class where the network has classes). Sample i starts from noise that depends on the
  // seed and i alone, not on count or batch. Throws Error for labels that are not in [0,
  // num_classes] or not one per sample.
  std::vector<float> sample(std::int64_t count, std::int64_t batch, std::uint64_t seed,
                            const std::vector<std::int32_t>& labels = {},
                            const RunOptions& run = {}, const Progress& progress = {}) const;

  // Bytes that `sample` takes on the host, beside what a step takes on the device.
  static std::uint64_t host_bytes(const Shape& sample_shape, std::int64_t count,
                                  std::int64_t batch);

  // How often the step was traced.
  std::size_t traces() const;
  // Network evaluations per sample.
  std::int64_t evaluations() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace fluxion
