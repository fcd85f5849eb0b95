#include "cli/train_options.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/nearest_name.h"
#include "cli/train_method.h"
#include "cli/train_network.h"
#include "engine/error.h"
#include "engine/number_text.h"
#include "engine/platform/file.h"
#include "models/json_text.h"

namespace fluxion::cli {

namespace {

using nlohmann::json;

// Values that make good samples in minutes on a CPU.
struct Defaults {
  std::int64_t width, depth, frequencies, steps, batch;
  const char* schedule;  // of a run known to go beyond its warm-up; else constant
  double learning_rate;
};
constexpr Defaults image_defaults{.width = 128,
                                  .depth = 4,
                                  .frequencies = 0,
                                  .steps = 4000,
                                  .batch = 64,
                                  .schedule = "constant",
                                  .learning_rate = 1e-3};
// The steep map from noise to separate modes takes a high rate that comes to rest.
constexpr Defaults point_defaults{.width = 128,
                                  .depth = 3,
                                  .frequencies = 3,
                                  .steps = 30000,
                                  .batch = 512,
                                  .schedule = "cosine",
                                  .learning_rate = 5e-3};
const Defaults& defaults_for(const DataSet& data) {
  return data.is_image() ? image_defaults : point_defaults;
}

// Of the learning rate.
constexpr std::int64_t usual_warm_up = 100;

// What a run may change when it goes on.
const std::set<std::string> limits = {"steps",  "minutes", "out", "save-every", "checkpoint-every",
                                      "device", "lr",      "clip"};

// What runs from before there was a choice do.
const std::map<std::string, std::string> once_the_only = {
    {"precision", "f32"}, {"optimiser", "adamw"}, {"coupling", "independent"}};

std::string text_of(const json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// Options of one call.
const std::set<std::string> no_settings = {"preset",       "config",  "resume",
                                           "memory-limit", "quiet",   "list-presets",
                                           "list-methods", "relabel", "json"};

// The parser's option for each setting.
std::map<std::string, Option> setting_options(const Parser& parser) {
  std::map<std::string, Option> result;
  for (const Option& option : parser.options())
    for (const std::string& name : option.long_names())
      if (!no_settings.contains(name)) result.emplace(name, option);
  return result;
}

[[noreturn]] void unknown_setting(const std::map<std::string, Option>& known,
                                  const std::string& name, const std::string& source) {
  if (no_settings.contains(name))
    throw FormatError(source + ": '" + name + "' is an option of the command line only");
  std::vector<std::string> names;
  for (const auto& [setting, option] : known) names.push_back(setting);
  const std::optional<std::string> nearest = nearest_name(name, names);
  throw FormatError(source + ": '" + name + "' is no setting" +
                    (nearest ? " (did you mean '" + *nearest + "'?)" : "") +
                    "; `fluxion train --help` lists them");
}

// As the command line has it. A value that no option takes - an object, a list of lists - is
// refused here.
std::string argument_of(const json& value, const std::string& name, const std::string& source) {
  const auto plain = [&](const json& item) {
    if (item.is_structured())
      throw FormatError(source + ": '" + name + "' is " +
                        value.dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 80) +
                        "; settings are texts, numbers or lists of them");
    return text_of(item);
  };
  if (!value.is_array()) return plain(value);
  std::string list;
  for (const json& item : value) list += (list.empty() ? "" : ",") + plain(item);
  return list;
}

bool is_built_in(const std::string& data) {
  const std::vector<DataSetDescription>& sets = built_in_data_sets();
  return std::any_of(sets.begin(), sets.end(),
                     [&](const DataSetDescription& set) { return set.name == data; });
}

// How a setting has no effect, "on a constant schedule"; "" where it has one.
std::string unread_because(const TrainOptions& options, const TrainingConfig& config,
                           const std::string& name) {
  if (name == "final-lr" && options.schedule == "constant")
    return "on a constant schedule, which --schedule cosine would change";
  if (name == "coupling-epsilon" && options.coupling != "sinkhorn")
    return "on --coupling " + options.coupling + ", but on sinkhorn";
  return why_unread(config.method, num_classes(config.network) > 0, options.methods, name);
}

// The values that the config.json of a run has of what the run does not read.
bool changes_nothing(const MethodConfig& method, const std::string& name, const json& value) {
  if (name == "final-lr") return value == 0;
  if (!method.options.has(name)) return false;
  const MethodOption& option = method.method->option(name);
  const auto is_default = [&](SampleKind kind) {
    return std::visit([&](const auto& each) { return value == json(each); },
                      option.default_for(kind));
  };
  return is_default(SampleKind::images) || is_default(SampleKind::points);
}

template <class T>
json optional_json(const std::optional<T>& value) {
  return value ? json(*value) : json();
}

json list_json(const std::vector<std::int64_t>& values) {
  return values.empty() ? json() : json(values);
}

}  // namespace

json read_settings(const std::string& path) {
  constexpr std::size_t largest = 1 << 20;
  const MappedFile file{std::filesystem::path(path)};
  if (file.bytes().size() > largest)
    throw FormatError(path + ": a configuration of more than 1 MiB");
  json settings = parse_json(
      {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}, path, true);
  file.check_whole();
  return settings;
}

void fill_settings(const Parser& parser, const json& values, const std::string& source) {
  if (!values.is_object())
    throw FormatError(source + ": wants an object {\"data\": .., \"steps\": .., ..} of settings");
  const std::map<std::string, Option> known = setting_options(parser);
  if (values.contains("method") && values.contains("objective"))
    throw FormatError(source + ": 'objective' and 'method' say the same; leave out 'objective'");
  // Two names of one setting: where the parser has a value for either, this one is not read.
  if (values.contains("device") && values.contains("threads"))
    throw FormatError(source + ": 'threads' and 'device' say the same; leave out 'threads'");
  const bool has_device = known.at("device").given() || known.at("threads").given();
  for (const auto& [name, value] : values.items()) {
    const auto found = known.find(name);
    if (found == known.end()) unknown_setting(known, name, source);
    if (found->second.given() || value.is_null()) continue;
    if (has_device && (name == "device" || name == "threads")) continue;
    try {
      found->second.give(argument_of(value, name, source));
    } catch (const FormatError&) {
      throw;
    } catch (const Error& error) {
      throw FormatError(source + ": " + error.what());
    }
  }
}

std::set<std::string> given_settings(const Parser& parser) {
  std::set<std::string> given;
  for (const auto& [name, option] : setting_options(parser))
    if (option.given()) given.insert(name);
  return given;
}

void check_read(const TrainOptions& options, const TrainingConfig& config,
                const std::set<std::string>& given) {
  for (const std::string& name : given)
    if (const std::string why = unread_because(options, config, name); !why.empty())
      throw Error("train: --" + name + " has no effect " + why + "; leave it out");
}

std::vector<std::string> unread_settings(const TrainOptions& options, const TrainingConfig& config,
                                         const json& values) {
  std::vector<std::string> unread;
  for (const auto& [name, value] : values.items())
    if (!value.is_null() && !unread_because(options, config, name).empty() &&
        !changes_nothing(config.method, name, value))
      unread.push_back(name);
  return unread;
}

void use_absolute_paths(TrainOptions& options) {
  const auto make_absolute = [](std::string& path) {
    std::error_code missing;
    if (std::filesystem::exists(path, missing))
      path = std::filesystem::absolute(path).lexically_normal().string();
  };
  if (!is_built_in(options.data)) make_absolute(options.data);
  if (options.init) make_absolute(*options.init);
}

void resolve(TrainOptions& options, const DataSet& data) {
  const Defaults& defaults = defaults_for(data);
  resolve_network(options, data, {defaults.width, defaults.depth, defaults.frequencies});
  resolve_method(options, data.is_image() ? SampleKind::images : SampleKind::points);

  if (options.minutes == 0 && !options.no_step_limit) default_to(options.steps, defaults.steps);
  default_to(options.schedule,
             options.steps && *options.steps > options.warm_up.value_or(usual_warm_up)
                 ? defaults.schedule
                 : "constant");
  if (options.schedule == "cosine" && !options.steps)
    throw Error(
        "train: --schedule cosine goes over a number of steps; give --steps (beside --minutes, if "
        "you like)");
  if (options.schedule == "cosine" && *options.steps <= usual_warm_up)
    default_to(options.warm_up, *options.steps / 10);
  default_to(options.warm_up, usual_warm_up);
  // The schedule of a run that goes on is what it was, however many steps of it are left.
  if (options.schedule == "cosine" && *options.steps <= *options.warm_up && !options.resume)
    throw Error("train: --warmup " + std::to_string(*options.warm_up) + " leaves none of --steps " +
                std::to_string(*options.steps) + " to --schedule cosine; a --warmup below " +
                std::to_string(*options.steps) + " would");
  if (options.batch.empty()) options.batch = std::to_string(defaults.batch);
  // What is not read has one value; a run that goes on may have another from a configuration.
  if (options.schedule == "constant" && !options.resume) options.final_learning_rate = 0;
  if (options.coupling != "sinkhorn") options.coupling_epsilon.reset();
  if (options.coupling == "sinkhorn") default_to(options.coupling_epsilon, Coupling().epsilon);
  default_to(options.learning_rate, defaults.learning_rate);
  if (options.schedule == "cosine" && options.final_learning_rate > *options.learning_rate)
    throw Error("train: --final-lr " + number_text(options.final_learning_rate) +
                " is above the learning rate, " + number_text(*options.learning_rate) +
                ", from which --schedule cosine falls to it");
  if (options.ema.size() > most_averages)
    throw Error("train: --ema has " + std::to_string(options.ema.size()) + " decays; at most " +
                std::to_string(most_averages) + " are possible");
}

json settings_of(const TrainOptions& options) {
  json settings = {{"data", options.data},
                   {"image-size", optional_json(options.image_size)},
                   {"channels", optional_json(options.channels)},
                   {"flip", options.flip},
                   {"no-labels", options.no_labels},
                   {"coupling", options.coupling},
                   {"coupling-epsilon", optional_json(options.coupling_epsilon)},
                   {"source", optional_json(options.source)},
                   {"net", optional_json(options.net)},
                   {"architecture", optional_json(options.architecture)},
                   {"width", optional_json(options.width)},
                   {"depth", optional_json(options.depth)},
                   {"heads", optional_json(options.heads)},
                   {"patch", optional_json(options.patch)},
                   {"frequencies", optional_json(options.frequencies)},
                   {"channel-mult", list_json(options.channel_mult)},
                   {"attention", list_json(options.attention)},
                   {"steps", optional_json(options.steps)},
                   {"minutes", options.minutes},
                   {"optimiser", options.optimiser},
                   {"lr", optional_json(options.learning_rate)},
                   {"schedule", optional_json(options.schedule)},
                   {"final-lr", options.final_learning_rate},
                   {"warmup", optional_json(options.warm_up)},
                   {"clip", options.clip},
                   {"weight-decay", options.weight_decay},
                   {"ema", options.ema},
                   {"recompute", options.recompute ? json(true) : json()},
                   {"dropout", options.dropout > 0 ? json(options.dropout) : json()},
                   {"init", optional_json(options.init)},
                   {"precision", options.precision},
                   {"seed", options.seed},
                   {"out", options.out},
                   {"save-every", options.save_every},
                   {"checkpoint-every", options.checkpoint_every},
                   {"device", device_name(options)}};
  set_method(settings, method_for(options), options.methods);
  settings["batch"] = options.batch == "auto" ? json("auto") : json(std::stoll(options.batch));
  for (auto entry = settings.begin(); entry != settings.end();)
    entry = entry->is_null() ? settings.erase(entry) : std::next(entry);
  return settings;
}

void check_unchanged(const json& before, const json& now) {
  std::string conflicts;
  for (const auto& [name, value] : now.items()) {
    if (limits.contains(name)) continue;
    const auto found = before.find(name);
    if (found != before.end() && *found == value) continue;
    if (const auto only = once_the_only.find(name);
        only != once_the_only.end() && found == before.end() && value == only->second)
      continue;
    // Files may have moved; that they hold the same kind of data is checked when they are open.
    if (name == "data" && found != before.end() && found->is_string() && !is_built_in(*found) &&
        !is_built_in(value))
      continue;
    // Of a constant schedule it is not read, and a configuration may hold any.
    if (name == "final-lr" && now.value("schedule", "") == "constant") continue;
    conflicts += (conflicts.empty() ? "--" : ", --") + name + " " +
                 argument_of(value, name, "settings") + " (the checkpoint has " +
                 (found == before.end() ? "none" : argument_of(*found, name, "settings")) + ")";
  }
  if (conflicts.empty()) return;
  throw Error("resume: a run goes on with what it began with, but " + conflicts +
              "; only --steps, --minutes, --lr, --clip, --out, --device, the intervals of saving "
              "and the path of the data may change");
}

bool can_change_later(const std::set<std::string>& settings) {
  return std::ranges::includes(limits, settings);
}

TrainingConfig training_config(const TrainOptions& options, const DataSet& data) {
  TrainingConfig config;
  config.network = network_for(options, data);
  config.method = method_for(options);
  if (config.method.method->has_schedule) config.total_steps = options.steps.value_or(0);
  config.optimiser = {.kind = optimiser_kind_from(options.optimiser),
                      .weight_decay = options.weight_decay,
                      .clip_norm = options.clip,
                      .ema_decays = options.ema};
  config.schedule = {.kind = schedule_kind_from(*options.schedule),
                     .learning_rate = *options.learning_rate,
                     .warm_up_steps = *options.warm_up,
                     .final_learning_rate = options.final_learning_rate,
                     .steps = options.schedule == "cosine" ? *options.steps : 0};
  config.batch = options.batch == "auto" ? 1 : std::stoll(options.batch);
  config.coupling.kind = coupling_kind_from(options.coupling);
  if (options.coupling_epsilon) config.coupling.epsilon = *options.coupling_epsilon;
  config.coupling.source = options.source.value_or("");
  config.seed = options.seed;
  config.recompute = options.recompute;
  config.dropout = options.dropout;
  config.precision = precision_from(options.precision);
  return config;
}

Interval interval_from(const std::string& text) {
  constexpr double most = 1e9;  // seconds or steps
  const std::size_t end = std::min(text.find_first_not_of("0123456789.e+-"), text.size());
  const double value = parse_number<double>(std::string_view(text).substr(0, end)).value_or(-1);
  const std::string unit = text.substr(end);
  const double scale = unit == "h" ? 3600 : unit == "m" ? 60 : 1;
  if (value >= 0 && value * scale <= most) {
    if ((unit == "steps" || unit == "step") && value == std::floor(value))
      return {.steps = static_cast<std::int64_t>(value)};
    if (unit.empty() || unit == "s" || unit == "m" || unit == "h")
      return {.seconds = scale * value};
  }
  throw Error("'" + text.substr(0, 100) +
              "' is no interval; write 500steps, 30s, 5m or 1h, from 0 to 1e9 seconds or steps");
}

}  // namespace fluxion::cli
