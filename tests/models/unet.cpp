// The U-Net: what it is made of, what it refuses, and its derivatives. (Its values are compared
// with PyTorch's by tests/oracles and bench/check_against_torch.py.)
#include "models/networks/unet.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "autograd/check.h"
#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/model_file.h"
#include "models/networks/network.h"
#include "models/objectives/flow.h"
#include "models/samplers/sampler.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

UnetConfig small_unet() {
  return {.image_size = {4, 6},
          .channels = 2,
          .base = 4,
          .channel_mult = {1, 2},
          .num_res_blocks = 1,
          .attention_ds = {2},
          .norm_groups = 2,
          .num_heads = 2,
          .num_classes = 3};
}

// One of every other choice.
UnetConfig other_unet() {
  UnetConfig config = small_unet();
  config.num_heads = 1;
  config.num_head_channels = 2;
  config.attention_order = AttentionOrder::heads_first;
  config.attention_ds = {1};
  config.use_scale_shift_norm = false;
  config.resblock_updown = true;
  config.conv_resample = false;
  config.num_classes = 0;
  config.second_time = SecondTime::r;
  config.time_scale = 3;
  config.frequency_embedding_size = 6;
  return config;
}

// Of a size that keeps values near 1, none of them zero.
Parameters random_parameters(const UnetConfig& config, const Device& device,
                             std::uint64_t seed = 1) {
  Parameters parameters;
  std::uint32_t number = 0;
  for (const auto& [name, shape] : parameter_shapes(config)) {
    const double scale =
        shape.rank() == 1 ? 0.5 : 1 / std::sqrt(static_cast<double>(shape.elements() / shape[0]));
    parameters[name] =
        normal(fold_in(random_key(seed, device), number++), shape, DType::f64) * scale;
  }
  return parameters;
}

struct Call {
  Tensor z, t, r, labels;
};

Call random_call(const UnetConfig& config, const Device& device, std::int64_t batch = 2) {
  const Tensor key = random_key(7, device),
               t = uniform(fold_in(key, 1), {batch}, DType::f64) * 0.5 + 0.5;
  std::vector<std::int32_t> labels(static_cast<std::size_t>(batch));
  for (std::size_t i = 0; i < labels.size(); ++i)
    labels[i] = static_cast<std::int32_t>(i) + 2;  // the last of 2 is the null class of 3
  return {normal(fold_in(key, 0),
                 {batch, config.image_size[0], config.image_size[1], config.channels}, DType::f64),
          t, 0.4 * t, Tensor::from(labels, {batch}, device)};
}

Tensor call(const UnetConfig& config, const Parameters& parameters, const Call& at) {
  return apply(NetworkConfig(config), parameters, at.z, {.t = at.t, .r = at.r}, at.labels);
}

double largest(const Tensor& x) { return max(abs(x)).to(DType::f64).item<double>(); }

std::string unet_refusal(const UnetConfig& config) {
  return message_of([&] { check(NetworkConfig(config)); });
}

}  // namespace

