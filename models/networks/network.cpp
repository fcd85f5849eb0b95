#include "models/networks/network.h"

#include <nlohmann/json.hpp>

#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "models/json_text.h"

namespace fluxion {
namespace {

using nlohmann::json;

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

// Reads one member of the configuration.
template <class T>
T member(const json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end())
    throw FormatError(std::string("network configuration: member '") + name + "' is missing");
  if constexpr (std::is_same_v<T, json>) {
    return *found;
  } else {
    return JsonValue<T>::from(*found, std::string("network configuration: member '") + name + "'");
  }
}

// The same of a member that came later: files written before have what the default says.
template <class T>
T member_or(const json& object, const char* name, const T& otherwise) {
  return object.contains(name) ? member<T>(object, name) : otherwise;
}

json config_to_json(const MlpConfig& config) {
  return {{"data_dim", config.data_dim},
          {"hidden", config.hidden},
          {"second_time", to_string(config.second_time)},
          {"frequencies", config.frequencies},
          {"time_features", config.time_features},
          {"time_scale", config.time_scale}};
}

json config_to_json(const DitConfig& config) {
  return {{"image_size", config.image_size},
          {"channels", config.channels},
          {"patch_size", config.patch_size},
          {"hidden_size", config.hidden_size},
          {"depth", config.depth},
          {"num_heads", config.num_heads},
          {"mlp_ratio", config.mlp_ratio},
          {"num_classes", config.num_classes},
          {"frequency_embedding_size", config.frequency_embedding_size},
          {"second_time", to_string(config.second_time)},
          {"time_scale", config.time_scale},
          {"gelu", to_string(config.gelu)},
          {"positions", to_string(config.positions)}};
}

json config_to_json(const UnetConfig& config) {
  return {{"image_size", config.image_size},
          {"channels", config.channels},
          {"base", config.base},
          {"channel_mult", config.channel_mult},
          {"num_res_blocks", config.num_res_blocks},
          {"attention_ds", config.attention_ds},
          {"norm_groups", config.norm_groups},
          {"num_heads", config.num_heads},
          {"num_head_channels", config.num_head_channels},
          {"attention_order", to_string(config.attention_order)},
          {"use_scale_shift_norm", config.use_scale_shift_norm},
          {"resblock_updown", config.resblock_updown},
          {"conv_resample", config.conv_resample},
          {"num_classes", config.num_classes},
          {"second_time", to_string(config.second_time)},
          {"time_scale", config.time_scale},
          {"frequency_embedding_size", config.frequency_embedding_size}};
}

json config_to_json(const SongUnetConfig& config) {
  json result = {{"image_size", config.image_size},
                 {"channels", config.channels},
                 {"base", config.base},
                 {"channel_mult", config.channel_mult},
                 {"num_blocks", config.num_blocks},
                 {"attention_ds", config.attention_ds},
                 {"embedding", to_string(config.embedding)},
                 {"encoder", to_string(config.encoder)},
                 {"filter", to_string(config.filter)},
                 {"channel_mult_noise", config.channel_mult_noise},
                 {"channel_mult_emb", config.channel_mult_emb},
                 {"num_classes", config.num_classes},
                 {"second_time", to_string(config.second_time)},
                 {"time_scale", config.time_scale}};
  if (!config.frequencies.values.empty()) result["frequencies"] = config.frequencies.values;
  return result;
}

std::array<std::int64_t, 2> sides_from_json(const json& object) {
  const auto sides = member<std::vector<std::int64_t>>(object, "image_size");
  if (sides.size() != 2)
    throw FormatError("network configuration: image_size of a unet must be [height, width], got " +
                      json(sides).dump());
  return {sides[0], sides[1]};
}

MlpConfig mlp_from_json(const json& object) {
  return {.data_dim = member<std::int64_t>(object, "data_dim"),
          .hidden = member<std::vector<std::int64_t>>(object, "hidden"),
          .second_time = second_time_from(member<std::string>(object, "second_time")),
          .frequencies = member_or<std::int64_t>(object, "frequencies", 0),
          .time_features = member_or<std::int64_t>(object, "time_features", 0),
          .time_scale = member_or<double>(object, "time_scale", 1)};
}

DitConfig dit_from_json(const json& object) {
  return {.image_size = member<std::int64_t>(object, "image_size"),
          .channels = member<std::int64_t>(object, "channels"),
          .patch_size = member<std::int64_t>(object, "patch_size"),
          .hidden_size = member<std::int64_t>(object, "hidden_size"),
          .depth = member<std::int64_t>(object, "depth"),
          .num_heads = member<std::int64_t>(object, "num_heads"),
          .mlp_ratio = member<double>(object, "mlp_ratio"),
          .num_classes = member<std::int64_t>(object, "num_classes"),
          .frequency_embedding_size = member<std::int64_t>(object, "frequency_embedding_size"),
          .second_time = second_time_from(member<std::string>(object, "second_time")),
          .time_scale = member<double>(object, "time_scale"),
          .gelu = gelu_from(member_or<std::string>(object, "gelu", "tanh")),
          .positions = positions_from(member_or<std::string>(object, "positions", "sincos"))};
}

UnetConfig unet_from_json(const json& object) {
  return {
      .image_size = sides_from_json(object),
      .channels = member<std::int64_t>(object, "channels"),
      .base = member<std::int64_t>(object, "base"),
      .channel_mult = member<std::vector<std::int64_t>>(object, "channel_mult"),
      .num_res_blocks = member<std::int64_t>(object, "num_res_blocks"),
      .attention_ds = member<std::vector<std::int64_t>>(object, "attention_ds"),
      .norm_groups = member<std::int64_t>(object, "norm_groups"),
      .num_heads = member<std::int64_t>(object, "num_heads"),
      .num_head_channels = member_or<std::int64_t>(object, "num_head_channels", 0),
      .attention_order = attention_order_from(member<std::string>(object, "attention_order")),
      .use_scale_shift_norm = member<bool>(object, "use_scale_shift_norm"),
      .resblock_updown = member<bool>(object, "resblock_updown"),
      .conv_resample = member<bool>(object, "conv_resample"),
      .num_classes = member<std::int64_t>(object, "num_classes"),
      .second_time = second_time_from(member<std::string>(object, "second_time")),
      .time_scale = member<double>(object, "time_scale"),
      .frequency_embedding_size = member_or<std::int64_t>(object, "frequency_embedding_size", 0)};
}

SongUnetConfig song_unet_from_json(const json& object) {
  return {.image_size = sides_from_json(object),
          .channels = member<std::int64_t>(object, "channels"),
          .base = member<std::int64_t>(object, "base"),
          .channel_mult = member<std::vector<std::int64_t>>(object, "channel_mult"),
          .num_blocks = member<std::int64_t>(object, "num_blocks"),
          .attention_ds = member<std::vector<std::int64_t>>(object, "attention_ds"),
          .embedding = song_embedding_from(member<std::string>(object, "embedding")),
          .encoder = song_encoder_from(member<std::string>(object, "encoder")),
          .filter = song_filter_from(member<std::string>(object, "filter")),
          .channel_mult_noise = member<std::int64_t>(object, "channel_mult_noise"),
          .channel_mult_emb = member<std::int64_t>(object, "channel_mult_emb"),
          .num_classes = member<std::int64_t>(object, "num_classes"),
          .second_time = second_time_from(member<std::string>(object, "second_time")),
          .time_scale = member<double>(object, "time_scale"),
          .frequencies = {member_or<std::vector<double>>(object, "frequencies", {})}};
}

}  // namespace

