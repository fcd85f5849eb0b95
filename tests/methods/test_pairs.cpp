// Pairs of a trained model on disk: made in parts, read with distrust, trained on.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/data/glyphs.h"
#include "models/data/points.h"
#include "models/samplers/default_sampler.h"
#include "models/training/checkpoint.h"
#include "models/training/pairs.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/error_message.h"
#include "tests/files/mutate.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

const Device& pair_device() {
  static const Device device = cpu({.threads = 1});
  return device;
}

TrainingConfig pair_teacher(const std::string& method) {
  TrainingConfig config{.network = MlpConfig{.hidden = {16, 16}},
                        .method = configure(method, {}, SampleKind::points),
                        .batch = 32};
  if (config.method.method->has_schedule) config.total_steps = 10;
  return config;
}

std::filesystem::path write_teacher(const ScratchFolder& folder, const TrainingConfig& config,
                                    const std::shared_ptr<const DataSet>& data = moons()) {
  Trainer trainer(config, data, pair_device());
  for (int i = 0; i < 5; ++i) trainer.step();
  write_model(folder / "teacher.safetensors", trainer.model(Weights::raw));
  return folder / "teacher.safetensors";
}

// 8 + 8 + 8 + 6 pairs of two numbers each.
constexpr PairOptions few{.count = 30, .steps = 3, .seed = 5, .batch = 5, .file_bytes = 128};

}  // namespace

TEST_CASE("rf++ with the weights of an EDM model begins with its flow", "[methods][pairs]") {
  const Device device = cpu({.threads = 1});
  const NetworkConfig network = MlpConfig{.hidden = {12, 12}};
  const Velocity raw =
      bind_parameters(network, initialise(network, random_key(1, device), DType::f64));
  ModelInfo edm, straight;
  describe(configure("edm", {{"sigma-data", 1.5}}), edm);
  describe(configure("rf++", {{"sigma-data", 1.5}}), straight);
  CHECK(straight.sampling == DefaultSampling{.sampler = "rf++", .steps = 2});
  const Predictor denoiser = predictor(edm, raw), flow = predictor(straight, raw);
  const Tensor z = normal(random_key(2, device), {5, 2}, DType::f64);
  for (const double t : {1e-3, 0.1, 0.5, 0.98}) {
    INFO(t);
    const auto at = [&](double time) { return full({5}, time, DType::f64, device); };
    const Tensor D = denoiser(Prediction::data, z / (1 - t), at(t / (1 - t)));
    const Tensor v = flow(Prediction::velocity, z, at(t));
    CHECK(max(abs(v - (z - D) / t)).item<double>() < 1e-10);
  }
  // In one step and in two, from all the noise there is.
  for (const std::int64_t steps : {1, 2}) {
    SamplerOptions options = default_sampler(straight);
    options.steps = steps;
    const Tensor drawn = Sampler(flow, {2}, 0, DType::f64, device, options)(z);
    CHECK(std::isfinite(sum(drawn).item<double>()));
  }
}