TEST_CASE("a U-Net has the parameter names and shapes of the public code", "[unet]") {
  std::map<std::string, Shape> expected;
  const auto add = [&](const std::string& name, const Shape& weight) {
    expected[name + ".weight"] = weight;
    expected[name + ".bias"] = {weight[0]};
  };
  const auto residual = [&](const std::string& name, std::int64_t in, std::int64_t out) {
    add(name + ".in_layers.0", {in});
    add(name + ".in_layers.2", {out, in, 3, 3});
    add(name + ".emb_layers.1", {2 * out, 16});
    add(name + ".out_layers.0", {out});
    add(name + ".out_layers.3", {out, out, 3, 3});
    if (in != out) add(name + ".skip_connection", {out, in, 1, 1});
  };
  const auto attention = [&](const std::string& name, std::int64_t width) {
    add(name + ".norm", {width});
    add(name + ".qkv", {3 * width, width, 1});
    add(name + ".proj_out", {width, width, 1});
  };
  for (const std::string mlp : {"time_embed", "r_embed"}) {
    add(mlp + ".0", {16, 4});
    add(mlp + ".2", {16, 16});
  }
  expected["label_emb.weight"] = {4, 16};
  add("input_blocks.0.0", {4, 2, 3, 3});
  residual("input_blocks.1.0", 4, 4);
  add("input_blocks.2.0.op", {4, 4, 3, 3});
  residual("input_blocks.3.0", 4, 8);
  attention("input_blocks.3.1", 8);
  residual("middle_block.0", 8, 8);
  attention("middle_block.1", 8);
  residual("middle_block.2", 8, 8);
  residual("output_blocks.0.0", 16, 8);  // 8 of the middle, 8 of input_blocks.3
  attention("output_blocks.0.1", 8);
  residual("output_blocks.1.0", 12, 8);  // and 4 of input_blocks.2
  attention("output_blocks.1.1", 8);
  add("output_blocks.1.2.conv", {8, 8, 3, 3});
  residual("output_blocks.2.0", 12, 4);  // 8, and 4 of input_blocks.1
  residual("output_blocks.3.0", 8, 4);   // 4, and 4 of input_blocks.0
  add("out.0", {4});
  add("out.2", {2, 4, 3, 3});

  const auto shapes = parameter_shapes(NetworkConfig(small_unet()));
  for (const auto& [name, shape] : expected) {
    INFO(name);
    REQUIRE(shapes.contains(name));
    CHECK(shapes.at(name) == shape);
  }
  for (const auto& [name, shape] : shapes) {
    INFO(name);
    CHECK(expected.contains(name));
  }
  CHECK(frozen_parameters(small_unet()).empty());
  CHECK(family(small_unet()) == "unet");
  CHECK(sample_shape(small_unet()) == Shape{4, 6, 2});
  CHECK(num_classes(small_unet()) == 3);

  // Residual blocks that resample have no other parameters than the rest; nor have averages and
  // copies any.
  const auto others = parameter_shapes(NetworkConfig(other_unet()));
  CHECK(others.at("input_blocks.2.0.in_layers.2.weight") == Shape{4, 4, 3, 3});
  CHECK(others.at("output_blocks.1.1.out_layers.3.weight") ==
        Shape{8, 8, 3, 3});  // no attention at this level, so the second place
  CHECK(others.at("input_blocks.1.0.emb_layers.1.weight") == Shape{4, 16});
  CHECK(others.at("time_embed.0.weight") == Shape{16, 6});
  CHECK(others.contains("input_blocks.1.1.qkv.weight"));
  CHECK_FALSE(others.contains("input_blocks.3.1.qkv.weight"));
  CHECK_FALSE(others.contains("label_emb.weight"));
  UnetConfig averages = other_unet();
  averages.resblock_updown = false;
  for (const auto& [name, shape] : parameter_shapes(NetworkConfig(averages)))
    CHECK_FALSE(name.starts_with("input_blocks.2."));
}

TEST_CASE("a fresh U-Net is the zero function, its other weights spread by their inputs",
          "[unet]") {
  const Device device = cpu({.threads = 1});
  const UnetConfig config = small_unet();
  const Parameters parameters =
      initialise(NetworkConfig(config), random_key(1, device), DType::f64);
  CHECK(parameters.size() == parameter_shapes(config).size());
  CHECK(largest(call(config, parameters, random_call(config, device))) == 0);
  for (const char* zero : {"out.2.weight", "middle_block.1.proj_out.bias",
                           "input_blocks.1.0.out_layers.3.weight", "out.0.bias"})
    CHECK(largest(parameters.at(zero)) == 0);
  CHECK(largest(parameters.at("middle_block.0.in_layers.0.weight") - 1.0) == 0);
  for (const char* name : {"middle_block.0.in_layers.2.weight",
                           "output_blocks.0.0.in_layers.2.bias", "time_embed.2.weight"}) {
    INFO(name);
    const std::string owner = std::string(name).substr(0, std::string(name).rfind('.'));
    const Shape& weight = parameters.at(owner + ".weight").shape();
    const double bound = 1 / std::sqrt(static_cast<double>(weight.elements() / weight[0]));
    CHECK(largest(parameters.at(name)) <= bound);
    CHECK(largest(parameters.at(name)) > 0.5 * bound);
  }
  // Not every part is silent: with the last convolution alone made random, something comes out.
  Parameters loud = parameters;
  loud["out.2.weight"] = normal(random_key(2, device), loud.at("out.2.weight").shape(), DType::f64);
  CHECK(largest(call(config, loud, random_call(config, device))) > 0.1);
}

