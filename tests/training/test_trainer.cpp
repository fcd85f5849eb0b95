// Training as a library: what repeats, what is refused, what is left behind.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "backends/cpu/cpu.h"
#include "models/data/glyphs.h"
#include "models/data/points.h"
#include "models/training/run.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

TrainingConfig points_config() {
  return {.network = MlpConfig{.hidden = {16, 16}},
          .schedule = {.warm_up_steps = 4},
          .batch = 32,
          .seed = 3};
}

TrainingConfig digits_config() {
  return {.network = DitConfig{.image_size = 8,
                               .patch_size = 4,
                               .hidden_size = 16,
                               .depth = 1,
                               .num_heads = 2,
                               .num_classes = 10},
          .batch = 8,
          .seed = 3};
}

std::vector<std::vector<float>> values(const Trainer& trainer, Weights weights) {
  std::vector<std::vector<float>> result;
  for (const auto& [name, tensor] : trainer.model(weights).parameters)
    result.push_back(tensor.to_host<float>());
  return result;
}

std::vector<std::vector<float>> after(TrainingConfig config, std::shared_ptr<const DataSet> data,
                                      int steps) {
  Trainer trainer(std::move(config), std::move(data), cpu({.threads = 2}));
  for (int i = 0; i < steps; ++i) trainer.step();
  return values(trainer, Weights::raw);
}

// A data set of one shape, whose values are not numbers.
class Broken : public DataSet {
 public:
  Broken() : DataSet("broken", {2}, 0, std::nullopt) {}

 protected:
  std::int32_t sample(std::uint64_t, std::uint64_t, std::span<float> x) const override {
    std::fill(x.begin(), x.end(), std::numeric_limits<float>::quiet_NaN());
    return 0;
  }
};

// Enough memory to train, none for the picture, which takes its points from another seed than
// points_config().
class Hungry : public DataSet {
 public:
  Hungry() : DataSet("hungry", {2}, 0, std::nullopt) {}

 protected:
  std::int32_t sample(std::uint64_t seed, std::uint64_t, std::span<float> x) const override {
    if (seed != points_config().seed) throw OutOfMemory("no room");
    std::fill(x.begin(), x.end(), 1.0f);
    return 0;
  }
};

}  // namespace

TEST_CASE("a run repeats bit for bit, and its seed decides it", "[training]") {
  const auto first = after(points_config(), moons(), 6),
             second = after(points_config(), moons(), 6);
  CHECK(first == second);
  TrainingConfig other = points_config();
  other.seed = 4;
  CHECK(after(other, moons(), 6) != first);
  CHECK(after(digits_config(), glyphs(8), 3) == after(digits_config(), glyphs(8), 3));
}

TEST_CASE("blocks computed again give the same weights from less memory", "[training]") {
  TrainingConfig dit = digits_config(), unet = digits_config();
  std::get<DitConfig>(dit.network).depth = 6;
  dit.batch = 64;
  unet.network = UnetConfig{.image_size = {8, 8},
                            .channels = 1,
                            .base = 8,
                            .channel_mult = {1, 2},
                            .attention_ds = {2},
                            .norm_groups = 4,
                            .num_heads = 2,
                            .num_classes = 10};
  for (TrainingConfig config : {dit, unet}) {
    const auto kept = after(config, glyphs(8), 2);
    const std::size_t arena =
        Trainer(config, glyphs(8), cpu({.threads = 2})).memory_report().arena_bytes;
    config.recompute = true;
    CHECK(Trainer(config, glyphs(8), cpu({.threads = 2})).memory_report().arena_bytes <
          arena * 3 / 4);
    CHECK(training_config_from_json(training_config_to_json(config)) == config);
    const auto again = after(config, glyphs(8), 2);
    REQUIRE(again.size() == kept.size());
    // Sums over the parts of a gradient may come in another order.
    for (std::size_t i = 0; i < kept.size(); ++i)
      for (std::size_t k = 0; k < kept[i].size(); ++k)
        CHECK(again[i][k] == Approx(kept[i][k]).margin(1e-4));
  }
  TrainingConfig points = points_config();
  points.recompute = true;
  CHECK_THROWS_WITH(Trainer(points, moons(), cpu()), Catch::Contains("no blocks"));
}

TEST_CASE("the step is traced once, with its memory known before it runs", "[training]") {
  Trainer trainer(digits_config(), glyphs(8), cpu());
  const MemoryReport report = trainer.memory_report();
  CHECK(report.kernels > 10);
  CHECK(report.peak_bytes() > 10000);
  CHECK(trainer.steps_done() == 0);
  for (int i = 0; i < 5; ++i) trainer.step();
  CHECK(trainer.steps_done() == 5);
  CHECK(trainer.traces() == 1);
}

TEST_CASE("the loss falls, and the averaged weights follow the raw ones", "[training]") {
  TrainingConfig config = points_config();
  config.method = configure("flow-matching");
  config.schedule.learning_rate = 3e-3;
  config.batch = 128;
  Trainer trainer(config, eight_gaussians(), cpu());
  const float before = trainer.step().error.item<float>();
  float last = 0;
  for (int i = 0; i < 200; ++i) last = trainer.step().error.item<float>();
  CHECK(last < 0.8f * before);
  CHECK(values(trainer, Weights::raw) != values(trainer, Weights::average));
}

