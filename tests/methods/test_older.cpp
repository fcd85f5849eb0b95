// Files from before methods were rows of a table: tests/methods/golden holds models and checkpoints
// that were written then, what was drawn of them, and the models of runs that went on from them.
#include <nlohmann/json.hpp>

#include "backends/cpu/cpu.h"
#include "models/data/points.h"
#include "models/files/npy.h"
#include "models/files/safetensors.h"
#include "models/samplers/default_sampler.h"
#include "models/training/checkpoint.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(FLUXION_SOURCE_DIR) / "tests/methods/golden" / name;
}

// Kernels of another width may round in another order.
void check_near(const std::vector<float>& found, const std::vector<float>& expected) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i)
    CHECK(found[i] == Approx(expected[i]).margin(1e-4));
}

// The metadata of a checkpoint, with its configuration in the words of before.
void make_older(const std::filesystem::path& path, const nlohmann::json& objective,
                const Device& device) {
  TensorFile content = load_tensors(path, device);
  std::string& text = content.metadata.at("fluxion.checkpoint");
  nlohmann::json info = nlohmann::json::parse(text);
  info["version"] = 1;
  info["config"].erase("method");
  info["config"]["objective"] = objective;
  text = info.dump();
  save_tensors(path, content.tensors, content.metadata);
}

}  // namespace

TEST_CASE("the objectives of older files are methods that compute the same", "[methods]") {
  nlohmann::json older = {{"kind", "meanflow"},    {"c", 0.01},           {"p", 0.75},
                          {"omega", 3.0},          {"kappa", 0.5},        {"time_mean", -2.0},
                          {"time_std", 1.5},       {"equal_share", 0.25}, {"subset_jvp", false},
                          {"own_direction", true}, {"label_dropout", 0.2}};
  const GivenOptions times = {{"time-mean", -2.0}, {"time-std", 1.5}, {"label-dropout", 0.2}};
  GivenOptions split = times, meanflow = times;
  split.insert({"equal-share", 0.25});
  meanflow.insert({{"equal-share", 0.25},
                   {"weight-offset", 0.01},
                   {"power", 0.75},
                   {"tangent", "all"},
                   {"direction", "network"}});
  CHECK(method_from_json(older) == configure("meanflow", meanflow));
  older["kind"] = "flow_matching";
  CHECK(method_from_json(older) == configure("flow-matching", times));
  older["kind"] = "split_meanflow";
  CHECK(method_from_json(older) == configure("split-meanflow", split));
  older["kind"] = "meanflow_cfg";
  meanflow.insert({{"omega", 3.0}, {"kappa", 0.5}});
  CHECK(method_from_json(older) == configure("meanflow", meanflow));
  CHECK(method_from_json({{"kind", "meanflow_cfg"}}) == configure("meanflow", {{"kappa", 0.5}}));
  older["p"] = "high";
  CHECK_THROWS_AS(method_from_json(older), FormatError);
}

TEST_CASE("options that a file is older than are what the method did then", "[methods]") {
  const auto read = [](const char* text) { return method_from_json(nlohmann::json::parse(text)); };
  const MethodConfig older = read(R"({"method": "ffjord", "options": {"flow-steps": 4}})");
  CHECK(older.options.real("kinetic-weight") == 0);
  CHECK(older.options.real("jacobian-weight") == 0);
  CHECK(configure("ffjord").options.real("kinetic-weight") == 0.01);
}

TEST_CASE("older models are read and drawn as they were", "[methods]") {
  const Device device = cpu({.threads = 1});
  for (const std::string name : {"flow-matching", "meanflow", "split-meanflow", "guided"}) {
    INFO(name);
    const Model model = read_model(golden(name + ".safetensors"), device);
    CHECK(model.info.method == (name == "guided" ? "meanflow" : name));
    CHECK(model.info.guidance.has_value() == (name == "guided"));
    CHECK(model.info.open_class);
    const SamplerOptions options = default_sampler(model.info);
    CHECK(options.kind ==
          (name == "flow-matching" ? SamplerKind::ode_euler : SamplerKind::meanflow));
    CHECK(options.steps == (name == "flow-matching" ? 50 : 1));
    std::vector<std::int32_t> labels;
    if (name == "guided") labels = {0, 1, 2, 3, 4, 5};
    check_near(Sampler(model.info.network, model.parameters, options).sample(6, 6, 1, labels),
               read_npy(golden(name + ".npy")).values<float>());
  }
}

TEST_CASE("older checkpoints go on as they would have", "[methods]") {
  const Device device = cpu({.threads = 1});
  for (const std::string name : {"flow-matching", "meanflow", "split-meanflow"}) {
    INFO(name);
    Trainer trainer = resume_trainer(golden(name + ".checkpoint.safetensors"), moons(), device);
    CHECK(trainer.config().method.method->name == name);
    while (trainer.steps_done() < 8) trainer.step();
    const Model expected = read_model(golden(name + ".resumed.safetensors"), device);
    for (const auto& [parameter, tensor] : trainer.model(Weights::average).parameters) {
      INFO(parameter);
      check_near(tensor.to_host<float>(), expected.parameters.at(parameter).to_host<float>());
    }
  }
}

TEST_CASE("a checkpoint in the words of before goes on bit for bit", "[methods]") {
  const Device device = cpu({.threads = 1});
  const ScratchFolder folder;
  const TrainingConfig config{.network = MlpConfig{.hidden = {8}}, .batch = 16, .seed = 2};
  Trainer whole(config, moons(), device), first(config, moons(), device);
  for (int i = 0; i < 6; ++i) whole.step();
  for (int i = 0; i < 3; ++i) first.step();
  write_checkpoint(folder / "c", first, 1);
  make_older(folder / "c", {{"kind", "meanflow"}, {"omega", 1.0}, {"kappa", 0.5}}, device);
  Trainer second = resume_trainer(folder / "c", moons(), device);
  CHECK(second.config() == config);
  for (int i = 0; i < 3; ++i) second.step();
  const auto bits = [](const Trainer& trainer) {
    std::vector<std::vector<float>> values;
    for (const auto& [name, tensor] : trainer.model(Weights::raw).parameters)
      values.push_back(tensor.to_host<float>());
    return values;
  };
  CHECK(bits(second) == bits(whole));
}

TEST_CASE("the program goes on with older runs, and takes their configurations", "[methods][cli]") {
  for (const std::string name : {"flow-matching", "meanflow", "split-meanflow"}) {
    const ScratchFolder folder;
    std::filesystem::create_directory(folder / "run");
    std::filesystem::copy_file(golden(name + ".checkpoint.safetensors"),
                               folder / "run/checkpoint.safetensors");
    const ProgramRun resumed = run_program("train --resume run --steps 6 --quiet", folder.path());
    INFO(name << "\n" << resumed.error);
    CHECK(resumed.code == 0);
    const ProgramRun again = run_program(
        "train --config " + golden(name + ".json").string() + " --steps 2 --quiet --out again",
        folder.path());
    INFO(again.error);
    CHECK(again.code == 0);
    CHECK(read_checkpoint_info(folder / "again/checkpoint.safetensors").config.method ==
          read_checkpoint_info(golden(name + ".checkpoint.safetensors")).config.method);
  }
}