TEST_CASE("pairs by the million are in no more files than a process may open", "[methods][pairs]") {
  const ScratchFolder folder;
  const auto teacher = write_teacher(folder, pair_teacher("flow-matching"));
  for (const std::int64_t count : {30, 100'000, 17'000'000}) {
    PairOptions options = few;
    options.count = count;
    const PairsPlan plan = plan_pairs(folder / "many", teacher, options);
    INFO(count);
    CHECK(plan.info.files() <= 512);
    CHECK(plan.info.pairs_in(plan.info.files() - 1) > 0);
  }
}

TEST_CASE("a pair is noise and what the teacher's sampler makes of it", "[methods][pairs]") {
  for (const std::string method : {"flow-matching", "meanflow", "edm"}) {
    INFO(method);
    const ScratchFolder folder;
    const auto teacher = write_teacher(folder, pair_teacher(method));
    const PairsPlan plan = plan_pairs(folder / "pairs", teacher, few);
    CHECK(plan.info.files() == 4);
    CHECK(plan.info.pairs_in(3) == 6);
    CHECK(plan.bytes == 30 * 16);
    CHECK(plan.bytes_to_come == plan.bytes);
    std::vector<std::int64_t> seen;
    REQUIRE(make_pairs(folder / "pairs", teacher, plan, few, pair_device(),
                       [&](std::int64_t done) { seen.push_back(done); }));
    CHECK(seen.back() == 30);
    const auto set = make_data_set((folder / "pairs").string());
    CHECK(set->has_noise());
    CHECK(set->size() == 30);
    CHECK(set->name() == "moons");
    const HostBatch batch = set->batch(30, 1, 0);
    const Model model = read_model(teacher, pair_device());
    SamplerOptions options = default_sampler(model.info);
    options.steps = 3;
    const Tensor noise = Tensor::from(batch.noise, {30, 2}, pair_device());
    const std::vector<float> drawn =
        Sampler(model.info.network, model.parameters, options)(noise).to_host<float>();
    for (std::size_t i = 0; i < drawn.size(); ++i)
      CHECK(batch.x[i] == Approx(drawn[i]).margin(1e-5));
    double square = 0;
    for (const float value : batch.noise) square += static_cast<double>(value) * value;
    CHECK(square / 60 == Approx(1).margin(0.5));
    // Another batch, the same pairs.
    PairOptions other = few;
    other.batch = 30, other.file_bytes = 1 << 20;
    REQUIRE(make_pairs(folder / "again", teacher, plan_pairs(folder / "again", teacher, other),
                       other, pair_device()));
    const HostBatch again = make_data_set((folder / "again").string())->batch(30, 1, 0);
    CHECK(again.noise == batch.noise);
    for (std::size_t i = 0; i < drawn.size(); ++i)
      CHECK(again.x[i] == Approx(batch.x[i]).margin(1e-5));
  }
}

TEST_CASE("pairs that were stopped go on where they were, bit for bit", "[methods][pairs]") {
  const ScratchFolder folder;
  const auto teacher = write_teacher(folder, pair_teacher("flow-matching"));
  const auto make = [&](const std::string& name, std::int64_t stop_at) {
    std::stop_source stop;
    const PairsPlan plan = plan_pairs(folder / name, teacher, few);
    return make_pairs(
        folder / name, teacher, plan, few, pair_device(),
        [&](std::int64_t done) {
          if (done >= stop_at) stop.request_stop();
        },
        stop.get_token());
  };
  REQUIRE(make("whole", 1000));
  CHECK_FALSE(make("parts", 13));
  CHECK(contains(message_of<IoError>([&] { make_data_set((folder / "parts").string()); }),
                 "pairs-00001-of-00004.safetensors is missing"));
  std::ofstream(folder / "parts/.pairs-00002-of-00004.safetensors.1-2-3.part") << "half";
  const PairsPlan rest = plan_pairs(folder / "parts", teacher, few);
  CHECK(rest.present == 8);
  CHECK(rest.bytes_to_come == 22 * 16);
  CHECK_FALSE(make("parts", 17));
  REQUIRE(make("parts", 1000));
  for (const auto& entry : std::filesystem::directory_iterator(folder / "whole"))
    CHECK(text_of(entry.path()) == text_of(folder / "parts" / entry.path().filename()));
  CHECK_FALSE(
      std::filesystem::exists(folder / "parts/.pairs-00002-of-00004.safetensors.1-2-3.part"));
  CHECK(plan_pairs(folder / "parts", teacher, few).files_to_come.empty());
}

TEST_CASE("pairs have the classes of their teacher", "[methods][pairs]") {
  const ScratchFolder folder;
  TrainingConfig config{.network = DitConfig{.image_size = 8,
                                             .patch_size = 4,
                                             .hidden_size = 16,
                                             .depth = 1,
                                             .num_heads = 2,
                                             .num_classes = 10},
                        .method = configure("flow-matching"),
                        .batch = 8};
  const auto teacher = write_teacher(folder, config, glyphs(8));
  const PairOptions options{.count = 21, .steps = 2, .batch = 4};
  REQUIRE(make_pairs(folder / "pairs", teacher, plan_pairs(folder / "pairs", teacher, options),
                     options, pair_device()));
  const auto set = make_data_set((folder / "pairs").string());
  CHECK(set->class_names() == glyphs(8)->class_names());
  CHECK(set->sample_shape() == Shape{8, 8, 1});
  CHECK(set->class_sizes() == std::vector<std::int64_t>{3, 2, 2, 2, 2, 2, 2, 2, 2, 2});
  CHECK(contains(message_of([&] { make_data_set((folder / "pairs").string(), {.flip = true}); }),
                 "taken as they are"));
  CHECK_THROWS_AS(make_data_set((folder / "pairs").string(), {.split = Split::test}), NoTestPart);
}

TEST_CASE("what makes no pairs is refused in a line", "[methods][pairs]") {
  const ScratchFolder folder;
  const auto teacher = write_teacher(folder, pair_teacher("flow-matching"));
  PairOptions options = few;
  options.sampler = "sde";
  CHECK(contains(message_of([&] { plan_pairs(folder / "p", teacher, options); }), "draws noise"));
  options = few;
  options.count = 1'000'000'000'000;
  CHECK(contains(message_of<IoError>([&] { plan_pairs(folder / "p", teacher, options); }),
                 "fewer --pairs"));
  CHECK_THROWS_AS(plan_pairs(folder / "p", folder / "none", few), IoError);
  REQUIRE(make_pairs(folder / "p", teacher, plan_pairs(folder / "p", teacher, few), few,
                     pair_device()));
  options = few;
  options.seed = 6;
  for (const std::int64_t count : {few.count, std::int64_t{90}}) {
    options.count = count;
    CHECK(
        contains(message_of([&] { plan_pairs(folder / "p", teacher, options); }),
                 "other pairs than these, of another teacher, number, sampler or seed: remove it"));
  }

  TrainingConfig reflow = pair_teacher("reflow");
  CHECK(contains(message_of([&] { Trainer(reflow, moons(), pair_device()); }), "--teacher MODEL"));
  const std::shared_ptr<const DataSet> set = make_data_set((folder / "p").string());
  CHECK(
      contains(message_of([&] { Trainer(pair_teacher("edm"), set, pair_device()); }), "no pairs"));
  reflow.coupling.kind = CouplingKind::exact;
  CHECK(contains(message_of([&] { Trainer(reflow, set, pair_device()); }), "no coupling changes"));
  Trainer meanflow(pair_teacher("meanflow"), set, pair_device());
  CHECK(std::isfinite(meanflow.step().loss.item<float>()));
  CHECK(meanflow.model(Weights::raw).info.coupling == "pairs");
}

TEST_CASE("a damaged file of pairs is a clear error, whatever the damage", "[methods][pairs]") {
  const ScratchFolder folder;
  const auto teacher = write_teacher(folder, pair_teacher("flow-matching"));
  PairOptions options = few;
  options.count = 4;
  REQUIRE(make_pairs(folder / "p", teacher, plan_pairs(folder / "p", teacher, options), options,
                     pair_device()));
  const auto path = folder / "p/pairs-00000-of-00001.safetensors";
  const TensorFile content = load_tensors(path, pair_device());
  const auto message_with = [&](const std::function<void(TensorFile&)>& change) {
    TensorFile changed = content;
    change(changed);
    save_tensors(path, changed.tensors, changed.metadata);
    return message_of<FormatError>([&] { make_data_set((folder / "p").string()); });
  };
  const auto edited = [&](const char* pointer, const nlohmann::json& value) {
    return message_with([&](TensorFile& file) {
      nlohmann::json info = nlohmann::json::parse(file.metadata.at("fluxion.pairs"));
      info[nlohmann::json::json_pointer(pointer)] = value;
      file.metadata["fluxion.pairs"] = info.dump();
    });
  };
  CHECK(message_with([](TensorFile&) {}).empty());
  CHECK(contains(message_with([](TensorFile& file) { file.tensors.erase("noise"); }), "'noise'"));
  CHECK(contains(
      message_with([](TensorFile& file) { file.tensors["more"] = file.tensors.at("noise"); }),
      "no part of pairs"));
  CHECK(contains(message_with([&](TensorFile& file) {
                   file.tensors["sample"] = full({4, 2}, NAN, DType::f32, pair_device());
                 }),
                 "not finite"));
  CHECK(contains(message_with([](TensorFile& file) { file.metadata.clear(); }), "holds no pairs"));
  CHECK(contains(edited("/version", 9), "version 9"));
  CHECK(contains(edited("/count", 3), "must be f32[3, 2]"));
  CHECK(contains(edited("/count", -3), "-3 pairs"));
  CHECK(contains(edited("/per_file", 0), "0 in a file"));
  CHECK(contains(edited("/sample_shape", {1 << 20, 1 << 20, 1 << 20}), "sample shape"));
  CHECK(contains(edited("/sample_shape", {2, 1}), "no points or images"));
  CHECK(contains(edited("/file", 1), "not part 0"));
  CHECK(contains(edited("/class_names", {"a", "b"}), "'label' is missing"));
  CHECK(message_of<IoError>([&] { edited("/per_file", 1); }).find("of-00004") != std::string::npos);

  save_tensors(path, content.tensors, content.metadata);
  const std::vector<std::byte> whole = bytes_of(text_of(path));
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::byte> damaged = mutate(whole, random);
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(damaged.data()), std::ssize(damaged));
    try {
      const auto set = make_data_set((folder / "p").string());
      CHECK(set->batch(4, 0, 0).noise.size() == set->batch(4, 0, 0).x.size());
    } catch (const Error& error) {
      CHECK_FALSE(std::string(error.what()).empty());
    }
  }
}