TEST_CASE("a model says what it was trained with", "[training]") {
  TrainingConfig config = digits_config();
  config.method = configure("meanflow", {{"omega", 1.5}, {"kappa", 0.25}});
  Trainer trainer(config, glyphs(8), cpu());
  trainer.step();
  const ModelInfo info = trainer.model(Weights::average).info;
  CHECK(info.method == "meanflow");
  CHECK(info.prediction == Prediction::average_velocity);
  CHECK(info.sampling == DefaultSampling{.sampler = "meanflow", .steps = 1});
  CHECK(info.open_class);
  CHECK(info.guidance == TrainedGuidance{1.5, 0.25});
  CHECK(info.dataset == "glyphs");
  CHECK(info.step == 1);
  CHECK(info.ema);
}

TEST_CASE("a network that does not fit its data is refused", "[training]") {
  TrainingConfig config = digits_config();
  CHECK_THROWS_AS(Trainer(config, glyphs(16), cpu()), ShapeError);
  CHECK_THROWS_AS(Trainer(config, moons(), cpu()), ShapeError);
  std::get<DitConfig>(config.network).num_classes = 11;
  CHECK_THROWS_AS(Trainer(config, glyphs(8), cpu()), Error);
  std::get<DitConfig>(config.network).num_classes = 9;
  CHECK_THROWS_AS(Trainer(config, glyphs(8), cpu()), Error);
  std::get<DitConfig>(config.network).num_classes = 0;
  config.method = configure("meanflow", {{"kappa", 0.5}});
  CHECK_THROWS_AS(Trainer(config, glyphs(8), cpu()), Error);
  TrainingConfig empty = points_config();
  empty.batch = 0;
  CHECK_THROWS_AS(Trainer(empty, moons(), cpu()), Error);
}

TEST_CASE("a run logs, saves, and stops where it is told to", "[training]") {
  const ScratchFolder folder;
  Trainer trainer(points_config(), moons(), cpu());
  std::int64_t reports = 0;
  const RunSummary summary = run_training(trainer, {.steps = 25}, {.folder = folder / "run"},
                                          {.report = [&](const RunProgress& progress) {
                                            ++reports;
                                            CHECK(progress.step == reports);
                                            CHECK(progress.steps == 25);
                                          }});
  CHECK(reports == 25);
  CHECK(summary.last.step == 25);
  CHECK_FALSE(summary.stopped);
  std::istringstream log(text_of(summary.log));
  std::vector<std::string> rows;
  for (std::string row; std::getline(log, row);) rows.push_back(row.substr(0, row.find(',')));
  CHECK(rows == std::vector<std::string>{"step", "1", "10", "20", "25"});
  CHECK(read_model_info(summary.model).ema);
  CHECK_FALSE(read_model_info(summary.raw_model).ema);
  CHECK(std::filesystem::file_size(summary.samples) > 100);
}

TEST_CASE("a stop request ends a run after the step in flight and saves it", "[training]") {
  const ScratchFolder folder;
  Trainer trainer(points_config(), moons(), cpu());
  std::stop_source stop;
  const RunSummary summary = run_training(trainer, {.steps = 1000000}, {.folder = folder / "run"},
                                          {.report =
                                               [&](const RunProgress& progress) {
                                                 if (progress.step == 7) stop.request_stop();
                                               },
                                           .stop = stop.get_token()});
  CHECK(summary.stopped);
  CHECK(summary.last.step == 8);
  CHECK(read_model_info(summary.model).step == 8);
}

TEST_CASE("a loss that is no number ends the run with the reason", "[training]") {
  const ScratchFolder folder;
  Trainer trainer(points_config(), std::make_shared<Broken>(), cpu());
  CHECK(contains(
      message_of([&] { run_training(trainer, {.steps = 50}, {.folder = folder / "run"}); }),
      "no longer finite"));
  CHECK_FALSE(std::filesystem::exists(folder / "run/model.safetensors"));
}

TEST_CASE("an error far above that of the start is warned of, once", "[training]") {
  const auto warnings_at = [](double learning_rate, bool told = true) {
    TrainingConfig config = points_config();
    config.schedule.learning_rate = learning_rate;
    Trainer trainer(config, moons(), cpu());
    std::vector<std::string> warnings;
    RunHooks hooks;
    if (told) hooks.warn = [&](const std::string& text) { warnings.push_back(text); };
    run_training(trainer, {.steps = 60}, {.folder = {}, .log_every = 5}, hooks);
    return warnings;
  };
  CHECK(warnings_at(1e-2).empty());
  const std::vector<std::string> diverging = warnings_at(1e2);
  REQUIRE(diverging.size() == 1);
  CHECK(contains(diverging[0], "training diverges; a smaller learning rate"));
  CHECK(warnings_at(1e2, false).empty());
}

TEST_CASE("a picture that there is no memory for is left out with a warning", "[training]") {
  const ScratchFolder folder;
  Trainer trainer(points_config(), std::make_shared<Hungry>(), cpu());
  std::vector<std::string> warnings;
  const RunSummary summary =
      run_training(trainer, {.steps = 6}, {.folder = folder / "run", .save_seconds = 0},
                   {.warn = [&](const std::string& text) { warnings.push_back(text); }});
  REQUIRE(warnings.size() == 1);
  CHECK(contains(warnings[0], "no picture"));
  CHECK(contains(warnings[0], "no room"));
  CHECK(read_model_info(summary.model).step == 6);
  CHECK(std::filesystem::exists(summary.chart));
  CHECK_FALSE(std::filesystem::exists(summary.samples));
}

TEST_CASE("a folder that can't be made is an IoError before anything is trained", "[training]") {
  const ScratchFolder folder;
  Trainer trainer(points_config(), moons(), cpu());
  std::ofstream(folder / "file") << "in the way";
  CHECK_THROWS_AS(run_training(trainer, {.steps = 5}, {.folder = folder / "file/run"}), IoError);
  CHECK(trainer.steps_done() == 0);
}
