#include "models/networks/dit.h"

#include "engine/graph/custom.h"
#include "engine/single_precision.h"
#include "models/layers/layers.h"
#include "models/networks/initialise.h"
#include "models/networks/scope.h"

namespace fluxion {
namespace {

// Of the layer normalisations, which have no affine parameters.
constexpr double layer_norm_epsilon = 1e-6;
// Standard deviation of fresh embedding tables, time embedders and learned positions.
constexpr double embedding_std = 0.02;

// The public weight is a convolution's, [hidden, channels, patch, patch]; on channels-last patches
// it is a linear map.
Tensor embed_patches(const DitConfig& config, const Scope& embedder, const Tensor& z) {
  const std::int64_t features = config.patch_size * config.patch_size * config.channels;
  const Tensor weight =
      reshape(transpose(embedder("weight"), {0, 2, 3, 1}), {config.hidden_size, features});
  return linear(patchify(z, config.patch_size), weight, embedder("bias"), embedder.precision);
}

Tensor norm(const Tensor& x) { return layer_norm(x, layer_norm_epsilon); }

}  // namespace

Tensor dit_block(const DitConfig& config, const Parameters& parameters, const std::string& prefix,
                 const Tensor& h, const Tensor& conditioning) {
  const Scope scope{parameters, prefix + ".", config.running.precision};
  const std::vector<Tensor> parts =
      split((scope / "adaLN_modulation.1").linear(conditioning), 6, 1);
  const Tensor &shift1 = parts[0], &scale1 = parts[1], &gate1 = parts[2], &shift2 = parts[3],
               &scale2 = parts[4], &gate2 = parts[5];
  const Scope qkv = scope / "attn.qkv", proj = scope / "attn.proj";
  const Tensor mixed = multihead_self_attention(
      modulate(norm(h), shift1, scale1), config.num_heads,
      {qkv("weight"), qkv("bias"), proj("weight"), proj("bias")}, scope.precision);
  const Tensor after = h + expand_dims(gate1, 1) * mixed;
  const Tensor widened = (scope / "mlp.fc1").linear(modulate(norm(after), shift2, scale2));
  const Tensor hidden = config.gelu == Gelu::tanh ? gelu_tanh(widened) : gelu_erf(widened);
  return after + expand_dims(gate2, 1) * (scope / "mlp.fc2").linear(hidden);
}

Tensor apply(const DitConfig& config, const Parameters& parameters, const Tensor& z,
             const Times& times, const Tensor& labels) {
  check_call("dit", {config.image_size, config.image_size, config.channels}, config.num_classes, z,
             labels);
  const Scope root{parameters, "", config.running.precision};
  Tensor h = embed_patches(config, root / "x_embedder.proj", z) + root("pos_embed");

  const auto embed = [&](const char* mlp, const Tensor& time) {
    return embed_time(root / mlp, time, config.frequency_embedding_size, config.time_scale);
  };
  Tensor c = embed("t_embedder.mlp", times.t) +
             embed("r_embedder.mlp", second_time(times, config.second_time));
  if (config.num_classes > 0) c = c + take(root("y_embedder.embedding_table.weight"), labels, 0);
  const Tensor conditioning = silu(c);

  for (std::int64_t k = 0; k < config.depth; ++k) {
    const std::string name = "blocks." + std::to_string(k);
    const auto block = [&](const Tensor& x, const Tensor& c) {
      return dit_block(config, parameters, name, x, c);
    };
    h = config.running.checkpoint_blocks ? checkpoint(block, name)(h, conditioning)
                                         : block(h, conditioning);
  }

  const Scope last = root / "final_layer";
  const std::vector<Tensor> parts = split((last / "adaLN_modulation.1").linear(conditioning), 2, 1);
  const Tensor tokens = (last / "linear").linear(modulate(norm(h), parts[0], parts[1]));
  return unpatchify(tokens, config.patch_size, config.image_size, config.image_size);
}

std::map<std::string, Shape> parameter_shapes(const DitConfig& config) {
  const std::int64_t hidden = config.hidden_size;
  std::map<std::string, Shape> shapes;
  shapes["x_embedder.proj.weight"] = {hidden, config.channels, config.patch_size,
                                      config.patch_size};
  shapes["x_embedder.proj.bias"] = {hidden};
  shapes["pos_embed"] = {1, config.tokens(), hidden};
  for (const std::string embedder : {"t_embedder", "r_embedder"}) {
    add_linear(shapes, embedder + ".mlp.0", config.frequency_embedding_size, hidden);
    add_linear(shapes, embedder + ".mlp.2", hidden, hidden);
  }
  if (config.num_classes > 0)
    shapes["y_embedder.embedding_table.weight"] = {config.num_classes + 1, hidden};
  for (std::int64_t k = 0; k < config.depth; ++k) {
    const std::string prefix = "blocks." + std::to_string(k) + ".";
    add_linear(shapes, prefix + "attn.qkv", hidden, 3 * hidden);
    add_linear(shapes, prefix + "attn.proj", hidden, hidden);
    add_linear(shapes, prefix + "mlp.fc1", hidden, config.mlp_width());
    add_linear(shapes, prefix + "mlp.fc2", config.mlp_width(), hidden);
    add_linear(shapes, prefix + "adaLN_modulation.1", hidden, 6 * hidden);
  }
  add_linear(shapes, "final_layer.adaLN_modulation.1", hidden, 2 * hidden);
  add_linear(shapes, "final_layer.linear", hidden,
             config.patch_size * config.patch_size * config.channels);
  return shapes;
}

Parameters initialise(const DitConfig& config, const Tensor& key, DType dtype) {
  const Device& device = key.device();
  return initialise_each(
      parameter_shapes(config), key,
      [&](const std::string& name, const Shape& shape, const Tensor& own_key) {
        if (name == "pos_embed" && config.positions == Positions::sincos)
          return reshape(sincos_pos_embed_2d(config.hidden_size,
                                             config.image_size / config.patch_size, dtype, device),
                         shape);
        // Every block starts as the identity and the network as zero.
        const bool zero = name.starts_with("final_layer.") ||
                          name.find("adaLN_modulation") != std::string::npos ||
                          name.ends_with(".bias");
        if (zero) return zeros(shape, dtype, device);
        const bool embedding = name == "pos_embed" || name.starts_with("t_embedder.") ||
                               name.starts_with("r_embedder.") || name.starts_with("y_embedder.");
        return embedding ? normal(own_key, shape, dtype) * embedding_std
                         : xavier_uniform(own_key, shape, dtype);
      });
}

void check(const DitConfig& config) {
  const auto require = [](bool condition, const std::string& message) {
    if (!condition) throw Error("dit: " + message);
  };
  // The upper limits are far beyond any published network; they keep sizes read from a damaged file
  // from overflowing.
  require(config.image_size >= 1 && config.image_size <= 65536 && config.channels >= 1 &&
              config.channels <= 65536,
          "image_size and channels must be in 1..65536");
  require(config.depth >= 0 && config.depth <= 4096,
          "depth must be in 0..4096, got " + std::to_string(config.depth));
  require(config.hidden_size <= 1 << 20,
          "hidden_size must be at most 1048576, got " + std::to_string(config.hidden_size));
  require(config.patch_size >= 1 && config.image_size % config.patch_size == 0,
          "patch_size " + std::to_string(config.patch_size) + " must divide image_size " +
              std::to_string(config.image_size));
  require(config.hidden_size >= 4 && config.hidden_size % 4 == 0,
          "hidden_size " + std::to_string(config.hidden_size) +
              " must be a positive multiple of 4, as the position table needs");
  require(config.num_heads >= 1 && config.hidden_size % config.num_heads == 0,
          "num_heads " + std::to_string(config.num_heads) + " must divide hidden_size " +
              std::to_string(config.hidden_size));
  require(config.mlp_ratio > 0 && config.mlp_ratio <= 256 && config.mlp_width() >= 1,
          "mlp_ratio must be at most 256 and make the MLP at least 1 wide");
  require(config.num_classes >= 0 && config.num_classes <= 1 << 30,
          "num_classes must be in 0..1073741824");
  require(fits_single(config.time_scale),
          "time_scale must be 0 or a number that single precision holds");
  require(config.frequency_embedding_size >= 2 && config.frequency_embedding_size <= 1 << 20,
          "frequency_embedding_size must be in 2..1048576");
}

std::string to_string(Gelu gelu) { return gelu == Gelu::erf ? "erf" : "tanh"; }

std::string to_string(Positions positions) {
  return positions == Positions::learned ? "learned" : "sincos";
}

Gelu gelu_from(const std::string& name) {
  if (name == "tanh") return Gelu::tanh;
  if (name == "erf") return Gelu::erf;
  throw FormatError("gelu is '" + name + "'; it must be 'tanh' or 'erf'");
}

Positions positions_from(const std::string& name) {
  if (name == "sincos") return Positions::sincos;
  if (name == "learned") return Positions::learned;
  throw FormatError("positions is '" + name + "'; it must be 'sincos' or 'learned'");
}

}  // namespace fluxion
