// The names of the class SongUNet of NVlabs/edm: DDPM++ and NCSN++.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>

#include "models/import/family.h"

namespace fluxion {
namespace {

constexpr const char* song_first_weight = "map_layer0.weight";
constexpr const char* song_frequencies = "map_noise.freqs";
constexpr const char* song_labels = "map_label.weight";

// "32x16_block0" -> {32, 16}; empty where it does not begin like this.
std::optional<std::array<std::int64_t, 2>> sides_of(std::string_view word) {
  std::array<std::int64_t, 2> sides{};
  const char *at = word.data(), *const end = at + word.size();
  for (std::size_t k = 0; k < 2; ++k) {
    const auto [stop, failure] = std::from_chars(at, end, sides[k]);
    if (failure != std::errc() || stop == end || *stop != (k == 0 ? 'x' : '_')) return std::nullopt;
    at = stop + 1;
  }
  return sides;
}

// Buffers of the public code, which say how images are halved and doubled, and no more.
std::optional<SongFilter> take_filters(NamedEntries& file) {
  static const std::map<std::int64_t, std::vector<double>> known = {{2, {1, 1}}, {4, {1, 3, 3, 1}}};
  std::optional<SongFilter> filter;
  std::erase_if(file.entries, [&](const auto& named) {
    const SafetensorsEntry& entry = *named.second;
    if (!named.first.ends_with(".resample_filter")) return false;
    const auto taps = entry.shape.rank() == 4 ? known.find(entry.shape[3]) : known.end();
    if (taps == known.end() || !entry.dtype.is_floating() ||
        entry.shape != Shape{1, 1, taps->first, taps->first})
      return false;
    double total = 0;
    for (const double tap : taps->second) total += tap;
    const std::vector<double> values = to_doubles(entry);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::size_t n = taps->second.size();
      const double wanted = taps->second[i / n] * taps->second[i % n] / (total * total);
      if (!(std::abs(values[i] - wanted) <= 0.01 * wanted)) return false;
    }
    const SongFilter found = taps->first == 2 ? SongFilter::box : SongFilter::fir;
    if (filter && *filter != found)
      throw Error("its images are halved by two kinds of filters, '" + named.first +
                  "' among them, and no network has both");
    filter = found;
    return true;
  });
  return filter;
}

NetworkConfig song_config_of(NamedEntries& file, const ImportOptions& options) {
  if (options.data_at_one)
    throw Error(
        "data_at_one is for networks whose times are embedded by sines of t alone; a "
        "SongUNet's are turned first");
  if (options.drop_variance) throw Error("a SongUNet predicts no variance that could be dropped");
  if (options.fill.contains(Fill::null_class))
    throw Error("a SongUNet has a null class without a row of its own; leave null-class out");
  if (options.image_size || options.num_heads)
    throw Error("a SongUNet's image size is in its names, and it has one head; leave them out");
  SongUnetConfig config;
  // How far down each level is: by the word before its blocks.
  std::map<std::int64_t, std::array<std::int64_t, 2>, std::greater<>> levels;
  std::string first;
  for (const std::string_view word : file.numbers("enc."))
    if (const auto sides = sides_of(word)) {
      levels.emplace((*sides)[0], *sides);
      if (word.ends_with("_conv")) first = "enc." + std::string(word);
    }
  const SafetensorsEntry *convolution = file.find(first + ".weight"),
                         *map = file.find(song_first_weight);
  if (convolution == nullptr || convolution->shape.rank() != 4 || map->shape.rank() != 2 ||
      convolution->shape.elements() == 0)
    throw Error("'enc.HxW_conv.weight' [base, channels, 3, 3] and '" +
                std::string(song_first_weight) + "' [embedding, features] are not there");
  config.base = convolution->shape[0];
  config.channels = convolution->shape[1];
  config.image_size = levels.begin()->second;
  if (map->shape[0] % config.base != 0 || map->shape[1] % config.base != 0)
    throw Error("'" + std::string(song_first_weight) + "' " + to_string(*map) +
                " is no multiple of the " + std::to_string(config.base) + " channels");
  config.channel_mult_emb = map->shape[0] / config.base;
  config.channel_mult_noise = map->shape[1] / config.base;
  config.channel_mult.clear();
  config.attention_ds.clear();
  std::int64_t scale = 1;
  for (const auto& [height, sides] : levels) {
    const std::string start =
        "enc." + std::to_string(sides[0]) + "x" + std::to_string(sides[1]) + "_block";
    const auto width = file.size(start + "0.conv0.weight", 4, 0);
    if (!width || *width % config.base != 0 || *width == 0)
      throw Error("the channels of a level come from '" + start +
                  "0.conv0.weight', which must have a multiple of " + std::to_string(config.base) +
                  " rows");
    config.channel_mult.push_back(*width / config.base);
    if (file.any(start + "0.qkv.")) config.attention_ds.push_back(scale);
    if (scale == 1) {
      config.num_blocks = 0;
      while (file.any(start + std::to_string(config.num_blocks) + ".")) ++config.num_blocks;
    }
    scale = std::min<std::int64_t>(2 * scale, std::int64_t{1} << 40);
    if (file.any("enc." + std::to_string(sides[0]) + "x" + std::to_string(sides[1]) +
                 "_aux_residual."))
      config.encoder = SongEncoder::residual;
  }
  if (file.find(song_frequencies)) config.embedding = SongEmbedding::fourier;
  // py-meanflow's: the features of both times, one behind the other.
  if (config.embedding == SongEmbedding::positional && config.channel_mult_noise != 1 &&
      !file.any("map_r."))
    throw Error("'" + std::string(song_first_weight) + "' " + to_string(*map) + " takes " +
                std::to_string(config.channel_mult_noise) + " times the " +
                std::to_string(config.base) +
                " features of one time: times that are concatenated are not supported, the second "
                "time must have an embedder 'map_r' of its own");
  const std::optional<SongFilter> filter = take_filters(file);
  config.filter = filter                                    ? *filter
                  : config.encoder == SongEncoder::residual ? SongFilter::fir
                                                            : SongFilter::box;
  if (!filter && config.channel_mult.size() > 1)
    file.notes.push_back("no filter in the file: " + to_string(config.filter) +
                         ", as is usual for this encoder");
  if (file.entries.erase("map_augment.weight") > 0)
    file.notes.push_back("'map_augment.weight' left out: it speaks of augmented images alone");
  config.num_classes = 0;
  if (const auto classes = file.size(song_labels, 2, 1)) config.num_classes = *classes;
  if (options.num_classes) config.num_classes = *options.num_classes;
  config.second_time = options.second_time;
  return config;
}

std::string song_description(const NetworkConfig& network) {
  const auto& config = std::get<SongUnetConfig>(network);
  return "SongUNet of " + std::to_string(config.base) + " channels and " +
         std::to_string(config.channel_mult.size()) + " levels";
}

}  // namespace

const PublicFamily& public_song_unet() {
  static constexpr PublicFamily family{.name = "SongUNet",
                                       .first_time = song_first_weight,
                                       .second_time = "map_r.",
                                       .class_table = song_labels,
                                       .output = "dec.aux_conv.",
                                       .sign = song_first_weight,
                                       .usually_open = false,
                                       .config = song_config_of,
                                       .description = song_description};
  return family;
}

}  // namespace fluxion