TEST_CASE("distillation to k steps sees the times of k steps alone", "[methods][pairs]") {
  const Device device = pair_device();
  for (const std::int64_t k : {1, 3}) {
    const MethodConfig method = configure("reflow", {{"distil-steps", k}}, SampleKind::points);
    ModelInfo info;
    describe(method, info);
    CHECK(info.sampling == DefaultSampling{.sampler = "euler", .steps = k});
    std::vector<float> seen;
    const NetworkConfig network = MlpConfig{};
    const Velocity watch = [&](const Tensor& z, const Times& times, const Tensor&) {
      seen = times.t.to_host<float>();
      return zeros_like(z);
    };
    const Tensor x = zeros({200, 2}, DType::f32, device);
    const Parameters none;
    const MethodState state;
    method.method->loss({.use = {network, method.options},
                         .velocity = watch,
                         .parameters = none,
                         .learned = none,
                         .state = state,
                         .bind = {},
                         .bind_trained = {},
                         .x = x,
                         .labels = {},
                         .noise = ones_like(x),
                         .key = random_key(3, device),
                         .step = zeros({}, DType::i32, device)});
    std::vector<int> counts(static_cast<std::size_t>(k));
    for (const float t : seen) {
      const double step = static_cast<double>(t) * static_cast<double>(k);
      REQUIRE(step == Approx(std::round(step)).margin(1e-5));
      REQUIRE(std::round(step) >= 1);
      ++counts.at(static_cast<std::size_t>(std::round(step)) - 1);
    }
    for (const int count : counts) CHECK(count > 150 / k);
  }
  ModelInfo info;
  describe(configure("reflow"), info);
  CHECK(info.sampling.steps == 4);
}

