#include "models/model_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/number_text.h"
#include "engine/single_precision.h"
#include "models/data/class_names.h"
#include "models/files/safetensors.h"
#include "models/json_text.h"
#include "models/older_objectives.h"
#include "models/samplers/sampler.h"

namespace fluxion {
namespace {

using nlohmann::json;

// The metadata entry that makes a safetensors file a model of ours, and the version of its content.
constexpr const char* metadata_key = "fluxion.model";
constexpr int format_version = 2;

void check_sampling(const DefaultSampling& sampling) {
  constexpr std::int64_t most_steps = 1000000;
  sampler_kind_from(sampling.sampler);
  if (sampling.steps < 1 || sampling.steps > most_steps)
    throw FormatError("a sampler of " + std::to_string(sampling.steps) + " steps");
}

// Options of a training method, kept as text for whoever wants to know: an object of plain members.
json options_in(const std::string& text, const std::string& name) {
  const json options = parse_json(text, name);
  if (!options.is_object()) throw FormatError(name + " must be a JSON object");
  for (const auto& [option, value] : options.items())
    if (value.is_number() && !fits_single(value.get<double>()))
      throw FormatError(name + ": " + option +
                        " must be a number that single precision holds, is " + value.dump());
  for (const char* share : {"label_dropout", "label-dropout"})
    if (const double value = json_member_or(options, share, 0.0); !(value >= 0 && value <= 1))
      throw FormatError(name + ": " + share + " must be from 0 to 1, is " + number_text(value));
  return options;
}

void take_older_objective(const json& object, ModelInfo& info) {
  const OlderObjective& older =
      older_objective_named(json_member<std::string>(object, "objective"));
  info.method = older.method;
  info.prediction = older.prediction;
  info.sampling = usual_sampling(older.prediction);
  info.method_options = json_member<std::string>(object, "objective_config");
  const json options = options_in(info.method_options, "objective_config");
  info.open_class = json_member_or(options, "label_dropout", 1.0) != 0;
}

void take_method(const json& object, ModelInfo& info) {
  info.method = json_member<std::string>(object, "method");
  info.method_options = json_member<std::string>(object, "method_options");
  options_in(info.method_options, "method_options");
  info.prediction = prediction_from(json_member<std::string>(object, "prediction"));
  if (const json* const path = find_json_member(object, "path")) info.path = path_from_json(*path);
  info.wrapping = wrapping_from(json_member_or<std::string>(object, "wrapping", "none"));
  const json& sampling = json_member(object, "sampling");
  info.sampling = {.sampler = json_member<std::string>(sampling, "sampler"),
                   .steps = json_member<std::int64_t>(sampling, "steps")};
  info.open_class = json_member_or(object, "open_class", true);
  info.coupling = json_member_or<std::string>(object, "coupling", "");
  info.source = json_member_or<std::string>(object, "source", "");
  check_sampling(info.sampling);
}

json info_to_json(const ModelInfo& info) {
  json result = {{"version", format_version},
                 {"network", network_to_json(info.network)},
                 {"method", info.method},
                 {"method_options", info.method_options},
                 {"prediction", to_string(info.prediction)},
                 {"sampling", {{"sampler", info.sampling.sampler}, {"steps", info.sampling.steps}}},
                 {"dataset", info.dataset},
                 {"sample_shape", sample_shape(info.network).dims()},
                 {"num_classes", num_classes(info.network)},
                 {"class_names", info.class_names},
                 {"ema", info.ema},
                 {"step", info.step}};
  if (info.path != Path{}) result["path"] = path_to_json(info.path);
  if (info.wrapping != Wrapping::none) result["wrapping"] = to_string(info.wrapping);
  if (!info.open_class) result["open_class"] = false;
  if (!info.coupling.empty()) result["coupling"] = info.coupling;
  if (!info.source.empty()) result["source"] = info.source;
  if (!info.class_marks.empty()) result["class_marks"] = info.class_marks;
  if (!info.untrained_classes.empty()) result["untrained_classes"] = info.untrained_classes;
  if (info.ema_decay) result["ema_decay"] = *info.ema_decay;
  if (info.precision) result["precision"] = to_string(*info.precision);
  if (info.guidance)
    result["guidance"] = {{"omega", info.guidance->omega}, {"kappa", info.guidance->kappa}};
  return result;
}

// The lists beside a network with classes have one entry a class, or none.
void check_class_count(const char* what, const std::vector<std::string>& list,
                       const ModelInfo& info) {
  if (!list.empty() && std::ssize(list) != num_classes(info.network))
    throw FormatError(std::to_string(list.size()) + " " + what + " for " +
                      std::to_string(num_classes(info.network)) + " classes");
}

ModelInfo info_from_json(const json& object, const std::string& where) {
  try {
    const int version = json_member<int>(object, "version");
    if (version < 1 || version > format_version)
      throw FormatError("model format version " + std::to_string(version) + " is not one of 1 to " +
                        std::to_string(format_version));
    ModelInfo info;
    info.network = network_from_json(json_member(object, "network"));
    if (const auto dims = json_member_or(object, "sample_shape", sample_shape(info.network).dims());
        dims != sample_shape(info.network).dims())
      throw FormatError("sample_shape " + to_string(dims) + " is not that of the network, " +
                        to_string(sample_shape(info.network)));
    if (const std::int64_t classes = num_classes(info.network),
        said = json_member_or(object, "num_classes", classes);
        said != classes)
      throw FormatError("num_classes is " + std::to_string(said) + ", and the network has " +
                        std::to_string(classes));
    version == 1 ? take_older_objective(object, info) : take_method(object, info);
    info.dataset = json_member<std::string>(object, "dataset");
    info.class_names = json_member<std::vector<std::string>>(object, "class_names");
    check_class_count("class names", info.class_names, info);
    info.class_marks = json_member_or<std::vector<std::string>>(object, "class_marks", {});
    check_class_count("marks of classes", info.class_marks, info);
    info.untrained_classes =
        json_member_or<std::vector<std::int32_t>>(object, "untrained_classes", {});
    for (const std::int32_t number : info.untrained_classes)
      if (number < 0 || number >= num_classes(info.network))
        throw FormatError("untrained class " + std::to_string(number) + " of " +
                          std::to_string(num_classes(info.network)));
    info.ema = json_member<bool>(object, "ema");
    info.step = json_member<std::int64_t>(object, "step");
    if (info.step < 0) throw FormatError("step " + std::to_string(info.step) + " is negative");
    if (object.contains("ema_decay")) info.ema_decay = json_member<double>(object, "ema_decay");
    if (const double decay = info.ema_decay.value_or(0); !(decay >= 0 && decay <= 1))
      throw FormatError("ema_decay must be from 0 to 1, is " + number_text(decay));
    if (object.contains("precision"))
      info.precision = precision_from(json_member<std::string>(object, "precision"));
    if (const json* guidance = find_json_member(object, "guidance")) {
      info.guidance = TrainedGuidance{.omega = json_member<double>(*guidance, "omega"),
                                      .kappa = json_member<double>(*guidance, "kappa")};
      for (const double value : {info.guidance->omega, info.guidance->kappa})
        if (!fits_single(value))
          throw FormatError(
              "guidance: omega and kappa must be numbers that single precision "
              "holds, got " +
              number_text(value));
    }
    return info;
  } catch (const json::exception& error) {
    throw FormatError(where + ": metadata '" + metadata_key + "': " + error.what());
  } catch (const Error& error) {
    throw FormatError(where + ": metadata '" + metadata_key + "': " + error.what());
  }
}

ModelInfo info_of(const SafetensorsFile& file, const std::string& where) {
  const auto found = file.metadata().find(metadata_key);
  if (found == file.metadata().end())
    throw FormatError(where +
                      (file.metadata().contains("fluxion.checkpoint")
                           ? ": is a checkpoint, and no model: `fluxion train --resume " + where +
                                 " --out FOLDER` goes on from it, or writes the models of a run "
                                 "that has ended"
                           : ": is a safetensors file, but no model: its metadata has no '" +
                                 std::string(metadata_key) + "'"));
  const json object = parse_json(found->second, where + ": metadata '" + metadata_key + "'");
  if (!object.is_object())
    throw FormatError(where + ": metadata '" + metadata_key + "' is not a JSON object");
  return info_from_json(object, where);
}

struct FoundParameter {
  Shape shape;
  bool floating = false;
  std::string type;  // in words: "f32[2, 3]"
};

// The file's names and shapes against the network's, before any tensor is made.
void check_names(const std::map<std::string, Shape>& expected,
                 const std::map<std::string, FoundParameter>& found, const std::string& where) {
  for (const auto& [name, shape] : expected) {
    const auto entry = found.find(name);
    if (entry == found.end())
      throw FormatError(where + ": parameter '" + name + "' " + to_string(shape) + " is missing");
    if (entry->second.shape != shape)
      throw FormatError(where + ": parameter '" + name + "' is " + entry->second.type +
                        " but the network needs shape " + to_string(shape));
    if (!entry->second.floating)
      throw FormatError(where + ": parameter '" + name + "' is " + entry->second.type +
                        " but must be floating");
  }
  for (const auto& [name, parameter] : found)
    if (!expected.contains(name))
      throw FormatError(where + ": '" + name + "' " + parameter.type +
                        " is not a parameter of the network");
}

// Conversion on the host, as a device may lack the file's type.
Tensor load(const SafetensorsEntry& entry, const Device& device, DType dtype) {
  if (entry.dtype == dtype) return Tensor::from_bytes(entry.bytes, {entry.shape, dtype}, device);
  const std::vector<double> values = to_doubles(entry);
  if (dtype == DType::f64) return Tensor::from(values, entry.shape, device);
  const Tensor single =
      Tensor::from(std::vector<float>(values.begin(), values.end()), entry.shape, device);
  const Tensor result = single.to(dtype);
  eval(result);
  return result;
}

}  // namespace

void check_parameters(const NetworkConfig& network, const Parameters& parameters,
                      const std::string& where) {
  std::map<std::string, FoundParameter> found;
  for (const auto& [name, tensor] : parameters) {
    if (!tensor) throw FormatError(where + ": parameter '" + name + "' is empty");
    found.emplace(name, FoundParameter{tensor.shape(), is_floating(tensor.dtype()),
                                       to_string(tensor.type())});
  }
  check_names(parameter_shapes(network), found, where);
}

Predictor predictor(const ModelInfo& info, const Velocity& network) {
  return {.network = wrapped(info.wrapping, network, info.path),
          .path = info.path,
          .prediction = info.prediction};
}

DefaultSampling usual_sampling(Prediction prediction) {
  if (prediction == Prediction::average_velocity) return {to_string(SamplerKind::meanflow), 1};
  return {to_string(SamplerKind::ode_euler), 50};
}

std::string data_name(const ModelInfo& info) {
  const std::filesystem::path path = std::filesystem::path(info.dataset);
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

std::vector<std::int32_t> trained_classes(const ModelInfo& info) {
  const std::set<std::int32_t> untrained(info.untrained_classes.begin(),
                                         info.untrained_classes.end());
  std::vector<std::int32_t> classes;
  for (std::int32_t i = 0; i < num_classes(info.network); ++i)
    if (!untrained.contains(i)) classes.push_back(i);
  return classes;
}

std::int32_t class_of(const ModelInfo& info, const std::string& text) {
  const std::int64_t classes = num_classes(info.network);
  if (classes == 0) throw Error("class " + text + ": this model has no classes");
  const bool named = static_cast<std::int64_t>(info.class_names.size()) == classes;
  std::optional<std::int32_t> found;
  if (named) {
    found = find_class_in_any_case(info.class_names, text);
  } else if (const auto number = parse_number<std::int32_t>(text); number && *number < classes) {
    found = number;
  }
  if (!found || *found < 0)
    throw Error("class " + text + ": the model has the classes " +
                (named ? class_list(info.class_names) : "0 to " + std::to_string(classes - 1)));
  if (std::ranges::count(info.untrained_classes, *found) > 0)
    throw Error("class " + text +
                ": the model has seen no sample of it, so there is nothing that it could draw");
  return *found;
}

void check_open_class(const ModelInfo& info) {
  if (num_classes(info.network) > 0 && !info.open_class)
    throw Error(
        "the model has never seen a class left open (it was trained with label dropout 0, or "
        "imported as such: fluxion import --open-class says otherwise), so there is nothing that "
        "it could draw without one");
}

void check_guidance(const ModelInfo& info, double scale) {
  if (scale == 1) return;
  if (num_classes(info.network) == 0)
    throw Error("guidance: the model has no classes, so there is nothing to guide towards");
  if (info.guidance)
    throw Error(
        "guidance: the model was trained with guidance (omega " +
        json(info.guidance->omega).dump() + ", kappa " + json(info.guidance->kappa).dump() +
        "), so its samples are guided already; a second guidance would distort them. Use scale 1");
  try {
    check_open_class(info);
  } catch (const Error& error) {
    throw Error("guidance: " + std::string(error.what()));
  }
}

void write_model(const std::filesystem::path& path, const Model& model) {
  check_parameters(model.info.network, model.parameters, "write_model: " + path.string());
  check_sampling(model.info.sampling);
  save_tensors(path, model.parameters,
               {{metadata_key,
                 info_to_json(model.info).dump(-1, ' ', false, json::error_handler_t::replace)}});
}

std::filesystem::path model_file(const std::filesystem::path& path) {
  std::error_code missing;
  const std::filesystem::path within = path / "model.safetensors";
  return std::filesystem::is_directory(path, missing) && std::filesystem::exists(within, missing)
             ? within
             : path;
}

void check_holds_model(const std::filesystem::path& path) {
  std::error_code missing;
  if (std::filesystem::is_directory(model_file(path), missing))
    throw IoError(path.string() + ": this folder holds no model.safetensors (yet)");
}

Model read_model(const std::filesystem::path& place, const Device& device, DType dtype) {
  check_holds_model(place);
  const std::filesystem::path path = model_file(place);
  if (!is_floating(dtype))
    throw DTypeError("read_model: parameters must be floating, not " +
                     std::string(to_string(dtype)));
  const SafetensorsFile file(path);
  Model model{.info = info_of(file, path.string()), .parameters = {}};
  std::map<std::string, FoundParameter> found;
  for (const SafetensorsEntry& entry : file.entries())
    found.emplace(entry.name,
                  FoundParameter{entry.shape, entry.dtype.is_floating(), to_string(entry)});
  check_names(parameter_shapes(model.info.network), found, path.string());
  for (const SafetensorsEntry& entry : file.entries())
    model.parameters.emplace(entry.name, load(entry, device, dtype));
  file.check_content();
  file.check_whole();
  return model;
}

ModelInfo read_model_info(const std::filesystem::path& path) {
  check_holds_model(path);
  const std::filesystem::path file = model_file(path);
  return info_of(SafetensorsFile(file), file.string());
}

}  // namespace fluxion
