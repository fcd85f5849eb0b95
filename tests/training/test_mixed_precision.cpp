// Training in 16 bits: loss scaling, its place in checkpoints and logs, and losses near those in
// f32.
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/graph/ops.h"
#include "models/data/glyphs.h"
#include "models/data/points.h"
#include "models/optimisers/optimiser.h"
#include "models/training/checkpoint.h"
#include "models/training/run.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

TrainingConfig mixed_points(const std::string& precision) {
  return {.network = MlpConfig{.hidden = {16, 16}},
          .optimiser = {.clip_norm = 1, .ema_decays = {0.9, 0.99}},
          .schedule = {.warm_up_steps = 4},
          .batch = 32,
          .seed = 3,
          .precision = precision_from(precision)};
}

TrainingConfig mixed_digits(const std::string& precision) {
  return {.network = DitConfig{.image_size = 8,
                               .patch_size = 4,
                               .hidden_size = 16,
                               .depth = 1,
                               .num_heads = 2,
                               .num_classes = 10},
          .batch = 8,
          .seed = 5,
          .precision = precision_from(precision)};
}

// A scale at which the first gradients of mixed_points overflow, and which is found again soon.
LossScaleOptions overflowing() { return {.initial = 0x1p30, .most = 0x1p40, .interval = 3}; }

std::vector<std::vector<std::byte>> bits_of(const TrainState& state) {
  std::vector<std::vector<std::byte>> result;
  for (const Tensor& tensor : leaves(state)) result.push_back(host_bytes(tensor));
  return result;
}

double scale_of(const Trainer& trainer) {
  return trainer.state().loss_scale.at(0).scale.item<float>();
}
std::int32_t skipped_by(const Trainer& trainer) {
  return trainer.state().loss_scale.at(0).skipped.item<std::int32_t>();
}

void check_goes_on(const TrainingConfig& config, const std::shared_ptr<const DataSet>& data) {
  const ScratchFolder folder;
  const Device device = cpu({.threads = 1});
  Trainer whole(config, data, device), first(config, data, device);
  for (int i = 0; i < 24; ++i) whole.step();
  for (int i = 0; i < 13; ++i) first.step();
  write_checkpoint(folder / "c", first, 1.5);
  CHECK(read_checkpoint_info(folder / "c").config == config);
  CHECK(checkpoint_bytes(config) < std::filesystem::file_size(folder / "c"));
  Trainer second = resume_trainer(folder / "c", data, device);
  CHECK(second.config() == config);
  CHECK(bits_of(second.state()) == bits_of(first.state()));
  for (int i = 13; i < 24; ++i) second.step();
  CHECK(bits_of(second.state()) == bits_of(whole.state()));
  CHECK(second.traces() == 1);
}

double error_over(Trainer& trainer, int from, int to) {
  double total = 0;
  for (int i = 0; i < to; ++i) {
    const StepMetrics metrics = trainer.step();
    if (i >= from) total += metrics.error.item<float>();
  }
  return total / (to - from);
}

}  // namespace

TEST_CASE("a loss scale halves at once, doubles after an interval, and stays in its limits",
          "[training][precision]") {
  for (const Device& device : {cpu({.threads = 1}), reference()}) {
    const LossScaleOptions options{.initial = 8, .least = 2, .most = 16, .interval = 2};
    LossScale now = initial_loss_scale(options, device);
    const auto after = [&](bool finite) {
      const Tensor norm = full({}, finite ? 3.0 : INFINITY, DType::f32, device);
      now = next_loss_scale(options, now, is_finite_norm(norm));
      return std::pair(now.scale.item<float>(), now.skipped.item<std::int32_t>());
    };
    CHECK(after(true) == std::pair(8.0f, 0));
    CHECK(after(true) == std::pair(16.0f, 0));
    CHECK(after(true) == std::pair(16.0f, 0));
    CHECK(after(true) == std::pair(16.0f, 0));  // the most
    CHECK(after(true) == std::pair(16.0f, 0));
    CHECK(after(false) == std::pair(8.0f, 1));
    CHECK(after(true) == std::pair(8.0f, 1));  // the count began anew
    CHECK(after(false) == std::pair(4.0f, 2));
    CHECK(after(false) == std::pair(2.0f, 3));
    CHECK(after(false) == std::pair(2.0f, 4));  // the least
    CHECK(after(true) == std::pair(2.0f, 4));
    CHECK(after(true) == std::pair(4.0f, 4));
  }
  const Device device = cpu({.threads = 1});
  for (const double norm : {0.0, 1.0, 3.4e38})
    CHECK(is_finite_norm(full({}, norm, DType::f32, device)).item<bool>());
  for (const double norm : {double(INFINITY), double(NAN)})
    CHECK_FALSE(is_finite_norm(full({}, norm, DType::f32, device)).item<bool>());
  for (const LossScaleOptions& wrong :
       {LossScaleOptions{.initial = 3}, LossScaleOptions{.initial = 0},
        LossScaleOptions{.least = -1}, LossScaleOptions{.most = INFINITY},
        LossScaleOptions{.initial = 0.5}, LossScaleOptions{.initial = 0x1p30},
        LossScaleOptions{.interval = 0}})
    CHECK_THROWS_WITH(check(wrong), Catch::Contains("loss scale"));
}

