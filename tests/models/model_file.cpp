#include "models/model_file.h"

#include <filesystem>
#include <functional>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/files/safetensors.h"
#include "models/objectives/objective.h"
#include "models/samplers/default_sampler.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

Model small_model(const Device& device) {
  const DitConfig network{.image_size = 4,
                          .patch_size = 2,
                          .hidden_size = 8,
                          .depth = 1,
                          .num_heads = 2,
                          .num_classes = 2};
  ModelInfo info;
  info.network = network;
  info.objective = "meanflow_cfg";
  info.guidance = TrainedGuidance{.omega = 1, .kappa = 0.5};
  info.dataset = "glyphs";
  info.class_names = {"circle", "square"};
  info.step = 1234;
  return {info, initialise(network, random_key(1, device))};
}

}  // namespace

TEST_CASE("a model file gives back the model, at any floating precision") {
  const Device device = cpu({.threads = 1});
  const ScratchFolder folder;
  const std::filesystem::path path = folder / "model.safetensors";
  const Model model = small_model(device);
  write_model(path, model);
  const Model read = read_model(path, device), wide = read_model(path, device, DType::f64);
  CHECK(read.info == model.info);
  CHECK(read_model_info(path) == model.info);
  for (const auto& [name, tensor] : model.parameters) {
    INFO(name);
    CHECK(read.parameters.at(name).to_host<float>() == tensor.to_host<float>());
    CHECK(wide.parameters.at(name).to(DType::f32).to_host<float>() == tensor.to_host<float>());
  }
}

TEST_CASE("a model file whose parameters do not fit is refused by name") {
  const Device device = cpu({.threads = 1});
  const ScratchFolder folder;
  const std::filesystem::path path = folder / "model.safetensors";
  const Model model = small_model(device);
  write_model(path, model);
  const TensorFile content = load_tensors(path, device);
  const auto message_with = [&](const std::function<void(Parameters&)>& change) {
    Parameters parameters = content.tensors;
    change(parameters);
    save_tensors(path, parameters, content.metadata);
    return message_of([&] { read_model(path, device); });
  };
  const std::string missing = message_with([](Parameters& p) { p.erase("pos_embed"); });
  CHECK((contains(missing, "'pos_embed'") && contains(missing, "missing")));
  CHECK(contains(message_with([&](Parameters& p) { p["extra"] = zeros({2}, DType::f32, device); }),
                 "'extra'"));
  const std::string misshapen = message_with([&](Parameters& p) {
    p["pos_embed"] = zeros({1, 4, 9}, DType::f32, device);
  });
  CHECK((contains(misshapen, "'pos_embed'") && contains(misshapen, "[1, 4, 9]") &&
         contains(misshapen, "[1, 4, 8]")));
  CHECK(contains(message_with([&](Parameters& p) {
                   p["pos_embed"] = zeros({1, 4, 8}, DType::i32, device);
                 }),
                 "floating"));

  save_tensors(path, content.tensors, {});
  CHECK(contains(message_of([&] { read_model(path, device); }), "no model"));
  save_tensors(path, content.tensors, {{"fluxion.model", "{\"version\": 1"}});
  CHECK_THROWS_AS(read_model(path, device), FormatError);
  Model wrong = model;
  wrong.parameters.erase("pos_embed");
  CHECK_THROWS_AS(write_model(path, wrong), FormatError);
}

TEST_CASE("a model file with a name that this version does not know is refused by name") {
  const Device device = cpu({.threads = 1});
  const ScratchFolder folder;
  const std::filesystem::path path = folder / "model.safetensors";
  write_model(path, small_model(device));
  const TensorFile content = load_tensors(path, device);
  const auto message_with = [&](const std::string& from, const std::string& to) {
    Metadata metadata = content.metadata;
    std::string& text = metadata.at("fluxion.model");
    const std::size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    text.replace(at, from.size(), to);
    save_tensors(path, content.tensors, metadata);
    CHECK_THROWS_AS(read_model_info(path), FormatError);
    return message_of<FormatError>([&] { read_model(path, device); });
  };
  const std::string objective = message_with("\"meanflow_cfg\"", "\"shortcut\"");
  CHECK((contains(objective, "'shortcut'") && contains(objective, "'flow_matching', 'meanflow'") &&
         contains(objective, path.string())));
  const std::string network = message_with("\"dit\"", "\"mamba\"");
  CHECK((contains(network, "'mamba'") && contains(network, "'mlp', 'dit', 'unet'")));
  CHECK(contains(message_with("\"second_time\":\"t-r\"", "\"second_time\":\"s\""), "'s'"));
  CHECK(contains(message_with("\"gelu\":\"tanh\"", "\"gelu\":\"quick\""), "'quick'"));
  CHECK(contains(message_with("\"positions\":\"sincos\"", "\"positions\":\"rope\""), "'rope'"));

  Model unknown = small_model(device);
  unknown.info.objective = "shortcut";
  CHECK_THROWS_AS(write_model(path, unknown), FormatError);
}

TEST_CASE("every objective has a sampler, and no other name has") {
  for (const ObjectiveKind kind : {ObjectiveKind::flow_matching, ObjectiveKind::meanflow,
                                   ObjectiveKind::meanflow_cfg, ObjectiveKind::split_meanflow})
    CHECK_NOTHROW(default_sampler(to_string(kind)));
  CHECK(default_sampler("flow_matching").kind == SamplerKind::ode_euler);
  CHECK(default_sampler("meanflow_cfg").kind == SamplerKind::meanflow);
  CHECK_THROWS_AS(default_sampler("MeanFlow"), FormatError);
  CHECK_THROWS_AS(default_sampler(""), FormatError);
}

TEST_CASE("a model trained with guidance is not guided again") {
  ModelInfo info;
  info.network = DitConfig{.num_classes = 10};
  CHECK_NOTHROW(check_guidance(info, 3));
  info.guidance = TrainedGuidance{.omega = 1, .kappa = 0.5};
  CHECK_NOTHROW(check_guidance(info, 1));
  CHECK(contains(message_of([&] { check_guidance(info, 3); }), "already"));
  info.guidance.reset();
  info.network = MlpConfig{};
  CHECK(contains(message_of([&] { check_guidance(info, 3); }), "no classes"));
}
