// Checkpoints of others: a safetensors file with the parameter names of a public network becomes a
// model of ours.
//
// The public names and layouts are, for transformers, those of facebookresearch/DiT (SiT has the
// same), and of the public MeanFlow ports, which add a second time embedder, r_embedder or
// h_embedder; for U-Nets those of guided-diffusion, with r_embed for a second time. Everything that
// does not fit is told at once, key by key.
#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "models/model_file.h"

namespace fluxion {

// What a file may lack, and what then takes its place where that is allowed.
enum class Fill {
  second_time,  // the second time embedder: zeros, so that the network ignores r, as one with one
                // time does. Not of an average velocity
  positions,    // a DiT's pos_embed: the sines and cosines of the public code. Needs image_size
  null_class,   // the null class, the last row of the class table: zeros. Such a network can't be
                // guided
};
std::string to_string(Fill fill);  // "second-time", "positions", "null-class"

// What shapes can't tell. Sizes left empty come from the shapes, or from the defaults given here.
struct ImportOptions {
  std::optional<std::int64_t> num_heads =
      {};  // a DiT's: 6, 12, 16, 16 for the published widths 384, 768, 1024, 1152; else width / 64
  std::optional<std::int64_t> image_size = {};  // a DiT's: the square that pos_embed covers
  std::optional<std::int64_t> num_classes =
      {};  // the rows of the class table but the last, which is the null class
  // Whether samples without a class were trained, too: without that there is no guidance. Empty:
  // yes for a DiT and a U-Net, unless null_class is filled in; no for a SongUNet.
  std::optional<bool> open_class = {};
  SecondTime second_time = SecondTime::difference;  // what the second embedder is fed with
  // The file's network has noise at time 0, data at time 1, and a velocity that points to the data,
  // as SiT has. The reversal is folded into the weights: u(z, t) = -f(z, 1 - t). For networks with
  // one time only.
  bool data_at_one = false;
  // The file's network predicts 2 * channels, the second half of which parametrises a variance:
  // only the first half is kept.
  bool drop_variance = false;
  // Members of the network's configuration that shapes can't tell, as a JSON object in the terms of
  // network_to_json: {"time_scale": 1000}. They override all others.
  std::string config = "{}";
  std::set<Fill> fill = {};
  std::vector<std::pair<std::string, std::string>> rename =
      {};                                // prefixes of keys: from, to; the first that fits is taken
  std::vector<std::string> ignore = {};  // prefixes of keys to leave out, after renaming
  Prediction prediction = Prediction::velocity;  // F: a model of Karras et al. 2022, of levels from
                                                 // 0.002 to 80 and data of deviation 0.5
};

struct ImportedModel {
  Model model;                     // parameters are f32
  std::vector<std::string> notes;  // what was decided on the way, a line each
};

// One key of a file that does not fit the network.
struct Mismatch {
  enum class Kind { missing, unexpected, shape, dtype, repeated };
  Kind kind = Kind::missing;
  std::string key;
  std::string detail;  // what there is, what is wanted, or what may be done about it
};
std::string to_string(
    Mismatch::Kind kind);  // "missing", "unexpected", "shape", "dtype", "repeated"

// Everything about a file that does not fit; what() says it in lines, at most ten of a kind.
class MismatchError : public FormatError {
 public:
  MismatchError(const std::string& heading, std::vector<Mismatch> mismatches);
  const std::vector<Mismatch>& mismatches() const { return mismatches_; }

 private:
  std::vector<Mismatch> mismatches_;
};

// Reads a DiT, a U-Net or a SongUNet. Prefixes that wrappers add to all keys ("module.",
// "_orig_mod.", "model.", ..) are taken off, h_embedder becomes r_embedder, the configuration comes
// from the shapes; a U-Net wants image_size, or a height and width in `config`, and num_heads, or
// num_head_channels in `config`, and is taken to have the legacy order of attention. The device
// must have the file's element types and f32. Throws MismatchError, Error for options that do not
// fit the file or each other, FormatError for a damaged file, IoError.
ImportedModel import_network(const std::filesystem::path& path, const ImportOptions& options,
                             const Device& device);

}  // namespace fluxion
