// Runs that stop and go on: the same bits, one log, and no trust in files.
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "engine/plan_cache.h"
#include "engine/platform/file.h"
#include "models/data/glyphs.h"
#include "models/data/points.h"
#include "models/files/safetensors.h"
#include "models/training/checkpoint.h"
#include "models/training/memory.h"
#include "models/training/run.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/mutate.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

TrainingConfig checkpointed_points() {
  return {.network = MlpConfig{.hidden = {16, 16}},
          .optimiser = {.clip_norm = 1, .ema_decays = {0.9, 0.99}},
          .schedule = {.kind = ScheduleKind::cosine, .warm_up_steps = 4, .steps = 40},
          .batch = 32,
          .seed = 3};
}

TrainingConfig checkpointed_digits() {
  return {.network = DitConfig{.image_size = 8,
                               .patch_size = 4,
                               .hidden_size = 16,
                               .depth = 1,
                               .num_heads = 2,
                               .num_classes = 10},
          .method = configure("meanflow", {{"kappa", 0.5}}),
          .batch = 8,
          .seed = (std::uint64_t{1} << 63) + 5};
}

std::vector<std::vector<float>> everything(const Trainer& trainer) {
  std::vector<std::vector<float>> values;
  for (const Tensor& tensor : leaves(trainer.state()))
    if (tensor.dtype() == DType::f32) values.push_back(tensor.to_host<float>());
  return values;
}

void check_resumes(const TrainingConfig& config, const std::shared_ptr<const DataSet>& data) {
  const ScratchFolder folder;
  const Device device = cpu({.threads = 2});
  Trainer whole(config, data, device), first(config, data, device);
  for (int i = 0; i < 9; ++i) whole.step();
  for (int i = 0; i < 5; ++i) first.step();
  write_checkpoint(folder / "c", first, 1.5, "{\"a\": 1}");
  Trainer second = resume_trainer(folder / "c", data, device);
  CHECK(second.steps_done() == 5);
  CHECK(second.config() == config);
  CHECK(everything(second) == everything(first));
  for (int i = 0; i < 4; ++i) second.step();
  CHECK(everything(second) == everything(whole));
  CHECK(second.model(Weights::average, 0).parameters.size() ==
        whole.model(Weights::average, 0).parameters.size());
  CHECK(second.traces() == 1);

  const CheckpointInfo info = read_checkpoint_info(folder / "c");
  CHECK(info.step == 5);
  CHECK(info.seconds == 1.5);
  CHECK(info.settings == "{\"a\": 1}");
  CHECK(info.data.name == data->name());
  CHECK(checkpoint_bytes(config) < std::filesystem::file_size(folder / "c"));
}

// The numbers of a log, without its seconds and memory.
std::vector<std::string> rows_of(const std::filesystem::path& log) {
  std::vector<std::string> rows;
  std::istringstream text(text_of(log));
  for (std::string line; std::getline(text, line);) {
    const auto first = line.find(','), second = line.find(',', first + 1);
    rows.push_back(line.substr(0, first) + line.substr(second, line.rfind(',') - second));
  }
  return rows;
}

std::vector<std::byte> file_bytes(const std::filesystem::path& path) {
  return bytes_of(text_of(path));
}

}  // namespace

TEST_CASE("a run that stops and goes on has the bits of one that never stopped",
          "[training][resume]") {
  check_resumes(checkpointed_points(), moons());
  check_resumes(checkpointed_digits(), glyphs(8));
}

TEST_CASE("a run that stops between two rows of its log has the rows of one that did not",
          "[training][resume]") {
  const ScratchFolder folder;
  const auto data = std::shared_ptr<const DataSet>(moons());
  const std::filesystem::path checkpoint = folder / "parts/checkpoint.safetensors";
  Trainer whole(checkpointed_points(), data, cpu({.threads = 1}));
  run_training(whole, {.steps = 36}, {.folder = folder / "whole"});
  Trainer first(checkpointed_points(), data, cpu({.threads = 1}));
  run_training(first, {.steps = 4}, {.folder = folder / "parts"});
  for (const std::int64_t steps : {7, 13, 14, 20, 36}) {
    const CheckpointInfo info = read_checkpoint_info(checkpoint);
    CHECK(info.since_row.steps == (info.step < 10 ? info.step - 1 : info.step % 10));
    Trainer next = resume_trainer(checkpoint, data, cpu({.threads = 1}));
    run_training(next, {.steps = steps}, {.folder = folder / "parts", .since_row = info.since_row},
                 {}, info.seconds);
  }
  CHECK(rows_of(folder / "whole/log.csv") == rows_of(folder / "parts/log.csv"));
}

