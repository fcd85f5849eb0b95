#include "models/import.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/ops.h"
#include "models/files/safetensors.h"
#include "models/layers/layers.h"

namespace fluxion {
namespace {

// The public files have some hundred keys, of which most are alike.
constexpr std::size_t most_lines_of_a_kind = 10;

// Wrappers of training frameworks: data parallel, torch.compile, averaged models, Lightning modules.
constexpr std::array wrappers = {"module.", "_orig_mod.", "ema_model.", "ema.", "model.", "network.", "net.", "dit."};

// Widths whose heads the papers give (DiT S, B, M and L, XL).
constexpr std::array<std::pair<std::int64_t, std::int64_t>, 4> published_heads = {{{384, 6}, {768, 12}, {1024, 16}, {1152, 16}}};
constexpr std::int64_t usual_head_width = 64;
constexpr std::int64_t widest_ratio = 256;
constexpr std::int64_t most_tokens = std::int64_t{1} << 62;  // the square of its root is still a number

constexpr const char* patches_weight = "x_embedder.proj.weight";
constexpr const char* output_weight = "final_layer.linear.weight";
constexpr const char* output_bias = "final_layer.linear.bias";
constexpr const char* class_table = "y_embedder.embedding_table.weight";
constexpr const char* first_time_weight = "t_embedder.mlp.0.weight";

using Kind = Mismatch::Kind;

// A file's tensors under the names that our network gives them.
struct NamedEntries {
  std::map<std::string, const SafetensorsEntry*> entries;
  std::vector<Mismatch> mismatches;
  std::vector<std::string> notes;

  const SafetensorsEntry* find(const std::string& name) const {
    const auto found = entries.find(name);
    return found == entries.end() ? nullptr : found->second;
  }
  // The size of one axis of a tensor of this rank; empty if there is no such tensor.
  std::optional<std::int64_t> size(const std::string& name, std::int64_t rank, std::int64_t axis) const {
    const SafetensorsEntry* entry = find(name);
    if (entry == nullptr || entry->shape.rank() != rank) return std::nullopt;
    return entry->shape[axis];
  }
};

TensorType type_of(const SafetensorsEntry& entry) { return {entry.shape, entry.dtype}; }

// The prefix that all keys share because somebody wrapped the model, "" if none.
std::string wrapping_prefix(const SafetensorsFile& file) {
  std::string prefix;
  const auto all_start_with = [&](const std::string& start) {
    return std::all_of(file.entries().begin(), file.entries().end(), [&](const SafetensorsEntry& entry) { return entry.name.starts_with(start); });
  };
  for (bool found = !file.entries().empty(); found;) {
    found = false;
    for (const char* wrapper : wrappers)
      if (all_start_with(prefix + wrapper)) {
        prefix += wrapper;
        found = true;
        break;
      }
  }
  return prefix;
}

NamedEntries named_entries(const SafetensorsFile& file, const ImportOptions& options) {
  NamedEntries result;
  const std::string prefix = wrapping_prefix(file);
  if (!prefix.empty()) result.notes.push_back("all keys start with '" + prefix + "': taken off");
  auto renames = options.rename;
  renames.emplace_back("h_embedder.", "r_embedder.");
  std::map<std::string, int> renamed, ignored;
  for (const SafetensorsEntry& entry : file.entries()) {
    std::string name = entry.name.substr(prefix.size());
    for (const auto& [from, to] : renames)
      if (name.starts_with(from)) {
        name = to + name.substr(from.size());
        ++renamed["'" + from + "' became '" + to + "'"];
        break;
      }
    const auto ignoring =
        std::find_if(options.ignore.begin(), options.ignore.end(), [&](const std::string& start) { return name.starts_with(start); });
    if (ignoring != options.ignore.end())
      ++ignored["'" + *ignoring + "'"];
    else if (!result.entries.emplace(name, &entry).second)
      result.mismatches.push_back({Kind::repeated, entry.name, "is a second '" + name + "'"});
  }
  for (const auto& [text, count] : renamed) result.notes.push_back(text + " in " + std::to_string(count) + " keys");
  for (const auto& [text, count] : ignored) result.notes.push_back("ignored " + std::to_string(count) + " keys that start with " + text);
  return result;
}

// The number of different blocks.N. there are: with a gap between them the last is missed and reported.
std::int64_t depth_of(const NamedEntries& file) {
  std::set<std::string_view> blocks;
  for (const auto& [name, entry] : file.entries)
    if (const std::string_view rest = name; rest.starts_with("blocks.")) blocks.insert(rest.substr(7, rest.find('.', 7) - 7));
  return static_cast<std::int64_t>(blocks.size());
}

std::int64_t heads_of(std::int64_t hidden, const std::string& path) {
  for (const auto& [width, heads] : published_heads)
    if (width == hidden) return heads;
  if (hidden % usual_head_width != 0)
    throw Error("import " + path + ": the number of heads is in no shape, and hidden size " + std::to_string(hidden) + " is no multiple of " +
                std::to_string(usual_head_width) + " to guess it from: give num_heads");
  return hidden / usual_head_width;
}

// The ratio that gives this width again after truncation.
double ratio_of(std::int64_t width, std::int64_t hidden) {
  double ratio = static_cast<double>(width) / static_cast<double>(hidden);
  while (static_cast<std::int64_t>(static_cast<double>(hidden) * ratio) < width)
    ratio = std::nextafter(ratio, std::numeric_limits<double>::infinity());
  return ratio;
}

std::int64_t image_size_of(const NamedEntries& file, const ImportOptions& options, std::int64_t patch, const std::string& path) {
  if (options.image_size) return *options.image_size;
  const std::optional<std::int64_t> tokens = file.size("pos_embed", 3, 1);
  if (!tokens) throw Error("import " + path + ": without pos_embed [1, tokens, hidden] nothing tells the image's size: give image_size");
  const auto side = static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(*tokens))));
  if (*tokens > most_tokens || side * side != *tokens)
    throw Error("import " + path + ": pos_embed has " + std::to_string(*tokens) + " tokens, which is no square; only square images are supported");
  return side * patch;
}

