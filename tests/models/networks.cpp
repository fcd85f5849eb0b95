#include <nlohmann/json.hpp>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/networks/network.h"
#include "tests/catch.h"

using namespace fluxion;

namespace {

DitConfig small_dit() {
  return {.image_size = 8,
          .channels = 3,
          .patch_size = 2,
          .hidden_size = 16,
          .depth = 2,
          .num_heads = 2,
          .mlp_ratio = 4,
          .num_classes = 10,
          .frequency_embedding_size = 32};
}

}  // namespace

TEST_CASE("a DiT has the parameter names and shapes of the public code") {
  const auto shapes = parameter_shapes(NetworkConfig(small_dit()));
  CHECK(shapes.at("x_embedder.proj.weight") == Shape{16, 3, 2, 2});
  CHECK(shapes.at("pos_embed") == Shape{1, 16, 16});
  CHECK(shapes.at("t_embedder.mlp.0.weight") == Shape{16, 32});
  CHECK(shapes.at("r_embedder.mlp.2.bias") == Shape{16});
  CHECK(shapes.at("y_embedder.embedding_table.weight") == Shape{11, 16});
  CHECK(shapes.at("blocks.1.attn.qkv.weight") == Shape{48, 16});
  CHECK(shapes.at("blocks.0.mlp.fc1.weight") == Shape{64, 16});
  CHECK(shapes.at("blocks.0.adaLN_modulation.1.bias") == Shape{96});
  CHECK(shapes.at("final_layer.linear.weight") == Shape{12, 16});
  CHECK(shapes.size() == 2 + 1 + 4 + 4 + 1 + 2 * 10 + 4);
  CHECK(frozen_parameters(small_dit()) == std::vector<std::string>{"pos_embed"});
}

TEST_CASE("fresh parameters have the promised shapes, and a fresh DiT is the zero function") {
  const Device device = cpu({.threads = 1});
  const NetworkConfig config = small_dit();
  const Parameters parameters = initialise(config, random_key(1, device));
  for (const auto& [name, shape] : parameter_shapes(config)) {
    INFO(name);
    CHECK(parameters.at(name).shape() == shape);
  }
  CHECK(parameters.size() == parameter_shapes(config).size());

  const Tensor z = normal(random_key(2, device), {2, 8, 8, 3});
  const Tensor t = full({2}, 0.5, DType::f32, device);
  const Tensor labels = Tensor::from(std::vector<std::int32_t>{3, 10}, {2}, device);
  const Tensor u = apply(config, parameters, z, {.t = t, .r = t}, labels);
  CHECK(u.shape() == z.shape());
  CHECK(max(abs(u)).item<float>() == 0.0f);
  CHECK(max(abs(parameters.at("blocks.0.attn.qkv.weight"))).item<float>() <=
        std::sqrt(6.0f / 64.0f));
  CHECK(max(abs(parameters.at("blocks.0.attn.qkv.weight"))).item<float>() >
        0.9f * std::sqrt(6.0f / 64.0f));
}

TEST_CASE("an MLP takes vectors and times") {
  const Device device = cpu({.threads = 1});
  const NetworkConfig config = MlpConfig{.data_dim = 3, .hidden = {8, 4}};
  const Parameters parameters = initialise(config, random_key(1, device), DType::f64);
  const Tensor z = normal(random_key(2, device), {5, 3}, DType::f64),
               t = full({5}, 0.5, DType::f64, device);
  CHECK(apply(config, parameters, z, {.t = t, .r = t}).shape() == Shape{5, 3});
  CHECK(parameters.at("layers.0.weight").shape() == Shape{8, 5});
  CHECK_THROWS_AS(apply(config, parameters, z, {.t = t, .r = zeros({4}, DType::f64, device)}),
                  ShapeError);
  CHECK_THROWS_AS(apply(config, {}, z, {.t = t, .r = t}), Error);
}

TEST_CASE("a DiT may have exact gelu and learned positions") {
  const Device device = cpu({.threads = 1});
  DitConfig config = small_dit();
  const Tensor h = normal(random_key(3, device), {2, 16, 16}, DType::f64),
               conditioning = normal(random_key(4, device), {2, 16}, DType::f64);
  Parameters parameters;
  for (const auto& [name, shape] : parameter_shapes(config))
    parameters[name] = normal(random_key(5, device), shape, DType::f64);
  const Tensor approximate = dit_block(config, parameters, "blocks.0", h, conditioning);
  config.gelu = Gelu::erf;
  const Tensor exact = dit_block(config, parameters, "blocks.0", h, conditioning);
  // The approximation of gelu is within 5e-4 of it; the rest of the block makes a little more or
  // less of that.
  CHECK(max(abs(approximate - exact)).item<double>() > 0);
  CHECK(max(abs(approximate - exact)).item<double>() < 0.1 * max(abs(exact)).item<double>());

  config.positions = Positions::learned;
  CHECK(frozen_parameters(config).empty());
  const Tensor positions = initialise(NetworkConfig(config), random_key(1, device)).at("pos_embed");
  CHECK(positions.shape() == Shape{1, 16, 16});
  CHECK(mean(square(positions)).item<float>() ==
        Approx(0.02 * 0.02).epsilon(0.5));  // N(0, 0.02^2), 256 of them
}

