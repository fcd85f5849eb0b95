// The diffusion transformer of Peebles and Xie, "Scalable Diffusion Models with Transformers"
// (2023), with a second time input as in MeanFlow. Parameters have the names and layouts of the
// public DiT code (r_embedder as in the public MeanFlow ports), so converted checkpoints load key
// by key.
#pragma once

#include "models/networks/parameters.h"
#include "models/networks/running.h"

namespace fluxion {

// The activation inside a block's MLP: the public DiT code's tanh approximation, or x Phi(x)
// itself.
enum class Gelu { tanh, erf };
// Where the tokens' positions come from: the public DiT code's fixed table, or one that is trained.
enum class Positions { sincos, learned };

struct DitConfig {
  std::int64_t image_size = 28;  // height and width
  std::int64_t channels = 1;
  std::int64_t patch_size = 4;
  std::int64_t hidden_size = 128;
  std::int64_t depth = 4;
  std::int64_t num_heads = 4;
  double mlp_ratio = 4;
  std::int64_t num_classes = 0;  // 0: no labels; else the table has one more row, the null class
  std::int64_t frequency_embedding_size = 256;
  SecondTime second_time = SecondTime::difference;
  double time_scale = 1;  // multiplies a time before its sinusoidal embedding
  Gelu gelu = Gelu::tanh;
  Positions positions = Positions::sincos;
  Running running = {};
  bool operator==(const DitConfig&) const = default;

  std::int64_t tokens() const { return (image_size / patch_size) * (image_size / patch_size); }
  std::int64_t mlp_width() const {
    return static_cast<std::int64_t>(static_cast<double>(hidden_size) * mlp_ratio);
  }
};

// z [batch, image_size, image_size, channels] -> the same shape. labels: i32 [batch]; ignored if
// num_classes is 0.
Tensor apply(const DitConfig& config, const Parameters& parameters, const Tensor& z,
             const Times& times, const Tensor& labels);

// One block: h [batch, tokens, hidden_size] and conditioning [batch, hidden_size], with the
// parameters under `prefix`, say "blocks.0".
Tensor dit_block(const DitConfig& config, const Parameters& parameters, const std::string& prefix,
                 const Tensor& h, const Tensor& conditioning);

std::map<std::string, Shape> parameter_shapes(const DitConfig& config);
Parameters initialise(const DitConfig& config, const Tensor& key, DType dtype);
void check(const DitConfig& config);

// "tanh" or "erf", "sincos" or "learned". Throw FormatError for another name.
std::string to_string(Gelu gelu);
std::string to_string(Positions positions);
Gelu gelu_from(const std::string& name);
Positions positions_from(const std::string& name);

}  // namespace fluxion