// The configuration with some of its members replaced by those of a JSON object.
DitConfig with_overrides(const DitConfig& config, const std::string& text) {
  using nlohmann::json;
  const json overrides = json::parse(text, nullptr, false);
  if (!overrides.is_object()) throw Error("the configuration given is no JSON object: " + text);
  json network = network_to_json(config);
  json& members = network.at("config");
  for (const auto& [name, value] : overrides.items()) {
    if (!members.contains(name)) throw Error("'" + name + "' is no member of the network's configuration " + members.dump());
    members[name] = value;
  }
  return std::get<DitConfig>(network_from_json(network));
}

DitConfig config_of(NamedEntries& file, const ImportOptions& options, const std::string& path) {
  const SafetensorsEntry* patches = file.find(patches_weight);
  if (patches == nullptr || patches->shape.rank() != 4 || patches->shape.elements() == 0)
    throw Error("import " + path + ": no diffusion transformer: it needs a '" + std::string(patches_weight) + "' [hidden, channels, patch, patch], " +
                (patches ? "got " + to_string(type_of(*patches)) : "and there is none among " + std::to_string(file.entries.size()) + " keys"));
  DitConfig config;
  config.hidden_size = patches->shape[0];
  config.channels = patches->shape[1];
  config.patch_size = patches->shape[2];
  config.image_size = image_size_of(file, options, config.patch_size, path);
  config.depth = depth_of(file);
  config.num_heads = options.num_heads ? *options.num_heads : heads_of(config.hidden_size, path);
  if (!options.num_heads)
    file.notes.push_back(std::to_string(config.num_heads) + " heads, as is usual for hidden size " + std::to_string(config.hidden_size));
  config.mlp_ratio = 4;
  // A width that no network has is left to the comparison, which reports it.
  if (const auto width = file.size("blocks.0.mlp.fc1.weight", 2, 0); width && *width > 0 && *width / widest_ratio <= config.hidden_size)
    config.mlp_ratio = ratio_of(*width, config.hidden_size);
  if (const auto features = file.size(first_time_weight, 2, 1)) config.frequency_embedding_size = *features;
  config.num_classes = 0;
  if (const auto rows = file.size(class_table, 2, 0)) config.num_classes = options.fill.contains(Fill::null_class) ? *rows : *rows - 1;
  if (options.num_classes) config.num_classes = *options.num_classes;
  config.second_time = options.second_time;
  try {
    return with_overrides(config, options.config);
  } catch (const Error& error) {
    throw Error("import " + path + ": " + error.what());
  }
}

