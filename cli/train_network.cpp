#include "cli/train_network.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/error.h"

namespace fluxion::cli {

namespace {

// Of a U-Net, which is larger and slower than a transformer of its width.
constexpr std::int64_t unet_width = 32, unet_depth = 1;
// Sides at which another level is not worth its steps, and at which attention over all pixels is
// cheap.
constexpr std::int64_t coarsest_side = 8, widest_attention = 16;

// A level for every halving down to a side of 8, where sides are even; twice the channels below the
// first.
std::vector<std::int64_t> usual_levels(const Shape& image) {
  std::vector<std::int64_t> levels = {1};
  for (std::int64_t height = image[0], width = image[1];
       height % 2 == 0 && width % 2 == 0 && std::max(height, width) > coarsest_side &&
       std::ssize(levels) < most_unet_levels;
       height /= 2, width /= 2)
    levels.push_back(2);
  return levels;
}

// The levels, by how far they are scaled down, where a pixel may look at all others.
std::vector<std::int64_t> usual_attention(const Shape& image, std::size_t levels) {
  std::vector<std::int64_t> result;
  for (std::size_t level = 0; level < levels; ++level)
    if (std::max(image[0], image[1]) >> level <= widest_attention)
      result.push_back(std::int64_t{1} << level);
  return result.empty() ? std::vector<std::int64_t>{0} : result;
}

std::vector<std::int64_t> divisors_of(std::int64_t number) {
  std::vector<std::int64_t> result;
  for (std::int64_t k = 1; k <= number; ++k)
    if (number % k == 0) result.push_back(k);
  return result;
}

// "4", "2 or 4": the divisors of `number` on both sides of `wanted` that `holds` accepts, or
// "none".
std::string nearest_divisors(std::int64_t number, std::int64_t wanted,
                             const std::function<bool(std::int64_t)>& holds) {
  std::optional<std::int64_t> below, above;
  for (const std::int64_t divisor : divisors_of(number)) {
    if (!holds(divisor)) continue;
    if (divisor < wanted) below = divisor;
    if (divisor > wanted && !above) above = divisor;
  }
  if (!below && !above) return "none";
  if (!below || !above) return std::to_string(below ? *below : *above);
  return std::to_string(*below) + " or " + std::to_string(*above);
}

// The side of a DiT's patches: 4 or 2 where they divide the images' side; else the smallest odd
// divisor that leaves 4 x 4 patches or more; else 1, while that makes at most 64 x 64 of them.
std::int64_t usual_patch(std::int64_t side) {
  constexpr std::int64_t fewest = 4, most = 64;  // in a row
  for (const std::int64_t patch : {4, 2})
    if (side % patch == 0) return patch;
  for (const std::int64_t patch : divisors_of(side))
    if (patch > 1 && side / patch >= fewest) return patch;
  if (side <= most) return 1;
  throw Error("train: no --patch from 2 to " + std::to_string(side / fewest) +
              " divides images of " + std::to_string(side) + " x " + std::to_string(side) +
              "; --image-size " + std::to_string(side / 4 * 4) +
              " or --net unet would fit, or --patch 1: " + std::to_string(side * side) +
              " patches, each of which looks at all others");
}

// The width nearest to `usual` that so many heads divide; it also has a factor of 4, as the
// position table of a DiT needs.
std::int64_t usual_width(std::int64_t usual, std::int64_t heads) {
  const std::int64_t unit = std::lcm<std::int64_t>(4, heads);
  return unit * std::max<std::int64_t>(1, (2 * usual + unit) / (2 * unit));
}

// Width / 32, or the largest number below that divides the width.
std::int64_t usual_heads(std::int64_t width) {
  std::int64_t heads = std::max<std::int64_t>(1, width / 32);
  while (width % heads != 0) --heads;
  return heads;
}

// What check(DitConfig) would say of the network, in terms of the options that made it.
void check_dit(const TrainOptions& options, std::int64_t side) {
  const std::int64_t width = *options.width, heads = *options.heads, patch = *options.patch;
  const auto text = [](std::int64_t value) { return std::to_string(value); };
  if (side % patch != 0)
    throw Error("train: --patch " + text(patch) + " does not divide images of " + text(side) +
                " x " + text(side) + "; " +
                nearest_divisors(side, patch, [](std::int64_t) { return true; }) + " would");
  if (width % 4 != 0)
    throw Error("train: --width " + text(width) +
                " is no multiple of 4, which the position table of a dit needs; " +
                (width > 4 ? text(width / 4 * 4) + " or " : "") + text((width / 4 + 1) * 4) +
                " would do");
  if (width % heads != 0)
    throw Error("train: --heads " + text(heads) + " does not divide --width " + text(width) + "; " +
                nearest_divisors(width, heads, [](std::int64_t) { return true; }) + " would");
}

// The factors in channel_mult of a unet's levels with attention; the coarsest has it in any case,
// in the middle.
std::vector<std::int64_t> attending_levels(const TrainOptions& options) {
  std::vector<std::int64_t> factors;
  const std::size_t levels = options.channel_mult.size();
  for (std::size_t level = 0; level < levels; ++level)
    if (level + 1 == levels || std::ranges::count(options.attention, std::int64_t{1} << level) > 0)
      factors.push_back(options.channel_mult[level]);
  return factors;
}

// What check() would say of the levels of a unet or song-unet, in terms of the options that made
// them.
void check_levels(const TrainOptions& options, const Shape& image) {
  constexpr std::int64_t deepest = 64;
  const auto text = [](std::int64_t value) { return std::to_string(value); };
  if (*options.depth > deepest)
    throw Error("train: --depth " + text(*options.depth) +
                " is too much for a unet, whose levels have at most " + text(deepest) +
                " residual blocks");
  const std::size_t levels = options.channel_mult.size();
  const std::int64_t coarsest = std::int64_t{1} << (levels - 1);
  if (image[0] % coarsest != 0 || image[1] % coarsest != 0)
    throw Error("train: --channel-mult has " + std::to_string(levels) +
                " levels, for which height and width must be multiples of " + text(coarsest) +
                ", and images are " + to_string(image) +
                "; fewer levels or another --image-size would fit");
  if (options.attention.size() > levels)
    throw Error("train: --attention names " + std::to_string(options.attention.size()) +
                " levels; a unet of this --channel-mult has " + std::to_string(levels));
  if (options.attention != std::vector<std::int64_t>{0})
    for (const std::int64_t scale : options.attention)
      if (scale < 1 || scale > coarsest || (scale & (scale - 1)) != 0)
        throw Error("train: --attention " + text(scale) +
                    " is no level of this unet; levels are powers of 2 up to " + text(coarsest) +
                    (options.attention.size() > 1 ? "" : ", and 0 alone means none"));
}

// What check(UnetConfig) would say of the network, in terms of the options that made it.
void check_unet(const TrainOptions& options, const Shape& image) {
  constexpr std::int64_t narrowest = 2;
  const auto text = [](std::int64_t value) { return std::to_string(value); };
  const std::int64_t width = *options.width, heads = *options.heads;
  if (width < narrowest)
    throw Error("train: --width " + text(width) + " is too narrow for the times of a unet; " +
                text(narrowest) + " is the least");
  check_levels(options, image);
  const std::vector<std::int64_t> factors = attending_levels(options);
  const auto divides_all = [&](std::int64_t divisor) {
    return std::ranges::all_of(factors,
                               [&](std::int64_t factor) { return width * factor % divisor == 0; });
  };
  for (const std::int64_t factor : factors)
    if (width * factor % heads != 0)
      throw Error("train: --heads " + text(heads) + " does not divide the " + text(width * factor) +
                  " channels of a level with attention, --width " + text(width) + " times " +
                  text(factor) + "; " + nearest_divisors(width * factor, heads, divides_all) +
                  " would");
}

UnetConfig unet_for(const TrainOptions& options, const DataSet& data) {
  constexpr std::int64_t most_groups = 32, fewest_channels = 4;  // of a group
  const Shape& image = data.sample_shape();
  UnetConfig config{.image_size = {image[0], image[1]}, .channels = image[2]};
  config.base = *options.width;
  config.channel_mult = options.channel_mult;
  config.num_res_blocks = *options.depth;
  config.attention_ds = options.attention == std::vector<std::int64_t>{0}
                            ? std::vector<std::int64_t>()
                            : options.attention;
  // What divides the width divides every number of channels.
  config.norm_groups = std::gcd(
      config.base, std::clamp<std::int64_t>(config.base / fewest_channels, 1, most_groups));
  config.num_heads = *options.heads;
  config.num_classes = data.classes();
  return config;
}

SongUnetConfig song_unet_for(const TrainOptions& options, const DataSet& data) {
  const Shape& image = data.sample_shape();
  SongUnetConfig config = options.architecture == "ncsn++" ? ncsnpp() : SongUnetConfig{};
  config.image_size = {image[0], image[1]};
  config.channels = image[2];
  config.base = *options.width;
  config.channel_mult = options.channel_mult;
  config.num_blocks = *options.depth;
  config.attention_ds = options.attention == std::vector<std::int64_t>{0}
                            ? std::vector<std::int64_t>()
                            : options.attention;
  config.num_classes = data.classes();
  // Frequencies of deviation 0.02 in place of 16, as Song and Dhariwal 2023 have them for models
  // that compare neighbouring times. (A student is what its teacher is.)
  const Method& method = *method_named(options.method, options.methods);
  if (config.embedding == SongEmbedding::fourier && method.teacher_option.empty() &&
      (method.wrapping == Wrapping::consistency || method.wrapping == Wrapping::trigflow))
    config.time_scale = 0.02 / 16;
  return config;
}

// Norms have a group for every 4 channels, and at most 32.
void check_song_unet(const TrainOptions& options, const DataSet& data) {
  check_levels(options, data.sample_shape());
  constexpr std::int64_t of_group = 4, most = 32;
  const std::int64_t width = *options.width;
  const auto refuse = [&](const std::string& why, std::int64_t unit) {
    throw Error("train: --width " + std::to_string(width) + " " + why + "; " +
                (width > unit ? std::to_string(width / unit * unit) + " or " : "") +
                std::to_string((width / unit + 1) * unit) + " would do");
  };
  if (width % of_group != 0)
    refuse("is no multiple of 4, which the norms of a song-unet need", of_group);
  for (const SongLayer& layer : song_layers(song_unet_for(options, data)))
    for (const std::int64_t channels : {layer.in, layer.out})
      if (layer.kind == SongLayer::Kind::block && channels >= of_group * most &&
          channels % most != 0)
        refuse("makes " + std::to_string(channels) +
                   " channels, which the 32 groups of a song-unet's "
                   "norms do not divide",
               most);
}

}  // namespace

void resolve_network(TrainOptions& options, const DataSet& data, const NetworkDefaults& defaults) {
  const Shape& sample = data.sample_shape();
  const bool square = data.is_image() && sample[0] == sample[1];
  default_to(options.net, !data.is_image() ? "mlp" : square ? "dit" : "unet");
  const std::string& net = *options.net;
  if (net == "mlp" && data.is_image())
    throw Error("train: --net mlp works on points; " + data.name() +
                " holds images, which --net dit, unet and song-unet take");
  if (net != "mlp" && !data.is_image())
    throw Error("train: --net " + net + " works on images; " + data.name() +
                " holds points, which --net mlp takes");
  if (net == "dit" && !square)
    throw Error("train: --net dit wants square images, " + data.name() + " has " +
                to_string(sample) + "; see --image-size and --net unet");

  const auto belongs = [&](const char* option, bool given, const std::set<std::string>& nets,
                           const char* names) {
    if (given && !nets.contains(net))
      throw Error(std::string("train: ") + option + " belongs to " + names + ", not to --net " +
                  net);
  };
  belongs("--frequencies", options.frequencies.has_value(), {"mlp"}, "--net mlp");
  belongs("--patch", options.patch.has_value(), {"dit"}, "--net dit");
  belongs("--heads", options.heads.has_value(), {"dit", "unet"}, "--net dit and --net unet");
  const std::set<std::string> levelled = {"unet", "song-unet"};
  const char* const of_levels = "--net unet and --net song-unet";
  belongs("--channel-mult", !options.channel_mult.empty(), levelled, of_levels);
  belongs("--attention", !options.attention.empty(), levelled, of_levels);
  belongs("--dropout", options.dropout > 0, levelled, of_levels);
  belongs("--architecture", options.architecture.has_value(), {"song-unet"}, "--net song-unet");

  default_to(options.depth, levelled.contains(net) ? unet_depth : defaults.depth);
  if (net == "mlp") {
    default_to(options.width, defaults.width);
    default_to(options.frequencies, defaults.frequencies);
  }
  if (net == "dit") {
    default_to(options.width,
               options.heads ? usual_width(defaults.width, *options.heads) : defaults.width);
    if (!options.patch) options.patch = usual_patch(sample[0]);
    default_to(options.heads, usual_heads(*options.width));
    check_dit(options, sample[0]);
  }
  if (levelled.contains(net)) {
    if (options.channel_mult.empty()) options.channel_mult = usual_levels(sample);
    if (std::ssize(options.channel_mult) > most_unet_levels)
      throw Error("train: --channel-mult has " + std::to_string(options.channel_mult.size()) +
                  " levels; at most " + std::to_string(most_unet_levels) + " are possible");
    if (options.attention.empty())
      options.attention = usual_attention(sample, options.channel_mult.size());
  }
  if (net == "song-unet") {
    default_to(options.architecture, "ddpm++");
    default_to(options.width, unet_width);
    check_song_unet(options, data);
  }
  if (net == "unet") {
    const bool fits =
        !options.heads || std::ranges::all_of(attending_levels(options), [&](std::int64_t factor) {
          return unet_width * factor % *options.heads == 0;
        });
    default_to(options.width, fits ? unet_width : usual_width(unet_width, *options.heads));
    default_to(options.heads,
               std::gcd(*options.width, std::max<std::int64_t>(1, *options.width / 16)));
    check_unet(options, sample);
  }
}

NetworkConfig network_for(const TrainOptions& options, const DataSet& data) {
  if (*options.net == "mlp") {
    MlpConfig config{.data_dim = data.sample_shape()[0]};
    config.hidden.assign(static_cast<std::size_t>(*options.depth), *options.width);
    config.frequencies = *options.frequencies;
    return config;
  }
  if (*options.net == "unet") return unet_for(options, data);
  if (*options.net == "song-unet") return song_unet_for(options, data);
  const Shape& image = data.sample_shape();
  DitConfig config{.image_size = image[0], .channels = image[2]};
  config.patch_size = *options.patch;
  config.hidden_size = *options.width;
  config.depth = *options.depth;
  config.num_heads = *options.heads;
  config.num_classes = data.classes();
  return config;
}

}  // namespace fluxion::cli
