// The U-Nets DDPM++ and NCSN++ of Song et al., "Score-Based Generative Modeling through Stochastic
// Differential Equations" (2021), as Karras et al., "Elucidating the Design Space of
// Diffusion-Based Generative Models" (2022), have them: SongUNet, with a second time input (map_r).
// Parameters have the names and layouts of the public code, so converted checkpoints load key by
// key. Images need not be square.
#pragma once

#include <array>

#include "models/networks/parameters.h"
#include "models/networks/running.h"

namespace fluxion {

// The features of a time: sines and cosines of frequencies from 1 to 1/10000, or of random ones,
// drawn once with deviation 16 and kept ("map_noise.freqs").
enum class SongEmbedding { positional, fourier };
// Whether the image itself, scaled down, joins the encoder at each level.
enum class SongEncoder { standard, residual };
// What halves and doubles images: averages and copies of 2 x 2, or the filter 1 3 3 1.
enum class SongFilter { box, fir };

inline constexpr std::int64_t most_song_levels = 12, most_song_blocks = 64;  // blocks: of a level

// Random frequencies that are another network's: they are weights that do not train, so networks
// that differ in them alone have one shape.
struct SongFrequencies {
  std::vector<double> values = {};  // empty: drawn with the other parameters
  bool operator==(const SongFrequencies&) const { return true; }
};

struct SongUnetConfig {
  std::array<std::int64_t, 2> image_size{
      32, 32};                // height and width; every level but the last halves both
  std::int64_t channels = 3;  // of the image
  std::int64_t base = 128;    // channels that channel_mult multiplies
  std::vector<std::int64_t> channel_mult = {2, 2, 2};  // a level each, the finest first
  std::int64_t num_blocks = 4;  // of a level, on the way down; one more on the way up
  std::vector<std::int64_t> attention_ds = {
      2};  // levels with attention, by how far they are scaled
           // down: 1, 2, 4, ..; the coarsest has one anyway, and those that the network does
           // not have are ignored
  SongEmbedding embedding = SongEmbedding::positional;
  SongEncoder encoder = SongEncoder::standard;
  SongFilter filter = SongFilter::box;
  std::int64_t channel_mult_noise = 1;  // features of a time, in base
  std::int64_t channel_mult_emb = 4;    // what they become, in base
  std::int64_t num_classes = 0;         // 0: no labels; the null class adds nothing, and has no row
  SecondTime second_time = SecondTime::difference;
  double time_scale = 1;             // multiplies a time before its features
  SongFrequencies frequencies = {};  // of a fourier embedding
  Running running = {};
  bool operator==(const SongUnetConfig&) const = default;

  std::int64_t time_features() const { return base * channel_mult_noise; }
  std::int64_t embedding_width() const { return base * channel_mult_emb; }
};
// NCSN++ in the public size for images of 32 x 32; the defaults above are DDPM++.
SongUnetConfig ncsnpp();

// The network as a list, in the order in which it is applied.
struct SongLayer {
  enum class Kind { convolution, block, residual_input, output };
  enum class Resampling { none, down, up };  // by 2 in height and width
  Kind kind;
  std::string name;                   // of its parameters: "enc.16x16_block0"
  std::int64_t in, out;               // channels; `in` counts those of a kept output that it takes
  std::array<std::int64_t, 2> image;  // height and width of its output
  Resampling resampling = Resampling::none;
  bool attention = false;
  bool takes = false;  // its input is followed by the latest output that was kept and not taken yet
  bool keeps = false;  // its output is kept for a layer that takes it
};
std::vector<SongLayer> song_layers(const SongUnetConfig& config);

// z [batch, height, width, channels] -> the same shape. labels: i32 [batch]; ignored if num_classes
// is 0.
Tensor apply(const SongUnetConfig& config, const Parameters& parameters, const Tensor& z,
             const Times& times, const Tensor& labels);

std::map<std::string, Shape> parameter_shapes(const SongUnetConfig& config);
// As the public code starts: Xavier-uniform weights, those of the last convolution of each block
// and of the network a hundred-thousandth of that, biases 0.
Parameters initialise(const SongUnetConfig& config, const Tensor& key, DType dtype);
void check(const SongUnetConfig& config);

// "positional" or "fourier", "standard" or "residual", "box" or "fir". Throw FormatError for
// others.
std::string to_string(SongEmbedding embedding);
std::string to_string(SongEncoder encoder);
std::string to_string(SongFilter filter);
SongEmbedding song_embedding_from(const std::string& name);
SongEncoder song_encoder_from(const std::string& name);
SongFilter song_filter_from(const std::string& name);

}  // namespace fluxion
