// Which noise goes with which sample: what couplings promise, and runs that use them.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/data/glyphs.h"
#include "models/data/points.h"
#include "models/data/source_set.h"
#include "models/evaluation/two_sample.h"
#include "models/samplers/default_sampler.h"
#include "models/training/checkpoint.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

using Row = std::vector<float>;

std::vector<Row> rows_of(const std::vector<float>& values, std::size_t elements) {
  std::vector<Row> rows;
  for (std::size_t at = 0; at < values.size(); at += elements)
    rows.emplace_back(values.begin() + static_cast<std::ptrdiff_t>(at),
                      values.begin() + static_cast<std::ptrdiff_t>(at + elements));
  return rows;
}

double mean_cost(const HostBatch& batch, const std::vector<float>& noise) {
  double sum = 0;
  for (std::size_t i = 0; i < noise.size(); ++i) {
    const double difference = static_cast<double>(batch.x[i]) - noise[i];
    sum += difference * difference;
  }
  return sum / static_cast<double>(batch.labels.size());
}

TrainingConfig coupled_points(const std::string& method, CouplingKind kind, std::int64_t steps) {
  TrainingConfig config{.network = MlpConfig{.hidden = {32, 32}},
                        .method = configure(method, {}, SampleKind::points),
                        .optimiser = {.clip_norm = 1, .ema_decays = {0.95}},
                        .schedule = {.learning_rate = 4e-3, .warm_up_steps = 10},
                        .batch = 64,
                        .coupling = {.kind = kind},
                        .seed = 4};
  if (config.method.method->has_schedule) config.total_steps = steps;
  return config;
}

std::vector<std::vector<float>> coupled_state(const Trainer& trainer) {
  std::vector<std::vector<float>> values;
  for (const Tensor& tensor : leaves(trainer.state()))
    if (tensor.dtype() == DType::f32) values.push_back(tensor.to_host<float>());
  return values;
}

// That a run which stops after 5 of 8 steps and goes on has the state of one that did not.
void check_goes_on(const Trainer& whole, const std::shared_ptr<const DataSet>& data) {
  const ScratchFolder folder;
  Trainer first(whole.config(), data, whole.device());
  for (int i = 0; i < 5; ++i) first.step();
  write_checkpoint(folder / "c", first, 1);
  CHECK(read_checkpoint_info(folder / "c").config == whole.config());
  Trainer second = resume_trainer(folder / "c", data, whole.device());
  for (int i = 0; i < 3; ++i) second.step();
  CHECK(coupled_state(second) == coupled_state(whole));
}

}  // namespace

TEST_CASE("couplings bring noise nearer to its samples, and make none", "[methods][coupling]") {
  const HostBatch batch = eight_gaussians()->batch(128, 3, 5);
  const auto noise = [&](const Coupling& coupling) {
    return coupled_noise(coupling, batch, false, 3, 5);
  };
  const std::vector<float> any = noise({}), exact = noise({.kind = CouplingKind::exact}),
                           near = noise({.kind = CouplingKind::sinkhorn, .epsilon = 0.02}),
                           wide = noise({.kind = CouplingKind::sinkhorn, .epsilon = 1e4});
  CHECK(noise({}) == any);
  CHECK(coupled_noise({}, batch, false, 3, 6) != any);
  CHECK(coupled_noise({}, batch, false, 4, 5) != any);
  auto before = rows_of(any, 2), after = rows_of(exact, 2);
  std::ranges::sort(before);
  std::ranges::sort(after);
  CHECK(before == after);
  for (const Row& row : rows_of(near, 2)) CHECK(std::ranges::binary_search(before, row));
  INFO(mean_cost(batch, any) << " " << mean_cost(batch, exact) << " " << mean_cost(batch, near));
  CHECK(mean_cost(batch, exact) < 0.6 * mean_cost(batch, any));
  CHECK(mean_cost(batch, near) < 0.7 * mean_cost(batch, any));
  CHECK(mean_cost(batch, wide) > 0.8 * mean_cost(batch, any));
  const double squared = std::pow(wasserstein2({batch.x, 128, 2}, {any, 128, 2}), 2);
  CHECK(mean_cost(batch, exact) == Approx(squared).epsilon(1e-6));
}

TEST_CASE("the exact coupling of a few points is the best of all", "[methods][coupling]") {
  for (std::int64_t n = 1; n <= 7; ++n)
    for (std::uint64_t step = 0; step < 5; ++step) {
      const HostBatch batch = moons()->batch(n, 1, step);
      const std::vector<float> any = coupled_noise({}, batch, false, 1, step);
      std::vector<std::size_t> order(static_cast<std::size_t>(n));
      std::iota(order.begin(), order.end(), std::size_t{0});
      double best = 1e30;
      do {
        std::vector<float> moved;
        for (const std::size_t row : order)
          moved.insert(moved.end(), {any[2 * row], any[2 * row + 1]});
        best = std::min(best, mean_cost(batch, moved));
      } while (std::next_permutation(order.begin(), order.end()));
      const std::vector<float> exact =
          coupled_noise({.kind = CouplingKind::exact}, batch, false, 1, step);
      CHECK(mean_cost(batch, exact) == Approx(best).epsilon(1e-9));
    }
}

