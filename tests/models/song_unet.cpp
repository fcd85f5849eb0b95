// SongUNet: what it is made of, what it refuses, and its derivatives. (Its values are compared with
// those of the public code by test_import_song_unet.cpp.)
#include "models/networks/song_unet.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "autograd/check.h"
#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/networks/network.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

SongUnetConfig small_song() {
  return {.image_size = {4, 6},
          .channels = 2,
          .base = 4,
          .channel_mult = {1, 2},
          .num_blocks = 1,
          .attention_ds = {1},
          .num_classes = 3};
}

SongUnetConfig other_song() {
  SongUnetConfig config = ncsnpp();
  config.image_size = {4, 6};
  config.channels = 2;
  config.base = 4;
  config.channel_mult = {1, 2};
  config.num_blocks = 1;
  config.channel_mult_emb = 2;
  config.second_time = SecondTime::r;
  config.time_scale = 0.5;
  return config;
}

// Of a size that keeps values near 1, none of them zero.
Parameters song_parameters(const SongUnetConfig& config, const Device& device) {
  Parameters parameters;
  std::uint32_t number = 0;
  for (const auto& [name, shape] : parameter_shapes(config)) {
    const double scale =
        shape.rank() == 1 ? 0.3 : 1 / std::sqrt(static_cast<double>(shape.elements() / shape[0]));
    parameters[name] = normal(fold_in(random_key(1, device), number++), shape, DType::f64) * scale;
  }
  return parameters;
}

struct SongCall {
  Tensor z, t, r, labels;
};

SongCall song_call(const SongUnetConfig& config, const Device& device) {
  const Tensor key = random_key(7, device),
               t = uniform(fold_in(key, 1), {2}, DType::f64) * 0.5 + 0.5;
  return {normal(fold_in(key, 0), {2, config.image_size[0], config.image_size[1], config.channels},
                 DType::f64),
          t, 0.4 * t, Tensor::from(std::vector<std::int32_t>{2, 3}, {2}, device)};
}

Tensor called(const SongUnetConfig& config, const Parameters& parameters, const SongCall& at) {
  return apply(NetworkConfig(config), parameters, at.z, {.t = at.t, .r = at.r}, at.labels);
}

std::int64_t count_without_second_time(const SongUnetConfig& config) {
  std::int64_t count = 0;
  for (const auto& [name, shape] : parameter_shapes(NetworkConfig(config)))
    if (!name.starts_with("map_r.") && name != "map_noise.freqs") count += shape.elements();
  return count;
}

}  // namespace

// Of the public code for CIFAR-10 and FFHQ-64 without labels, as Karras et al. and Song and
// Dhariwal print them in millions: 55.7, 56.4, 61.8 and 62.8.
TEST_CASE("SongUNets of the published sizes have the published numbers of parameters",
          "[song-unet]") {
  CHECK(count_without_second_time({}) == 55'732'739);
  CHECK(count_without_second_time(ncsnpp()) == 56'395'523);
  // Labels for augmentation: 9 features without a bias, which imports leave out.
  CHECK(count_without_second_time({}) + 9 * 128 == 55'733'891);
  SongUnetConfig ddpm{.image_size = {64, 64}, .channel_mult = {1, 2, 2, 2}, .attention_ds = {4}},
      ncsn = ncsnpp();
  ncsn.image_size = {64, 64};
  ncsn.channel_mult = {1, 2, 2, 2};
  ncsn.attention_ds = {4};
  CHECK(count_without_second_time(ddpm) == 61'804'419);
  CHECK(count_without_second_time(ncsn) == 62'758'787);
}

TEST_CASE("the derivatives of SongUNets are those of their values", "[song-unet]") {
  const Device device = cpu({.threads = 1});
  for (const SongUnetConfig& config : {small_song(), other_song()}) {
    const Parameters parameters = song_parameters(config, device);
    const SongCall at = song_call(config, device);
    const auto of_inputs = [&](const std::vector<Tensor>& x) {
      return std::vector<Tensor>{called(config, parameters, {x[0], x[1], x[2], at.labels})};
    };
    const DerivativeCheck inputs =
        check_derivatives(of_inputs, {at.z, at.t, at.r}, {.step = 1e-4, .tolerance = 1e-5});
    INFO(inputs.message);
    CHECK(inputs.passed);
    const auto of_parameters = [&](const std::vector<Tensor>& x) {
      Parameters moved;
      auto next = x.begin();
      for (const auto& [name, tensor] : parameters) moved[name] = *next++;
      return std::vector<Tensor>{called(config, moved, at)};
    };
    std::vector<Tensor> values;
    for (const auto& [name, tensor] : parameters) values.push_back(tensor);
    const DerivativeCheck weights =
        check_derivatives(of_parameters, values, {.step = 1e-4, .tolerance = 1e-5});
    INFO(weights.message);
    CHECK(weights.passed);
  }
}

