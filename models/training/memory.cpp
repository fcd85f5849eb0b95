#include "models/training/memory.h"

#include <algorithm>
#include <map>

#include "engine/plan_cache.h"
#include "engine/platform/machine.h"
#include "models/data/prefetch.h"

namespace fluxion {

namespace {

// Code, libraries, thread stacks, pictures, and what the allocator keeps.
constexpr std::uint64_t fixed_bytes = std::uint64_t{44} << 20;
// A step's trace, plan and executable, for each of its kernels: measured, 15 to 20 KiB.
constexpr std::uint64_t kernel_bytes = std::uint64_t{20} << 10;
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
  const std::uint64_t plan = kernel_bytes * static_cast<std::uint64_t>(step.kernels);
  return step.peak_bytes() + host_batches * batch + noise + coupling + 2 * weights + plan +
         fixed_bytes;
}

std::int64_t largest_batch(TrainingConfig config, const Device& device, std::uint64_t bytes,
                           std::int64_t most, bool paired) {
  // A plan may be as large as what it plans for: the device keeps that of one batch at a time.
  std::map<std::int64_t, std::uint64_t> tried;
  std::int64_t planned = 0;
  const auto forget_plan = [&] {
    if (planned == 0) return;
    planned = 0;
    device.plans().forget_latest();
    release_freed_memory();
  };
  const auto needed = [&](std::int64_t batch) {
    const auto [found, is_new] = tried.try_emplace(batch, 0);
    if (!is_new) return found->second;
    forget_plan();
    config.batch = batch;
    found->second = run_memory(config, step_memory(config, device, paired), paired);
    planned = batch;
    return found->second;
  };
  const auto power_below = [](double value) {
    std::int64_t power = 1;
    while (static_cast<double>(2 * power) <= value) power *= 2;
    return power;
  };
  most = power_below(static_cast<double>(std::max<std::int64_t>(most, 1)));
  if (needed(1) > bytes) {
    forget_plan();
    return 0;
  }
  // Memory is nearly a straight line over the batch: two points give a guess, which is then tried.
  constexpr std::int64_t near = 4, far = 16;
  const double at_near = static_cast<double>(needed(near)),
               slope = (static_cast<double>(needed(far)) - at_near) / (far - near);
  double guess = static_cast<double>(most);
  if (slope > 0) guess = std::min(guess, near + (static_cast<double>(bytes) - at_near) / slope);
  std::int64_t batch = power_below(std::max(guess, 1.0));
  while (batch > 1 && needed(batch) > bytes) batch /= 2;
  while (2 * batch <= most && needed(2 * batch) <= bytes) batch *= 2;
  if (planned != batch) forget_plan();
  return batch;
}

}  // namespace fluxion