// What the file should hold, given what it may lack.
std::map<std::string, Shape> wanted_shapes(const DitConfig& config, const NamedEntries& file, const ImportOptions& options) {
  std::map<std::string, Shape> wanted = parameter_shapes(config);
  const auto lacks = [&](const char* start) {
    return std::none_of(file.entries.begin(), file.entries.end(), [&](const auto& entry) { return entry.first.starts_with(start); });
  };
  if (options.fill.contains(Fill::second_time) && lacks("r_embedder."))
    std::erase_if(wanted, [](const auto& entry) { return entry.first.starts_with("r_embedder."); });
  if (options.fill.contains(Fill::positions) && lacks("pos_embed")) wanted.erase("pos_embed");
  if (options.fill.contains(Fill::null_class) && wanted.contains(class_table)) --wanted[class_table][0];
  if (options.drop_variance)
    for (const char* name : {output_weight, output_bias}) wanted.at(name)[0] *= 2;
  return wanted;
}

// What may be done about a key that does not fit, in the terms of ImportOptions.
std::string advice(const std::string& key, const Shape& want, const SafetensorsEntry* have) {
  const bool output = key == output_weight || key == output_bias;
  if (have == nullptr && key.starts_with("r_embedder.")) return " (a network with one time only? fill second-time gives the second one zeros)";
  if (have == nullptr && key == "pos_embed") return " (fill positions computes it)";
  if (have == nullptr || have->shape.rank() != want.rank() || want.rank() == 0) return "";
  if (output && have->shape[0] == 2 * want[0]) return " (it predicts a variance, too; drop-variance keeps the first half)";
  if (output && 2 * have->shape[0] == want[0]) return " (it predicts no variance that drop-variance could drop)";
  if (key == class_table && have->shape[0] + 1 == want[0]) return " (a table without a null class? fill null-class adds it)";
  return "";
}

void compare(const std::map<std::string, Shape>& wanted, NamedEntries& file) {
  for (const auto& [name, shape] : wanted) {
    const SafetensorsEntry* entry = file.find(name);
    if (entry == nullptr) {
      file.mismatches.push_back({Kind::missing, name, "want " + to_string(shape) + advice(name, shape, nullptr)});
      continue;
    }
    if (entry->shape != shape)
      file.mismatches.push_back({Kind::shape, name, "have " + to_string(entry->shape) + ", want " + to_string(shape) + advice(name, shape, entry)});
    if (!is_floating(entry->dtype))
      file.mismatches.push_back({Kind::dtype, name, "have " + std::string(to_string(entry->dtype)) + ", want a floating type"});
  }
  for (const auto& [name, entry] : file.entries)
    if (!wanted.contains(name)) file.mismatches.push_back({Kind::unexpected, name, to_string(type_of(*entry))});
}

// Of every `whole` rows of x, which are channels in turn, the first `kept`.
Tensor first_channels(const Tensor& x, std::int64_t kept, std::int64_t whole) {
  Dims split = x.shape().dims(), shape = x.shape().dims();
  split.front() /= whole;
  split.insert(split.begin() + 1, whole);
  shape.front() = shape.front() / whole * kept;
  return reshape(slice_axis(reshape(x, Shape(split)), 1, 0, kept), Shape(shape));
}

// The weight of a linear map of the features cos(s f t), sin(s f t) of a time that makes of the features of t what `weight` makes of those of 1 - t:
//   cos(s f (1 - t)) = cos(s f) cos(s f t) + sin(s f) sin(s f t),   sin(s f (1 - t)) = sin(s f) cos(s f t) - cos(s f) sin(s f t)
Tensor reverse_time(const Tensor& weight, double time_scale) {
  const Tensor one = Tensor::from(std::vector<double>{1}, {1}, weight.device());
  const std::int64_t half = weight.size(1) / 2;
  const Tensor turned = timestep_embedding(one, weight.size(1), time_scale), wide = weight.to(DType::f64);
  const auto columns = [&](const Tensor& x, std::int64_t part) { return slice_axis(x, 1, part * half, (part + 1) * half); };
  const Tensor c = columns(turned, 0), s = columns(turned, 1), a = columns(wide, 0), b = columns(wide, 1);
  return concat({a * c + b * s, a * s - b * c, slice_axis(wide, 1, 2 * half, weight.size(1))}, 1).to(weight.dtype());
}

