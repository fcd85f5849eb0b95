// Every method trains: on eight Gaussians until samples of its default sampler come near them, with
// every network, and on from a checkpoint as if it had not stopped.
#include <cmath>
#include <numbers>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/data/glyphs.h"
#include "models/data/points.h"
#include "models/data/random.h"
#include "models/evaluation/two_sample.h"
#include "models/files/npy.h"
#include "models/objectives/draws.h"
#include "models/samplers/default_sampler.h"
#include "models/training/checkpoint.h"
#include "models/training/pairs.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"
#include "tests/worst.h"

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

// What a method's loss is at update `step` of 1,000.
Tensor loss_of(const MethodConfig& method, const NetworkConfig& network, const Parameters& own,
               const Parameters& learned, const Tensor& x, const Tensor& labels,
               std::int32_t step) {
  const auto bind = [&](const Parameters& p) { return bind_parameters(network, p); };
  const MethodState state;
  return method.method
      ->loss({.use = {network, method.options, 1000},
              .velocity = bind(own),
              .parameters = own,
              .learned = learned,
              .state = state,
              .bind = bind,
              .bind_trained = bind,
              .x = x,
              .labels = labels,
              .noise = {},
              .key = random_key(3, x.device()),
              .step = Tensor::from(std::vector<std::int32_t>{step}, {}, x.device())})
      .loss;
}