TEST_CASE("an update whose gradient overflows f16 is skipped as a whole and halves the scale",
          "[training][precision]") {
  for (const Device& device : {cpu({.threads = 1}), reference()}) {
    TrainingConfig config = mixed_points("f16");
    config.loss_scale = overflowing();
    Trainer trainer(config, moons(), device);
    int skipped = 0;
    while (skipped < 60) {
      // The trainer takes its own buffers over: the bits are copied before.
      auto before = bits_of(trainer.state());
      const double scale = scale_of(trainer);
      const StepMetrics metrics = trainer.step();
      CHECK(metrics.loss_scale.item<float>() == scale);
      CHECK(std::isfinite(metrics.loss.item<float>()));
      auto after = bits_of(trainer.state());
      if (std::isfinite(metrics.gradient_norm.item<float>())) {
        CHECK(after != before);
        break;
      }
      ++skipped;
      CHECK(scale_of(trainer) == scale / 2);
      CHECK(skipped_by(trainer) == skipped);
      CHECK(trainer.steps_done() == skipped);
      // All but the step and the loss scale, which come last.
      before.resize(before.size() - 4), after.resize(after.size() - 4);
      CHECK(after == before);
    }
    CHECK(skipped > 1);
    CHECK(skipped < 60);
    // Three finite gradients in a row: twice the scale.
    const double scale = scale_of(trainer);
    trainer.step();
    CHECK(scale_of(trainer) == scale);
    trainer.step();
    CHECK(scale_of(trainer) == 2 * scale);
  }
}

TEST_CASE("skipped updates don't count in Adam's bias corrections or the averages' warm-up",
          "[training][precision]") {
  const Device device = cpu({.threads = 1});
  const auto number = [&](double value) {
    return Parameters{{"w", Tensor::from(std::vector<float>{float(value)}, {1}, device)}};
  };
  const Tensor rate = Tensor::from(std::vector<float>{0.1f}, {}, device);
  TrainState plain = make_train_state(number(2)), scaled = make_train_state(number(2));
  scaled.loss_scale.push_back(initial_loss_scale({}, device));
  for (const double g : {1.0, double(INFINITY), -2.0, double(NAN), 3.0}) {
    if (std::isfinite(g)) plain = update({}, plain, number(g), rate).state;
    scaled = update({}, scaled, number(g), rate).state;
    CHECK(scaled.parameters.at("w").item<float>() == plain.parameters.at("w").item<float>());
    CHECK(scaled.ema[0].at("w").item<float>() == plain.ema[0].at("w").item<float>());
  }
  CHECK(scaled.step.item<std::int32_t>() == 5);
  CHECK(scaled.loss_scale[0].skipped.item<std::int32_t>() == 2);
}

TEST_CASE("a run in 16 bits that stops and goes on has the bits of one that never stopped",
          "[training][precision][resume]") {
  for (const char* precision : {"bf16", "f16"}) {
    INFO(precision);
    check_goes_on(mixed_digits(precision), glyphs(8));
    TrainingConfig config = mixed_points(precision);
    config.loss_scale = overflowing();  // steps are skipped before and after the checkpoint
    config.loss_scale.interval = 2;
    check_goes_on(config, moons());
  }
}