TEST_CASE("a U-Net on transposed images with transposed kernels gives transposed outputs",
          "[unet]") {
  const Device device = cpu({.threads = 1});
  for (UnetConfig config : {small_unet(), other_unet()}) {
    const Parameters parameters = random_parameters(config, device);
    const Call at = random_call(config, device);
    const Tensor u = call(config, parameters, at);
    CHECK(u.shape() == Shape{2, 4, 6, 2});

    Parameters turned = parameters;
    for (auto& [name, tensor] : turned)
      if (tensor.rank() == 4) tensor = transpose(tensor, {0, 1, 3, 2});
    Call other = at;
    other.z = transpose(at.z, {0, 2, 1, 3});
    std::swap(config.image_size[0], config.image_size[1]);
    CHECK(largest(call(config, turned, other) - transpose(u, {0, 2, 1, 3})) < 1e-12 * largest(u));
    CHECK(largest(u) > 0.1);
  }
}

TEST_CASE("the legacy order of attention is the new one with the rows of qkv moved", "[unet]") {
  const Device device = cpu({.threads = 1});
  UnetConfig config = small_unet();
  Parameters parameters = random_parameters(config, device);
  const Call at = random_call(config, device);
  const Tensor u = call(config, parameters, at);
  config.attention_order = AttentionOrder::heads_first;
  CHECK(largest(call(config, parameters, at) - u) > 1e-3 * largest(u));
  for (auto& [name, tensor] : parameters) {
    if (name.find(".qkv.") == std::string::npos) continue;
    // Row (part * heads + head) * 4 + k becomes (head * 3 + part) * 4 + k: 8 channels, 2 heads.
    std::vector<std::int32_t> rows;
    for (std::int32_t head = 0; head < 2; ++head)
      for (std::int32_t part = 0; part < 3; ++part)
        for (std::int32_t k = 0; k < 4; ++k) rows.push_back((part * 2 + head) * 4 + k);
    tensor = take(tensor, Tensor::from(rows, {24}, device), 0);
  }
  CHECK(largest(call(config, parameters, at) - u) < 1e-13 * largest(u));

  // Heads by their number or by their channels.
  UnetConfig by_channels = config;
  by_channels.num_heads = 1;
  by_channels.num_head_channels = 4;
  CHECK(largest(call(by_channels, parameters, at) - u) < 1e-13 * largest(u));
}

TEST_CASE(
    "labels and both times move a U-Net's output, and t - r is what a network of the difference "
    "sees",
    "[unet]") {
  const Device device = cpu({.threads = 1});
  const UnetConfig config = small_unet();
  const Parameters parameters = random_parameters(config, device);
  const Call at = random_call(config, device);
  const Tensor u = call(config, parameters, at);
  Call other = at;
  other.labels = Tensor::from(std::vector<std::int32_t>{0, 3}, {2}, device);
  const Tensor relabelled = call(config, parameters, other);
  CHECK(largest(slice_axis(relabelled - u, 0, 0, 1)) > 1e-3);
  CHECK(largest(slice_axis(relabelled - u, 0, 1, 2)) == 0);
  other = at;
  other.r = at.t;
  CHECK(largest(call(config, parameters, other) - u) > 1e-3);

  UnetConfig of_r = config;
  of_r.second_time = SecondTime::r;
  other = at;
  other.r = at.t - at.r;
  CHECK(largest(call(of_r, parameters, other) - u) < 1e-12);
}