Tensor apply(const NetworkConfig& config, const Parameters& parameters, const Tensor& z,
             const Times& times, const Tensor& labels) {
  for (const Tensor& time : {times.t, times.r})
    if (!time || !z || z.rank() < 1 || time.shape() != Shape{z.size(0)})
      throw ShapeError("network: wants times t and r [batch] beside z " +
                       (z ? to_string(z.type()) : "(empty)") + ", got " +
                       (time ? to_string(time.type()) : "(empty)"));
  return std::visit(
      Overloaded{[&](const MlpConfig& mlp) { return apply(mlp, parameters, z, times); },
                 [&](const auto& images) { return apply(images, parameters, z, times, labels); }},
      config);
}

NetworkConfig with_checkpoints(NetworkConfig config) {
  if (std::holds_alternative<MlpConfig>(config))
    throw Error("an MLP has no blocks that could be computed again; only a DiT and a U-Net have");
  std::visit([](auto& network) { network.running.checkpoint_blocks = true; }, config);
  return config;
}

NetworkConfig with_precision(NetworkConfig config, const Precision& precision) {
  std::visit([&](auto& network) { network.running.precision = precision; }, config);
  return config;
}

NetworkConfig with_dropout(NetworkConfig config, double share, const Tensor& key) {
  if (!(share >= 0 && share < 1))
    throw Error("dropout must be a share from 0 to below 1, got " + number_text(share));
  if (share > 0 && !std::holds_alternative<UnetConfig>(config) &&
      !std::holds_alternative<SongUnetConfig>(config))
    throw Error("dropout is for a unet and a song-unet, whose papers have it; a " + family(config) +
                " has none");
  std::visit(
      [&](auto& network) {
        network.running.dropout = share;
        network.running.dropout_key = key;
      },
      config);
  return config;
}

