#include "models/networks/unet.h"

#include <algorithm>

#include "engine/graph/custom.h"
#include "engine/single_precision.h"
#include "models/layers/image.h"
#include "models/layers/layers.h"
#include "models/networks/initialise.h"
#include "models/networks/scope.h"

namespace fluxion {
namespace {

using Kind = UnetLayer::Kind;
using Resampling = UnetLayer::Resampling;

constexpr double group_norm_epsilon = 1e-5;
constexpr ConvolutionOptions halving{.stride = {2, 2}, .low = {1, 1}, .high = {1, 1}};

std::int64_t embedding_width(const UnetConfig& config) { return 4 * config.base; }

Tensor norm(const UnetConfig& config, const Scope& at, const Tensor& x) {
  return group_norm(x, config.norm_groups, group_norm_epsilon, at("weight"), at("bias"));
}

Tensor resample(const Tensor& x, Resampling resampling) {
  if (resampling == Resampling::none) return x;
  return resampling == Resampling::down ? avg_pool2d(x, {2, 2}, {2, 2})
                                        : upsample_nearest2d(x, {2, 2});
}

Tensor resample_layer(const UnetConfig& config, Resampling resampling, const Scope& at,
                      const Tensor& h) {
  if (!config.conv_resample) return resample(h, resampling);
  return resampling == Resampling::down ? convolve(at / "op", h, halving)
                                        : convolve(at / "conv", resample(h, resampling), same_size);
}

Tensor residual(const UnetConfig& config, const UnetLayer& layer, const Scope& at,
                std::uint32_t place, const Tensor& h, const Tensor& conditioning) {
  Tensor z =
      convolve(at / "in_layers.2",
               resample(silu(norm(config, at / "in_layers.0", h)), layer.resampling), same_size);
  const auto on_image = [&](const Tensor& x) { return reshape(x, {x.size(0), 1, 1, x.size(1)}); };
  const Tensor embedding = (at / "emb_layers.1").linear(conditioning);
  const Scope second_norm = at / "out_layers.0";
  if (config.use_scale_shift_norm) {
    const std::vector<Tensor> parts = split(embedding, 2, 1);
    z = norm(config, second_norm, z) * (on_image(parts[0]) + 1.0) + on_image(parts[1]);
  } else {
    z = norm(config, second_norm, z + on_image(embedding));
  }
  z = convolve(at / "out_layers.3", with_dropout(silu(z), config.running, place), same_size);
  const Tensor skip = resample(h, layer.resampling);
  return (layer.in == layer.out ? skip : convolve(at / "skip_connection", skip, {})) + z;
}

// Rows of a qkv weight [3 * width, ..] or bias, in either order, as [3, heads, channels of a head].
Tensor parts_first(const UnetConfig& config, const Tensor& rows, std::int64_t heads) {
  if (config.attention_order == AttentionOrder::parts_first) return rows;
  return reshape(transpose(reshape(rows, {heads, 3, rows.size(0) / (3 * heads), -1}), {1, 0, 2, 3}),
                 rows.shape());
}

Tensor attend(const UnetConfig& config, const Scope& at, const Tensor& h) {
  const std::int64_t width = h.size(3), heads = config.heads(width);
  const Scope qkv = at / "qkv", proj = at / "proj_out";
  // The public code has convolutions over a line of pixels: [out, in, 1].
  const auto matrix = [](const Tensor& weight) {
    return reshape(weight, {weight.size(0), weight.size(1)});
  };
  const Tensor tokens =
      reshape(norm(config, at / "norm", h), {h.size(0), h.size(1) * h.size(2), width});
  const Tensor mixed =
      multihead_self_attention(tokens, heads,
                               {.qkv_weight = parts_first(config, matrix(qkv("weight")), heads),
                                .qkv_bias = parts_first(config, qkv("bias"), heads),
                                .proj_weight = matrix(proj("weight")),
                                .proj_bias = proj("bias")},
                               at.precision);
  return h + reshape(mixed, h.shape());
}

Tensor apply_layer(const UnetConfig& config, const UnetLayer& layer, const Scope& at,
                   std::uint32_t place, const Tensor& h, const Tensor& conditioning) {
  if (config.running.checkpoint_blocks &&
      (layer.kind == Kind::residual || layer.kind == Kind::attention)) {
    UnetConfig plain = config;
    plain.running.checkpoint_blocks = false;
    return checkpoint(
        [plain, layer, at, place](const Tensor& x, const Tensor& c) {
          return apply_layer(plain, layer, at, place, x, c);
        },
        layer.name)(h, conditioning);
  }
  switch (layer.kind) {
    case Kind::convolution:
      return convolve(at, h, same_size);
    case Kind::residual:
      return residual(config, layer, at, place, h, conditioning);
    case Kind::attention:
      return attend(config, at, h);
    case Kind::resample:
      return resample_layer(config, layer.resampling, at, h);
    case Kind::output:
      return convolve(at / "2", silu(norm(config, at / "0", h)), same_size);
  }
  throw Error("unet: a layer of no kind");
}

void add_layer_shapes(const UnetConfig& config, const UnetLayer& layer,
                      std::map<std::string, Shape>& shapes) {
  const auto add_norm = [&](const std::string& name, std::int64_t width) {
    shapes[name + ".weight"] = {width};
    shapes[name + ".bias"] = {width};
  };
  const auto add_convolution = [&](const std::string& name, std::int64_t in, std::int64_t out,
                                   Shape kernel) {
    Dims shape{out, in};
    shape.insert(shape.end(), kernel.begin(), kernel.end());
    shapes[name + ".weight"] = Shape(shape);
    shapes[name + ".bias"] = {out};
  };
  const Shape square{3, 3}, point{1, 1}, on_line{1};
  const std::string& name = layer.name;
  switch (layer.kind) {
    case Kind::convolution:
      add_convolution(name, layer.in, layer.out, square);
      break;
    case Kind::residual:
      add_norm(name + ".in_layers.0", layer.in);
      add_convolution(name + ".in_layers.2", layer.in, layer.out, square);
      add_linear(shapes, name + ".emb_layers.1", embedding_width(config),
                 (config.use_scale_shift_norm ? 2 : 1) * layer.out);
      add_norm(name + ".out_layers.0", layer.out);
      add_convolution(name + ".out_layers.3", layer.out, layer.out, square);
      if (layer.in != layer.out)
        add_convolution(name + ".skip_connection", layer.in, layer.out, point);
      break;
    case Kind::attention:
      add_norm(name + ".norm", layer.in);
      add_convolution(name + ".qkv", layer.in, 3 * layer.in, on_line);
      add_convolution(name + ".proj_out", layer.in, layer.in, on_line);
      break;
    case Kind::resample:
      if (config.conv_resample)
        add_convolution(name + (layer.resampling == Resampling::down ? ".op" : ".conv"), layer.in,
                        layer.out, square);
      break;
    case Kind::output:
      add_norm(name + ".0", layer.in);
      add_convolution(name + ".2", layer.in, layer.out, square);
      break;
  }
}

}  // namespace

std::vector<UnetLayer> unet_layers(const UnetConfig& config) {
  std::vector<UnetLayer> layers;
  std::vector<std::int64_t> kept;  // channels of what is kept and not taken yet
  std::array<std::int64_t, 2> image = config.image_size;
  std::int64_t width = config.channels, scaled_down = 1;
  const auto add = [&](Kind kind, const std::string& name, std::int64_t out,
                       Resampling resampling = Resampling::none) {
    for (std::int64_t& side : image)
      side = resampling == Resampling::down ? side / 2
             : resampling == Resampling::up ? side * 2
                                            : side;
    layers.push_back({kind, name, width, out, image, resampling});
    width = out;
  };
  const auto add_resampling = [&](const std::string& name, Resampling resampling) {
    add(config.resblock_updown ? Kind::residual : Kind::resample, name, width, resampling);
  };
  const auto keep = [&] {
    layers.back().keeps = true;
    kept.push_back(width);
  };
  const auto attends = [&] { return std::ranges::count(config.attention_ds, scaled_down) > 0; };

  const std::size_t levels = config.channel_mult.size();
  std::int64_t block = 0;
  const auto in_block = [&](const char* part, int place) {
    return part + std::to_string(block) + "." + std::to_string(place);
  };
  add(Kind::convolution, in_block("input_blocks.", 0), config.base * config.channel_mult.front());
  keep();
  for (std::size_t level = 0; level < levels; ++level) {
    for (std::int64_t k = 0; k < config.num_res_blocks; ++k) {
      ++block;
      add(Kind::residual, in_block("input_blocks.", 0), config.base * config.channel_mult[level]);
      if (attends()) add(Kind::attention, in_block("input_blocks.", 1), width);
      keep();
    }
    if (level + 1 == levels) break;
    ++block;
    add_resampling(in_block("input_blocks.", 0), Resampling::down);
    scaled_down *= 2;
    keep();
  }

  add(Kind::residual, "middle_block.0", width);
  add(Kind::attention, "middle_block.1", width);
  add(Kind::residual, "middle_block.2", width);

  block = 0;
  for (std::size_t level = levels; level-- > 0;)
    for (std::int64_t k = 0; k <= config.num_res_blocks; ++k, ++block) {
      width += kept.back();
      kept.pop_back();
      add(Kind::residual, in_block("output_blocks.", 0), config.base * config.channel_mult[level]);
      layers.back().takes = true;
      const bool attention = attends();
      if (attention) add(Kind::attention, in_block("output_blocks.", 1), width);
      if (level == 0 || k < config.num_res_blocks) continue;
      add_resampling(in_block("output_blocks.", attention ? 2 : 1), Resampling::up);
      scaled_down /= 2;
    }
  add(Kind::output, "out", config.channels);
  return layers;
}

Tensor apply(const UnetConfig& config, const Parameters& parameters, const Tensor& z,
             const Times& times, const Tensor& labels) {
  check_call("unet", {config.image_size[0], config.image_size[1], config.channels},
             config.num_classes, z, labels);
  const Scope root{parameters, "", config.running.precision};
  const auto embed = [&](const char* mlp, const Tensor& time) {
    return embed_time(root / mlp, time, config.time_features(), config.time_scale);
  };
  Tensor embedding =
      embed("time_embed", times.t) + embed("r_embed", second_time(times, config.second_time));
  if (config.num_classes > 0) embedding = embedding + take(root("label_emb.weight"), labels, 0);
  const Tensor conditioning = silu(embedding);

  Tensor h = z;
  std::vector<Tensor> kept;
  std::uint32_t place = 0;
  for (const UnetLayer& layer : unet_layers(config)) {
    ++place;
    if (layer.takes) {
      h = concat({h, kept.back()}, 3);
      kept.pop_back();
    }
    h = apply_layer(config, layer, root / layer.name, place, h, conditioning);
    if (layer.keeps) kept.push_back(h);
  }
  return h;
}

std::map<std::string, Shape> parameter_shapes(const UnetConfig& config) {
  std::map<std::string, Shape> shapes;
  for (const std::string mlp : {"time_embed", "r_embed"}) {
    add_linear(shapes, mlp + ".0", config.time_features(), embedding_width(config));
    add_linear(shapes, mlp + ".2", embedding_width(config), embedding_width(config));
  }
  if (config.num_classes > 0)
    shapes["label_emb.weight"] = {config.num_classes + 1, embedding_width(config)};
  for (const UnetLayer& layer : unet_layers(config)) add_layer_shapes(config, layer, shapes);
  return shapes;
}

Parameters initialise(const UnetConfig& config, const Tensor& key, DType dtype) {
  const Device& device = key.device();
  const std::map<std::string, Shape> shapes = parameter_shapes(config);
  return initialise_each(
      shapes, key, [&](const std::string& name, const Shape& shape, const Tensor& own_key) {
        const std::size_t dot = name.rfind('.');
        const std::string owner = name.substr(0, dot);
        const bool weight = name.substr(dot) == ".weight";
        if (owner == "label_emb") return normal(own_key, shape, dtype);
        const Shape& of_weight = shapes.at(owner + ".weight");
        if (of_weight.rank() == 1) return full(shape, weight ? 1 : 0, dtype, device);
        // Every block starts as the identity, or as its skip connection alone, and the network as
        // zero.
        if (owner == "out.2" || owner.ends_with(".out_layers.3") || owner.ends_with(".proj_out"))
          return zeros(shape, dtype, device);
        return fan_in_uniform(own_key, shape, of_weight.elements() / of_weight[0], dtype);
      });
}

void check(const UnetConfig& config) {
  const auto require = [](bool condition, const std::string& message) {
    if (!condition) throw Error("unet: " + message);
  };
  const auto text = [](std::int64_t value) { return std::to_string(value); };
  // The upper limits are far beyond any published network; they keep sizes read from a damaged file
  // from overflowing.
  constexpr std::int64_t largest = 65536, widest = 1 << 20, most_features = 1 << 20,
                         most_classes = 1 << 30, most_named = 64;
  const auto levels = static_cast<std::int64_t>(config.channel_mult.size());
  require(config.channels >= 1 && config.channels <= largest,
          "channels must be in 1..65536, got " + text(config.channels));
  require(levels >= 1 && levels <= most_unet_levels,
          "channel_mult must have 1 to " + text(most_unet_levels) + " levels, got " + text(levels));
  require(config.base >= 1 && config.base <= largest,
          "base must be in 1..65536, got " + text(config.base));
  for (const std::int64_t factor : config.channel_mult)
    require(factor >= 1 && factor <= widest / config.base,
            "channel_mult times base must be in 1..1048576, got " + text(factor) + " times " +
                text(config.base));
  const std::int64_t coarsest = std::int64_t{1} << (levels - 1);
  for (const std::int64_t side : config.image_size)
    require(side >= 1 && side <= largest && side % coarsest == 0,
            "height and width of image_size must be in 1..65536 and multiples of " +
                text(coarsest) + ", as every one of the " + text(levels) +
                " levels but the last halves them; got " + text(side));
  require(config.num_res_blocks >= 1 && config.num_res_blocks <= most_unet_blocks,
          "num_res_blocks must be in 1.." + text(most_unet_blocks) + ", got " +
              text(config.num_res_blocks));
  // As in the public code, levels that the network does not have may be named.
  require(std::ssize(config.attention_ds) <= most_named, "attention_ds must name at most " +
                                                             text(most_named) + " levels, got " +
                                                             text(std::ssize(config.attention_ds)));
  for (const std::int64_t ds : config.attention_ds)
    require(ds >= 1,
            "attention_ds must name levels by how far they are scaled down, got " + text(ds));
  require(config.norm_groups >= 1,
          "norm_groups must be at least 1, got " + text(config.norm_groups));
  require(config.num_head_channels >= 0,
          "num_head_channels must not be negative, got " + text(config.num_head_channels));
  require(config.num_head_channels > 0 || config.num_heads >= 1,
          "num_heads must be at least 1, got " + text(config.num_heads));
  require(config.num_classes >= 0 && config.num_classes <= most_classes,
          "num_classes must be in 0..1073741824, got " + text(config.num_classes));
  require(fits_single(config.time_scale),
          "time_scale must be 0 or a number that single precision holds");
  require(config.frequency_embedding_size >= 0 &&
              config.frequency_embedding_size <= most_features && config.time_features() >= 2,
          "the sinusoidal features of a time (frequency_embedding_size, or else base) must be in "
          "2..1048576, got " +
              text(config.time_features()));
  for (const UnetLayer& layer : unet_layers(config)) {
    const auto divide = [&](const char* what, std::int64_t divisor, std::int64_t width) {
      require(divisor <= width && width % divisor == 0, what + (" " + text(divisor)) +
                                                            " must divide the " + text(width) +
                                                            " channels of " + layer.name);
    };
    if (layer.kind == Kind::convolution || layer.kind == Kind::resample) continue;
    divide("norm_groups", config.norm_groups, layer.in);
    if (layer.kind == Kind::residual) divide("norm_groups", config.norm_groups, layer.out);
    if (layer.kind != Kind::attention) continue;
    if (config.num_head_channels > 0)
      divide("num_head_channels", config.num_head_channels, layer.in);
    else
      divide("num_heads", config.num_heads, layer.in);
  }
}

std::string to_string(AttentionOrder order) {
  return order == AttentionOrder::heads_first ? "legacy" : "new";
}

AttentionOrder attention_order_from(const std::string& name) {
  if (name == "new") return AttentionOrder::parts_first;
  if (name == "legacy") return AttentionOrder::heads_first;
  throw FormatError("attention_order is '" + name + "'; it must be 'new' or 'legacy'");
}

}  // namespace fluxion
