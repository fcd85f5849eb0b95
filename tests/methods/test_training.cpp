// Every method trains: on eight Gaussians until samples of its default sampler come near them, with
// every network, and on from a checkpoint as if it had not stopped.
#include <cmath>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/data/glyphs.h"
#include "models/data/points.h"
#include "models/evaluation/two_sample.h"
#include "models/samplers/default_sampler.h"
#include "models/training/checkpoint.h"
#include "models/training/pairs.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

constexpr std::int64_t drawn_count = 500;

TrainingConfig planar_config(const std::string& method, std::int64_t steps) {
  TrainingConfig config{.network = MlpConfig{.hidden = {48, 48}},
                        .method = configure(method, {}, SampleKind::points),
                        .optimiser = {.clip_norm = 1, .ema_decays = {0.95}},
                        .schedule = {.learning_rate = 4e-3, .warm_up_steps = 10},
                        .batch = 128,
                        .seed = 4};
  if (config.method.method->has_schedule) config.total_steps = steps;
  return config;
}

// A method that has a teacher gets one: an EDM model after a few steps.
void give_teacher(TrainingConfig& config, const std::shared_ptr<const DataSet>& data, int steps,
                  const ScratchFolder& folder) {
  const std::string& option = config.method.method->teacher_option;
  if (option.empty()) return;
  TrainingConfig of_teacher = config;
  of_teacher.method = configure("edm", {{"sigma-data", config.method.options.real("sigma-data")}},
                                SampleKind::points);
  of_teacher.total_steps = 0;
  Trainer teacher(of_teacher, data, cpu({.threads = 1}));
  for (int i = 0; i < steps; ++i) teacher.step();
  write_model(folder / "teacher.safetensors", teacher.model(Weights::average));
  config.method.options.set(option, (folder / "teacher.safetensors").string());
}

// Pairs of a flow-matching model after a few steps, for the methods that learn from such; else the
// data themselves.
std::shared_ptr<const DataSet> data_for(const TrainingConfig& config,
                                        std::shared_ptr<const DataSet> data, int steps,
                                        const ScratchFolder& folder) {
  if (!config.method.method->needs_pairs) return data;
  TrainingConfig of_teacher = config;
  of_teacher.method =
      configure("flow-matching", {}, data->is_image() ? SampleKind::images : SampleKind::points);
  Trainer teacher(of_teacher, data, cpu({.threads = 1}));
  for (int i = 0; i < steps; ++i) teacher.step();
  const auto file = folder / "model.safetensors", pairs = folder / "pairs";
  write_model(file, teacher.model(Weights::average));
  const PairOptions options{.count = data->is_image() ? 20 : 3000, .steps = 8};
  REQUIRE(make_pairs(pairs, file, plan_pairs(pairs, file, options), options, cpu({.threads = 1})));
  return make_data_set(pairs.string());
}

// How far samples of the model are from data.
double distance(const Trainer& trainer) {
  const Model model = trainer.model(Weights::average);
  const std::vector<float> drawn = Sampler(model.info.network, model.parameters,
                                           default_sampler(model.info))
                                       .sample(drawn_count, drawn_count, 9),
                           data = trainer.data().batch(drawn_count, 77, 0).x;
  return energy_distance({drawn, drawn_count, 2}, {data, drawn_count, 2}, true, 1);
}

std::vector<std::vector<float>> everything(const Trainer& trainer) {
  std::vector<std::vector<float>> values;
  for (const Tensor& tensor : leaves(trainer.state()))
    if (tensor.dtype() == DType::f32) values.push_back(tensor.to_host<float>());
  return values;
}

std::vector<NetworkConfig> small_networks() {
  return {DitConfig{.image_size = 8,
                    .patch_size = 4,
                    .hidden_size = 16,
                    .depth = 1,
                    .num_heads = 2,
                    .num_classes = 10},
          UnetConfig{.image_size = {8, 8},
                     .channels = 1,
                     .base = 8,
                     .channel_mult = {1, 2},
                     .attention_ds = {2},
                     .norm_groups = 4,
                     .num_heads = 2,
                     .num_classes = 10},
          SongUnetConfig{.image_size = {8, 8},
                         .channels = 1,
                         .base = 8,
                         .channel_mult = {1, 2},
                         .num_blocks = 1,
                         .num_classes = 10}};
}

}  // namespace

TEST_CASE("after 200 steps of every method, samples are near eight Gaussians", "[methods]") {
  for (const auto& method : built_in_methods()) {
    INFO(method->name);
    const ScratchFolder folder;
    TrainingConfig config = planar_config(method->name, 200);
    const auto data = data_for(config, eight_gaussians(), 200, folder);
    give_teacher(config, data, 200, folder);
    Trainer trainer(config, data, cpu({.threads = 1}));
    const double before = distance(trainer);
    for (int i = 0; i < 200; ++i) {
      const StepMetrics metrics = trainer.step();
      CHECK(std::isfinite(metrics.loss.item<float>()));
      CHECK(metrics.error.item<float>() >= 0);
    }
    CHECK(trainer.traces() == 1);
    const double after = distance(trainer);
    INFO("energy distance " << before << ", " << after);
    CHECK(after < 0.7 * before);
  }
}

