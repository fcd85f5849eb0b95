// The settings of `fluxion train`: from the command line, a configuration file, a preset or a
// checkpoint to what the library is called with.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/data_options.h"
#include "models/data/data_set.h"
#include "models/training/config.h"

namespace fluxion::cli {

// Values for the options of methods, by name; what is empty was not given.
struct MethodValues {
  std::map<std::string, std::optional<double>> reals;
  std::map<std::string, std::optional<std::int64_t>> wholes;
  std::map<std::string, std::optional<std::string>> texts;
};

// What is empty takes a default that depends on the data.
struct TrainOptions : CommonOptions, DataOptions {
  MethodTable methods = built_in_methods();
  std::string method = "meanflow";
  MethodValues method_values;
  std::string coupling = "independent";
  std::optional<double> coupling_epsilon;
  std::optional<std::string> source;
  std::optional<std::string> net, architecture;
  std::optional<std::int64_t> width, depth, heads, patch, frequencies;
  std::vector<std::int64_t> channel_mult, attention;  // attention {0}: at no level
  std::optional<std::int64_t> steps;
  bool no_step_limit = false;  // of a run that goes on: it began without one
  double minutes = 0;
  std::string batch;  // a number, "auto", or empty
  std::string optimiser = "adamw";
  std::optional<double> learning_rate;
  std::optional<std::string> schedule;
  double final_learning_rate = 0;
  std::optional<std::int64_t> warm_up;
  double clip = 1;
  double weight_decay = 0;
  std::vector<double> ema = {0.999};
  bool recompute = false;
  double dropout = 0;
  std::optional<std::string> init;
  std::string precision = "f32";
  std::uint64_t seed = 0;
  std::string out = "out";
  double save_every = 60;
  std::string checkpoint_every = "60s";
  // Of this call alone, in no configuration.
  std::string preset, config_file;
  std::optional<std::string> resume;  // a folder or checkpoint; "": that of --out
  bool quiet = false, list_presets = false, list_methods = false, relabel = false;
};

// Gives an option without a value this one.
template <class T, class U>
void default_to(std::optional<T>& option, U value) {
  if (!option) option = value;
}

// One option for each of `options.methods`, too.
void add_train_options(const Parser& parser, TrainOptions& options);

// Gives every setting of `values`, {"width": 128, ..} as config.json has them, that has no value
// yet to the parser, which checks it like one from the command line. `source` stands for the file
// in messages. Throws FormatError for a name that is no setting, naming the nearest, and for a
// wrong value.
void fill_settings(const Parser& parser, const nlohmann::json& values, const std::string& source);

// Reads a configuration file for fill_settings. Throws IoError, FormatError.
nlohmann::json read_settings(const std::string& path);

// Makes the paths of data and of --init such that they hold from anywhere: so that a run goes on
// from anywhere, and its models know what they were trained on.
void use_absolute_paths(TrainOptions& options);

// Replaces what is empty by the defaults for this data, so that the settings say all; throws Error
// where they contradict each other or the data. A batch of "auto" stays.
void resolve(TrainOptions& options, const DataSet& data);

// The settings that the parser has values for.
std::set<std::string> given_settings(const Parser& parser);

// Throws Error for a setting among `given` that this run would not read.
void check_read(const TrainOptions& options, const TrainingConfig& config,
                const std::set<std::string>& given);

// The names among `values`, as a configuration has them, that this run would not read.
std::vector<std::string> unread_settings(const TrainOptions& options, const TrainingConfig& config,
                                         const nlohmann::json& values);

// The settings of resolved options, as config.json has them.
nlohmann::json settings_of(const TrainOptions& options);

// Throws Error, naming the option, where `now` differs from `before` in what a run can't change on
// its way. Data on disk may have another path.
void check_unchanged(const nlohmann::json& before, const nlohmann::json& now);

// Whether a run that goes on may have other values for all of these settings.
bool can_change_later(const std::set<std::string>& settings);

// The library's configuration of resolved options.
TrainingConfig training_config(const TrainOptions& options, const DataSet& data);

// "500steps", or "30", "30s", "5m", "1h" of time; 0 in what is not meant. Throws Error.
struct Interval {
  double seconds = 0;
  std::int64_t steps = 0;
};
Interval interval_from(const std::string& text);

}  // namespace fluxion::cli
