#include "models/import.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/graph/ops.h"
#include "models/import/family.h"
#include "models/layers/layers.h"

namespace fluxion {
namespace {

// The public files have some hundred keys, of which most are alike.
constexpr std::size_t most_lines_of_a_kind = 10;

using Kind = Mismatch::Kind;

// The configuration with some of its members replaced by those of a JSON object.
NetworkConfig with_overrides(const NetworkConfig& config, const std::string& text) {
  using nlohmann::json;
  const json overrides = json::parse(text, nullptr, false);
  if (!overrides.is_object()) throw Error("the configuration given is no JSON object: " + text);
  json network = network_to_json(config);
  json& members = network.at("config");
  for (const auto& [name, value] : overrides.items()) {
    if (!members.contains(name))
      throw Error("'" + name + "' is no member of the network's configuration " + members.dump());
    members[name] = value;
  }
  return network_from_json(network);
}

// The family whose sign is among the keys.
const PublicFamily& family_of(const NamedEntries& file) {
  for (const PublicFamily* family : {&public_dit(), &public_unet(), &public_song_unet()})
    if (file.find(family->sign)) return *family;
  throw Error("no network that is known: a DiT has a '" + std::string(public_dit().sign) +
              "', a U-Net a '" + public_unet().sign + "', a SongUNet a '" +
              public_song_unet().sign + "'; there is none among " +
              std::to_string(file.entries.size()) + " keys");
}

// What the file should hold, given what it may lack.
std::map<std::string, Shape> wanted_shapes(const PublicFamily& family, const NetworkConfig& config,
                                           const NamedEntries& file, const ImportOptions& options) {
  std::map<std::string, Shape> wanted = parameter_shapes(config);
  if (options.fill.contains(Fill::second_time) && !file.any(family.second_time)) {
    if (options.prediction == Prediction::average_velocity)
      throw Error(
          "fill second-time makes a network that ignores its second time, which no average "
          "velocity does; what embeds it must be in the file, named '" +
          std::string(family.second_time) + "*' (--rename helps)");
    std::erase_if(wanted,
                  [&](const auto& entry) { return entry.first.starts_with(family.second_time); });
  }
  if (options.fill.contains(Fill::positions)) {
    if (!wanted.contains("pos_embed"))
      throw Error("a " + std::string(family.name) + " has no positions to fill in");
    if (!file.find("pos_embed")) wanted.erase("pos_embed");
  }
  if (options.fill.contains(Fill::null_class) && wanted.contains(family.class_table))
    --wanted[family.class_table][0];
  if (options.drop_variance)
    for (auto& [name, shape] : wanted)
      if (name.starts_with(family.output)) shape[0] *= 2;
  return wanted;
}

struct Wanted {
  const PublicFamily* family;
  NetworkConfig config;
  std::map<std::string, Shape> shapes;
};

Wanted wanted_of(NamedEntries& file, const ImportOptions& options, const std::string& path) {
  try {
    const PublicFamily& family = family_of(file);
    const NetworkConfig config = with_overrides(family.config(file, options), options.config);
    return {&family, config, wanted_shapes(family, config, file, options)};
  } catch (const Error& error) {
    throw Error("import " + path + ": " + error.what());
  }
}

// What may be done about a key that does not fit, in the terms of ImportOptions.
std::string advice(const PublicFamily& family, const ImportOptions& options, const std::string& key,
                   const Shape& want, const SafetensorsEntry* have) {
  const bool output = key.starts_with(family.output);
  if (have == nullptr && key.starts_with(family.second_time))
    return options.prediction == Prediction::average_velocity
               ? " (the second time, without which there is no average velocity)"
               : " (a network with one time only? fill second-time gives the second one zeros)";
  if (have == nullptr && key == "pos_embed") return " (fill positions computes it)";
  if (have == nullptr || have->shape.rank() != want.rank() || want.rank() == 0) return "";
  if (output && have->shape[0] == 2 * want[0])
    return " (it predicts a variance, too; drop-variance keeps the first half)";
  if (output && 2 * have->shape[0] == want[0])
    return " (it predicts no variance that drop-variance could drop)";
  if (key == family.class_table && have->shape[0] + 1 == want[0])
    return " (a table without a null class? fill null-class adds it)";
  return "";
}

void compare(const PublicFamily& family, const ImportOptions& options,
             const std::map<std::string, Shape>& wanted, NamedEntries& file) {
  for (const auto& [name, shape] : wanted) {
    const SafetensorsEntry* entry = file.find(name);
    if (entry == nullptr) {
      file.mismatches.push_back(
          {Kind::missing, name,
           "want " + to_string(shape) + advice(family, options, name, shape, nullptr)});
      continue;
    }
    if (entry->shape != shape)
      file.mismatches.push_back({Kind::shape, name,
                                 "have " + to_string(entry->shape) + ", want " + to_string(shape) +
                                     advice(family, options, name, shape, entry)});
    if (!entry->dtype.is_floating())
      file.mismatches.push_back(
          {Kind::dtype, name,
           "have " + to_string(entry->dtype) +
               ", want a floating type (quantised weights must be made floats first)"});
  }
  for (const auto& [name, entry] : file.entries)
    if (!wanted.contains(name))
      file.mismatches.push_back({Kind::unexpected, name, to_string(*entry)});
}

// Of every `whole` rows of x, which are channels in turn, the first `kept`.
Tensor first_channels(const Tensor& x, std::int64_t kept, std::int64_t whole) {
  Dims split = x.shape().dims(), shape = x.shape().dims();
  split.front() /= whole;
  split.insert(split.begin() + 1, whole);
  shape.front() = shape.front() / whole * kept;
  return reshape(slice_axis(reshape(x, Shape(split)), 1, 0, kept), Shape(shape));
}

// The weight of a linear map of the features cos(s f t), sin(s f t) of a time that makes of the
// features of t what `weight` makes of those of 1 - t:
//   cos(s f (1 - t)) = cos(s f) cos(s f t) + sin(s f) sin(s f t),   sin(s f (1 - t)) = sin(s f)
//   cos(s f t) - cos(s f) sin(s f t)
Tensor reverse_time(const Tensor& weight, double time_scale) {
  const Tensor one = Tensor::from(std::vector<double>{1}, {1}, weight.device());
  const std::int64_t half = weight.size(1) / 2;
  const Tensor turned = timestep_embedding(one, weight.size(1), time_scale),
               wide = weight.to(DType::f64);
  const auto columns = [&](const Tensor& x, std::int64_t part) {
    return slice_axis(x, 1, part * half, (part + 1) * half);
  };
  const Tensor c = columns(turned, 0), s = columns(turned, 1), a = columns(wide, 0),
               b = columns(wide, 1);
  return concat({a * c + b * s, a * s - b * c, slice_axis(wide, 1, 2 * half, weight.size(1))}, 1)
      .to(weight.dtype());
}

double time_scale(const NetworkConfig& config) {
  return std::visit([](const auto& network) { return network.time_scale; }, config);
}

Tensor single_precision(const SafetensorsEntry& entry, const Device& device) {
  if (entry.dtype.dtype())
    return Tensor::from_bytes(entry.bytes, entry.type(), device).to(DType::f32);
  const std::vector<double> values = to_doubles(entry);  // floats of 8 bits, exact in 32
  return Tensor::from(std::vector<float>(values.begin(), values.end()), entry.shape, device);
}

Parameters load(const PublicFamily& family, const NamedEntries& file, const NetworkConfig& config,
                const ImportOptions& options, const Device& device) {
  Parameters parameters;
  const std::int64_t channels = sample_shape(config).back();
  for (const auto& [name, entry] : file.entries) {
    Tensor value = single_precision(*entry, device);
    const bool output = name.starts_with(family.output);
    if (output && options.drop_variance) value = first_channels(value, channels, 2 * channels);
    if (options.data_at_one && output) value = -value;
    if (options.data_at_one && name == family.first_time)
      value = reverse_time(value, time_scale(config));
    if (options.fill.contains(Fill::null_class) && name == family.class_table)
      value = concat({value, zeros({1, value.size(1)}, DType::f32, device)}, 0);
    eval(value);
    parameters.emplace(name, value);
  }
  for (const auto& [name, shape] : parameter_shapes(config)) {
    if (parameters.contains(name)) continue;
    const auto* dit = std::get_if<DitConfig>(&config);
    const Tensor value =
        dit && name == "pos_embed"
            ? reshape(sincos_pos_embed_2d(dit->hidden_size, dit->image_size / dit->patch_size,
                                          DType::f32, device),
                      shape)
            : zeros(shape, DType::f32, device);
    eval(value);
    parameters.emplace(name, value);
  }
  return parameters;
}

void note_fills(const PublicFamily& family, NamedEntries& file, const ImportOptions& options) {
  if (!file.any(family.second_time))
    file.notes.push_back("no second time in the file: zeros, so the network ignores r");
  if (options.fill.contains(Fill::positions) && !file.find("pos_embed"))
    file.notes.push_back("no positions in the file: computed");
  if (options.fill.contains(Fill::null_class) && file.find(family.class_table))
    file.notes.push_back("a null class of zeros was added: no guidance, no open class");
  if (options.drop_variance) file.notes.push_back("the predicted variance was dropped");
  if (options.data_at_one) file.notes.push_back("time and velocity were reversed");
}

std::int64_t number_in(const Metadata& metadata, const std::string& key) {
  const auto found = metadata.find(key);
  std::int64_t value = 0;
  if (found != metadata.end())
    std::from_chars(found->second.data(), found->second.data() + found->second.size(), value);
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
    if (count > most_lines_of_a_kind)
      lines += "\n  ... and " + std::to_string(count - most_lines_of_a_kind) +
               " more: " + to_string(kind);
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

ImportedModel import_network(const std::filesystem::path& path, const ImportOptions& options,
                             const Device& device) {
  const SafetensorsFile content(path);
  for (const char* ours : {"fluxion.model", "fluxion.checkpoint", "fluxion.classifier"})
    if (content.metadata().contains(ours))
      throw FormatError("import " + path.string() + ": this program made it ('" + ours +
                        "' in its metadata); a model needs no import");
  NamedEntries file = named_entries(content, options);
  const auto [family, config, wanted] = wanted_of(file, options, path.string());
  compare(*family, options, wanted, file);
  if (!file.mismatches.empty())
    throw MismatchError(path.string() + " does not fit a " + family->description(config) + " for " +
                            to_string(sample_shape(config)) + " samples",
                        std::move(file.mismatches));
  if (options.data_at_one && file.any(family->second_time))
    throw Error("import " + path.string() +
                ": data_at_one is for networks with one time; this one has two, and how they "
                "reverse is not agreed upon");
  if (options.open_class.value_or(false) && options.fill.contains(Fill::null_class))
    throw Error("import " + path.string() +
                ": an open class is one that was trained, and fill null-class makes one of zeros; "
                "leave one out");
  note_fills(*family, file, options);

  ImportedModel result;
  result.model.info.network = config;
  result.model.info.prediction = options.prediction;
  result.model.info.sampling = usual_sampling(options.prediction);
  if (options.prediction == Prediction::F) {
    // As Karras et al. publish them.
    result.model.info.path = Path::edm();
    result.model.info.wrapping = Wrapping::edm;
    result.model.info.sampling = {.sampler = "edm", .steps = 18};
  }
  // Guidance by a row that was never trained would be noise.
  if (num_classes(config) > 0) {
    result.model.info.open_class = options.open_class.value_or(
        family->usually_open && !options.fill.contains(Fill::null_class));
    if (!result.model.info.open_class && !options.open_class &&
        !options.fill.contains(Fill::null_class))
      file.notes.push_back("taken to be trained with classes alone, as is usual for a " +
                           std::string(family->name) +
                           ": no guidance, no open class (open-class says otherwise)");
  }
  result.model.info.step = number_in(content.metadata(), "step");
  const auto weights = content.metadata().find("weights");
  result.model.info.ema = weights != content.metadata().end() && weights->second == "ema";
  result.model.parameters = load(*family, file, config, options, device);
  content.check_whole();
  result.notes = std::move(file.notes);
  return result;
}

}  // namespace fluxion
