#include "models/model_file.h"

#include <filesystem>
#include <functional>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/files/safetensors.h"
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
  info.method = "meanflow";
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
  const std::string prediction =
      message_with("\"prediction\":\"average-velocity\"", "\"prediction\":\"shortcut\"");
  CHECK((contains(prediction, "'shortcut'") && contains(prediction, "'velocity', 'noise'") &&
         contains(prediction, path.string())));
  const std::string sampler = message_with("\"sampler\":\"meanflow\"", "\"sampler\":\"teleport\"");
  CHECK((contains(sampler, "'teleport'") && contains(sampler, "'euler'")));
  CHECK(contains(message_with("\"steps\":1}", "\"steps\":0}"), "0 steps"));
  const std::string network = message_with("\"dit\"", "\"mamba\"");
  CHECK((contains(network, "'mamba'") && contains(network, "'mlp', 'dit', 'unet'")));
  CHECK(contains(message_with("\"second_time\":\"t-r\"", "\"second_time\":\"s\""), "'s'"));
  CHECK(contains(message_with("\"gelu\":\"tanh\"", "\"gelu\":\"quick\""), "'quick'"));
  CHECK(contains(message_with("\"positions\":\"sincos\"", "\"positions\":\"rope\""), "'rope'"));
}

TEST_CASE("a model of a method that this program lacks is drawn as its file says") {
  const Device device = cpu({.threads = 1});
  const ScratchFolder folder;
  Model model = small_model(device);
  model.info.method = "of-tomorrow";
  model.info.prediction = Prediction::velocity;
  model.info.sampling = {.sampler = "heun", .steps = 7};
  write_model(folder / "model.safetensors", model);
  const ModelInfo info = read_model_info(folder / "model.safetensors");
  CHECK(info == model.info);
  CHECK(default_sampler(info).kind == SamplerKind::ode_heun);
  CHECK(default_sampler(info).steps == 7);
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
