// The names of facebookresearch/DiT, SiT and the public MeanFlow ports.
#include <array>
#include <cmath>
#include <limits>

#include "models/import/family.h"

namespace fluxion {
namespace {

// Widths whose heads the papers give (DiT S, B, M and L, XL).
constexpr std::array<std::pair<std::int64_t, std::int64_t>, 4> published_heads = {
    {{384, 6}, {768, 12}, {1024, 16}, {1152, 16}}};
constexpr std::int64_t usual_head_width = 64;
constexpr std::int64_t widest_ratio = 256;
constexpr std::int64_t most_tokens = std::int64_t{1}
                                     << 62;  // the square of its root is still a number

constexpr const char* patches_weight = "x_embedder.proj.weight";
constexpr const char* dit_class_table = "y_embedder.embedding_table.weight";
constexpr const char* dit_first_time_weight = "t_embedder.mlp.0.weight";

std::int64_t heads_of(std::int64_t hidden) {
  for (const auto& [width, heads] : published_heads)
    if (width == hidden) return heads;
  if (hidden % usual_head_width != 0)
    throw Error("the number of heads is in no shape, and hidden size " + std::to_string(hidden) +
                " is no multiple of " + std::to_string(usual_head_width) +
                " to guess it from: give num_heads");
  return hidden / usual_head_width;
}

// The ratio that gives this width again after truncation.
double ratio_of(std::int64_t width, std::int64_t hidden) {
  double ratio = static_cast<double>(width) / static_cast<double>(hidden);
  while (static_cast<std::int64_t>(static_cast<double>(hidden) * ratio) < width)
    ratio = std::nextafter(ratio, std::numeric_limits<double>::infinity());
  return ratio;
}

std::int64_t image_size_of(const NamedEntries& file, const ImportOptions& options,
                           std::int64_t patch) {
  if (options.image_size) return *options.image_size;
  const std::optional<std::int64_t> tokens = file.size("pos_embed", 3, 1);
  if (!tokens)
    throw Error(
        "without pos_embed [1, tokens, hidden] nothing tells the image's size: give image_size");
  const auto side =
      static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(*tokens))));
  if (*tokens > most_tokens || side * side != *tokens)
    throw Error("pos_embed has " + std::to_string(*tokens) +
                " tokens, which is no square; only square images are supported");
  return side * patch;
}

NetworkConfig dit_config_of(NamedEntries& file, const ImportOptions& options) {
  const SafetensorsEntry* patches = file.find(patches_weight);
  if (patches == nullptr || patches->shape.rank() != 4 || patches->shape.elements() == 0)
    throw Error("'" + std::string(patches_weight) + "' must be [hidden, channels, patch, patch]" +
                (patches ? ", got " + to_string(*patches) : ""));
  DitConfig config;
  config.hidden_size = patches->shape[0];
  config.channels = patches->shape[1];
  config.patch_size = patches->shape[2];
  config.image_size = image_size_of(file, options, config.patch_size);
  // With a gap between the blocks the last is missed and reported.
  config.depth = static_cast<std::int64_t>(file.numbers("blocks.").size());
  config.num_heads = options.num_heads ? *options.num_heads : heads_of(config.hidden_size);
  if (!options.num_heads)
    file.notes.push_back(std::to_string(config.num_heads) + " heads, as is usual for hidden size " +
                         std::to_string(config.hidden_size));
  config.mlp_ratio = 4;
  // A width that no network has is left to the comparison, which reports it.
  if (const auto width = file.size("blocks.0.mlp.fc1.weight", 2, 0);
      width && *width > 0 && *width / widest_ratio <= config.hidden_size)
    config.mlp_ratio = ratio_of(*width, config.hidden_size);
  if (const auto features = file.size(dit_first_time_weight, 2, 1))
    config.frequency_embedding_size = *features;
  config.num_classes = 0;
  if (const auto rows = file.size(dit_class_table, 2, 0))
    config.num_classes = options.fill.contains(Fill::null_class) ? *rows : *rows - 1;
  if (options.num_classes) config.num_classes = *options.num_classes;
  config.second_time = options.second_time;
  return config;
}

std::string dit_description(const NetworkConfig& network) {
  const auto& config = std::get<DitConfig>(network);
  return "DiT of hidden size " + std::to_string(config.hidden_size) + " and depth " +
         std::to_string(config.depth);
}

}  // namespace

const PublicFamily& public_dit() {
  static constexpr PublicFamily family{.name = "DiT",
                                       .first_time = dit_first_time_weight,
                                       .second_time = "r_embedder.",
                                       .class_table = dit_class_table,
                                       .output = "final_layer.linear.",
                                       .sign = patches_weight,
                                       .usually_open = true,
                                       .config = dit_config_of,
                                       .description = dit_description};
  return family;
}

}  // namespace fluxion