TEST_CASE("noise changes places within a class", "[methods][coupling]") {
  HostBatch batch = moons()->batch(60, 1, 0);
  for (std::size_t i = 0; i < 60; ++i) batch.labels[i] = static_cast<std::int32_t>(i % 3);
  const auto of_class = [&](const std::vector<float>& noise, std::size_t label) {
    std::vector<Row> rows;
    for (std::size_t i = label; i < 60; i += 3) rows.push_back({noise[2 * i], noise[2 * i + 1]});
    std::ranges::sort(rows);
    return rows;
  };
  const Coupling exact{.kind = CouplingKind::exact};
  const std::vector<float> any = coupled_noise({}, batch, true, 1, 0),
                           within = coupled_noise(exact, batch, true, 1, 0),
                           across = coupled_noise(exact, batch, false, 1, 0);
  for (const std::size_t label : {0u, 1u, 2u})
    CHECK(of_class(within, label) == of_class(any, label));
  CHECK(of_class(across, 0) != of_class(any, 0));
  CHECK(mean_cost(batch, across) <= mean_cost(batch, within));
  CHECK(mean_cost(batch, within) < 0.8 * mean_cost(batch, any));
}

TEST_CASE("samples that are not finite keep their noise", "[methods][coupling]") {
  HostBatch batch = moons()->batch(8, 1, 0);
  batch.x[5] = std::nanf("");
  const std::vector<float> any = coupled_noise({}, batch, false, 1, 0),
                           exact = coupled_noise({.kind = CouplingKind::exact}, batch, false, 1, 0);
  CHECK(Row(exact.begin() + 4, exact.begin() + 6) == Row(any.begin() + 4, any.begin() + 6));
}

TEST_CASE("every method that takes pairs trains on coupled noise, and goes on bit for bit",
          "[methods][coupling]") {
  int takers = 0;
  for (const auto& method : built_in_methods())
    for (const CouplingKind kind : {CouplingKind::exact, CouplingKind::sinkhorn}) {
      INFO(method->name << " " << to_string(kind));
      const TrainingConfig config = coupled_points(method->name, kind, 8);
      const std::shared_ptr<const DataSet> data = eight_gaussians();
      const Device device = cpu({.threads = 1});
      if (method->needs_pairs) continue;
      if (!method->takes_pairs) {
        CHECK(contains(message_of([&] { Trainer(config, data, device); }), "takes no coupling"));
        continue;
      }
      ++takers;
      TrainingConfig independent = config;
      independent.coupling = {};
      Trainer whole(config, data, device), other(independent, data, device);
      CHECK(whole.memory_report().peak_bytes() == step_memory(config, device).peak_bytes());
      for (int i = 0; i < 8; ++i) CHECK(std::isfinite(whole.step().loss.item<float>()));
      for (int i = 0; i < 8; ++i) other.step();
      CHECK(coupled_state(other) != coupled_state(whole));
      check_goes_on(whole, data);
      CHECK(whole.traces() == 1);
      CHECK(whole.model(Weights::raw).info.coupling == to_string(kind));
      CHECK(other.model(Weights::raw).info.coupling.empty());
    }
  CHECK(takers >= 2 * 10);
}

TEST_CASE("classes are coupled each on its own while a network with classes is trained",
          "[methods][coupling]") {
  TrainingConfig config{.network = DitConfig{.image_size = 8,
                                             .patch_size = 4,
                                             .hidden_size = 16,
                                             .depth = 1,
                                             .num_heads = 2,
                                             .num_classes = 10},
                        .method = configure("flow-matching"),
                        .batch = 16,
                        .coupling = {.kind = CouplingKind::exact}};
  Trainer trainer(config, glyphs(8), cpu({.threads = 1}));
  for (int i = 0; i < 2; ++i) CHECK(std::isfinite(trainer.step().loss.item<float>()));
}