TEST_CASE("derivatives of a whole U-Net, forward and reverse", "[unet]") {
  const Device device = cpu({.threads = 1});
  for (const UnetConfig& config : {small_unet(), other_unet()}) {
    const Parameters parameters = random_parameters(config, device);
    const Call at = random_call(config, device);
    const auto of_inputs = [&](const std::vector<Tensor>& x) {
      return std::vector<Tensor>{call(config, parameters, {x[0], x[1], x[2], at.labels})};
    };
    const DerivativeCheck inputs = check_derivatives(of_inputs, {at.z, at.t, at.r});
    INFO(inputs.message);
    CHECK(inputs.passed);

    const auto of_parameters = [&](const std::vector<Tensor>& x) {
      Parameters moved;
      auto next = x.begin();
      for (const auto& [name, tensor] : parameters) moved[name] = *next++;
      return std::vector<Tensor>{call(config, moved, at)};
    };
    std::vector<Tensor> values;
    for (const auto& [name, tensor] : parameters) values.push_back(tensor);
    // A step in all parameters at once.
    const DerivativeCheck weights =
        check_derivatives(of_parameters, values, {.step = 1e-4, .tolerance = 1e-5});
    INFO(weights.message);
    CHECK(weights.passed);
  }
}

TEST_CASE(
    "the gradient of a U-Net's MeanFlow loss is that of the squared distance to its target held "
    "still",
    "[unet]") {
  const Device device = cpu({.threads = 1});
  for (const UnetConfig& config : {small_unet(), other_unet()}) {
    const Parameters parameters = random_parameters(config, device);
    const Call at = random_call(config, device);
    FlowDraws draws;
    draws.x = at.z;
    draws.e = normal(random_key(9, device), at.z.shape(), DType::f64);
    draws.t = at.t;
    draws.r = at.r;
    if (config.num_classes > 0) draws.labels = {at.labels, {}, config.num_classes};
    MeanFlowResult result;
    const auto [loss, gradient] = value_and_grad([&](const Parameters& free) {
      result = meanflow(bind_parameters(config, free), draws, {.p = 0});
      return result.loss;
    })(parameters);

    // p = 0: every sample has weight 1, and the loss is the mean over samples of |u - target|^2.
    Call noisy = at;
    const Tensor t = reshape(at.t, {2, 1, 1, 1});
    noisy.z = (1.0 - t) * draws.x + t * draws.e;
    const auto distance = [&](double step, const Parameters& direction) {
      Parameters moved;
      for (const auto& [name, tensor] : parameters)
        moved[name] = tensor + step * direction.at(name);
      return sum(square(call(config, moved, noisy) - result.target)).item<double>() / 2;
    };
    const Parameters direction = random_parameters(config, device, 5);
    double slope = 0;
    for (const auto& [name, tensor] : gradient)
      slope += sum(tensor * direction.at(name)).item<double>();
    const double h = 1e-4;
    const double difference = (8 * (distance(h, direction) - distance(-h, direction)) -
                               (distance(2 * h, direction) - distance(-2 * h, direction))) /
                              (12 * h);
    CHECK(loss.item<double>() == Approx(distance(0, direction)).epsilon(1e-12));
    CHECK(slope == Approx(difference).epsilon(1e-7));
    CHECK(std::abs(slope) > 1e-2);
  }
}