TEST_CASE("a log that somebody has edited loses no row without a word", "[training][resume]") {
  const ScratchFolder folder;
  const std::filesystem::path path = folder / "log.csv";
  {
    TrainingLog log(path, 0, {});
    for (const std::int64_t step : {10, 20, 30}) log.add({step, 1, 2, 3, 4, 5, 6});
  }
  const std::string whole = text_of(path);
  // As a spreadsheet saves it.
  std::string lines;
  for (const char c : whole) lines += c == '\n' ? std::string("\r\n") : std::string(1, c);
  replace_file(path, lines);
  const TrainingLog read(path, 30, path);
  CHECK(read.rows().size() == 3);
  CHECK(read.kept().empty());
  CHECK(text_of(path) == whole);
  // A line that is no row, and columns of another kind.
  const std::size_t second = whole.find("\n20,") + 1;
  for (const std::string& edited :
       {whole.substr(0, second) + "note: here the rate fell\n" + whole.substr(second),
        "step;seconds\n" + whole}) {
    replace_file(path, edited);
    const TrainingLog other(path, 30, path);
    CHECK(other.rows().size() == (edited.starts_with("step;") ? 0 : 1));
    REQUIRE(other.kept() == folder / "log-before.csv");
    CHECK(text_of(other.kept()) == edited);
  }
  // The same file by another name.
  replace_file(path, "step;seconds\n" + whole);
  CHECK_FALSE(TrainingLog(path, 30, folder / "." / "log.csv").kept().empty());
}

TEST_CASE("a resumed run continues its log, its files and its limits", "[training][resume]") {
  const ScratchFolder folder;
  const auto data = std::shared_ptr<const DataSet>(moons());
  const RunOutput whole_output{.folder = folder / "whole"},
      parts_output{.folder = folder / "parts"};
  Trainer whole(checkpointed_points(), data, cpu({.threads = 1}));
  run_training(whole, {.steps = 40}, whole_output);
  Trainer first(checkpointed_points(), data, cpu({.threads = 1}));
  run_training(first, {.steps = 20}, parts_output);
  // Rows after the checkpoint, and a last one that a crash cut short, are not part of the run.
  std::ofstream(folder / "parts/log.csv", std::ios::app) << "25,9,9,9,9,9,9\n30,9,9,9";
  const CheckpointInfo info = read_checkpoint_info(folder / "parts/checkpoint.safetensors");
  Trainer second =
      resume_trainer(folder / "parts/checkpoint.safetensors", data, cpu({.threads = 1}));
  CHECK_THROWS_AS(run_training(second, {.steps = 20}, parts_output), Error);
  CHECK_THROWS_AS(run_training(second, {.steps = 40, .minutes = 1}, parts_output, {}, 61), Error);
  const RunSummary summary = run_training(second, {.steps = 40}, parts_output, {}, info.seconds);
  CHECK(summary.last.step == 40);
  CHECK(summary.last.seconds > info.seconds);
  CHECK(rows_of(folder / "whole/log.csv") == rows_of(folder / "parts/log.csv"));
  for (const char* name :
       {"model.safetensors", "model-ema0.99.safetensors", "model-raw.safetensors"}) {
    INFO(name);
    CHECK(text_of(folder / "whole" / name) == text_of(folder / "parts" / name));
  }
  CHECK(everything(whole) == everything(second));
}

TEST_CASE("a new run in the folder of another keeps that one's checkpoint", "[training][resume]") {
  const ScratchFolder folder;
  const RunOutput output{.folder = folder / "run"};
  std::vector<std::string> warnings;
  const RunHooks hooks{.warn = [&](const std::string& text) { warnings.push_back(text); }};
  for (const std::uint64_t seed : {1, 2}) {
    TrainingConfig config = checkpointed_points();
    config.seed = seed;
    Trainer trainer(config, moons(), cpu({.threads = 1}));
    run_training(trainer, {.steps = 3}, output, hooks);
  }
  CHECK(warnings.size() == 1);
  CHECK(read_checkpoint_info(folder / "run/checkpoint-before.safetensors").config.seed == 1);
  CHECK(read_checkpoint_info(folder / "run/checkpoint.safetensors").config.seed == 2);
}

