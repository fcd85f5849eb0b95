// fluxion train: data set in, model file out.
#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/progress.h"
#include "cli/train_method.h"
#include "cli/train_options.h"
#include "cli/train_pairs.h"
#include "cli/train_presets.h"
#include "engine/error.h"
#include "engine/number_text.h"
#include "engine/platform/interrupt.h"
#include "engine/platform/machine.h"
#include "models/data/class_names.h"
#include "models/json_text.h"
#include "models/training/checkpoint.h"
#include "models/training/memory.h"
#include "models/training/run.h"

namespace fluxion::cli {

namespace {

namespace fs = std::filesystem;

// Neither a built-in set nor anything that is there.
bool is_missing(const std::string& data) {
  const auto& sets = built_in_data_sets();
  return !fs::exists(data) &&
         std::none_of(sets.begin(), sets.end(), [&](const auto& set) { return set.name == data; });
}

// The checkpoint to go on from; empty for a new run.
fs::path checkpoint_of(const TrainOptions& options) {
  if (!options.resume) return {};
  const fs::path place = options.resume->empty() ? options.out : *options.resume;
  if (!fs::exists(place))
    throw IoError("train: " + place.string() +
                  " is not there; --resume takes the folder of a run, or a checkpoint of it");
  if (!fs::is_directory(place)) return place;
  const fs::path own = place / "checkpoint.safetensors";
  if (fs::exists(own)) return own;
  // The run may have ended before it saved anything, in the folder of another.
  std::vector<std::string> others;
  std::error_code unreadable;
  for (const auto& entry : fs::directory_iterator(place, unreadable))
    if (const std::string name = entry.path().filename().string();
        name.starts_with("checkpoint-") && name.ends_with(".safetensors"))
      others.push_back((place / name).string());
  std::sort(others.begin(), others.end());
  std::string message =
      "train: " + place.string() + " holds no checkpoint.safetensors: no run was saved there";
  for (std::size_t i = 0; i < others.size(); ++i)
    message += (i == 0 ? "; of a run before there is " : ", ") + others[i];
  if (!others.empty()) message += ", which --resume takes";
  throw IoError(message);
}

// A configuration tells where its run was, not that another should take its place.
void check_configured_folder(const Parser& parser, const TrainOptions& options) {
  if (!parser.option("--out").given()) return;
  for (const char* name : {"checkpoint.safetensors", "model.safetensors"})
    if (fs::exists(fs::path(options.out) / name))
      throw Error("train: " + options.out + ", the folder that " + options.config_file +
                  " names, holds a run: --out says where this one goes, and --resume " +
                  options.out + " goes on with that one");
}

// Settings of a run that goes on, where the command line, --config and --preset have none.
void take_settings(const Parser& parser, TrainOptions& options, const nlohmann::json& before) {
  if (!parser.option("--out").given() && !options.resume->empty()) {
    const fs::path place = *options.resume;
    options.out = (fs::is_directory(place) ? place : fs::absolute(place).parent_path()).string();
  }
  nlohmann::json rest = before;
  rest.erase("out");
  if (const auto batch = before.find("batch");
      options.batch == "auto" && batch != before.end() && batch->is_number_integer())
    options.batch = batch->dump();
  fill_settings(parser, rest, "settings of the checkpoint");
  options.no_step_limit = !before.empty() && !before.contains("steps");
}

// Settings are kept as JSON, which is UTF-8.
void check_text(const std::string& name, const std::string& text) {
  try {
    nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    throw Error("train: --" + name + " " + printable(text) +
                " is not UTF-8, in which settings are kept; rename it or give a link to it");
  }
}

// The settings of a checkpoint, with the method as it reads it: older files say it in other words.
nlohmann::json settings_in(const CheckpointInfo& info, const fs::path& path,
                           const MethodTable& methods) {
  nlohmann::json settings = parse_json(info.settings, path.string() + ": its settings");
  if (!settings.is_object())
    throw FormatError(path.string() + ": its settings are not a JSON object");
  if (!settings.empty()) set_method(settings, info.config.method, methods);
  return settings;
}

// Of --batch auto: larger batches learn little more from a step, least of all those beyond the set.
// A coupling takes time that grows with the cube of it.
std::int64_t most_for(const DataSet& data, const TrainingConfig& config) {
  std::int64_t most = 256;
  if (!data.is_image()) most = config.coupling.kind == CouplingKind::independent ? 4096 : 512;
  return std::min(most, std::max<std::int64_t>(1, data.size().value_or(most)));
}

// What the data make likely to disappoint.
void warn_of(const DataSet& data, const TrainingConfig& config, bool flip, const Streams& streams) {
  constexpr std::int64_t few_images = 1000;
  if (!data.is_image() || !data.size()) return;
  if (const std::int64_t count = *data.size(); count < few_images) {
    streams.error << "warning    only " << counted(count, "image")
                  << ": samples may be copies of them, which `fluxion eval --model "
                     "OUT/model.safetensors --neighbours FILE.png` shows"
                  << (flip ? "" : "; --flip adds their mirror images") << "\n";
    if (config.batch > count)
      streams.error << "warning    a batch of " << config.batch << " holds images more than once; "
                    << "--batch " << count << " makes each step faster\n";
  }
}

// A configuration may be that of a run of another method; the command line is this run's alone.
void warn_of_unread(const TrainOptions& options, const std::vector<std::string>& unread,
                    const Streams& streams) {
  if (unread.empty()) return;
  std::string names;
  for (const std::string& name : unread) names += (names.empty() ? "" : ", ") + name;
  streams.error << "warning    " + printable(options.config_file) +
                       " has settings that this run does not use: " + names + "\n";
}

// Chooses the batch of --batch auto, and refuses what the machine can't hold before anything runs.
// Returns what a step needs.
MemoryReport fit_memory(const TrainOptions& options, TrainingConfig& config, const DataSet& data,
                        const Device& device) {
  const std::uint64_t free = free_memory(options, device, data.bytes_to_come());
  if (options.batch == "auto") {
    config.batch = largest_batch(config, device, free, most_for(data, config), data.has_noise());
    if (config.batch == 0)
      throw OutOfMemory(
          "train: " + bytes_text(free) +
          " of memory are free, which is too little for this network even with a batch of 1; " +
          "a smaller --width or --depth would fit");
    return step_memory(config, device, data.has_noise());
  }
  const MemoryReport report = step_memory(config, device, data.has_noise());
  if (const std::uint64_t needed = run_memory(config, report, data.has_noise()); needed > free) {
    const std::string problem = "train: a batch of " + std::to_string(config.batch) + " needs " +
                                bytes_text(needed) + " of memory, " + bytes_text(free) +
                                " are free";
    if (options.resume)
      throw OutOfMemory(
          problem + "; a run that goes on keeps its batch, so it has to wait until there is more");
    const std::int64_t fits = largest_batch(config, device, free, config.batch, data.has_noise());
    throw OutOfMemory(problem + "; " +
                      (fits > 0 ? "--batch " + std::to_string(fits) + " would fit"
                                : "a smaller --width or --depth would fit"));
  }
  return report;
}

// Without `memory`, no step is run.
void describe(const Trainer& trainer, const std::optional<MemoryReport>& memory,
              const TrainOptions& options, const Streams& streams) {
  const TrainingConfig& config = trainer.config();
  // Whole before it is written: what fails on the way must not leave half a line.
  std::ostringstream to;
  to << "data       " << (trainer.data().has_noise() ? "pairs of " : "") << trainer.data().name()
     << " " << to_string(trainer.data().sample_shape());
  if (num_classes(config.network) > 0)
    to << ", " << num_classes(config.network)
       << " classes: " << printable(class_list(trainer.data().class_names()), 500);
  to << "\nnetwork    " << family(config.network) << ", "
     << grouped(parameter_count(config.network)) << " parameters\nmethod     "
     << config.method.method->name
     << (config.coupling.source.empty() ? "" : ", from " + config.coupling.source)
     << (config.coupling.kind == CouplingKind::independent
             ? ""
             : ", noise coupled by " + to_string(config.coupling.kind))
     << "\ndevice     " << trainer.device().name() << "\nbatch      " << config.batch
     << (options.batch == "auto" ? ", the largest that fits, of at most " +
                                       std::to_string(most_for(trainer.data(), config)) + "\n"
                                 : "\n");
  if (config.precision != fluxion::Precision{})
    to << "precision  " << to_string(config.precision) << "\n";
  if (memory)
    to << "memory     " << bytes_text(run_memory(config, *memory, trainer.data().has_noise()))
       << " at most, " << bytes_text(memory->peak_bytes()) << " of them in a step of "
       << memory->kernels << " kernels\n";
  to << "folder     " << options.out << "\n";
  if (!memory)
    to << "ended      after step " << grouped(trainer.steps_done())
       << ": what its checkpoint holds is written, and nothing is trained\n";
  else if (trainer.steps_done() > 0)
    to << "going on   after step " << grouped(trainer.steps_done()) << "\n";
  streams.error << to.str();
}

void print_summary(const RunSummary& summary, const Trainer& trainer,
                   const std::optional<MemoryReport>& memory, const TrainOptions& options,
                   const Streams& streams) {
  const RunProgress& last = summary.last;
  if (options.json) {
    const TrainingConfig& config = trainer.config();
    write_json(streams.out, {{"data", trainer.data().name()},
                             {"method", config.method.method->name},
                             {"network", family(config.network)},
                             {"parameters", parameter_count(config.network)},
                             {"seed", config.seed},
                             {"batch", config.batch},
                             {"steps", last.step},
                             {"seconds", last.seconds},
                             {"steps_per_second", last.steps_per_second},
                             {"loss", last.loss},
                             {"error", last.error},
                             {"gradient_norm", last.gradient_norm},
                             {"peak_bytes", memory ? memory->peak_bytes() : 0},
                             {"peak_process_bytes", last.peak_memory_bytes},
                             {"kernels", memory ? memory->kernels : 0},
                             {"traces", trainer.traces()},
                             {"interrupted", summary.stopped},
                             {"model", summary.model.string()},
                             {"raw_model", summary.raw_model.string()},
                             {"checkpoint", summary.checkpoint.string()},
                             {"samples", summary.samples.string()},
                             {"chart", summary.chart.string()},
                             {"log", summary.log.string()}});
  } else if (!options.quiet) {
    streams.out << counted(last.step, "step") << " in " << clock_text(last.seconds);
    if (memory) streams.out << ", error " << last.error;
    streams.out << "\nmodel    " << summary.model.string() << "\nsamples  "
                << summary.samples.string() << "\nchart    " << summary.chart.string() << std::endl;
  }
}

int train(TrainOptions& options, const Parser& parser, const Streams& streams) {
  if (options.list_presets) {
    streams.out << preset_list() << std::flush;
    return 0;
  }
  if (options.list_methods) {
    streams.out << method_list(options.methods) << std::flush;
    return 0;
  }
  const std::set<std::string> given = given_settings(parser);
  nlohmann::json configured = nlohmann::json::object();
  if (!options.config_file.empty()) {
    configured = read_settings(options.config_file);
    fill_settings(parser, configured, options.config_file);
    if (!options.resume && !given.contains("out")) check_configured_folder(parser, options);
  }
  if (!options.preset.empty()) {
    nlohmann::json settings = preset_settings(options.preset);
    // Whoever says how many updates wants them all.
    if (options.steps) settings.erase("minutes");
    // The shapes of networks in presets are those of a dit.
    if (options.net.value_or("dit") != "dit")
      for (const char* name : {"patch", "heads", "width", "depth"}) settings.erase(name);
    fill_settings(parser, settings, "preset " + options.preset);
  }
  const bool states_heads = options.heads.has_value();
  // Some presets are for data that only the user has, under a name that stands for it.
  if (!options.preset.empty() && !given.contains("data") && is_missing(options.data))
    throw Error("train: --preset " + options.preset +
                " is for data of yours: add --data with the path of their folder");
  const fs::path checkpoint = checkpoint_of(options);
  std::optional<CheckpointInfo> before;
  if (options.relabel && !options.resume)
    throw Error("train: --relabel belongs to --resume: a new run takes the classes of its data");
  if (options.resume) before = read_checkpoint_info(checkpoint, options.methods);
  const nlohmann::json settings_before =
      before ? settings_in(*before, checkpoint, options.methods) : nlohmann::json();
  if (before) take_settings(parser, options, settings_before);
  // (Without settings in the checkpoint, the steps are known when the data are.)
  const auto limits_now = [&] {
    return RunLimits{.steps = options.steps.value_or(std::numeric_limits<std::int64_t>::max()),
                     .minutes = options.minutes};
  };
  const auto ended = [&] {
    return before && has_ended(limits_now(), {.folder = options.out, .resumed_from = checkpoint},
                               before->step, before->seconds);
  };
  // Before anything that takes long, unless there is more to refuse once the data are known.
  if (can_change_later(given)) ended();
  use_absolute_paths(options);
  check_text("data", options.data);
  check_text("out", options.out);
  if (options.init) check_text("init", *options.init);
  for (const auto& [name, text] : options.method_values.texts)
    if (text) check_text(name, *text);
  if (options.out.empty()) throw Error("train: --out is empty; it wants a folder");
  if (!options.resume) {
    std::vector<NamedPath> read{{"--init", options.init.value_or("")}};
    for (const auto& [name, text] : options.method_values.texts)
      read.push_back({"--" + name, text.value_or("")});
    // (A further average of the run that was there before may be gone on from.)
    std::vector<NamedPath> written;
    for (const char* name : {"model.safetensors", "model-raw.safetensors"})
      written.push_back({"--out", (fs::path(options.out) / name).string()});
    check_files_differ("train", written, read);
  }

  const Device device = open_device(options, streams, options.quiet);
  if (const int stopped = prepare_pairs(options, given, device, streams)) return stopped;
  if (options.resume && !given.contains("data") && is_missing(options.data))
    throw IoError("train: " + options.data +
                  ", the data of this run, is not there; --data with their new path goes on");
  options.memory_bytes_limit = free_memory(options);
  const std::shared_ptr<DataSet> data = open_data_set(options, streams, options.quiet);
  resolve(options, *data);
  if (before && !settings_before.empty()) check_unchanged(settings_before, settings_of(options));
  if (before && !options.relabel) match_classes(*data, *before);

  TrainingConfig config = before ? before->config : training_config(options, *data);
  Start start;
  std::string start_note;
  if (!before && options.init) {
    const Model model = read_model(*options.init, device);
    start_note = take_start(config, model, *options.init);
    // Only these two have heads; those of a configuration or of the command line must be the
    // model's.
    const auto* dit = std::get_if<DitConfig>(&config.network);
    const auto* unet = std::get_if<UnetConfig>(&config.network);
    if (dit || unet) {
      const std::int64_t heads = dit ? dit->num_heads : unet->num_heads;
      if (states_heads && heads != *options.heads)
        throw Error("train: --init " + *options.init + " has " + counted(heads, "head") +
                    ", the options say " + grouped(*options.heads) + ": give --heads " +
                    std::to_string(heads));
      options.heads = heads;
    }
    start.parameters = model.parameters;
  }
  ResumedRate rate;
  if (before && !settings_before.empty()) {
    if (*options.learning_rate != config.schedule.learning_rate)
      rate.learning_rate = options.learning_rate;
    if (options.clip != config.optimiser.clip_norm) rate.clip_norm = options.clip;
  }
  if (rate.learning_rate)
    streams.error << "from here  a learning rate of " + number_text(*rate.learning_rate) +
                         ", which was " + number_text(config.schedule.learning_rate) + "\n";
  if (rate.clip_norm)
    streams.error << "from here  gradients clipped to " + number_text(*rate.clip_norm) +
                         ", which were to " + number_text(config.optimiser.clip_norm) + "\n";
  check_read(options, config, given);
  warn_of_unread(options, unread_settings(options, config, configured), streams);
  if (data->classes() > 0 && num_classes(config.network) == 0)
    streams.error << "warning    an " << family(config.network)
                  << " has no classes: those of the data are not used\n";
  const RunLimits limits = limits_now();
  if (before && config.schedule.kind == ScheduleKind::cosine &&
      config.schedule.final_learning_rate == 0 && limits.steps > config.schedule.steps)
    throw Error("resume: --steps " + std::to_string(limits.steps) + " goes beyond the " +
                std::to_string(config.schedule.steps) +
                " steps of the run's cosine schedule, at whose end the learning rate is 0");
  std::optional<MemoryReport> memory;
  if (!ended()) memory = fit_memory(options, config, *data, device);
  nlohmann::json settings = settings_of(options);
  settings["batch"] = config.batch;
  Trainer trainer = before ? resume_trainer(checkpoint, data, device,
                                            options.relabel ? ClassesBy::number : ClassesBy::name,
                                            options.methods, rate)
                           : Trainer(config, data, device, start);
  start = {};
  if (!options.quiet) {
    if (!before && !given.contains("data") && options.preset.empty() && options.config_file.empty())
      streams.error
          << "no --data  this trains on built-in digits; --data takes a folder of yours\n";
    describe(trainer, memory, options, streams);
    if (!before) warn_of(*data, config, options.flip, streams);
  }
  if (!options.quiet && !start_note.empty())
    streams.error << "begins     with " + printable(start_note, 1000) + " of " +
                         printable(*options.init) + "\n";

  const std::size_t warnings = data->warnings().size();
  RunSummary summary;
  int signal = 0;
  {
    TrainingProgress progress(streams, options.quiet);
    InterruptGuard interrupt;
    const RunHooks hooks{.report =
                             [&](const RunProgress& now) {
                               interrupt.signal();
                               progress.show(now);
                             },
                         .warn = [&](const std::string& text) { progress.warn(text); },
                         .stop = interrupt.token()};
    const Interval interval = interval_from(options.checkpoint_every);
    const RunOutput output{.folder = options.out,
                           .resumed_from = checkpoint,
                           .since_row = before ? before->since_row : LogSums(),
                           .save_seconds = options.save_every,
                           .checkpoint_seconds = interval.seconds,
                           .checkpoint_steps = interval.steps,
                           .settings = settings.dump(2)};
    summary = run_training(trainer, limits, output, hooks, before ? before->seconds : 0);
    signal = interrupt.signal();
  }
  show_warnings(*data, streams, warnings);
  if (summary.stopped && !options.quiet) {
    streams.error << "interrupted after step " << summary.last.step
                  << "; what was learned so far is saved, and `fluxion train --resume "
                  << options.out << "` goes on\n";
  }
  print_summary(summary, trainer, memory, options, streams);
  // A signal that came when nothing was left to stop has stopped nothing.
  return summary.stopped ? 128 + signal : 0;
}

}  // namespace

Command add_train(CommandLine& program, const Streams& streams, const MethodTable& methods) {
  auto options = std::make_shared<TrainOptions>();
  check_option_names(methods);
  options->methods = methods;
  const Parser parser = program.add_subcommand("train", "Train a generator on a data set");
  add_train_options(parser, *options);
  return {parser, [options, parser, &streams] { return train(*options, parser, streams); }};
}

}  // namespace fluxion::cli