TEST_CASE("a U-Net is a model like any other: written, read, sampled in one step", "[unet]") {
  const Device device = cpu({.threads = 1});
  const ScratchFolder folder;
  const UnetConfig config = small_unet();
  Model model;
  model.info.network = config;
  for (const auto& [name, tensor] : random_parameters(config, device))
    model.parameters[name] = tensor.to(DType::f32);
  write_model(folder / "unet.safetensors", model);
  const Model read = read_model(folder / "unet.safetensors", device);
  CHECK(read.info == model.info);
  for (const auto& [name, tensor] : model.parameters) {
    INFO(name);
    CHECK(read.parameters.at(name).to_host<float>() == tensor.to_host<float>());
  }
  const Call at = random_call(config, device);
  const Tensor noise = at.z.to(DType::f32), one = full({2}, 1, DType::f32, device);
  const Tensor sample = Sampler(read.info.network, read.parameters,
                                {.kind = SamplerKind::meanflow, .steps = 1})(noise, at.labels);
  const Tensor expected = noise - apply(NetworkConfig(config), model.parameters, noise,
                                        {.t = one, .r = zeros_like(one)}, at.labels);
  CHECK(largest(sample - expected) < 1e-5);
}

TEST_CASE("a U-Net's configuration survives JSON, and bad JSON is refused", "[unet]") {
  for (const UnetConfig& config : {small_unet(), other_unet(), UnetConfig()})
    CHECK(network_from_json(nlohmann::json::parse(network_to_json(config).dump())) ==
          NetworkConfig(config));

  // Members beyond those of the public code may be missing.
  nlohmann::json json = network_to_json(small_unet());
  json["config"].erase("num_head_channels");
  json["config"].erase("frequency_embedding_size");
  CHECK(network_from_json(json) == NetworkConfig(small_unet()));

  const auto with = [&](const char* member, const nlohmann::json& value) {
    nlohmann::json changed = network_to_json(small_unet());
    changed["config"][member] = value;
    return changed;
  };
  for (const auto& [member, value] : std::vector<std::pair<const char*, nlohmann::json>>{
           {"image_size", 4},
           {"image_size", {4}},
           {"image_size", {4, 6, 2}},
           {"attention_order", "old"},
           {"attention_order", 1},
           {"second_time", "t"},
           {"channel_mult", {1, "two"}},
           {"channel_mult", nlohmann::json::array()},
           {"conv_resample", "yes"},
           {"norm_groups", 3}}) {
    INFO(member << " " << value.dump());
    CHECK_THROWS_AS(network_from_json(with(member, value)), FormatError);
  }
  json["config"].erase("base");
  CHECK_THROWS_AS(network_from_json(json), FormatError);
}

TEST_CASE("levels with attention that a U-Net does not have are ignored", "[unet]") {
  using Levels = std::vector<std::int64_t>;
  for (const auto& [named, meant] : std::vector<std::pair<Levels, Levels>>{
           {{2, 4}, {2}}, {{4}, {}}, {{1, 2, 4}, {1, 2}}, {{2, 2, 2}, {2}}, {{3, 2}, {2}}}) {
    nlohmann::json json = network_to_json(small_unet());
    json["config"]["attention_ds"] = named;
    INFO(json.dump());
    UnetConfig config = small_unet();
    config.attention_ds = meant;
    CHECK(parameter_shapes(network_from_json(json)) == parameter_shapes(NetworkConfig(config)));
  }
}