Velocity bind_parameters(const NetworkConfig& config, const Parameters& parameters) {
  return [config, parameters](const Tensor& z, const Times& times, const Tensor& labels) {
    return apply(config, parameters, z, times, labels);
  };
}

Parameters initialise(const NetworkConfig& config, const Tensor& key, DType dtype) {
  check(config);
  return std::visit([&](const auto& network) { return initialise(network, key, dtype); }, config);
}

std::map<std::string, Shape> parameter_shapes(const NetworkConfig& config) {
  return std::visit([](const auto& network) { return parameter_shapes(network); }, config);
}

std::vector<std::string> frozen_parameters(const NetworkConfig& config) {
  if (const auto* dit = std::get_if<DitConfig>(&config); dit && dit->positions == Positions::sincos)
    return {"pos_embed"};
  if (const auto* song = std::get_if<SongUnetConfig>(&config);
      song && song->embedding == SongEmbedding::fourier)
    return {"map_noise.freqs"};
  return {};
}

std::string family(const NetworkConfig& config) {
  return std::visit(
      Overloaded{[](const MlpConfig&) { return "mlp"; }, [](const DitConfig&) { return "dit"; },
                 [](const UnetConfig&) { return "unet"; },
                 [](const SongUnetConfig&) { return "song-unet"; }},
      config);
}

std::int64_t num_classes(const NetworkConfig& config) {
  return std::visit(Overloaded{[](const MlpConfig&) -> std::int64_t { return 0; },
                               [](const auto& images) { return images.num_classes; }},
                    config);
}

Shape sample_shape(const NetworkConfig& config) {
  return std::visit(
      Overloaded{[](const MlpConfig& mlp) { return Shape{mlp.data_dim}; },
                 [](const DitConfig& dit) {
                   return Shape{dit.image_size, dit.image_size, dit.channels};
                 },
                 [](const auto& unet) {
                   return Shape{unet.image_size[0], unet.image_size[1], unet.channels};
                 }},
      config);
}

std::int64_t parameter_count(const NetworkConfig& config) {
  std::int64_t count = 0;
  for (const auto& [name, shape] : parameter_shapes(config)) count += shape.elements();
  return count;
}

void check(const NetworkConfig& config) {
  std::visit([](const auto& network) { check(network); }, config);
}

json network_to_json(const NetworkConfig& config) {
  return {
      {"family", family(config)},
      {"config", std::visit([](const auto& network) { return config_to_json(network); }, config)}};
}

NetworkConfig network_from_json(const json& object) {
  if (!object.is_object())
    throw FormatError("network: wants an object {\"family\", \"config\"}, got " + object.dump());
  const std::string name = member<std::string>(object, "family");
  const json config = member<json>(object, "config");
  NetworkConfig result;
  if (name == "mlp")
    result = mlp_from_json(config);
  else if (name == "dit")
    result = dit_from_json(config);
  else if (name == "unet")
    result = unet_from_json(config);
  else if (name == "song-unet")
    result = song_unet_from_json(config);
  else
    throw FormatError("network: family '" + name +
                      "' is not one of 'mlp', 'dit', 'unet', 'song-unet'");
  try {
    check(result);
  } catch (const FormatError&) {
    throw;
  } catch (const Error& error) {
    throw FormatError(error.what());
  }
  return result;
}

}  // namespace fluxion