std::vector<NetworkConfig> small_networks() {
  return {MlpConfig{.hidden = {8}},
          DitConfig{.image_size = 8,
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

std::map<std::string, std::vector<float>> values_of(const Parameters& parameters) {
  std::map<std::string, std::vector<float>> values;
  for (const auto& [name, tensor] : parameters) values[name] = tensor.to_host<float>();
  return values;
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

TEST_CASE("every method trains every network, with classes where it has them", "[methods]") {
  for (const auto& method : built_in_methods())
    for (const NetworkConfig& network : small_networks()) {
      INFO(method->name << ", " << family(network));
      const ScratchFolder folder;
      const bool points = sample_shape(network).rank() == 1;
      TrainingConfig config{
          .network = network,
          .method = configure(method->name, {}, points ? SampleKind::points : SampleKind::images),
          .total_steps = method->has_schedule ? 2 : 0,
          .batch = 4};
      // Each step of a flow is several networks to plan.
      if (config.method.options.has("flow-steps"))
        config.method.options.set("flow-steps", std::int64_t{1});
      const auto data = data_for(config, points ? eight_gaussians() : glyphs(8), 1, folder);
      give_teacher(config, data, 1, folder);
      Trainer trainer(config, data, cpu({.threads = 2}));
      for (int i = 0; i < 2; ++i) CHECK(std::isfinite(trainer.step().loss.item<float>()));
      const Model model = trainer.model(Weights::raw);
      CHECK_NOTHROW(check_parameters(network, model.parameters, "test"));
    }
}

TEST_CASE("alpha-Flow ends as MeanFlow: with its derivative exactly, by differences nearly",
          "[methods]") {
  const Device device = cpu({.threads = 1});
  const NetworkConfig network = MlpConfig{.hidden = {16, 16}};
  const Parameters parameters = initialise(network, random_key(1, device), DType::f64), none;
  const Tensor x = normal(random_key(2, device), {16, 2}, DType::f64);
  // The loss of a method at an update, and its gradient.
  const auto learned = [&](const MethodConfig& method, std::int32_t step) {
    return value_and_grad([&](const Parameters& p) {
      return loss_of(method, network, p, none, x, {}, step);
    })(parameters);
  };
  const auto off = [](const Parameters& a, const Parameters& b) {
    double worst = 0;
    for (const auto& [name, tensor] : a)
      worst = worse_of(worst, max(abs(tensor - b.at(name))).item<double>());
    return worst;
  };
  // alpha-Flow's errors are means over the two elements of a sample, MeanFlow's are sums.
  const auto alpha_flow = [&](const char* small) {
    return configure("alpha-flow", {{"small-alpha", small}, {"weight-offset", 0.05}});
  };
  const auto [loss, gradient] = learned(configure("meanflow", {{"tangent", "all"},
                                                               {"direction", "data"},
                                                               {"equal-share", 0.5},
                                                               {"power", 1.0},
                                                               {"weight-offset", 0.1}}),
                                        999);
  const auto [same, same_gradient] = learned(alpha_flow("derivative"), 999);
  CHECK(same.item<double>() == Approx(loss.item<double>()).epsilon(1e-12));
  CHECK(off(same_gradient, gradient) < 1e-12);
  // Before the end both ways are one.
  for (const std::int32_t step : {0, 300})
    CHECK(off(learned(alpha_flow("derivative"), step).second,
              learned(alpha_flow("differences"), step).second) < 1e-13);
  // Differences: with MeanFlow's weight, gradients are 1 / offset times its plain ones where the
  // offset prevails.
  const double offset = 1e5;
  const auto plain =
      learned(
          configure(
              "meanflow",
              {{"tangent", "all"}, {"direction", "data"}, {"equal-share", 0.5}, {"power", 0.0}}),
          999)
          .second;
  Parameters scaled = learned(configure("alpha-flow", {{"weight-offset", offset}}), 999).second;
  for (auto& [name, tensor] : scaled) tensor = tensor * (2 * offset);
  double largest = 0;
  for (const auto& [name, tensor] : plain)
    largest = std::max(largest, max(abs(tensor)).item<double>());
  CHECK(off(scaled, plain) < 0.02 * largest);
}

TEST_CASE("alpha-Flow begins as flow matching, on points as far out as they are", "[methods]") {
  const Device device = cpu({.threads = 1});
  const NetworkConfig network = MlpConfig{.hidden = {8}};
  const Parameters parameters = map_tree(initialise(network, random_key(1, device), DType::f64),
                                         [](const Tensor& p) { return zeros_like(p); });
  const Parameters none;
  const Tensor x = 30.0 * normal(random_key(2, device), {64, 2}, DType::f64);
  // Of a network that says 0 the error is the mean square of e - x, where clipping at 4 would leave
  // at most 16. A large offset makes the weight a constant.
  const MethodConfig method = configure("alpha-flow", {{"weight-offset", 1e6}});
  CHECK(1e6 * loss_of(method, network, parameters, none, x, {}, 0).item<double>() ==
        Approx(mean(square(x)).item<double>()).epsilon(0.2));
}

TEST_CASE("ect's levels stay apart, beyond its planned steps and with many stages", "[methods]") {
  const Device device = cpu({.threads = 1});
  const NetworkConfig network = MlpConfig{.hidden = {8}};
  const Parameters parameters = initialise(network, random_key(1, device)), none;
  const Tensor x = normal(random_key(2, device), {64, 2});
  const GivenOptions many{{"stages", std::int64_t{100}}}, far{{"shrink", 1000.0}};
  for (const GivenOptions& given : {GivenOptions{}, many, far})
    for (const std::int32_t step : {0, 999, 40000}) {
      const MethodConfig method = configure("ect", given, SampleKind::points);
      const auto [loss, gradient] = value_and_grad([&](const Parameters& p) {
        return loss_of(method, network, p, none, x, {}, step);
      })(parameters);
      INFO("step " << step << ", loss " << loss.item<float>());
      CHECK(std::isfinite(loss.item<float>()));
      for (const auto& [name, tensor] : gradient)
        CHECK(std::isfinite(max(abs(tensor)).item<float>()));
    }
}

TEST_CASE("iMF's guidance is the difference of its second network with and without the class",
          "[methods]") {
  const Device device = cpu({.threads = 1});
  const NetworkConfig network = DitConfig{.image_size = 4,
                                          .patch_size = 2,
                                          .hidden_size = 8,
                                          .depth = 1,
                                          .num_heads = 2,
                                          .num_classes = 3};
  // Weights without the zeros of fresh ones, of which every output is 0.
  const auto drawn = [&](std::uint32_t number) {
    Parameters parameters = initialise(network, random_key(number, device), DType::f64);
    std::uint32_t next = 0;
    for (auto& [name, tensor] : parameters)
      tensor = tensor + 0.3 * normal(fold_in(random_key(number, device), ++next), tensor.shape(),
                                     DType::f64);
    return parameters;
  };
  const Parameters own = drawn(1), second = drawn(2);
  const Tensor x = normal(random_key(4, device), {6, 4, 4, 1}, DType::f64);
  const Tensor labels = Tensor::from(std::vector<std::int32_t>{0, 1, 2, 0, 1, 2}, {6}, device);
  // r = t in all rows: both networks learn the guided velocity, each with the weight 1.
  const auto guided = [&](double scale) {
    return configure(
        "imf",
        {{"guidance-scale", scale}, {"equal-share", 1.0}, {"power", 0.0}, {"label-dropout", 0.4}});
  };
  const FlowDraws draws = draw({.equal_share = 1, .fixed_share = true, .label_dropout = 0.4}, x,
                               labels, 3, fold_in(random_key(3, device), 0));
  const Tensor z = interpolate(draws.x, draws.e, draws.t), given = draws.labels.dropped();
  CHECK(max(abs(given.to(DType::f64) - labels.to(DType::f64))).item<double>() > 0);
  const Times now{draws.t, draws.t};
  const auto output = [&](const Parameters& p, const Tensor& asked) {
    return bind_parameters(network, p)(z, now, asked);
  };
  for (const double scale : {1.0, 2.5}) {
    const Tensor v = output(second, given), u = output(own, given);
    const Tensor target =
        draws.e - draws.x + (1 - 1 / scale) * (v - output(second, draws.labels.null()));
    const auto squares = [&](const Tensor& off) { return mean(sum(square(off), {1, 2, 3})); };
    const Tensor want = squares(u - target) + squares(v - target);
    CHECK(loss_of(guided(scale), network, own, second, x, labels, 0).item<double>() ==
          Approx(want.item<double>()).epsilon(1e-12));
  }
  ModelInfo info;
  info.network = network;
  describe(guided(2.5), info);
  CHECK(info.guidance == TrainedGuidance{2.5, 0});
  CHECK_THROWS_AS(check_guidance(info, 2), Error);
  CHECK_THAT(message_of([&] { check(guided(2.5), MlpConfig{}, 0); }), has_text("needs classes"));
}

TEST_CASE("guidance of a class that no row is left open of is refused", "[methods]") {
  const DitConfig classes{.image_size = 8, .channels = 1, .num_classes = 3};
  for (const auto& [name, option, value] : {std::tuple("meanflow", "kappa", 0.5),
                                            {"meanflow", "omega", 2.0},
                                            {"imf", "guidance-scale", 3.0}}) {
    INFO(name << " " << option);
    const auto with = [&](double dropout) {
      return configure(name, {{option, value}, {"label-dropout", dropout}}, SampleKind::images);
    };
    CHECK_NOTHROW(check(with(0.1), classes, 0));
    CHECK_THAT(message_of([&] { check(with(0), classes, 0); }), has_text("label-dropout above 0"));
  }
}

TEST_CASE("ffjord learns by either gradient, and with either divergence", "[methods]") {
  const Device device = cpu({.threads = 1});
  const NetworkConfig network = MlpConfig{.hidden = {12, 12}};
  const Parameters parameters = initialise(network, random_key(1, device), DType::f64), none;
  const Tensor x = normal(random_key(2, device), {8, 2}, DType::f64);
  const auto learned = [&](const char* divergence, const char* gradient) {
    // Weights that count: both parts of the regulariser have gradients by either way.
    const MethodConfig method = configure("ffjord",
                                          {{"divergence", divergence},
                                           {"flow-gradient", gradient},
                                           {"kinetic-weight", 0.5},
                                           {"jacobian-weight", 0.5}},
                                          SampleKind::points);
    return value_and_grad([&](const Parameters& p) {
      return loss_of(method, network, p, none, x, {}, 0);
    })(parameters);
  };
  for (const char* divergence : {"exact", "hutchinson"}) {
    INFO(divergence);
    const auto [loss, gradient] = learned(divergence, "unrolled");
    const auto [same, adjoint] = learned(divergence, "adjoint");
    CHECK(same.item<double>() == Approx(loss.item<double>()).epsilon(1e-12));
    double largest = 0, off = 0;
    for (const auto& [name, tensor] : gradient) {
      largest = std::max(largest, max(abs(tensor)).item<double>());
      off = testing::worse_of(off, max(abs(tensor - adjoint.at(name))).item<double>());
    }
    CHECK(off < 1e-3 * largest);
    CHECK(off > 0);
  }
  // A run by the adjoint equation: in 60 steps most of the way to the entropy of N(0, s^2).
  const std::vector<float> narrow = [] {
    std::vector<float> points;
    RandomSequence random(5, 0);
    for (int i = 0; i < 2000; ++i) points.push_back(0.3f * random.normal());
    return points;
  }();
  const ScratchFolder folder;
  write_npy(folder / "narrow.npy", narrow, {1000, 2});
  TrainingConfig config = planar_config("ffjord", 0);
  config.method.options.set("flow-gradient", "adjoint");
  config.method.options.set("flow-steps", std::int64_t{4});
  config.network = MlpConfig{.hidden = {16}};
  Trainer trainer(config, make_data_set((folder / "narrow.npy").string()), device);
  const double first = trainer.step().loss.item<float>();
  double last = 0;
  for (int i = 0; i < 60; ++i) last = trainer.step().loss.item<float>();
  const double entropy = 0.5 * std::log(2 * std::numbers::pi * std::numbers::e * 0.09);
  INFO("from " << first << " to " << last << ", the entropy is " << entropy);
  CHECK(last - entropy < 0.3 * (first - entropy));
  CHECK(last > entropy - 0.2);
  CHECK(trainer.traces() == 1);
}

TEST_CASE("an update whose gradient is not finite leaves a method's state as it is", "[methods]") {
  TrainingConfig config = planar_config("ct", 50);
  config.precision = precision_from("f16");
  config.loss_scale = {.initial = 0x1p99, .least = 1, .most = 0x1p99, .interval = 1000};
  Trainer trainer(config, eight_gaussians(), cpu({.threads = 1}));
  const auto teacher = [&] { return values_of(trainer.state().method.at("teacher")); };
  const auto before = teacher();
  CHECK_FALSE(std::isfinite(trainer.step().gradient_norm.item<float>()));
  CHECK(teacher() == before);
}

TEST_CASE("a student begins as its frozen teacher, unless it is given weights", "[methods]") {
  const ScratchFolder folder;
  const Device device = cpu({.threads = 1});
  const auto weights = [](const Trainer& trainer) {
    return values_of(trainer.model(Weights::raw).parameters);
  };
  TrainingConfig config = planar_config("edm", 0);
  Trainer teacher(config, eight_gaussians(), device);
  teacher.step();
  write_model(folder / "teacher", teacher.model(Weights::raw));
  config = planar_config("cd", 0);
  config.seed = 77;
  config.method.options.set("teacher", (folder / "teacher").string());
  CHECK(weights(Trainer(config, eight_gaussians(), device)) == weights(teacher));
  config.method = configure("edm");
  const Trainer other(config, eight_gaussians(), device);
  config = planar_config("cd", 0);
  config.method.options.set("teacher", (folder / "teacher").string());
  const Start start{other.model(Weights::raw).parameters};
  CHECK(weights(Trainer(config, eight_gaussians(), device, start)) == weights(other));
}

TEST_CASE("sCM's error is that of its tangent, whose length the loss does not know", "[methods]") {
  TrainingConfig config = planar_config("scm", 50);
  Trainer trainer(config, eight_gaussians(), cpu({.threads = 1}));
  const StepMetrics first = trainer.step();
  // At first F is 0, and the tangent cos^2 of the velocity cos z - sin x, some units long: the
  // normalised one is at most 1 long.
  CHECK(first.error.item<float>() > 0.5);
  CHECK(first.loss.item<float>() < 0.51f);
}

TEST_CASE("sCM's teacher follows the network for its share of the run, and then stays",
          "[methods]") {
  TrainingConfig config = planar_config("scm", 6);
  config.method.options.set("distil-from", 0.5);
  Trainer trainer(config, eight_gaussians(), cpu({.threads = 1}));
  const auto teacher = [&] { return values_of(trainer.state().method.at("teacher")); };
  for (int step = 0; step < 6; ++step) {
    const auto before = teacher();
    CHECK(std::isfinite(trainer.step().loss.item<float>()));
    INFO(step);
    CHECK((teacher() != before) == (step < 3));
  }
  CHECK(trainer.traces() == 1);
}

TEST_CASE("sCM distils at a share of the learning rate", "[methods]") {
  TrainingConfig config = planar_config("scm", 6);
  config.schedule = {.learning_rate = 0.5, .warm_up_steps = 0};
  config.method.options.set("distil-from", 0.5);
  CHECK(learning_rate_at(config, 2) == 0.5);
  CHECK(learning_rate_at(config, 3) == 0.5 * (0.2 * 0.01));  // which comes in over 100 steps
  CHECK(learning_rate_at(config, 4) == 0.5 * (0.2 * 0.02));
  CHECK(learning_rate_at(config, 103) == 0.1);
  config.method.options.set("distil-rate", 1e-3);
  CHECK(learning_rate_at(config, 500) == 5e-4);
  config.method.options.set("distil-from", 0.0);
  CHECK(learning_rate_at(config, 5) == 0.5);

  // Adam's steps are as long as the rate says, or shorter.
  config.method.options.set("distil-from", 0.5);
  config.schedule.learning_rate = 1e-3;
  Trainer trainer(config, eight_gaussians(), cpu({.threads = 1}));
  for (int step = 0; step < 6; ++step) {
    const auto before = values_of(trainer.state().parameters);
    trainer.step();
    const auto after = values_of(trainer.state().parameters);
    double longest = 0;
    for (const auto& [name, values] : after)
      for (std::size_t i = 0; i < values.size(); ++i)
        longest = std::max(longest, std::fabs(double{values[i]} - before.at(name)[i]));
    INFO(step);
    CHECK((longest < 1e-5) == (step > 3));
  }
}

TEST_CASE("sCM's second part begins as a run of its own, from the teacher", "[methods]") {
  for (const char* const precision : {"f32", "f16"}) {
    TrainingConfig config = planar_config("scm", 6);
    config.precision = precision_from(precision);
    config.method.options.set("distil-from", 0.5);
    config.method.options.set("distil-rate", 1e-4);
    const Device device = cpu({.threads = 1});
    Trainer trainer(config, eight_gaussians(), device);
    for (int step = 0; step < 4; ++step) trainer.step();
    const TrainState& state = trainer.state();
    CHECK(state.step.item<std::int32_t>() == 4);
    const Parameters fresh = Trainer(config, eight_gaussians(), device).state().parameters;
    float longest = 0, largest = 0;
    for (const auto& [name, now] : state.parameters) {
      const auto teacher = state.method.at("teacher").find(name);
      const Tensor& start =
          teacher == state.method.at("teacher").end() ? fresh.at(name) : teacher->second;
      for (const Tensor& weights : {now, state.ema.at(0).at(name)})
        longest = std::max(longest, max(abs(weights - start)).item<float>());
      // After one gradient g since then m is g / 10 and v g^2 / 1000.
      const Tensor g = 10.0 * state.m.at(name);
      largest = std::max(largest, max(abs(state.v.at(name) - square(g) / 1000.0)).item<float>());
    }
    CHECK(longest < 1e-6);
    CHECK(largest < 1e-7);
  }
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
  config = planar_config("scm", 10);
  config.method = configure("scm", {{"distil-from", 1}, {"tangent-warm-up", 0}});
  CHECK(contains(refusal(config), "leave nothing of the run"));
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
  config.method.options.set("sigma-data", 0.25);
  CHECK(contains(refusal(config), "was trained with --sigma-data"));
  // One row can't learn the velocity and the map.
  for (const char* name : {"lsd", "psd", "esd", "split-meanflow"}) {
    config = planar_config(name, 0);
    config.batch = 1;
    INFO(name);
    CHECK(contains(
        message_of([&] { Trainer(config, eight_gaussians(), cpu({.threads = 1})).step(); }),
        "batch of 2"));
  }
  CHECK(unequal_rows({.equal_share = 0.1}, 4) == 3);
  CHECK(unequal_rows({.equal_share = 0}, 4) == 4);
}
