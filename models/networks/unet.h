// The U-Net of Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis" (2021), with a
// second time input as in MeanFlow. Parameters have the names and layouts of the public
// guided-diffusion code (r_embed for the second time), so converted checkpoints load key by key.
// Images need not be square.
#pragma once

#include <array>

#include "models/networks/parameters.h"
#include "models/networks/running.h"

namespace fluxion {

// How the 3 * channels of an attention block's qkv are laid out: [3, heads, channels of a head],
// the public code's "new" order, or [heads, 3, ..], its "legacy" one.
enum class AttentionOrder { parts_first, heads_first };

inline constexpr std::int64_t most_unet_levels = 12, most_unet_blocks = 64;  // blocks: of a level

struct UnetConfig {
  std::array<std::int64_t, 2> image_size{
      32, 32};                // height and width; every level but the last halves both
  std::int64_t channels = 3;  // of the image
  std::int64_t base = 64;     // channels that channel_mult multiplies
  std::vector<std::int64_t> channel_mult = {1, 2, 2};  // a level each, the finest first
  std::int64_t num_res_blocks = 2;  // of a level, on the way down; one more on the way up
  std::vector<std::int64_t> attention_ds = {
      2, 4};  // levels with attention, by how far they are scaled down: 1, 2, 4, ..; those that the
              // network does not have are ignored
  std::int64_t norm_groups = 32;
  std::int64_t num_heads = 4;
  std::int64_t num_head_channels =
      0;  // where not 0, a head has so many channels, and num_heads is not read
  AttentionOrder attention_order = AttentionOrder::parts_first;
  bool use_scale_shift_norm = true;  // the times scale and shift what the second norm of a residual
                                     // block makes; else they are added before it
  bool resblock_updown = false;      // residual blocks resample, rather than layers of their own
  bool conv_resample = true;  // those layers have a convolution; else they are averages and copies
  std::int64_t num_classes = 0;  // 0: no labels; else the table has one more row, the null class
  SecondTime second_time = SecondTime::difference;
  double time_scale = 1;  // multiplies a time before its sinusoidal embedding
  std::int64_t frequency_embedding_size =
      0;  // sinusoidal features of a time; 0: as many as base, as the public code has
  Running running = {};  // a block is a residual or an attention block
  bool operator==(const UnetConfig&) const = default;

  std::int64_t time_features() const {
    return frequency_embedding_size > 0 ? frequency_embedding_size : base;
  }
  std::int64_t heads(std::int64_t width) const {
    return num_head_channels > 0 ? width / num_head_channels : num_heads;
  }
};

// The network as a list, in the order in which it is applied.
struct UnetLayer {
  enum class Kind { convolution, residual, attention, resample, output };
  enum class Resampling { none, down, up };  // by 2 in height and width
  Kind kind;
  std::string name;                   // of its parameters: "input_blocks.4.0"
  std::int64_t in, out;               // channels; `in` counts those of a kept output that it takes
  std::array<std::int64_t, 2> image;  // height and width of its output
  Resampling resampling = Resampling::none;
  bool takes = false;  // its input is followed by the latest output that was kept and not taken yet
  bool keeps = false;  // its output is kept for a layer that takes it
};
std::vector<UnetLayer> unet_layers(const UnetConfig& config);

// z [batch, height, width, channels] -> the same shape. labels: i32 [batch]; ignored if num_classes
// is 0.
Tensor apply(const UnetConfig& config, const Parameters& parameters, const Tensor& z,
             const Times& times, const Tensor& labels);

std::map<std::string, Shape> parameter_shapes(const UnetConfig& config);
// As the public code starts: the last convolution of every residual block, of every attention block
// and of the network are zero, all else has PyTorch's defaults.
Parameters initialise(const UnetConfig& config, const Tensor& key, DType dtype);
void check(const UnetConfig& config);

// "new" or "legacy". Throws FormatError for another name.
std::string to_string(AttentionOrder order);
AttentionOrder attention_order_from(const std::string& name);

}  // namespace fluxion