TEST_CASE("configurations that no U-Net can have are refused with what would be right", "[unet]") {
  CHECK(unet_refusal(small_unet()) == "");
  CHECK(unet_refusal(other_unet()) == "");
  struct Case {
    std::function<void(UnetConfig&)> change;
    const char* says;
  };
  constexpr std::int64_t huge = std::int64_t{1} << 62;
  for (const Case& wrong : {
           Case{[](UnetConfig& c) {
                  c.image_size = {4, 5};
                },
                "multiples of 2"},
           Case{[](UnetConfig& c) {
                  c.image_size = {0, 4};
                },
                "1..65536"},
           Case{[](UnetConfig& c) {
                  c.image_size = {-huge, huge};
                },
                "1..65536"},
           Case{[](UnetConfig& c) { c.channels = huge; }, "channels"},
           Case{[](UnetConfig& c) { c.base = 0; }, "base"},
           Case{[](UnetConfig& c) { c.base = huge; }, "base"},
           Case{[](UnetConfig& c) { c.channel_mult = {}; }, "1 to 12 levels"},
           Case{[](UnetConfig& c) {
                  c.channel_mult = {1, huge};
                },
                "channel_mult"},
           Case{[](UnetConfig& c) {
                  c.channel_mult = {0, 1};
                },
                "channel_mult"},
           Case{[](UnetConfig& c) { c.channel_mult.assign(1000, 1); }, "1 to 12 levels"},
           Case{[](UnetConfig& c) { c.num_res_blocks = 0; }, "num_res_blocks"},
           Case{[](UnetConfig& c) { c.num_res_blocks = huge; }, "num_res_blocks"},
           Case{[](UnetConfig& c) { c.attention_ds = {0}; }, "scaled down, got 0"},
           Case{[](UnetConfig& c) { c.attention_ds = {-huge}; }, "scaled down, got -"},
           Case{[](UnetConfig& c) { c.attention_ds.assign(100, 1); }, "at most 64 levels, got 100"},
           Case{[](UnetConfig& c) { c.norm_groups = 0; }, "norm_groups"},
           Case{[](UnetConfig& c) { c.norm_groups = 8; },
                "norm_groups 8 must divide the 4 channels of input_blocks.1.0"},
           Case{[](UnetConfig& c) { c.norm_groups = huge; }, "norm_groups"},
           Case{[](UnetConfig& c) { c.num_heads = 0; }, "num_heads"},
           Case{[](UnetConfig& c) { c.num_heads = 3; }, "num_heads 3 must divide the 8 channels"},
           Case{[](UnetConfig& c) { c.num_head_channels = -1; }, "num_head_channels"},
           Case{[](UnetConfig& c) { c.num_head_channels = 16; },
                "num_head_channels 16 must divide the 8 channels"},
           Case{[](UnetConfig& c) { c.num_classes = -1; }, "num_classes"},
           Case{[](UnetConfig& c) { c.num_classes = huge; }, "num_classes"},
           Case{[](UnetConfig& c) { c.time_scale = std::nan(""); }, "time_scale"},
           Case{[](UnetConfig& c) { c.frequency_embedding_size = 1; }, "sinusoidal features"},
           Case{[](UnetConfig& c) { c.frequency_embedding_size = huge; }, "sinusoidal features"},
           Case{[](UnetConfig& c) { c.base = 1, c.norm_groups = 1, c.num_heads = 1; },
                "sinusoidal features"},
       }) {
    UnetConfig config = small_unet();
    wrong.change(config);
    const std::string message = unet_refusal(config);
    INFO(message);
    CHECK(message.starts_with("unet: "));
    CHECK(message.find(wrong.says) != std::string::npos);
  }
  // The largest that passes has sizes that can be counted.
  UnetConfig largest_config{.image_size = {2048, 65536},
                            .base = 65536,
                            .channel_mult = std::vector<std::int64_t>(12, 16),
                            .num_res_blocks = 64};
  CHECK(unet_refusal(largest_config) == "");
  CHECK(parameter_count(largest_config) > 0);
}

TEST_CASE("a U-Net names what doesn't fit a call", "[unet]") {
  const Device device = cpu({.threads = 1});
  const UnetConfig config = small_unet();
  const Parameters parameters = random_parameters(config, device);
  const Call at = random_call(config, device);
  Call wrong = at;
  wrong.z = transpose(at.z, {0, 2, 1, 3});
  CHECK_THROWS_WITH(call(config, parameters, wrong),
                    has_text("wants z [batch, 4, 6, 2], got f64[2, 6, 4, 2]"));
  wrong = at;
  wrong.labels = {};
  CHECK_THROWS_WITH(call(config, parameters, wrong), has_text("3 classes"));
  wrong.labels = Tensor::from(std::vector<std::int32_t>{1, 2, 3}, {3}, device);
  CHECK_THROWS_AS(call(config, parameters, wrong), ShapeError);
  Parameters fewer = parameters;
  fewer.erase("middle_block.1.qkv.weight");
  CHECK_THROWS_WITH(call(config, fewer, at), has_text("middle_block.1.qkv.weight"));
}