TEST_CASE("blocks of a SongUNet that are computed again give the same gradient", "[song-unet]") {
  const Device device = cpu({.threads = 1});
  for (const SongUnetConfig& config : {small_song(), other_song()}) {
    const Parameters parameters = song_parameters(config, device);
    const SongCall at = song_call(config, device);
    const auto gradient = [&](const NetworkConfig& network) {
      return grad([&](const Parameters& own) {
        return sum(square(apply(network, own, at.z, {.t = at.t, .r = at.r}, at.labels)));
      })(parameters);
    };
    const Parameters kept = gradient(config), again = gradient(with_checkpoints(config));
    for (const auto& [name, tensor] : kept) {
      INFO(name);
      CHECK(max(abs(tensor - again.at(name))).item<double>() <=
            1e-10 * (1 + max(abs(tensor)).item<double>()));
    }
  }
}

TEST_CASE("a fresh SongUNet is nearly nothing, and keeps its random frequencies", "[song-unet]") {
  const Device device = cpu({.threads = 1});
  const Parameters parameters = initialise(NetworkConfig(ncsnpp()), random_key(3, device));
  const auto largest = [&](const std::string& name) {
    return max(abs(parameters.at(name))).item<float>();
  };
  CHECK(largest("dec.32x32_aux_conv.weight") < 1e-5);
  CHECK(largest("enc.16x16_block0.conv1.weight") < 1e-5);
  CHECK(largest("enc.16x16_block0.conv0.bias") == 0);
  CHECK(largest("enc.16x16_block0.norm1.weight") == 1);
  // sqrt(6 / (256 * 9 + 256 * 9)), and a root of 0.2 for queries, keys and values.
  CHECK(largest("enc.16x16_block0.conv0.weight") == Approx(0.036084).epsilon(1e-3));
  CHECK(largest("enc.16x16_block0.qkv.weight") ==
        Approx(std::sqrt(0.2 * 6 / (256 + 768))).epsilon(1e-3));
  const Tensor frequencies = parameters.at("map_noise.freqs");
  CHECK(frequencies.shape() == Shape{128});
  CHECK(std::sqrt(mean(square(frequencies)).item<float>()) == Approx(16).epsilon(0.2));
  CHECK(frozen_parameters(ncsnpp()) == std::vector<std::string>{"map_noise.freqs"});
  CHECK(frozen_parameters(SongUnetConfig{}).empty());
}

TEST_CASE("the null class of a SongUNet is no label at all", "[song-unet]") {
  const Device device = cpu({.threads = 1});
  SongUnetConfig labelled = small_song(), plain = small_song();
  plain.num_classes = 0;
  Parameters parameters = song_parameters(labelled, device);
  SongCall at = song_call(labelled, device);
  at.labels = Tensor::from(std::vector<std::int32_t>{3, 3}, {2}, device);
  const Tensor with = called(labelled, parameters, at);
  parameters["map_r.bias"] = parameters.at("map_r.bias") + parameters.at("map_label.bias");
  CHECK(max(abs(called(plain, parameters, at) - with)).item<double>() < 1e-12);
  at.labels = Tensor::from(std::vector<std::int32_t>{0, 3}, {2}, device);
  CHECK(max(abs(called(labelled, song_parameters(labelled, device), at) - with)).item<double>() >
        0.01);
}

TEST_CASE("a SongUNet's configuration survives JSON, and impossible ones are refused",
          "[song-unet]") {
  for (const SongUnetConfig& config : {small_song(), other_song(), ncsnpp()})
    CHECK(network_from_json(nlohmann::json::parse(network_to_json(config).dump())) ==
          NetworkConfig(config));
  CHECK(family(small_song()) == "song-unet");
  CHECK(sample_shape(small_song()) == Shape{4, 6, 2});
  const auto refusal = [](auto&& change) {
    SongUnetConfig config = small_song();
    change(config);
    return message_of([&] { check(NetworkConfig(config)); });
  };
  CHECK(contains(refusal([](auto& c) { c.base = 6; }), "multiple of 4"));
  CHECK(contains(refusal([](auto& c) { c.base = 36, c.channel_mult = {1, 4}; }), "32 groups"));
  CHECK(contains(refusal([](auto& c) { c.image_size = {5, 6}; }), "multiples of 2"));
  CHECK(contains(refusal([](auto& c) { c.attention_ds = {0}; }), "scaled down, got 0"));
  CHECK(contains(refusal([](auto& c) { c.attention_ds.assign(65, 1); }), "at most 64 levels"));
  // Levels that are named twice, or that there are not, change nothing.
  SongUnetConfig named = small_song();
  named.attention_ds = {1, 1, 8, 3};
  CHECK(refusal([&](auto& c) { c = named; }).empty());
  CHECK(parameter_shapes(named) == parameter_shapes(small_song()));
  CHECK(contains(refusal([](auto& c) { c.channel_mult = {}; }), "1 to 12 levels"));
  CHECK(contains(refusal([](auto& c) { c.num_blocks = 0; }), "num_blocks"));
  CHECK(contains(refusal([](auto& c) { c.channel_mult_noise = 0; }), "channel_mult_noise"));
  CHECK(contains(refusal([](auto& c) { c.num_classes = -1; }), "num_classes"));
  CHECK(refusal([](auto&) {}).empty());
  CHECK_THROWS_AS(song_filter_from("cubic"), FormatError);
}