TEST_CASE("an MLP may see sinusoidal features of its times, added before its first activation") {
  const Device device = cpu({.threads = 1});
  const MlpConfig config{.data_dim = 3, .hidden = {8}, .time_features = 4, .time_scale = 10};
  const Parameters parameters =
      initialise(NetworkConfig(config), random_key(1, device), DType::f64);
  CHECK(parameters.at("layers.0.weight").shape() == Shape{8, 3});
  CHECK(parameters.at("time_embedder.weight").shape() == Shape{8, 8});
  const Tensor z = normal(random_key(2, device), {5, 3}, DType::f64),
               t = uniform(random_key(3, device), {5}, DType::f64), r = 0.25 * t;
  const auto features = [&](const Tensor& time) {
    const Tensor slow = expand_dims(time, 1) * 10.0,
                 angles = concat({slow, slow * 0.01}, 1);  // 10000^(-1/2) is the second frequency
    return concat({cos(angles), sin(angles)}, 1);
  };
  const Tensor conditions = concat({features(t), features(t - r)}, 1);
  const auto product = [&](const Tensor& x, const char* name) {
    return matmul(x, transpose(parameters.at(name), {1, 0}));
  };
  const Tensor hidden = silu(product(z, "layers.0.weight") +
                             product(conditions, "time_embedder.weight"));  // fresh biases are zero
  CHECK(max(abs(apply(NetworkConfig(config), parameters, z, {t, r}) -
                product(hidden, "layers.1.weight")))
            .item<double>() < 1e-12);

  CHECK_THROWS_AS(check(NetworkConfig(MlpConfig{.time_features = 1})), Error);
  CHECK_THROWS_AS(check(NetworkConfig(MlpConfig{.time_scale = NAN})), Error);
  CHECK_THROWS_AS(check(NetworkConfig(DitConfig{.time_scale = INFINITY})), Error);
}

TEST_CASE("an MLP with frequencies sees cosines and sines of its input") {
  const Device device = cpu({.threads = 1});
  const MlpConfig plain{.data_dim = 2, .hidden = {}},
      config{.data_dim = 2, .hidden = {}, .frequencies = 2};
  CHECK(parameter_shapes(config).at("layers.0.weight") == Shape{2, 12});
  // One linear layer over [z (2), cos z (2), sin z (2), cos 2z (2), sin 2z (2), t, s]: the first
  // output reads cos of z's second element, the second sin of twice its first and the time.
  std::vector<double> weight(24, 0.0);
  weight[3] = 1;
  weight[12 + 8] = 1, weight[12 + 10] = 1;
  const Parameters parameters{{"layers.0.weight", Tensor::from(weight, {2, 12}, device)},
                              {"layers.0.bias", zeros({2}, DType::f64, device)}};
  const Tensor z = Tensor::from(std::vector<double>{0.25, -2}, {1, 2}, device),
               t = full({1}, 0.5, DType::f64, device);
  const std::vector<double> u =
      apply(NetworkConfig(config), parameters, z, {.t = t, .r = t}).to_host<double>();
  CHECK(u[0] == Approx(std::cos(2.0)).epsilon(1e-12));
  CHECK(u[1] == Approx(std::sin(0.5) + 0.5).epsilon(1e-12));

  nlohmann::json json = network_to_json(config);
  CHECK(network_from_json(json) == NetworkConfig(config));
  json["config"].erase("frequencies");  // as in files written before
  CHECK(network_from_json(json) == NetworkConfig(plain));
  json["config"]["frequencies"] = 17;
  CHECK_THROWS_AS(network_from_json(json), Error);
}

TEST_CASE("a network's configuration survives JSON, and bad JSON is refused") {
  DitConfig unusual = small_dit();
  unusual.gelu = Gelu::erf;
  unusual.positions = Positions::learned;
  for (const NetworkConfig& config :
       {NetworkConfig(small_dit()), NetworkConfig(unusual),
        NetworkConfig(MlpConfig{.second_time = SecondTime::r}),
        NetworkConfig(MlpConfig{.time_features = 8, .time_scale = 1000})})
    CHECK(network_from_json(nlohmann::json::parse(network_to_json(config).dump())) == config);

  // Members that files of earlier versions lack.
  nlohmann::json earlier = network_to_json(small_dit());
  earlier["config"].erase("gelu");
  earlier["config"].erase("positions");
  CHECK(network_from_json(earlier) == NetworkConfig(small_dit()));
  nlohmann::json misspelt = network_to_json(small_dit());
  misspelt["config"]["gelu"] = "exact";
  CHECK_THROWS_AS(network_from_json(misspelt), FormatError);
  misspelt["config"]["gelu"] = "erf";
  misspelt["config"]["positions"] = "none";
  CHECK_THROWS_AS(network_from_json(misspelt), FormatError);

  nlohmann::json json = network_to_json(small_dit());
  CHECK_THROWS_AS(network_from_json({{"family", "transformer"}, {"config", {}}}), FormatError);
  json["config"]["patch_size"] = 3;
  CHECK_THROWS_AS(network_from_json(json), FormatError);
  json["config"]["patch_size"] = "two";
  CHECK_THROWS_AS(network_from_json(json), FormatError);
  json["config"].erase("patch_size");
  CHECK_THROWS_AS(network_from_json(json), FormatError);
  CHECK_THROWS_AS(network_from_json(nullptr), FormatError);
}
