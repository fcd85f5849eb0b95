// The names of guided-diffusion's UNetModel, which many flow-matching programs have taken over.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "models/import/family.h"

namespace fluxion {
namespace {

constexpr const char* first_convolution = "input_blocks.0.0.weight";
constexpr const char* unet_first_time_weight = "time_embed.0.weight";
constexpr const char* unet_class_table = "label_emb.weight";
constexpr std::int64_t embedding_factor = 4;  // rows of the time embedding over base

bool given(const ImportOptions& options, const char* member) {
  const nlohmann::json overrides = nlohmann::json::parse(options.config, nullptr, false);
  return overrides.is_object() && overrides.contains(member);
}

std::string block(const char* part, std::int64_t number, int place) {
  return part + std::to_string(number) + "." + std::to_string(place) + ".";
}

// How often a key starts with "<part><number>.<place>.<word>", each number once.
std::int64_t count_blocks(const NamedEntries& file, const char* part, int first_place,
                          int last_place, const char* word) {
  return std::ranges::count_if(file.numbers(part), [&](std::string_view number) {
    for (int place = first_place; place <= last_place; ++place)
      if (file.any(part + std::string(number) + "." + std::to_string(place) + "." + word))
        return true;
    return false;
  });
}

// Levels, and blocks and resampling in them. On the way down there are n blocks a level and one
// more between two levels, where averages have no parameters and so no keys; on the way up there
// are n + 1 blocks a level.
void read_levels(const NamedEntries& file, UnetConfig& config) {
  const auto inputs = static_cast<std::int64_t>(file.numbers("input_blocks.").size()),
             outputs = static_cast<std::int64_t>(file.numbers("output_blocks.").size());
  std::int64_t levels = 1 + count_blocks(file, "input_blocks.", 0, 0, "op.");
  config.resblock_updown = false;
  config.conv_resample = true;
  if (levels == 1) {
    levels += count_blocks(file, "output_blocks.", 1, 2, "in_layers.");
    config.resblock_updown = levels > 1;
  }
  if (levels == 1 && outputs != inputs) {
    levels = outputs - inputs + 1;
    config.conv_resample = false;
  }
  if (levels < 1 || outputs <= levels || outputs % levels != 0)
    throw Error("its " + std::to_string(inputs) + " input blocks and " + std::to_string(outputs) +
                " output blocks make no U-Net");
  config.num_res_blocks = outputs / levels - 1;
  config.channel_mult.clear();
  config.attention_ds.clear();
  for (std::int64_t level = 0; level < levels; ++level) {
    const std::int64_t first = 1 + level * (config.num_res_blocks + 1);
    const std::string weight = block("input_blocks.", first, 0) + "out_layers.3.weight";
    const std::optional<std::int64_t> width = file.size(weight, 4, 0);
    if (!width || *width % config.base != 0)
      throw Error("the channels of level " + std::to_string(level) + " come from '" + weight +
                  "' [channels, channels, 3, 3], a multiple of " + std::to_string(config.base) +
                  (width ? ", got " + std::to_string(*width) : ", and there is none"));
    config.channel_mult.push_back(*width / config.base);
    if (file.any(block("input_blocks.", first, 1) + "qkv."))
      config.attention_ds.push_back(std::int64_t{1} << std::min<std::int64_t>(level, 62));
  }
}

NetworkConfig unet_config_of(NamedEntries& file, const ImportOptions& options) {
  const SafetensorsEntry *first = file.find(first_convolution),
                         *time = file.find(unet_first_time_weight);
  if (first == nullptr || first->shape.rank() != 4 || first->shape.elements() == 0)
    throw Error("'" + std::string(first_convolution) +
                "' must be [channels, image's channels, 3, 3]" +
                (first ? ", got " + to_string(*first) : ""));
  if (time == nullptr || time->shape.rank() != 2 || time->shape[0] < embedding_factor ||
      time->shape[0] % embedding_factor != 0)
    throw Error("'" + std::string(unet_first_time_weight) + "' must be [4 base, features]" +
                (time ? ", got " + to_string(*time) : ", and there is none"));
  UnetConfig config;
  config.channels = first->shape[1];
  config.base = time->shape[0] / embedding_factor;
  if (time->shape[1] != config.base) config.frequency_embedding_size = time->shape[1];
  read_levels(file, config);
  if (const auto embedded = file.size("input_blocks.1.0.emb_layers.1.weight", 2, 0))
    config.use_scale_shift_norm =
        *embedded >
        config.base * config.channel_mult.front();  // a scale and a shift for each channel

  if (!options.image_size && !given(options, "image_size"))
    throw Error("no shape tells the image's size: give image_size");
  if (options.image_size) config.image_size = {*options.image_size, *options.image_size};
  if (!options.num_heads && !given(options, "num_heads") && !given(options, "num_head_channels"))
    throw Error(
        "the number of heads is in no shape: give num_heads, or num_head_channels in the "
        "configuration");
  if (options.num_heads) config.num_heads = *options.num_heads;
  config.attention_order = AttentionOrder::heads_first;
  if (!given(options, "attention_order"))
    file.notes.push_back(
        "attention in the legacy order, as is usual; a configuration may say \"attention_order\": "
        "\"new\"");
  config.num_classes = 0;
  if (const auto rows = file.size(unet_class_table, 2, 0)) {
    const bool filled = options.fill.contains(Fill::null_class);
    if (!filled && !options.num_classes && !given(options, "num_classes"))
      throw Error("no shape tells whether the last of the " + std::to_string(*rows) + " rows of '" +
                  unet_class_table +
                  "' stands for no class: give num_classes if it does; fill null-class if all are "
                  "classes, as in guided-diffusion");
    config.num_classes = filled ? *rows : *rows - 1;
  }
  if (options.num_classes) config.num_classes = *options.num_classes;
  config.second_time = options.second_time;
  return config;
}

std::string unet_description(const NetworkConfig& network) {
  const auto& config = std::get<UnetConfig>(network);
  return "U-Net of " + std::to_string(config.base) + " channels and " +
         std::to_string(config.channel_mult.size()) + " levels";
}

}  // namespace

const PublicFamily& public_unet() {
  static constexpr PublicFamily family{.name = "U-Net",
                                       .first_time = unet_first_time_weight,
                                       .second_time = "r_embed.",
                                       .class_table = unet_class_table,
                                       .output = "out.2.",
                                       .sign = first_convolution,
                                       .usually_open = true,
                                       .config = unet_config_of,
                                       .description = unet_description};
  return family;
}

}  // namespace fluxion
