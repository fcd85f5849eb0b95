// Importing U-Nets of others. The file was written by tests/models/public_unet.py: weights of a
// U-Net of public code, in 16 bits under their names behind "module.", and what that code makes of
// some input ("value.*").
#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/files/safetensors.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"
#include "tests/models/public_file.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

const ImportOptions usual_unet{.num_heads = 2,
                               .image_size = 8,
                               .drop_variance = true,
                               .config = R"({"norm_groups": 2})",
                               .fill = {Fill::second_time, Fill::null_class}};

}  // namespace

TEST_CASE("a public U-Net gives the outputs that its own code computed", "[import][unet]") {
  const PublicFile file("public_unet.safetensors");
  TensorMap wrapped;
  for (const auto& [name, tensor] : file.weights) wrapped.emplace("module." + name, tensor);
  const ImportedModel imported = file.import(wrapped, usual_unet);
  const auto& config = std::get<UnetConfig>(imported.model.info.network);
  CHECK(config == UnetConfig{.image_size = {8, 8},
                             .channels = 2,
                             .base = 4,
                             .channel_mult = {1, 2},
                             .num_res_blocks = 1,
                             .attention_ds = {2},
                             .norm_groups = 2,
                             .num_heads = 2,
                             .attention_order = AttentionOrder::heads_first,
                             .num_classes = 3});
  // Of what the file predicts, its variance is left out. f32 against f64, some fifty operations
  // deep; outputs are of size 1.
  const Tensor expected = slice_axis(file.values.at("out"), 3, 0, 2), t = file.values.at("t");
  CHECK(largest_difference(file.output(imported.model, t, 0.5 * t), expected) < 1e-5);
  CHECK(largest_difference(file.output(imported.model, t, t), expected) < 1e-5);
  CHECK(max(abs(expected)).item<double>() > 0.5);

  ImportOptions options = usual_unet;
  options.data_at_one = true;
  CHECK(largest_difference(file.output(file.import(file.weights, options).model, 1.0 - t, t),
                           -expected) < 1e-5);

  // The other order is another network, of which no shape tells.
  options = usual_unet;
  options.config = R"({"norm_groups": 2, "attention_order": "new"})";
  CHECK(largest_difference(file.output(file.import(file.weights, options).model, t, t), expected) >
        1e-3);
}

TEST_CASE("the configuration of a U-Net is read from its shapes", "[import][unet]") {
  const PublicFile file("public_unet.safetensors");
  UnetConfig plain{.image_size = {16, 16},
                   .channels = 3,
                   .base = 32,
                   .channel_mult = {1, 2, 4},
                   .num_res_blocks = 2,
                   .attention_ds = {2, 4}};
  plain.attention_order = AttentionOrder::heads_first;
  std::vector<UnetConfig> configs(7, plain);
  configs[1].resblock_updown = true;
  configs[2].conv_resample = false;
  configs[3].use_scale_shift_norm = false;
  configs[3].attention_ds = {};
  configs[4].channel_mult = {3};
  configs[4].attention_ds = {1};
  configs[4].num_classes = 7;
  configs[5].num_res_blocks = 1;
  configs[5].resblock_updown = true;
  configs[5].attention_ds = {1};
  configs[6].frequency_embedding_size = 10;
  configs[6].num_res_blocks = 1;
  configs[6].conv_resample = false;
  for (const UnetConfig& config : configs) {
    INFO(network_to_json(config).dump());
    TensorMap tensors;
    for (const auto& [name, shape] : parameter_shapes(NetworkConfig(config)))
      tensors[name] = zeros(shape, DType::f32, file.device);
    ImportOptions options{.num_heads = 4, .image_size = 16};
    if (config.num_classes > 0) options.num_classes = config.num_classes;
    const ModelInfo info = file.import(tensors, options).model.info;
    CHECK(std::get<UnetConfig>(info.network) == config);
    CHECK(info.open_class);
  }
}

