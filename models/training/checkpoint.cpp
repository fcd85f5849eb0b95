#include "models/training/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/number_text.h"
#include "models/data/class_names.h"
#include "models/files/safetensors.h"
#include "models/json_text.h"

namespace fluxion {

namespace {

using nlohmann::json;

constexpr const char* metadata_key = "fluxion.checkpoint";
constexpr int format_version = 2;

// The parts of a state in the file that hold all that is trained: their prefix and where they
// belong.
template <class State, class F>
void visit_parts(State& state, F&& f) {
  f("parameters.", state.parameters);
  f("m.", state.m);
  f("v.", state.v);
  for (std::size_t i = 0; i < state.ema.size(); ++i)
    f("ema." + std::to_string(i) + ".", state.ema[i]);
}

// What the method keeps: a part for each tree.
template <class State, class F>
void visit_method(State& state, F&& f) {
  for (auto& [name, tree] : state.method) f("method." + name + ".", tree);
}

// A state that lacks its tensors.
TrainState empty_state(const TrainingConfig& config) {
  TrainState state;
  state.ema.resize(config.optimiser.ema_decays.size());
  for (const std::string& name : state_trees(config.method)) state.method[name];
  if (needs_loss_scale(config.precision)) state.loss_scale.emplace_back();
  return state;
}

// The loss scale of a state, where it has one: names in the file and tensors.
template <class State, class F>
void visit_loss_scale(State& state, F&& f) {
  for (auto& now : state.loss_scale) {
    f("loss_scale.scale", DType::f32, now.scale);
    f("loss_scale.finite", DType::i32, now.finite);
    f("loss_scale.skipped", DType::i32, now.skipped);
  }
}

CheckpointInfo::Data data_of(const DataSet& data, std::vector<std::string> class_marks) {
  return {.name = data.name(),
          .sample_shape = data.sample_shape(),
          .classes = data.classes(),
          .class_names = data.class_names(),
          .class_marks = std::move(class_marks),
          .untrained_classes = data.classes_without_samples(),
          .size = data.size()};
}

json info_to_json(const CheckpointInfo& info) {
  json data = {{"name", info.data.name},
               {"sample_shape", info.data.sample_shape.dims()},
               {"classes", info.data.classes},
               {"class_names", info.data.class_names}};
  if (!info.data.class_marks.empty()) data["class_marks"] = info.data.class_marks;
  if (!info.data.untrained_classes.empty()) data["untrained_classes"] = info.data.untrained_classes;
  if (info.data.size) data["size"] = *info.data.size;
  return {{"version", format_version},
          {"config", training_config_to_json(info.config)},
          {"data", data},
          {"step", info.step},
          {"seconds", info.seconds},
          {"since_row",
           {{"steps", info.since_row.steps},
            {"loss", info.since_row.loss},
            {"error", info.since_row.error},
            {"gradient_norm", info.since_row.gradient_norm},
            {"skipped", info.since_row.skipped}}},
          {"settings", info.settings}};
}

LogSums sums_from_json(const json& object, std::int64_t step) {
  const LogSums sums{.loss = json_member<double>(object, "loss"),
                     .error = json_member<double>(object, "error"),
                     .gradient_norm = json_member<double>(object, "gradient_norm"),
                     .steps = json_member<std::int64_t>(object, "steps"),
                     .skipped = json_member_or(object, "skipped", std::int64_t{0})};
  if (sums.steps < 0 || sums.steps > step || sums.skipped < 0 || sums.skipped > step - sums.steps)
    throw FormatError("a row of the log over " + std::to_string(sums.steps) + " and " +
                      std::to_string(sums.skipped) + " skipped of " + std::to_string(step) +
                      " steps");
  return sums;
}

CheckpointInfo info_from_json(const json& object, const MethodTable& methods) {
  if (const int version = json_member<int>(object, "version");
      version < 1 || version > format_version)
    throw FormatError("checkpoint format version " + std::to_string(version) +
                      " is not one of 1 to " + std::to_string(format_version));
  CheckpointInfo info;
  info.config = training_config_from_json(json_member(object, "config"), methods);
  const json& data = json_member(object, "data");
  info.data.name = json_member<std::string>(data, "name");
  const auto dims = json_member<Dims>(data, "sample_shape");
  for (const std::int64_t size : dims)
    if (size < 0) throw FormatError("a sample shape of " + to_string(dims));
  info.data.sample_shape = Shape(dims);
  info.data.classes = json_member<std::int32_t>(data, "classes");
  info.data.class_names = json_member_or<std::vector<std::string>>(data, "class_names", {});
  info.data.class_marks = json_member_or<std::vector<std::string>>(data, "class_marks", {});
  info.data.untrained_classes =
      json_member_or<std::vector<std::int32_t>>(data, "untrained_classes", {});
  if (!info.data.class_names.empty() &&
      info.data.class_names.size() != static_cast<std::size_t>(info.data.classes))
    throw FormatError(std::to_string(info.data.class_names.size()) + " class names for " +
                      std::to_string(info.data.classes) + " classes");
  for (const std::int32_t number : info.data.untrained_classes)
    if (number < 0 || number >= info.data.classes)
      throw FormatError("untrained class " + std::to_string(number) + " of " +
                        std::to_string(info.data.classes));
  if (data.contains("size")) info.data.size = json_member<std::int64_t>(data, "size");
  info.step = json_member<std::int64_t>(object, "step");
  if (info.step < 0 || info.step > std::numeric_limits<std::int32_t>::max())
    throw FormatError("step " + std::to_string(info.step) + " is not from 0 to 2147483647");
  if (info.data.classes < 0 || info.data.size.value_or(1) < 1)
    throw FormatError("data of " + std::to_string(info.data.classes) + " classes and " +
                      std::to_string(info.data.size.value_or(0)) + " samples");
  info.seconds = json_member<double>(object, "seconds");
  constexpr double most_seconds = 1e10;  // three hundred years
  if (!(info.seconds >= 0 && info.seconds <= most_seconds))
    throw FormatError("seconds must be from 0 to 1e10, is " + number_text(info.seconds));
  if (const auto found = object.find("since_row"); found != object.end())  // older files have none
    info.since_row = sums_from_json(*found, info.step);
  info.settings = json_member<std::string>(object, "settings");
  return info;
}

CheckpointInfo info_of(const SafetensorsFile& file, const std::string& where,
                       const MethodTable& methods) {
  const auto found = file.metadata().find(metadata_key);
  if (found == file.metadata().end())
    throw FormatError(where + ": is a safetensors file, but no checkpoint: its metadata has no '" +
                      metadata_key + "'");
  const json object = parse_json(found->second, where + ": metadata '" + metadata_key + "'");
  if (!object.is_object())
    throw FormatError(where + ": metadata '" + metadata_key + "' is not a JSON object");
  try {
    return info_from_json(object, methods);
  } catch (const json::exception& error) {
    throw FormatError(where + ": metadata '" + metadata_key + "': " + error.what());
  } catch (const Error& error) {
    throw FormatError(where + ": metadata '" + metadata_key + "': " + error.what());
  }
}

// Every tensor of the file against what the configuration needs, before one is made.
void check_entries(const SafetensorsFile& file, const CheckpointInfo& info,
                   const std::string& where) {
  const std::map<std::string, Shape> shapes = trained_shapes(info.config);
  const TrainState parts = empty_state(info.config);
  std::size_t expected = 0;
  const auto require = [&](const std::string& name, const TensorType& type) {
    const SafetensorsEntry* entry = file.find(name);
    if (!entry) throw FormatError(where + ": '" + name + "' is missing");
    if (entry->dtype != type.dtype || entry->shape != type.shape)
      throw FormatError(where + ": '" + name + "' is " + to_string(*entry) + " but must be " +
                        to_string(type));
    ++expected;
  };
  visit_parts(parts, [&](const std::string& prefix, const Parameters&) {
    for (const auto& [name, shape] : shapes) require(prefix + name, {shape, DType::f32});
  });
  visit_method(parts, [&](const std::string& prefix, const Parameters&) {
    for (const auto& [name, shape] : network_shapes(info.config))
      require(prefix + name, {shape, DType::f32});
  });
  require("step", {Shape{}, DType::i32});
  visit_loss_scale(parts, [&](const char* name, DType dtype, const Tensor&) {
    require(name, {Shape{}, dtype});
  });
  if (file.entries().size() != expected)
    throw FormatError(where + ": holds tensors that are no part of a checkpoint of this network");
}

// No step begins from numbers that are not finite; second moments are means of squares.
void check_values(const SafetensorsEntry& entry, const std::string& where) {
  if (entry.dtype != DType::f32) return;
  const bool squares = entry.name.starts_with("v.");
  for (std::size_t at = 0; at < entry.bytes.size(); at += sizeof(float)) {
    float value = 0;
    std::memcpy(&value, entry.bytes.data() + at, sizeof value);
    if (std::isfinite(value) && !(squares && value < 0)) continue;
    throw FormatError(
        where + ": '" + entry.name + "' holds " + number_text(value) +
        (squares ? ", and second moments are finite and not negative" : ", which is not finite") +
        ": there is nothing to go on from");
  }
}

}  // namespace

void write_checkpoint(const std::filesystem::path& path, const Trainer& trainer, double seconds,
                      const std::string& settings, const LogSums& since_row) {
  const CheckpointInfo info{.config = trainer.config(),
                            .data = data_of(trainer.data(), trainer.class_marks()),
                            .step = trainer.steps_done(),
                            .seconds = seconds,
                            .since_row = since_row,
                            .settings = settings};
  std::map<std::string, Tensor> tensors;
  const auto add = [&](const std::string& prefix, const Parameters& part) {
    for (const auto& [name, tensor] : part) tensors.emplace(prefix + name, tensor);
  };
  visit_parts(trainer.state(), add);
  visit_method(trainer.state(), add);
  tensors.emplace("step", trainer.state().step);
  visit_loss_scale(trainer.state(), [&](const char* name, DType, const Tensor& tensor) {
    tensors.emplace(name, tensor);
  });
  save_tensors(
      path, tensors,
      {{metadata_key, info_to_json(info).dump(-1, ' ', false, json::error_handler_t::replace)}});
}

CheckpointInfo read_checkpoint_info(const std::filesystem::path& path, const MethodTable& methods) {
  const SafetensorsFile file(path);
  CheckpointInfo info = info_of(file, path.string(), methods);
  check_entries(file, info, path.string());
  return info;
}

void match_classes(DataSet& data, const CheckpointInfo& info) {
  const CheckpointInfo::Data& before = info.data;
  if (before.class_names.empty()) {
    // Older files: where classes are numbers, those are their names.
    if (data.classes() > 0 && data.classes() < before.classes) {
      const std::vector<std::string> numbers = numbered_classes(before.classes);
      const std::vector<std::int32_t> places = places_of(data.class_names(), numbers);
      if (std::ranges::count(places, -1) == 0) data.number_classes(numbers);
    }
    return;
  }
  const auto refuse = [&](const std::string& why) {
    throw Error("resume: the classes of the data are not those of the run: " + why +
                "; --relabel takes them in their order, whatever they are called");
  };
  std::vector<std::string> wanted;
  for (std::size_t i = 0; i < before.class_names.size(); ++i)
    if (std::ranges::count(before.untrained_classes, static_cast<std::int32_t>(i)) == 0)
      wanted.push_back(before.class_names[i]);
  const std::vector<std::int32_t> places = places_of(data.class_names(), before.class_names),
                                  found = places_of(wanted, data.class_names());
  if (std::ranges::count(places, -1) > 0 || std::ranges::count(found, -1) > 0)
    refuse(class_difference("the run", wanted, data.name(), data.class_names()));
  const std::vector<std::string> marks = data.class_marks();  // reads a sample of each class
  if (const std::string exchanged =
          exchanged_classes(before.class_names, before.class_marks, data.class_names(), marks);
      !exchanged.empty())
    refuse(exchanged);
  if (are_other_data(before.class_marks, marks))
    refuse("none of them begins in " + data.name() + " with the sample that it had in " +
           before.name);
  data.number_classes(before.class_names);
}

Trainer resume_trainer(const std::filesystem::path& path, std::shared_ptr<const DataSet> data,
                       const Device& device, ClassesBy classes, const MethodTable& methods,
                       const ResumedRate& rate) {
  const SafetensorsFile file(path);
  CheckpointInfo info = info_of(file, path.string(), methods);
  check_entries(file, info, path.string());

  const CheckpointInfo::Data now = data_of(*data, {}), before = info.data;
  const auto differs = [&](const std::string& what, const std::string& was, const std::string& is) {
    throw Error("resume: " + path.string() + " was trained on " + before.name + " with " + what +
                " " + was + ", " + now.name + " has " + is);
  };
  if (now.sample_shape != before.sample_shape)
    differs("samples of shape", to_string(before.sample_shape), to_string(now.sample_shape));
  if (now.classes != before.classes)
    differs("a number of classes of", std::to_string(before.classes), std::to_string(now.classes));
  if (classes == ClassesBy::name && !before.class_names.empty() &&
      now.class_names != before.class_names) {
    const std::string difference =
        class_difference("the run", before.class_names, now.name, now.class_names);
    throw Error("resume: " + path.string() +
                ": the classes of the data are not those of the run: " +
                (difference.empty() ? "they have another order" : difference));
  }
  if (now.size != before.size) {
    const auto text = [](std::optional<std::int64_t> size) {
      return size ? std::to_string(*size) : std::string("no end");
    };
    differs("a number of samples of", text(before.size), text(now.size));
  }

  TrainState state = empty_state(info.config);
  const auto load = [&](const std::string& name) {
    const SafetensorsEntry* entry = file.find(name);
    check_values(*entry, path.string());
    return Tensor::from_bytes(entry->bytes, entry->type(), device);
  };
  visit_parts(state, [&](const std::string& prefix, Parameters& part) {
    for (const auto& [name, shape] : trained_shapes(info.config))
      part.emplace(name, load(prefix + name));
  });
  visit_method(state, [&](const std::string& prefix, Parameters& part) {
    for (const auto& [name, shape] : network_shapes(info.config))
      part.emplace(name, load(prefix + name));
  });
  state.step = load("step");
  visit_loss_scale(state, [&](const char* name, DType, Tensor& tensor) { tensor = load(name); });
  file.check_content();
  file.check_whole();
  if (const std::int64_t step = state.step.item<std::int32_t>(); step != info.step)
    throw FormatError(path.string() + ": its metadata speak of step " + std::to_string(info.step) +
                      ", its tensors of " + std::to_string(step));
  if (rate.learning_rate) info.config.schedule.learning_rate = *rate.learning_rate;
  if (rate.clip_norm) info.config.optimiser.clip_norm = *rate.clip_norm;
  return Trainer(info.config, std::move(data), device, std::move(state));
}

std::uint64_t checkpoint_bytes(const TrainingConfig& config) {
  const auto total = [](const std::map<std::string, Shape>& shapes) {
    std::uint64_t elements = 0;
    for (const auto& [name, shape] : shapes)
      elements += static_cast<std::uint64_t>(shape.elements());
    return elements;
  };
  const std::uint64_t elements =
      (3 + config.optimiser.ema_decays.size()) * total(trained_shapes(config)) +
      state_trees(config.method).size() * total(network_shapes(config));
  const std::size_t scalars = needs_loss_scale(config.precision) ? 4 : 1;
  return elements * sizeof(float) + scalars * sizeof(std::int32_t);
}

}  // namespace fluxion
