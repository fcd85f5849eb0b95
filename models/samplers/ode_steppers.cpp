// Steppers of the probability-flow ODE dz/dt = v(z, t).
#include "engine/graph/ops.h"
#include "models/samplers/runge_kutta.h"
#include "models/samplers/sampler.h"
#include "models/samplers/steppers.h"

namespace fluxion {
namespace {

// Whether the velocity of the network's path can be asked for where there is no noise.
bool defined_without_noise(const SamplerOptions& options) {
  const PathKind path = options.path.kind;
  return (options.prediction == Prediction::velocity ||
          options.prediction == Prediction::average_velocity) &&
         (path == PathKind::linear || path == PathKind::trig || path == PathKind::trigflow);
}

// The kind of step i: near the data, kinds that would evaluate the velocity where it is not defined
// give way to the best one that doesn't.
SamplerKind last_kind(SamplerKind kind) {
  if (kind == SamplerKind::ode_heun) return SamplerKind::ode_euler;
  if (kind == SamplerKind::ode_rk4) return SamplerKind::ode_midpoint;
  return kind;
}

// The network as a velocity that takes both times, for sampler_step. One that has learned
// velocities alone knows no times that differ.
Velocity velocity_of(const LabelledPredictor& network, SamplerKind kind) {
  if (kind == SamplerKind::meanflow && network.predictor.prediction == Prediction::average_velocity)
    return network.predictor.network;
  return [&network](const Tensor& z, const Times& times, const Tensor&) {
    return network(Prediction::velocity, z, times.t);
  };
}

}  // namespace

Stepper single_stepper(const SamplerOptions& options) {
  Stepper stepper;
  stepper.path = options.path;
  // On ve, no noise is at no time.
  const bool to_data = options.path.kind != PathKind::ve;
  stepper.grid = time_grid(options, options.path, to_data);
  const std::size_t last = stepper.grid.size() - 2;
  // On vp and sub-vp sigma is like the root of t where t is 0: no tangent leads there, and the step
  // is to the data seen. (Euler's is that, too, on the other paths.)
  const bool rooted = options.path.kind == PathKind::vp || options.path.kind == PathKind::sub_vp;
  const bool other_last = to_data && !defined_without_noise(options) &&
                          (rooted || last_kind(options.kind) != options.kind);
  stepper.call = [grid = stepper.grid, last, other_last](std::size_t i) -> Stepper::Call {
    return {i == last && other_last ? 1 : 0, {grid[i].t, grid[i + 1].t}};
  };
  stepper.step = [kind = options.kind, rooted](int form, const LabelledPredictor& network,
                                               const StepInput& input) -> StepOutput {
    if (form == 1 && rooted) return {network(Prediction::data, input.z, input.numbers[0])};
    const SamplerKind used = form == 1 ? last_kind(kind) : kind;
    return {sampler_step(used, velocity_of(network, used), input.z, input.numbers[0],
                         input.numbers[1], network.labels)};
  };
  return stepper;
}

Stepper adaptive_stepper(const SamplerOptions& options) {
  Stepper stepper;
  stepper.path = options.path;
  SamplerOptions ends = options;
  ends.steps = 1;
  ends.grid = GridKind::uniform;
  stepper.grid = time_grid(ends, options.path, defined_without_noise(options));
  stepper.most_tries = options.steps;
  const double from = stepper.grid.front().t, to = stepper.grid.back().t;
  const AdaptiveOptions control{options.relative_tolerance, options.absolute_tolerance,
                                options.per_sample_error};
  const auto slope_of = [](const LabelledPredictor& network) {
    return [&network](const Tensor& z, const Tensor& t) {
      return network(Prediction::velocity, z, t);
    };
  };
  const auto number = [](const Tensor& like, double value) {
    return full({}, value, like.dtype(), like.device());
  };
  std::vector<double> times;
  for (std::int64_t i = 1; i <= options.shown_steps; ++i)
    times.push_back(i == options.shown_steps ? to
                                             : from + (to - from) * static_cast<double>(i) /
                                                          static_cast<double>(options.shown_steps));
  // Memory: time, step, velocity and whether the last try failed; with states to show, where it
  // began and those.
  stepper.start = [=](const LabelledPredictor& network, const Tensor& z,
                      const Tensor&) -> std::vector<Tensor> {
    const AdaptiveState state =
        adaptive_start(slope_of(network), z, number(z, from), number(z, to), control);
    std::vector<Tensor> memory{state.t, state.h, state.slope, state.rejected};
    if (!times.empty()) {
      memory.push_back(expand_dims(z, 0));
      memory.push_back(
          zeros(with_leading_axis(std::ssize(times), z.shape()), z.dtype(), z.device()));
    }
    return memory;
  };
  stepper.call = [](std::size_t) -> Stepper::Call { return {}; };
  stepper.step = [=](int, const LabelledPredictor& network, const StepInput& input) -> StepOutput {
    const AdaptiveState state{.y = input.z,
                              .t = input.memory[0],
                              .h = input.memory[1],
                              .slope = input.memory[2],
                              .rejected = input.memory[3]};
    DenseOutput dense{.times = times, .states = times.empty() ? Tensor() : input.memory[5]};
    const AdaptiveState next = adaptive_step(slope_of(network), state, number(input.z, to), control,
                                             times.empty() ? nullptr : &dense);
    std::vector<Tensor> memory{next.t, next.h, next.slope, next.rejected};
    if (!times.empty()) memory.insert(memory.end(), {input.memory[4], dense.states});
    return {next.y, memory};
  };
  if (!times.empty())
    stepper.shown = [](const std::vector<Tensor>& memory) {
      return concat({memory[4], memory[5]}, 0);
    };
  stepper.unfinished = [=](const std::vector<Tensor>& memory) {
    return ne(memory[0], number(memory[0], to));
  };
  stepper.stuck = [=](const std::vector<Tensor>& memory) {
    const AdaptiveState state{
        .y = {}, .t = memory[0], .h = memory[1], .slope = memory[2], .rejected = memory[3]};
    return adaptive_stuck(state, number(memory[0], to));
  };
  return stepper;
}

}  // namespace fluxion