TEST_CASE("what does not fit a U-Net is told key by key, and what no shape tells is asked for",
          "[import][unet]") {
  const PublicFile file("public_unet.safetensors");
  TensorMap tensors = file.weights;
  tensors.erase("middle_block.1.qkv.bias");
  tensors["output_blocks.0.0.in_layers.2.weight"] = zeros({8, 15, 3, 3}, DType::f32, file.device);
  tensors["extra.weight"] = zeros({1}, DType::f32, file.device);
  ImportOptions options = usual_unet;
  options.drop_variance = false;
  options.fill = {};
  CHECK(contains(file.refusal(tensors, options), "give num_classes if it does; fill null-class"));
  options.num_classes = 2;
  const std::string message = file.refusal(tensors, options);
  for (const char* part :
       {"does not fit a U-Net of 4 channels and 2 levels for [8, 8, 2] samples",
        "missing    middle_block.1.qkv.bias  want [24]",
        "shape      output_blocks.0.0.in_layers.2.weight  have [8, 15, 3, 3], want [8, 16, 3, 3]",
        "unexpected extra.weight",
        "missing    r_embed.0.weight  want [16, 4] (a network with one time only? fill second-time",
        "out.2.weight  have [4, 4, 3, 3], want [2, 4, 3, 3] (it predicts a variance"}) {
    INFO(message << "\n" << part);
    CHECK(contains(message, part));
  }

  const auto with = [](const std::function<void(ImportOptions&)>& change) {
    ImportOptions changed = usual_unet;
    change(changed);
    return changed;
  };
  CHECK(contains(file.refusal(file.weights, with([](ImportOptions& o) { o.num_heads = {}; })),
                 "num_head_channels"));
  CHECK(contains(file.refusal(file.weights, with([](ImportOptions& o) { o.num_heads = 3; })),
                 "num_heads 3"));
  CHECK(contains(file.refusal(file.weights, with([](ImportOptions& o) { o.image_size = {}; })),
                 "image_size"));
  CHECK(contains(file.refusal(file.weights, with([](ImportOptions& o) { o.image_size = 9; })),
                 "multiples of 2"));
  CHECK(contains(file.refusal(file.weights, with([](ImportOptions& o) { o.config = "{}"; })),
                 "norm_groups 32"));
  CHECK(contains(
      file.refusal(file.weights, with([](ImportOptions& o) { o.fill.insert(Fill::positions); })),
      "no positions"));
  const ImportOptions oblong = with([](ImportOptions& o) {
    o.image_size = {};
    o.num_heads = {};
    o.config = R"({"norm_groups": 2, "image_size": [4, 6], "num_head_channels": 4})";
  });
  CHECK(sample_shape(file.import(file.weights, oblong).model.info.network) == Shape{4, 6, 2});
}

TEST_CASE("sizes that no U-Net has are refused before anything is made of them", "[import][unet]") {
  const PublicFile file("public_unet.safetensors");
  const auto nothing = [&](Shape shape) {
    return Tensor::from(std::vector<float>(), std::move(shape), file.device);
  };
  constexpr std::int64_t huge = std::int64_t{1} << 44;
  const auto refused = [&](const std::string& name, const Tensor& tensor, const char* says) {
    TensorMap tensors = file.weights;
    tensors[name] = tensor;
    const std::string message = file.refusal(tensors, usual_unet);
    INFO(name << ": " << message);
    CHECK(contains(message, says));
  };
  refused("input_blocks.0.0.weight", nothing({huge, 0, 3, 3}), "input_blocks.0.0.weight");
  refused("time_embed.0.weight", nothing({huge, 0}), "a multiple of 4398046511104");
  refused("time_embed.0.weight", nothing({0, 4}), "time_embed.0.weight");
  refused("time_embed.0.weight", zeros({6, 4}, DType::f32, file.device), "time_embed.0.weight");
  refused("input_blocks.1.0.out_layers.3.weight", nothing({huge, 0, 3, 3}), "channel_mult");
  refused("input_blocks.1.0.out_layers.3.weight", zeros({5, 4, 3, 3}, DType::f32, file.device),
          "level 0");
  refused("label_emb.weight", nothing({huge, 0}), "num_classes");
  TensorMap tensors = file.weights;
  std::erase_if(tensors,
                [](const auto& entry) { return entry.first.starts_with("output_blocks."); });
  CHECK(contains(file.refusal(tensors, usual_unet), "no U-Net"));
  for (int i = 0; i < 60; ++i)
    tensors["output_blocks." + std::to_string(i) + ".1.in_layers.0.weight"] =
        zeros({1}, DType::f32, file.device);
  CHECK(!file.refusal(tensors, usual_unet).empty());
}

TEST_CASE("fluxion import writes a U-Net that can be sampled", "[import][unet][cli]") {
  const PublicFile file("public_unet.safetensors");
  save_tensors(file.path(), file.weights, {});
  const ProgramRun run = run_program(
      "import public.safetensors --predicts velocity --data-at 1 --heads 2 --image-size 8 "
      "--drop-variance --fill second-time --fill null-class "
      "--config '{\"norm_groups\": 2}' --out model.safetensors",
      file.folder.path());
  INFO(run.error);
  REQUIRE(run.code == 0);
  CHECK(contains(run.out, "legacy order"));
  CHECK(run_program("sample --model model.safetensors --count 3 --steps 2 --npy samples.npy",
                    file.folder.path())
            .code == 0);
  // The null class is zeros that nobody has trained.
  for (const char* wanted : {"--guidance 3", "--class none"})
    CHECK(run_program("sample --model model.safetensors --count 1 --steps 2 --npy no.npy " +
                          std::string(wanted),
                      file.folder.path())
              .code == 1);
}
