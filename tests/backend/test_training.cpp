// Training on a device with time of its own: the same bits, and no wait between two steps.
#include "backends/cpu/cpu.h"
#include "models/data/points.h"
#include "models/training/checkpoint.h"
#include "models/training/run.h"
#include "tests/backend/deferred_backend.h"
#include "tests/catch.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

TrainingConfig small_points_config() {
  return {.network = MlpConfig{.hidden = {16, 16}},
          .schedule = {.warm_up_steps = 4},
          .batch = 32,
          .seed = 3};
}

std::vector<std::vector<float>> trained_values(const Trainer& trainer) {
  std::vector<std::vector<float>> values;
  for (const Tensor& tensor : leaves(trainer.state()))
    if (tensor.dtype() == DType::f32) values.push_back(tensor.to_host<float>());
  return values;
}

struct Ran {
  std::vector<std::vector<float>> state;
  std::vector<double> losses;
  std::vector<std::int64_t> reported;
};
Ran ran_on(const Device& device, int steps) {
  Ran ran;
  Trainer trainer(small_points_config(), moons(), device);
  run_training(trainer, {.steps = steps}, {.folder = {}, .log_every = 3},
               {.report = [&](const RunProgress& progress) {
                 ran.losses.push_back(progress.loss);
                 ran.reported.push_back(progress.step);
               }});
  ran.state = trained_values(trainer);
  return ran;
}

}  // namespace

TEST_CASE("training on a deferred device has the bits, losses and reports of one that is not",
          "[backend][training]") {
  const Ran plain = ran_on(cpu({.threads = 1}), 20);
  for (const RunsWork runs : {RunsWork::on_a_thread, RunsWork::when_waited_for}) {
    const Ran later = ran_on(deferred(cpu({.threads = 1}), {.runs = runs}), 20);
    CHECK(later.state == plain.state);
    CHECK(later.losses == plain.losses);
    CHECK(later.reported == plain.reported);
  }
}

TEST_CASE("a step is submitted before the loss of the one before it is waited for",
          "[backend][training]") {
  using Kind = DeviceLog::Kind;
  const auto log = std::make_shared<DeviceLog>();
  const Device device =
      deferred(cpu({.threads = 1}), {.runs = RunsWork::when_waited_for, .log = log});
  Trainer trainer(small_points_config(), moons(), device);
  trainer.step();
  log->take();
  constexpr int steps = 12;
  run_training(trainer, {.steps = steps}, {.folder = {}, .log_every = 1});
  const std::vector<DeviceLog::Entry> entries = log->take();
  INFO(to_string(entries));
  // Of a step: the point of its submission and of its read, and where its wait came.
  struct Step {
    std::uint64_t read = 0;
    std::size_t submitted = 0, waits = 0, waited = 0;
  };
  std::vector<Step> seen;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const DeviceLog::Entry& entry = entries[i];
    if (entry.kind == Kind::submit) seen.push_back({0, i, 0, 0});
    if (entry.kind == Kind::read) {
      REQUIRE_FALSE(seen.empty());
      CHECK(seen.back().read == 0);  // one read a step
      seen.back().read = entry.point;
    }
    if (entry.kind == Kind::wait)
      for (Step& step : seen)
        if (step.read == entry.point && step.waits++ == 0) step.waited = i;
  }
  REQUIRE(seen.size() == steps - 1);  // one submission a step
  for (std::size_t k = 0; k < seen.size(); ++k) {
    INFO("step " << k);
    CHECK(seen[k].read != 0);
    CHECK(seen[k].waited > 0);
    if (k + 1 < seen.size()) CHECK(seen[k].waited > seen[k + 1].submitted);
    // No more than one step waits to be read.
    if (k + 2 < seen.size()) CHECK(seen[k].waited < seen[k + 2].submitted);
  }
}

TEST_CASE("a run on a deferred device stops and goes on with the same bits",
          "[backend][training][resume]") {
  const ScratchFolder folder;
  const Device device = deferred(cpu({.threads = 1}));
  const Ran whole = ran_on(cpu({.threads = 1}), 20);
  Trainer first(small_points_config(), moons(), device);
  run_training(first, {.steps = 9}, {.folder = folder / "run"});
  Trainer second = resume_trainer(folder / "run/checkpoint.safetensors", moons(), device);
  CHECK(second.steps_done() == 9);
  run_training(second, {.steps = 20}, {.folder = folder / "run"});
  CHECK(trained_values(second) == whole.state);
}

TEST_CASE("a device that is lost in training ends the run with that reason",
          "[backend][training]") {
  for (const RunsWork runs : {RunsWork::on_a_thread, RunsWork::when_waited_for}) {
    const Device device = deferred(cpu({.threads = 1}), {.runs = runs, .dies_at = 60});
    const auto run = [&] {
      Trainer trainer(small_points_config(), moons(), device);
      run_training(trainer, {.steps = 1000});
    };
    CHECK_THROWS_AS(run(), DeviceError);
  }
}
