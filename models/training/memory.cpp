#include "models/training/memory.h"

#include <algorithm>

#include "models/data/prefetch.h"

namespace fluxion {

namespace {

// Code, libraries, plans, thread stacks, pictures, and what the allocator keeps.
constexpr std::uint64_t fixed_bytes = std::uint64_t{48} << 20;
// Batches that are made ahead, and the one that is copied to the device.
constexpr std::uint64_t host_batches = 12;

}  // namespace

std::uint64_t run_memory(const TrainingConfig& config, const MemoryReport& step, bool paired) {
  const auto floats = [](std::int64_t count) {
    return static_cast<std::uint64_t>(count) * sizeof(float);
  };
  const std::uint64_t batch =
      floats(config.batch) *
      static_cast<std::uint64_t>(sample_shape(config.network).elements() + 1);
  // A model file is sampled from and written while the state stays where it is: one set of weights
  // and its packed copies.
  const std::uint64_t weights = floats(parameter_count(config.network));
  const std::uint64_t noise = paired || gives_noise(config.coupling) ? host_batches * batch : 0;
  // Every thread that couples a batch holds its costs and a plan.
  std::uint64_t coupling = 0;
  if (config.coupling.kind != CouplingKind::independent)
    coupling = 4 * sizeof(double) * static_cast<std::uint64_t>(usual_prefetch_threads()) *
               static_cast<std::uint64_t>(config.batch) * static_cast<std::uint64_t>(config.batch);
  return step.peak_bytes() + host_batches * batch + noise + coupling + 2 * weights + fixed_bytes;
}

std::int64_t largest_batch(TrainingConfig config, const Device& device, std::uint64_t bytes,
                           std::int64_t most, bool paired) {
  const auto needed = [&](std::int64_t batch) {
    config.batch = batch;
    return run_memory(config, step_memory(config, device, paired), paired);
  };
  const auto power_below = [](double value) {
    std::int64_t power = 1;
    while (static_cast<double>(2 * power) <= value) power *= 2;
    return power;
  };
  most = power_below(static_cast<double>(std::max<std::int64_t>(most, 1)));
  if (needed(1) > bytes) return 0;
  // Memory is nearly a straight line over the batch: two points give a guess, which is then tried.
  constexpr std::int64_t near = 4, far = 16;
  const double at_near = static_cast<double>(needed(near)),
               slope = (static_cast<double>(needed(far)) - at_near) / (far - near);
  double guess = static_cast<double>(most);
  if (slope > 0) guess = std::min(guess, near + (static_cast<double>(bytes) - at_near) / slope);
  std::int64_t batch = power_below(std::max(guess, 1.0));
  while (batch > 1 && needed(batch) > bytes) batch /= 2;
  while (2 * batch <= most && needed(2 * batch) <= bytes) batch *= 2;
  return batch;
}

}  // namespace fluxion