TEST_CASE("checkpoints come as often as asked, and what a killed run left half written goes",
          "[training][resume]") {
  const ScratchFolder folder;
  std::filesystem::create_directories(folder / "run/samples");
  for (const char* name : {"run/.checkpoint.safetensors.1-2-3.part",
                           "run/samples/.step_000010.png.1-2-3.part", "run/notes.part"})
    std::ofstream(folder / name) << "half";
  Trainer trainer(checkpointed_points(), moons(), cpu({.threads = 1}));
  std::vector<std::int64_t> seen;
  run_training(trainer, {.steps = 10},
               {.folder = folder / "run", .checkpoint_seconds = 0, .checkpoint_steps = 3},
               {.report = [&](const RunProgress&) {
                 if (const auto path = folder / "run/checkpoint.safetensors";
                     std::filesystem::exists(path))
                   seen.push_back(read_checkpoint_info(path).step);
               }});
  CHECK(seen == std::vector<std::int64_t>{3, 3, 3, 6, 6, 6, 9});
  CHECK(read_checkpoint_info(folder / "run/checkpoint.safetensors").step == 10);
  CHECK_FALSE(std::filesystem::exists(folder / "run/.checkpoint.safetensors.1-2-3.part"));
  CHECK_FALSE(std::filesystem::exists(folder / "run/samples/.step_000010.png.1-2-3.part"));
  CHECK(std::filesystem::exists(folder / "run/notes.part"));
}

TEST_CASE("other data than the checkpoint's are refused", "[training][resume]") {
  const ScratchFolder folder;
  Trainer trainer(checkpointed_digits(), glyphs(8), cpu({.threads = 1}));
  write_checkpoint(folder / "c", trainer, 0);
  CHECK_THROWS_AS(resume_trainer(folder / "c", moons(), cpu()), Error);
  CHECK_THROWS_AS(resume_trainer(folder / "c", glyphs(16), cpu()), Error);
}

TEST_CASE("a checkpoint that does not fit itself is refused by name", "[training][resume]") {
  const ScratchFolder folder;
  const Device device = cpu({.threads = 1});
  Trainer trainer(checkpointed_points(), moons(), device);
  trainer.step();
  write_checkpoint(folder / "c", trainer, 0);
  const TensorFile content = load_tensors(folder / "c", device);
  const auto message_with = [&](const std::function<void(TensorFile&)>& change) {
    TensorFile changed = content;
    change(changed);
    save_tensors(folder / "d", changed.tensors, changed.metadata);
    return message_of<FormatError>([&] {
      read_checkpoint_info(folder / "d");
      resume_trainer(folder / "d", moons(), device);
    });
  };
  const auto edited = [&](const char* pointer, const nlohmann::json& value) {
    return message_with([&](TensorFile& file) {
      nlohmann::json info = nlohmann::json::parse(file.metadata.at("fluxion.checkpoint"));
      info[nlohmann::json::json_pointer(pointer)] = value;
      file.metadata["fluxion.checkpoint"] = info.dump();
    });
  };
  CHECK(contains(message_with([](TensorFile& file) { file.tensors.erase("m.layers.0.bias"); }),
                 "'m.layers.0.bias' is missing"));
  CHECK(contains(message_with([&](TensorFile& file) {
                   file.tensors["v.layers.0.bias"] =
                       Tensor::from(std::vector<float>{1}, {1}, device);
                 }),
                 "'v.layers.0.bias' is f32[1]"));
  CHECK(contains(message_with([&](TensorFile& file) {
                   file.tensors["more"] = Tensor::from(std::vector<float>{1}, {1}, device);
                 }),
                 "no part of"));
  CHECK(contains(message_with([](TensorFile& file) { file.metadata.clear(); }), "no checkpoint"));
  CHECK(contains(message_with([](TensorFile& file) {
                   file.metadata["fluxion.checkpoint"] = "{\"version\": 1}";
                 }),
                 "config"));
  CHECK(contains(edited("/version", 3), "version 3"));
  CHECK(contains(edited("/step", 7), "step 7"));
  CHECK(contains(edited("/step", -1), "step -1"));
  CHECK(contains(edited("/seconds", "long"), "seconds must be a finite number"));
  CHECK(contains(edited("/config/network/config/hidden", {1 << 20, 1 << 20}), "layers"));
  CHECK(contains(edited("/config/network/config/hidden", {std::int64_t{1} << 40}), "hidden"));
  CHECK(contains(edited("/config/network/config/hidden", std::vector<int>(1025, 16)), "1024"));
  CHECK(contains(message_with([](TensorFile& file) {
                   file.metadata["fluxion.checkpoint"] =
                       "{\"version\": " + std::string(400000, '[');
                 }),
                 "deep"));
  CHECK(contains(edited("/config/optimiser/ema_decays", nlohmann::json::array()), "decays"));
  CHECK(contains(edited("/config/optimiser/ema_decays", {2, 0.5}), "decay"));
  CHECK(contains(edited("/config/batch", 0), "batch"));
  CHECK(contains(edited("/config/schedule/learning_rate", nullptr), "null"));
  CHECK(message_with([](TensorFile&) {}).empty());
}

