#include "models/networks/song_unet.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/graph/custom.h"
#include "engine/single_precision.h"
#include "models/layers/image.h"
#include "models/layers/layers.h"
#include "models/names.h"
#include "models/networks/initialise.h"
#include "models/networks/scope.h"

namespace fluxion {
namespace {

using SongKind = SongLayer::Kind;
using SongResampling = SongLayer::Resampling;

constexpr double song_epsilon = 1e-6, half_root = 0.5 * std::numbers::sqrt2;
constexpr double fourier_deviation = 16, least_frequency = 1e-4;
constexpr const char* fourier_frequencies = "map_noise.freqs";

constexpr EnumNames<SongEmbedding, 2> song_embeddings = {
    {{SongEmbedding::positional, "positional"}, {SongEmbedding::fourier, "fourier"}}};
constexpr EnumNames<SongEncoder, 2> song_encoders = {
    {{SongEncoder::standard, "standard"}, {SongEncoder::residual, "residual"}}};
constexpr EnumNames<SongFilter, 2> song_filters = {
    {{SongFilter::box, "box"}, {SongFilter::fir, "fir"}}};

std::int64_t song_groups(std::int64_t channels) {
  constexpr std::int64_t most = 32, narrowest = 4;
  return std::min(most, channels / narrowest);
}

Tensor song_norm(const Scope& at, const Tensor& x) {
  return group_norm(x, song_groups(x.size(3)), song_epsilon, at("weight"), at("bias"));
}

// Every second row (axis 1) or column (axis 2) of x seen through 1 3 3 1, divided by 8, without a
// border: 2 n + 2 become n.
Tensor fir_halved(const Tensor& x, std::int64_t axis) {
  Dims pairs = x.shape().dims();
  const auto place = static_cast<std::size_t>(axis);
  const std::int64_t count = pairs[place] / 2;
  pairs[place] = count;
  pairs.insert(pairs.begin() + static_cast<std::ptrdiff_t>(place) + 1, 2);
  const Tensor paired = reshape(x, Shape(pairs));
  Dims single = x.shape().dims();
  single[place] = count;
  const auto member = [&](std::int64_t k) {
    return reshape(slice_axis(paired, axis + 1, k, k + 1), Shape(single));
  };
  const Tensor even = member(0), odd = member(1);
  const auto from = [&](const Tensor& part, std::int64_t first) {
    return slice_axis(part, axis, first, first + count - 1);
  };
  return (from(even, 0) + from(odd, 1)) * 0.125 + (from(odd, 0) + from(even, 1)) * 0.375;
}

// x spread to twice its rows or columns by 1 3 3 1, divided by 4: what lies a quarter of a step
// from a neighbour takes three quarters of it, and one of the next.
Tensor fir_doubled(const Tensor& x, std::int64_t axis) {
  const std::int64_t count = x.size(axis);
  Dims none(x.shape().dims().size(), 0), one = none;
  one[static_cast<std::size_t>(axis)] = 1;
  const Tensor before = slice_axis(pad(x, one, none), axis, 0, count),
               after = slice_axis(pad(x, none, one), axis, 1, count + 1), most = x * 0.75;
  const Tensor both = concat(
      {expand_dims(most + before * 0.25, axis + 1), expand_dims(most + after * 0.25, axis + 1)},
      axis + 1);
  Dims doubled = x.shape().dims();
  doubled[static_cast<std::size_t>(axis)] = 2 * count;
  return reshape(both, Shape(doubled));
}

Tensor song_resample(SongFilter filter, const Tensor& x, SongResampling resampling) {
  if (resampling == SongResampling::none) return x;
  if (filter == SongFilter::box)
    return resampling == SongResampling::down ? avg_pool2d(x, {2, 2}, {2, 2})
                                              : upsample_nearest2d(x, {2, 2});
  if (resampling == SongResampling::up) return fir_doubled(fir_doubled(x, 1), 2);
  return fir_halved(fir_halved(pad(x, {0, 1, 1, 0}, {0, 1, 1, 0}), 1), 2);
}

// The convolution of the image's own way through the encoder: its filter comes after it, on a
// border that the convolution has left.
Tensor halved_input(SongFilter filter, const Scope& at, const Tensor& x) {
  const std::int64_t border = filter == SongFilter::fir ? 2 : 1;
  const Tensor wide = product(at.precision, x, at("weight"), [&](const Tensor& a, const Tensor& b) {
    return conv2d(a, transpose(b, {2, 3, 1, 0}),
                  {.low = {border, border}, .high = {border, border}});
  });
  const Tensor half = filter == SongFilter::fir ? fir_halved(fir_halved(wide, 1), 2)
                                                : avg_pool2d(wide, {2, 2}, {2, 2});
  return half + at("bias");
}

// Rows of a qkv weight [3 * width, ..] or bias, which are [width, 3], as [3, width].
Tensor song_parts_first(const Tensor& rows) {
  const std::int64_t width = rows.size(0) / 3;
  return reshape(transpose(reshape(rows, {width, 3, -1}), {1, 0, 2}), rows.shape());
}

Tensor song_attend(const Scope& at, const Tensor& h) {
  const std::int64_t width = h.size(3);
  const Scope qkv = at / "qkv", proj = at / "proj";
  const auto matrix = [](const Tensor& weight) {
    return reshape(weight, {weight.size(0), weight.size(1)});
  };
  const Tensor tokens =
      reshape(song_norm(at / "norm2", h), {h.size(0), h.size(1) * h.size(2), width});
  const Tensor mixed =
      multihead_self_attention(tokens, 1,
                               {.qkv_weight = song_parts_first(matrix(qkv("weight"))),
                                .qkv_bias = reshape(song_parts_first(qkv("bias")), {3 * width}),
                                .proj_weight = matrix(proj("weight")),
                                .proj_bias = proj("bias")},
                               at.precision);
  return (h + reshape(mixed, h.shape())) * half_root;
}

bool has_skip(const SongLayer& layer) {
  return layer.in != layer.out || layer.resampling != SongResampling::none;
}

Tensor song_block(const SongUnetConfig& config, const SongLayer& layer, const Scope& at,
                  std::uint32_t place, const Tensor& h, const Tensor& embedding) {
  if (config.running.checkpoint_blocks) {
    SongUnetConfig plain = config;
    plain.running.checkpoint_blocks = false;
    return checkpoint(
        [plain, layer, at, place](const Tensor& x, const Tensor& e) {
          return song_block(plain, layer, at, place, x, e);
        },
        layer.name)(h, embedding);
  }
  const auto resampled = [&](const Tensor& x) {
    return song_resample(config.filter, x, layer.resampling);
  };
  Tensor z = convolve(at / "conv0", resampled(silu(song_norm(at / "norm0", h))), same_size);
  const Tensor shift = (at / "affine").linear(embedding);
  z = silu(song_norm(at / "norm1", z + reshape(shift, {shift.size(0), 1, 1, shift.size(1)})));
  z = convolve(at / "conv1", with_dropout(z, config.running, place), same_size);
  const Tensor skip = has_skip(layer) ? convolve(at / "skip", resampled(h), {}) : h;
  z = (z + skip) * half_root;
  return layer.attention ? song_attend(at, z) : z;
}

// The features of a time [batch]: sines first.
Tensor song_features(const SongUnetConfig& config, const Scope& root, const Tensor& time) {
  const std::int64_t half = config.time_features() / 2;
  Tensor features;  // cosines first
  if (config.embedding == SongEmbedding::fourier) {
    const Tensor frequencies = root(fourier_frequencies) * (2 * std::numbers::pi);
    const Tensor angles = expand_dims(time * config.time_scale, 1) * expand_dims(frequencies, 0);
    features = concat({cos(angles), sin(angles)}, 1);
  } else {
    std::vector<double> frequencies;
    for (std::int64_t i = 0; i < half; ++i)
      frequencies.push_back(
          std::pow(least_frequency, static_cast<double>(i) / static_cast<double>(half - 1)));
    features = sinusoids(time, frequencies, config.time_scale);
  }
  return concat({slice_axis(features, 1, half, 2 * half), slice_axis(features, 1, 0, half)}, 1);
}

// What the public code makes of a row with root(classes) at the label and zeros elsewhere, all
// zeros for the null class.
Tensor label_features(const SongUnetConfig& config, const Scope& at, const Tensor& labels) {
  const Tensor weight = at("weight") * std::sqrt(static_cast<double>(config.num_classes));
  const Tensor rows = pad(transpose(weight, {1, 0}), {0, 0}, {1, 0});
  return take(rows, labels, 0) + at("bias");
}

void add_song_convolution(std::map<std::string, Shape>& shapes, const std::string& name,
                          std::int64_t in, std::int64_t out, std::int64_t side) {
  shapes[name + ".weight"] = {out, in, side, side};
  shapes[name + ".bias"] = {out};
}

void add_song_shapes(const SongUnetConfig& config, const SongLayer& layer,
                     std::map<std::string, Shape>& shapes) {
  const std::string& name = layer.name;
  const auto add_norm = [&](const char* part, std::int64_t width) {
    shapes[name + part + ".weight"] = {width};
    shapes[name + part + ".bias"] = {width};
  };
  switch (layer.kind) {
    case SongKind::convolution:
    case SongKind::residual_input:
      add_song_convolution(shapes, name, layer.in, layer.out, 3);
      break;
    case SongKind::output:
      add_norm("_norm", layer.in);
      add_song_convolution(shapes, name + "_conv", layer.in, layer.out, 3);
      break;
    case SongKind::block:
      add_norm(".norm0", layer.in);
      add_song_convolution(shapes, name + ".conv0", layer.in, layer.out, 3);
      add_linear(shapes, name + ".affine", config.embedding_width(), layer.out);
      add_norm(".norm1", layer.out);
      add_song_convolution(shapes, name + ".conv1", layer.out, layer.out, 3);
      if (has_skip(layer)) add_song_convolution(shapes, name + ".skip", layer.in, layer.out, 1);
      if (!layer.attention) break;
      add_norm(".norm2", layer.out);
      add_song_convolution(shapes, name + ".qkv", layer.out, 3 * layer.out, 1);
      add_song_convolution(shapes, name + ".proj", layer.out, layer.out, 1);
      break;
  }
}

}  // namespace

SongUnetConfig ncsnpp() {
  return {.embedding = SongEmbedding::fourier,
          .encoder = SongEncoder::residual,
          .filter = SongFilter::fir,
          .channel_mult_noise = 2};
}

std::vector<SongLayer> song_layers(const SongUnetConfig& config) {
  std::vector<SongLayer> layers;
  std::vector<std::int64_t> kept;  // channels of what is kept and not taken yet
  const std::size_t levels = config.channel_mult.size();
  std::int64_t width = config.channels, of_image = config.channels;
  const auto sides = [&](std::size_t level) {
    return std::array{config.image_size[0] >> level, config.image_size[1] >> level};
  };
  const auto named = [&](const char* part, std::size_t level, const std::string& what) {
    const auto [height, wide] = sides(level);
    return part + std::to_string(height) + "x" + std::to_string(wide) + "_" + what;
  };
  const auto attends = [&](std::size_t level) {
    return std::ranges::count(config.attention_ds, std::int64_t{1} << level) > 0;
  };
  const auto add = [&](SongKind kind, const std::string& name, std::size_t level, std::int64_t out,
                       SongResampling resampling = SongResampling::none, bool attention = false) {
    layers.push_back({kind, name, width, out, sides(level), resampling, attention});
    width = out;
  };
  const auto keep = [&] {
    layers.back().keeps = true;
    kept.push_back(width);
  };
  for (std::size_t level = 0; level < levels; ++level) {
    if (level == 0) {
      add(SongKind::convolution, named("enc.", level, "conv"), level, config.base);
    } else {
      add(SongKind::block, named("enc.", level, "down"), level, width, SongResampling::down);
      if (config.encoder == SongEncoder::residual) {
        add(SongKind::residual_input, named("enc.", level, "aux_residual"), level, width,
            SongResampling::down);
        layers.back().in = of_image;
        of_image = width;
      }
    }
    keep();
    for (std::int64_t k = 0; k < config.num_blocks; ++k) {
      add(SongKind::block, named("enc.", level, "block" + std::to_string(k)), level,
          config.base * config.channel_mult[level], SongResampling::none, attends(level));
      keep();
    }
  }
  for (std::size_t level = levels; level-- > 0;) {
    if (level + 1 == levels) {
      add(SongKind::block, named("dec.", level, "in0"), level, width, SongResampling::none, true);
      add(SongKind::block, named("dec.", level, "in1"), level, width);
    } else {
      add(SongKind::block, named("dec.", level, "up"), level, width, SongResampling::up);
    }
    for (std::int64_t k = 0; k <= config.num_blocks; ++k) {
      width += kept.back();
      kept.pop_back();
      add(SongKind::block, named("dec.", level, "block" + std::to_string(k)), level,
          config.base * config.channel_mult[level], SongResampling::none,
          k == config.num_blocks && attends(level));
      layers.back().takes = true;
    }
  }
  add(SongKind::output, named("dec.", 0, "aux"), 0, config.channels);
  return layers;
}

Tensor apply(const SongUnetConfig& config, const Parameters& parameters, const Tensor& z,
             const Times& times, const Tensor& labels) {
  check_call("song-unet", {config.image_size[0], config.image_size[1], config.channels},
             config.num_classes, z, labels);
  const Scope root{parameters, "", config.running.precision};
  Tensor embedding =
      song_features(config, root, times.t) +
      (root / "map_r").linear(song_features(config, root, second_time(times, config.second_time)));
  if (config.num_classes > 0)
    embedding = embedding + label_features(config, root / "map_label", labels);
  embedding = silu((root / "map_layer1").linear(silu((root / "map_layer0").linear(embedding))));

  Tensor h = z, image = z;
  std::vector<Tensor> kept;
  std::uint32_t place = 0;
  for (const SongLayer& layer : song_layers(config)) {
    ++place;
    const Scope at = root / layer.name;
    if (layer.takes) {
      h = concat({h, kept.back()}, 3);
      kept.pop_back();
    }
    switch (layer.kind) {
      case SongKind::convolution:
        h = convolve(at, h, same_size);
        break;
      case SongKind::block:
        h = song_block(config, layer, at, place, h, embedding);
        break;
      case SongKind::residual_input:
        h = image = (h + halved_input(config.filter, at, image)) * half_root;
        break;
      case SongKind::output:
        h = convolve(root / (layer.name + "_conv"),
                     silu(song_norm(root / (layer.name + "_norm"), h)), same_size);
        break;
    }
    if (layer.keeps) kept.push_back(h);
  }
  return h;
}

std::map<std::string, Shape> parameter_shapes(const SongUnetConfig& config) {
  std::map<std::string, Shape> shapes;
  const std::int64_t features = config.time_features(), width = config.embedding_width();
  if (config.embedding == SongEmbedding::fourier) shapes[fourier_frequencies] = {features / 2};
  add_linear(shapes, "map_r", features, features);
  if (config.num_classes > 0) add_linear(shapes, "map_label", config.num_classes, features);
  add_linear(shapes, "map_layer0", features, width);
  add_linear(shapes, "map_layer1", width, width);
  for (const SongLayer& layer : song_layers(config)) add_song_shapes(config, layer, shapes);
  return shapes;
}

Parameters initialise(const SongUnetConfig& config, const Tensor& key, DType dtype) {
  constexpr double nearly_nothing = 1e-5;
  const Device& device = key.device();
  return initialise_each(
      parameter_shapes(config), key,
      [&](const std::string& name, const Shape& shape, const Tensor& own_key) {
        if (name == fourier_frequencies)
          return config.frequencies.values.empty()
                     ? normal(own_key, shape, dtype) * fourier_deviation
                     : Tensor::from(std::vector<float>(config.frequencies.values.begin(),
                                                       config.frequencies.values.end()),
                                    shape, device)
                           .to(dtype);
        if (shape.rank() == 1) {
          const bool of_norm = name.find("norm") != name.npos && name.ends_with(".weight");
          return full(shape, of_norm ? 1 : 0, dtype, device);
        }
        const std::string owner = name.substr(0, name.rfind('.'));
        double gain = 1;
        if (owner.ends_with(".conv1") || owner.ends_with(".proj") || owner.ends_with("_aux_conv"))
          gain = nearly_nothing;
        if (owner.ends_with(".qkv")) gain = std::sqrt(0.2);
        // Inputs and outputs both count the kernel.
        const std::int64_t kernel = shape.rank() == 4 ? shape[2] * shape[3] : 1;
        return gain * xavier_uniform(own_key, {shape[0] * kernel, shape[1] * kernel}, shape, dtype);
      });
}

void check(const SongUnetConfig& config) {
  const auto require = [](bool condition, const std::string& message) {
    if (!condition) throw Error("song-unet: " + message);
  };
  const auto text = [](std::int64_t value) { return std::to_string(value); };
  // Far beyond any published network; sizes read from a damaged file must not overflow.
  constexpr std::int64_t largest = 65536, widest = 1 << 20, most_classes = 1 << 24,
                         most_factor = 64, most_named = 64;
  const auto levels = static_cast<std::int64_t>(config.channel_mult.size());
  require(config.channels >= 1 && config.channels <= largest,
          "channels must be in 1..65536, got " + text(config.channels));
  require(levels >= 1 && levels <= most_song_levels,
          "channel_mult must have 1 to " + text(most_song_levels) + " levels, got " + text(levels));
  require(config.base >= 4 && config.base <= largest && config.base % 4 == 0,
          "base must be a multiple of 4 in 4..65536, got " + text(config.base));
  for (const std::int64_t factor : config.channel_mult)
    require(factor >= 1 && factor <= widest / config.base,
            "channel_mult times base must be in 1..1048576, got " + text(factor) + " times " +
                text(config.base));
  for (const std::int64_t factor : {config.channel_mult_noise, config.channel_mult_emb})
    require(factor >= 1 && factor <= most_factor,
            "channel_mult_noise and channel_mult_emb must be in 1..64, got " + text(factor));
  const std::int64_t coarsest = std::int64_t{1} << (levels - 1);
  for (const std::int64_t side : config.image_size)
    require(side >= 1 && side <= largest && side % coarsest == 0,
            "height and width of image_size must be in 1..65536 and multiples of " +
                text(coarsest) + ", as every one of the " + text(levels) +
                " levels but the last halves them; got " + text(side));
  require(
      config.num_blocks >= 1 && config.num_blocks <= most_song_blocks,
      "num_blocks must be in 1.." + text(most_song_blocks) + ", got " + text(config.num_blocks));
  // As in the public code, levels that the network does not have may be named.
  require(std::ssize(config.attention_ds) <= most_named, "attention_ds must name at most " +
                                                             text(most_named) + " levels, got " +
                                                             text(std::ssize(config.attention_ds)));
  for (const std::int64_t ds : config.attention_ds)
    require(ds >= 1,
            "attention_ds must name levels by how far they are scaled down, got " + text(ds));
  require(config.num_classes >= 0 && config.num_classes <= most_classes,
          "num_classes must be in 0..16777216, got " + text(config.num_classes));
  require(fits_single(config.time_scale),
          "time_scale must be 0 or a number that single precision holds");
  const std::vector<double>& frequencies = config.frequencies.values;
  require(frequencies.empty() || (config.embedding == SongEmbedding::fourier &&
                                  std::ssize(frequencies) == config.time_features() / 2),
          "frequencies must be " + text(config.time_features() / 2) +
              " of a fourier embedding, got " + text(std::ssize(frequencies)));
  require(std::ranges::all_of(frequencies, [](double value) { return fits_single(value); }),
          "frequencies must be numbers that single precision holds");
  for (const SongLayer& layer : song_layers(config))
    for (const std::int64_t width : {layer.in, layer.out})
      if (layer.kind == SongKind::block || (layer.kind == SongKind::output && width == layer.in))
        require(width % song_groups(width) == 0, "norms have " + text(song_groups(width)) +
                                                     " groups, which must divide the " +
                                                     text(width) + " channels of " + layer.name);
}

std::string to_string(SongEmbedding embedding) { return name_of(song_embeddings, embedding); }
std::string to_string(SongEncoder encoder) { return name_of(song_encoders, encoder); }
std::string to_string(SongFilter filter) { return name_of(song_filters, filter); }
SongEmbedding song_embedding_from(const std::string& name) {
  return value_named(song_embeddings, name, "embedding");
}
SongEncoder song_encoder_from(const std::string& name) {
  return value_named(song_encoders, name, "encoder");
}
SongFilter song_filter_from(const std::string& name) {
  return value_named(song_filters, name, "filter");
}

}  // namespace fluxion