Parameters load(const NamedEntries& file, const DitConfig& config, const ImportOptions& options, const Device& device) {
  Parameters parameters;
  for (const auto& [name, entry] : file.entries) {
    Tensor value = Tensor::from_bytes(entry->bytes, type_of(*entry), device).to(DType::f32);
    const bool output = name == output_weight || name == output_bias;
    if (output && options.drop_variance) value = first_channels(value, config.channels, 2 * config.channels);
    if (options.data_at_one && output) value = -value;
    if (options.data_at_one && name == first_time_weight) value = reverse_time(value, config.time_scale);
    if (options.fill.contains(Fill::null_class) && name == class_table)
      value = concat({value, zeros({1, config.hidden_size}, DType::f32, device)}, 0);
    eval(value);
    parameters.emplace(name, value);
  }
  for (const auto& [name, shape] : parameter_shapes(config)) {
    if (parameters.contains(name)) continue;
    const bool positions = name == "pos_embed";
    const Tensor value = positions
                             ? reshape(sincos_pos_embed_2d(config.hidden_size, config.image_size / config.patch_size, DType::f32, device), shape)
                             : zeros(shape, DType::f32, device);
    eval(value);
    parameters.emplace(name, value);
  }
  return parameters;
}

void note_fills(NamedEntries& file, const ImportOptions& options) {
  if (!file.find("r_embedder.mlp.0.weight")) file.notes.push_back("no second time in the file: zeros, so the network ignores r");
  if (!file.find("pos_embed")) file.notes.push_back("no positions in the file: computed");
  if (options.fill.contains(Fill::null_class) && file.find(class_table)) file.notes.push_back("a null class of zeros was added");
  if (options.drop_variance) file.notes.push_back("the predicted variance was dropped");
  if (options.data_at_one) file.notes.push_back("time and velocity were reversed");
}

std::int64_t number_in(const Metadata& metadata, const std::string& key) {
  const auto found = metadata.find(key);
  std::int64_t value = 0;
  if (found != metadata.end()) std::from_chars(found->second.data(), found->second.data() + found->second.size(), value);
  return std::max<std::int64_t>(value, 0);
}

std::string message_of(const std::string& heading, const std::vector<Mismatch>& mismatches) {
  std::map<Kind, std::size_t> counts;
  std::string lines;
  for (const Mismatch& mismatch : mismatches) {
    if (++counts[mismatch.kind] > most_lines_of_a_kind) continue;
    std::string kind = to_string(mismatch.kind);
    kind.resize(11, ' ');
    lines += "\n  " + kind + mismatch.key + "  " + mismatch.detail;
  }
  std::string summary;
  for (const auto& [kind, count] : counts) {
    summary += (summary.empty() ? "" : ", ") + std::to_string(count) + " " + to_string(kind);
    if (count > most_lines_of_a_kind) lines += "\n  ... and " + std::to_string(count - most_lines_of_a_kind) + " more: " + to_string(kind);
  }
  return heading + ": " + summary + lines;
}

}  // namespace

std::string to_string(Fill fill) {
  switch (fill) {
    case Fill::second_time:
      return "second-time";
    case Fill::positions:
      return "positions";
    case Fill::null_class:
      return "null-class";
  }
  return "";
}

std::string to_string(Mismatch::Kind kind) {
  switch (kind) {
    case Kind::missing:
      return "missing";
    case Kind::unexpected:
      return "unexpected";
    case Kind::shape:
      return "shape";
    case Kind::dtype:
      return "dtype";
    case Kind::repeated:
      return "repeated";
  }
  return "";
}

MismatchError::MismatchError(const std::string& heading, std::vector<Mismatch> mismatches)
    : FormatError(message_of(heading, mismatches)), mismatches_(std::move(mismatches)) {}

ImportedModel import_dit(const std::filesystem::path& path, const ImportOptions& options, const Device& device) {
  const SafetensorsFile content(path);
  NamedEntries file = named_entries(content, options);
  const DitConfig config = config_of(file, options, path.string());
  compare(wanted_shapes(config, file, options), file);
  if (!file.mismatches.empty())
    throw MismatchError(path.string() + " does not fit a DiT of hidden size " + std::to_string(config.hidden_size) + " and depth " +
                            std::to_string(config.depth) + " for " + to_string(sample_shape(config)) + " samples",
                        std::move(file.mismatches));
  if (options.data_at_one && file.find("r_embedder.mlp.0.weight"))
    throw Error("import " + path.string() + ": data_at_one is for networks with one time; this one has two, and how they reverse is not agreed upon");
  note_fills(file, options);

  ImportedModel result;
  result.model.info.network = config;
  result.model.info.objective = options.objective;
  result.model.info.step = number_in(content.metadata(), "step");
  const auto weights = content.metadata().find("weights");
  result.model.info.ema = weights != content.metadata().end() && weights->second == "ema";
  result.model.parameters = load(file, config, options, device);
  result.notes = std::move(file.notes);
  return result;
}

}  // namespace fluxion