TEST_CASE("the program makes pairs, trains on them, goes on, and takes them again",
          "[cli][methods][pairs]") {
  const ScratchFolder folder;
  const std::string small = " --width 16 --depth 2 --batch 64 --threads 1 ";
  const auto run = [&](const std::string& line) { return run_program(line, folder.path()); };
  REQUIRE(
      run("train --quiet --data 8gaussians --method flow-matching --steps 30 --out first" + small)
          .code == 0);
  const std::string reflow =
      "train --method reflow --teacher first/model.safetensors --pairs 500 "
      "--pair-steps 5 --schedule constant" +
      small;
  // What has no effect is refused before pairs are drawn.
  const ProgramRun coupled = run(reflow + "--coupling exact --out x");
  CHECK(coupled.code == 1);
  CHECK(contains(coupled.error, "no coupling changes"));
  CHECK_FALSE(contains(coupled.error, "drawing pairs"));
  for (const char* times : {"--times uniform", "--time-shift 2", "--time-mean 0"}) {
    const ProgramRun refused = run(reflow + "--distil-steps 2 --out x " + times);
    INFO(refused.error);
    CHECK(refused.code == 1);
    CHECK_FALSE(contains(refused.error, "drawing pairs"));
    CHECK(contains(refused.error, "has no effect with --distil-steps 2"));
  }
  const ProgramRun whole = run(reflow + "--steps 30 --out whole");
  INFO(whole.error);
  REQUIRE(whole.code == 0);
  CHECK(
      contains(whole.error, "pairs      500 of first/model.safetensors, drawn with euler 5 steps"));
  CHECK(contains(whole.error, "pairs of 8gaussians"));
  REQUIRE(run(reflow + "--quiet --steps 12 --out parts").code == 0);
  const ProgramRun by_folder =
      run("train --quiet --method reflow --teacher first --pairs 20 --steps 2 --out f" + small);
  INFO(by_folder.error);
  CHECK(by_folder.code == 0);
  std::filesystem::remove_all(folder / "first");
  std::filesystem::rename(folder / "parts", folder / "moved");
  const ProgramRun resumed = run("train --resume moved --quiet --steps 30");
  INFO(resumed.error);
  REQUIRE(resumed.code == 0);
  CHECK(text_of(folder / "moved/model.safetensors") == text_of(folder / "whole/model.safetensors"));
  const ProgramRun again = run(
      "train --quiet --method reflow --distil-steps 1 --data whole/pairs --steps 5 --out again" +
      small);
  INFO(again.error);
  CHECK(again.code == 0);
  CHECK(read_model_info(folder / "again/model.safetensors").sampling.steps == 1);
  CHECK(run("train --quiet --config whole/config.json --steps 3 --out configured").code == 0);
  CHECK_FALSE(std::filesystem::exists(folder / "configured/pairs"));

  const auto refusal = [&](const std::string& line) {
    const ProgramRun refused = run(line);
    CHECK(refused.code != 0);
    return refused.error;
  };
  CHECK(contains(refusal("train --method reflow --out x"), "--teacher MODEL makes them"));
  CHECK(contains(refusal("train --method reflow --data whole/pairs --pairs 3 --out x"),
                 "--pairs has no effect without --teacher"));
  for (const char* line : {"train --config whole/config.json --pairs 600 --out x",
                           "train --config whole/config.json --data whole/pairs --pairs 7 --out x"})
    CHECK(contains(refusal(line), "--pairs has no effect without --teacher"));
  CHECK(contains(refusal("train --config whole/config.json --pair-sampler heun --out x"),
                 "--pair-sampler has no effect without --teacher"));
  for (const std::string& line : {reflow, std::string("train --config whole/config.json ")})
    CHECK(contains(refusal(line + "--data moons --out x"), "leave out --data"));
  CHECK(contains(refusal("train --method edm --data whole/pairs --out x"), "takes no coupling"));
  CHECK(contains(refusal("train --method flow-matching --coupling exact --coupling-epsilon 2 "
                         "--data moons --out x"),
                 "--coupling-epsilon has no effect"));
}