TEST_CASE("200 steps of MeanFlow on 8gaussians in 16 bits have errors near those in f32",
          "[training][precision]") {
  const auto error = [](const char* precision) {
    TrainingConfig config{.network = MlpConfig{.hidden = {64, 64}, .frequencies = 3},
                          .method = configure("meanflow", {{"power", 0}, {"direction", "network"}}),
                          .schedule = {.learning_rate = 2e-3, .warm_up_steps = 20},
                          .batch = 256,
                          .seed = 1,
                          .precision = precision_from(precision)};
    Trainer trainer(config, eight_gaussians(), cpu({.threads = 1}));
    return error_over(trainer, 100, 200);
  };
  const double exact = error("f32");
  CHECK(std::abs(error("bf16") / exact - 1) < 2e-3);
  CHECK(std::abs(error("f16") / exact - 1) < 5e-4);
}

TEST_CASE("the log of a scaled run has the scale and what was skipped, and goes on",
          "[training][precision][resume]") {
  const ScratchFolder folder;
  const std::shared_ptr<const DataSet> data = moons();
  TrainingConfig config = mixed_points("f16");
  config.loss_scale = overflowing();
  const auto without_times = [](const std::filesystem::path& log) {
    std::vector<std::string> rows;
    std::istringstream text(text_of(log));
    for (std::string line; std::getline(text, line);) {
      std::vector<std::string> cells;
      std::istringstream parts(line);
      for (std::string cell; std::getline(parts, cell, ',');) cells.push_back(cell);
      REQUIRE(cells.size() == 9);
      cells.erase(cells.begin() + 6), cells.erase(cells.begin() + 1);
      std::string kept;
      for (const std::string& cell : cells) kept += cell + ",";
      rows.push_back(kept);
    }
    return rows;
  };
  Trainer whole(config, data, cpu({.threads = 1}));
  RunProgress last;
  run_training(whole, {.steps = 40}, {.folder = folder / "whole"},
               {.report = [&](const RunProgress& progress) { last = progress; }});
  CHECK(last.loss_scale >= 1);
  const std::vector<std::string> rows = without_times(folder / "whole/log.csv");
  CHECK(rows.front() == "step,loss,error,gradient_norm,learning_rate,loss_scale,skipped,");
  CHECK(rows.size() > 3);
  // The first step was skipped, so that it has no row.
  CHECK_FALSE(rows[1].starts_with("1,"));
  std::int64_t skipped = 0;
  for (std::size_t i = 1; i < rows.size(); ++i) {
    const std::string row = rows[i].substr(0, rows[i].size() - 1);
    skipped += std::stoll(row.substr(row.rfind(',') + 1));
  }
  CHECK(skipped == skipped_by(whole));

  Trainer first(config, data, cpu({.threads = 1}));
  run_training(first, {.steps = 13}, {.folder = folder / "parts"});
  const CheckpointInfo info = read_checkpoint_info(folder / "parts/checkpoint.safetensors");
  Trainer second =
      resume_trainer(folder / "parts/checkpoint.safetensors", data, cpu({.threads = 1}));
  run_training(second, {.steps = 40}, {.folder = folder / "parts", .since_row = info.since_row});
  CHECK(without_times(folder / "parts/log.csv") == rows);
}

namespace {

// Samples that no precision can train on.
class Unbounded : public DataSet {
 public:
  Unbounded() : DataSet("unbounded", {2}, 0, std::nullopt) {}

 protected:
  std::int32_t sample(std::uint64_t, std::uint64_t, std::span<float> x) const override {
    std::fill(x.begin(), x.end(), 1e30f);
    return 0;
  }
};

}  // namespace

TEST_CASE("a run whose gradients overflow at every scale ends with advice",
          "[training][precision]") {
  Trainer trainer(mixed_points("f16"), std::make_shared<Unbounded>(), cpu({.threads = 1}));
  CHECK_THAT(message_of([&] { run_training(trainer, {.steps = 100}); }),
             has_text("at any loss scale down to 1") && has_text("--precision bf16") &&
                 has_text("scale them"));

  // Nor is a run a success that ends before it has found that out.
  const ScratchFolder folder;
  Trainer shorter(mixed_points("f16"), std::make_shared<Unbounded>(), cpu({.threads = 1}));
  const std::string why = message_of([&] {
    run_training(shorter, {.steps = 3}, {.folder = folder / "run"},
                 {.report = [](const RunProgress& progress) { CHECK(std::isnan(progress.loss)); }});
  });
  CHECK_THAT(why, has_text("in any of 3 steps") && has_text("model-raw.safetensors"));
  // In another precision its weights go on.
  CHECK_NOTHROW(read_model_info(folder / "run/model-raw.safetensors"));
}