TEST_CASE("every method goes on from a checkpoint bit for bit", "[methods]") {
  for (const auto& method : built_in_methods()) {
    INFO(method->name);
    const ScratchFolder folder;
    const Device device = cpu({.threads = 2});
    TrainingConfig config = planar_config(method->name, 8);
    config.batch = 32;
    const auto data = data_for(config, eight_gaussians(), 3, folder);
    give_teacher(config, data, 3, folder);
    Trainer whole(config, data, device), first(config, data, device);
    for (int i = 0; i < 8; ++i) whole.step();
    for (int i = 0; i < 5; ++i) first.step();
    write_checkpoint(folder / "c", first, 1);
    CHECK(read_checkpoint_info(folder / "c").config == config);
    // What a teacher's file said is in the checkpoint.
    std::filesystem::remove(folder / "teacher.safetensors");
    Trainer second = resume_trainer(folder / "c", data, device);
    for (int i = 0; i < 3; ++i) second.step();
    CHECK(everything(second) == everything(whole));
    CHECK(checkpoint_bytes(config) <= std::filesystem::file_size(folder / "c"));
  }
}

TEST_CASE("every method trains every network with classes", "[methods]") {
  for (const auto& method : built_in_methods())
    for (const NetworkConfig& network : small_networks()) {
      INFO(method->name << ", " << family(network));
      const ScratchFolder folder;
      TrainingConfig config{.network = network,
                            .method = configure(method->name),
                            .total_steps = method->has_schedule ? 2 : 0,
                            .batch = 4};
      const auto data = data_for(config, glyphs(8), 1, folder);
      give_teacher(config, data, 1, folder);
      Trainer trainer(config, data, cpu({.threads = 2}));
      for (int i = 0; i < 2; ++i) CHECK(std::isfinite(trainer.step().loss.item<float>()));
      const Model model = trainer.model(Weights::raw);
      CHECK_NOTHROW(check_parameters(network, model.parameters, "test"));
    }
}

TEST_CASE("an update whose gradient is not finite leaves a method's state as it is", "[methods]") {
  TrainingConfig config = planar_config("ct", 50);
  config.precision = precision_from("f16");
  config.loss_scale = {.initial = 0x1p99, .least = 1, .most = 0x1p99, .interval = 1000};
  Trainer trainer(config, eight_gaussians(), cpu({.threads = 1}));
  const auto teacher = [&] {
    std::vector<std::vector<float>> values;
    for (const auto& [name, tensor] : trainer.state().method.at("teacher"))
      values.push_back(tensor.to_host<float>());
    return values;
  };
  const auto before = teacher();
  CHECK_FALSE(std::isfinite(trainer.step().gradient_norm.item<float>()));
  CHECK(teacher() == before);
}

TEST_CASE("a method says what it lacks in one line", "[methods]") {
  const ScratchFolder folder;
  const auto refusal = [](const TrainingConfig& config) {
    return message_of([&] { Trainer(config, eight_gaussians(), cpu({.threads = 1})); });
  };
  TrainingConfig config = planar_config("ict", 0);
  CHECK(contains(refusal(config), "method ict"));
  CHECK(contains(refusal(config), "--steps"));
  config = planar_config("ict", 10);
  config.method = configure("ict", {{"first-levels", 20}, {"last-levels", 10}});
  CHECK(contains(refusal(config), "first-levels must not be above"));
  config = planar_config("alpha-flow", 10);
  config.method = configure("alpha-flow", {{"alpha-begin", 0.8}, {"alpha-end", 0.2}});
  CHECK(contains(refusal(config), "alpha-begin"));
  config = planar_config("cd", 0);
  CHECK(contains(refusal(config), "--teacher"));
  config.method.options.set("teacher", (folder / "none").string());
  CHECK_THROWS_AS(Trainer(config, eight_gaussians(), cpu()), IoError);

  Trainer plain(planar_config("meanflow", 0), eight_gaussians(), cpu({.threads = 1}));
  write_model(folder / "m", plain.model(Weights::raw));
  config.method.options.set("teacher", (folder / "m").string());
  CHECK(contains(refusal(config), "--method edm trains one"));
  TrainingConfig other = planar_config("edm", 0);
  other.network = MlpConfig{.hidden = {8}};
  Trainer smaller(other, eight_gaussians(), cpu({.threads = 1}));
  write_model(folder / "m", smaller.model(Weights::raw));
  CHECK(contains(refusal(config), "another shape"));
}