TEST_CASE("a flow may begin in a set of points, coupled or not", "[methods][coupling]") {
  const std::shared_ptr<const DataSet> data = moons(), source = source_set("8gaussians", {2});
  const HostBatch batch = data->batch(64, 4, 3);
  const std::vector<float> any = coupled_noise({.source = "8gaussians"}, batch, false, 4, 3,
                                               source.get()),
                           exact = coupled_noise({.kind = CouplingKind::exact}, batch, false, 4, 3,
                                                 source.get());
  CHECK(any == source_points(*source, SourceUse::training, 4, 3 * 64, 64));
  std::vector<Row> drawn = rows_of(any, 2), moved = rows_of(exact, 2);
  CHECK(mean_cost(batch, exact) < mean_cost(batch, any));
  std::ranges::sort(drawn), std::ranges::sort(moved);
  CHECK(drawn == moved);
  // Neither the data of that name, nor what samples begin with.
  CHECK(any != source->batch(64, 4, 3).x);
  CHECK(any != source_points(*source, SourceUse::drawing, 4, 3 * 64, 64));

  for (const CouplingKind kind : {CouplingKind::independent, CouplingKind::exact}) {
    INFO(to_string(kind));
    TrainingConfig config = coupled_points("flow-matching", kind, 0);
    config.coupling.source = "8gaussians";
    const Device device = cpu({.threads = 1});
    const ScratchFolder folder;
    Trainer whole(config, data, device);
    CHECK(whole.memory_report().peak_bytes() == step_memory(config, device).peak_bytes());
    for (int i = 0; i < 8; ++i) whole.step();
    check_goes_on(whole, data);
    write_model(folder / "m", whole.model(Weights::raw));
    const ModelInfo info = read_model_info(folder / "m");
    CHECK(info.source == "8gaussians");
    CHECK(info.coupling == (kind == CouplingKind::exact ? "exact" : "source"));
    CHECK(default_sampler(info).source == "8gaussians");
    CHECK_FALSE(default_sampler(info).independent_noise);
  }
}

TEST_CASE("samples begin with points of the source, each by its number", "[methods][coupling]") {
  const Device device = cpu({.threads = 1});
  const Predictor still{[](const Tensor& z, const Times&, const Tensor&) { return zeros_like(z); },
                        Path::linear(), Prediction::velocity};
  SamplerOptions options{.kind = SamplerKind::ode_euler, .steps = 2};
  options.source = "moons";
  const Sampler sampler(still, {2}, 0, DType::f32, device, options);
  const std::vector<float> want =
      source_points(*source_set("moons", {2}), SourceUse::drawing, 7, 0, 23);
  for (const std::int64_t batch : {1, 5, 8, 23}) CHECK(sampler.sample(23, batch, 7) == want);
  CHECK(sampler.sample(23, 8, 8) != want);
  options.source = "glyphs";
  CHECK_THAT(message_of([&] { Sampler(still, {2}, 0, DType::f32, device, options); }),
             has_text("built-in sets of points") && has_text("8gaussians"));
  CHECK_THROWS_AS(source_set("moons", {3}), ShapeError);
}

TEST_CASE("few steps follow coupled paths better", "[methods][coupling]") {
  const auto distance = [](CouplingKind kind) {
    const std::shared_ptr<const DataSet> data = eight_gaussians();
    TrainingConfig config = coupled_points("flow-matching", kind, 0);
    config.batch = 128;
    Trainer trainer(config, data, cpu({.threads = 1}));
    for (int i = 0; i < 300; ++i) trainer.step();
    const Model model = trainer.model(Weights::average);
    SamplerOptions options = default_sampler(model.info);
    options.steps = 2;
    const std::vector<float> drawn = Sampler(model.info.network, model.parameters, options)
                                         .sample(500, 500, 9),
                             real = data->batch(500, 77, 0).x;
    return energy_distance({drawn, 500, 2}, {real, 500, 2}, true, 1);
  };
  const double independent = distance(CouplingKind::independent),
               exact = distance(CouplingKind::exact);
  INFO("energy distance in two steps: " << independent << " independent, " << exact << " exact");
  CHECK(exact < 0.6 * independent);
}

TEST_CASE("what can't be coupled is refused in a line", "[methods][coupling]") {
  TrainingConfig config = coupled_points("flow-matching", CouplingKind::exact, 0);
  config.batch = 5000;
  CHECK(contains(message_of([&] { check(config); }), "batches of at most 4096"));
  config.batch = 64;
  config.coupling.epsilon = 0;
  CHECK(contains(message_of([&] { check(config); }), "epsilon"));
  CHECK_THROWS_AS(coupling_kind_from("best"), FormatError);
  TrainingConfig denoiser = coupled_points("edm", CouplingKind::independent, 0);
  denoiser.coupling.source = "moons";
  CHECK(contains(message_of([&] { check(denoiser); }), "takes no coupling"));
  config.coupling = {.kind = CouplingKind::sinkhorn, .epsilon = 1.0 / 3, .source = "moons"};
  CHECK(training_config_from_json(nlohmann::json::parse(training_config_to_json(config).dump())) ==
        config);
}