TEST_CASE("a run that is stopped while its scale is still too large goes on",
          "[training][precision][resume]") {
  const ScratchFolder folder;
  TrainingConfig config = mixed_points("f16");
  config.loss_scale = overflowing();
  Trainer first(config, moons(), cpu({.threads = 1}));
  std::stop_source stop;
  RunSummary summary = run_training(first, {.steps = 40}, {.folder = folder / "run"},
                                    {.report =
                                         [&](const RunProgress& progress) {
                                           CHECK(progress.skipped == progress.step);
                                           CHECK(std::isnan(progress.error));
                                           if (progress.step == 2) stop.request_stop();
                                         },
                                     .stop = stop.get_token()});
  CHECK(summary.stopped);
  CHECK(summary.last.loss_scale == 2 * scale_of(first));
  const std::filesystem::path checkpoint = folder / "run/checkpoint.safetensors";
  const CheckpointInfo info = read_checkpoint_info(checkpoint);
  Trainer second = resume_trainer(checkpoint, moons(), cpu({.threads = 1}));
  summary =
      run_training(second, {.steps = 40}, {.folder = folder / "run", .since_row = info.since_row});
  CHECK(std::isfinite(summary.last.error));
}

TEST_CASE("the range of f16 that ends a run is named with the scale that was tried last",
          "[training][precision]") {
  Trainer trainer(mixed_points("f16"), std::make_shared<Unbounded>(), cpu({.threads = 1}));
  CHECK_THAT(message_of([&] { run_training(trainer, {.steps = 10}); }),
             has_text("in any of 10 steps, at any loss scale down to 64"));
}

TEST_CASE("configurations and models say their precision, and files without one are f32",
          "[training][precision]") {
  for (const char* precision : {"f32", "bf16", "f16", "bf16/bf16/f32"}) {
    TrainingConfig config = mixed_points(precision);
    if (needs_loss_scale(config.precision)) config.loss_scale = overflowing();
    nlohmann::json json = training_config_to_json(config);
    CHECK(json.at("precision") == precision);
    CHECK(json.contains("loss_scale") == needs_loss_scale(config.precision));
    CHECK(training_config_from_json(json) == config);
    json.erase("loss_scale");
    config.loss_scale = {};
    CHECK(training_config_from_json(json) == config);
    json.erase("precision");
    config.precision = {};
    CHECK(training_config_from_json(json) == config);
    json["precision"] = "fp8";
    CHECK_THAT(message_of<FormatError>([&] { training_config_from_json(json); }),
               has_text("precision 'fp8'"));
    json["precision"] = 16;
    CHECK_THROWS_AS(training_config_from_json(json), FormatError);
  }
  const ScratchFolder folder;
  Trainer trainer(mixed_points("bf16"), moons(), cpu({.threads = 1}));
  trainer.step();
  write_model(folder / "m", trainer.model(Weights::average));
  CHECK(read_model_info(folder / "m").precision == precision_from("bf16"));
  Model older = trainer.model(Weights::raw);
  older.info.precision.reset();
  write_model(folder / "m", older);
  CHECK(read_model_info(folder / "m") == older.info);
}

TEST_CASE("a state whose loss scale is not that of the configuration is refused",
          "[training][precision]") {
  const Device device = cpu({.threads = 1});
  const auto refusal = [&](const char* precision, auto change) {
    Trainer from(mixed_points("f16"), moons(), device);
    TrainState state = from.state();
    change(state);
    return message_of([&] { Trainer(mixed_points(precision), moons(), device, std::move(state)); });
  };
  const auto with_scale = [&](float scale) {
    return [&device, scale](TrainState& state) {
      state.loss_scale[0].scale = Tensor::from(std::vector<float>{scale}, {}, device);
    };
  };
  CHECK(refusal("f16", [](TrainState&) {}) == "");
  CHECK_THAT(refusal("f16", [](TrainState& state) { state.loss_scale.clear(); }),
             has_text("no loss scale"));
  CHECK_THAT(refusal("f32", [](TrainState&) {}), has_text("does not need"));
  for (const float scale : {0.0f, -8.0f, 0.5f, 0x1p30f, INFINITY, NAN})
    CHECK_THAT(refusal("f16", with_scale(scale)), has_text("out of range"));
}