TEST_CASE("a damaged checkpoint is a clear error, whatever the damage", "[training][resume]") {
  const ScratchFolder folder;
  Trainer trainer(checkpointed_points(), moons(), cpu({.threads = 1}));
  write_checkpoint(folder / "c", trainer, 0, "{}");
  const std::vector<std::byte> whole = file_bytes(folder / "c");
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const auto data = std::shared_ptr<const DataSet>(moons());
  for (int round = 0; round < 300; ++round) {
    std::vector<std::byte> damaged;
    if (round % 3 == 0) {
      damaged.assign(whole.begin(),
                     whole.begin() + static_cast<std::ptrdiff_t>(random() % whole.size()));
    } else {
      // Most of the header is a text; damage it rather than the numbers, where any value is one.
      const std::size_t header =
          8 + static_cast<std::size_t>(std::to_integer<unsigned>(whole[0]) +
                                       256 * std::to_integer<unsigned>(whole[1]));
      damaged =
          mutate({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(header)}, random);
      damaged.insert(damaged.end(), whole.begin() + static_cast<std::ptrdiff_t>(header),
                     whole.end());
    }
    const std::string text(reinterpret_cast<const char*>(damaged.data()), damaged.size());
    std::ofstream(folder / "d", std::ios::binary) << text;
    try {
      Trainer resumed = resume_trainer(folder / "d", data, trainer.device());
      CHECK(resumed.steps_done() == 0);
    } catch (const Error& error) {
      CHECK_FALSE(std::string(error.what()).empty());
    }
  }
}

TEST_CASE("a model may have class names that are no UTF-8", "[training]") {
  const ScratchFolder folder;
  Model model;
  model.info.network = DitConfig{.image_size = 4,
                                 .patch_size = 2,
                                 .hidden_size = 8,
                                 .depth = 1,
                                 .num_heads = 1,
                                 .num_classes = 1};
  model.parameters = initialise(model.info.network, random_key(0, cpu({.threads = 1})));
  model.info.class_names = {"caf\xe9"};
  write_model(folder / "m", model);
  CHECK(read_model_info(folder / "m").class_names == std::vector<std::string>{"caf\xef\xbf\xbd"});
}

TEST_CASE("a training configuration goes through JSON bit for bit", "[training][resume]") {
  for (TrainingConfig config : {checkpointed_points(), checkpointed_digits()}) {
    config.schedule.learning_rate = 1.0 / 3;
    config.optimiser.ema_decays = {0.1 + 0.2, std::nextafter(1.0, 0.0)};
    CHECK(training_config_from_json(
              nlohmann::json::parse(training_config_to_json(config).dump())) == config);
  }
  CHECK_THROWS_AS(training_config_from_json(nlohmann::json::array()), FormatError);
}

TEST_CASE("the largest batch fits, and twice as much would not", "[training][memory]") {
  const Device device = cpu({.threads = 2});
  TrainingConfig config = checkpointed_digits();
  const auto needs = [&](std::int64_t batch) {
    config.batch = batch;
    return run_memory(config, step_memory(config, device));
  };
  const std::uint64_t room = needs(32) + (needs(64) - needs(32)) / 2;
  CHECK(largest_batch(config, device, room, 1024) == 32);
  CHECK(largest_batch(config, device, room, 20) == 16);
  CHECK(largest_batch(config, device, 1 << 20, 1024) == 0);
  // Of all that were tried, one plan stays, and it counts.
  const Device fresh = cpu({.threads = 2}), once = cpu({.threads = 2});
  CHECK(largest_batch(config, fresh, room, 1024) == 32);
  step_memory(config, once);
  CHECK(fresh.plans().size() <= once.plans().size());
  MemoryReport report = step_memory(config, fresh);
  const std::uint64_t planned = run_memory(config, report);
  report.kernels += 1024;
  CHECK(run_memory(config, report) >= planned + (15 << 20));

  // Noise of their own is as large as the samples, in the step and in the batches made ahead.
  config.batch = 32;
  config.method = configure("flow-matching");
  const std::uint64_t unpaired = run_memory(config, step_memory(config, device)),
                      paired = run_memory(config, step_memory(config, device, true), true);
  const std::uint64_t samples =
      static_cast<std::uint64_t>(32 * sample_shape(config.network).elements()) * sizeof(float);
  constexpr std::uint64_t draw = 128 << 10;  // the kernels that draw noise in the step, at most
  CHECK(paired + draw >= unpaired + 12 * samples);
  CHECK(largest_batch(config, device, unpaired + samples, 32) == 32);
  CHECK(largest_batch(config, device, unpaired + samples, 32, true) == 16);
  config = checkpointed_digits();

  config.batch = 8;
  const MemoryReport before = step_memory(config, device),
                     trained = Trainer(config, glyphs(8), device).memory_report();
  CHECK(before.peak_bytes() == trained.peak_bytes());
  CHECK(before.kernels == trained.kernels);
}
