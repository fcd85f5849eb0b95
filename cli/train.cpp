// fluxion train: data set in, model file out.
#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>
#include <optional>

#include "backends/cpu/cpu.h"
#include "cli/command.h"
#include "cli/data_options.h"
#include "cli/progress.h"
#include "engine/error.h"
#include "engine/platform/interrupt.h"
#include "engine/platform/machine.h"
#include "models/training/run.h"

namespace fluxion::cli {

namespace {

// The command line. What is empty takes a default that depends on the data.
struct Options : CommonOptions {
  DataOptions data;
  std::string objective = "meanflow";
  std::optional<std::string> net;
  std::optional<std::int64_t> width, depth, heads, patch;
  std::optional<std::int64_t> steps;
  double minutes = 0;
  std::optional<std::int64_t> batch;
  std::optional<double> learning_rate;
  std::int64_t warm_up = 100;
  double clip = 1;
  double weight_decay = 0;
  double ema = 0.999;
  std::optional<double> omega, kappa;
  double label_dropout = 0.1;
  std::string tangent = "subset";
  std::optional<double> equal_share, power, time_mean, time_std;
  std::uint64_t seed = 0;
  std::string out = "out";
  double save_every = 60;
};

// Values that make good samples in minutes on a CPU.
struct Defaults {
  std::int64_t width, depth, steps, batch;
  double learning_rate, equal_share, power, time_mean, time_std;
};
constexpr Defaults image_defaults{
    .width = 128, .depth = 4, .steps = 4000, .batch = 64, .learning_rate = 1e-3, .equal_share = 0.75, .power = 1, .time_mean = -0.4, .time_std = 1};
// In the plane the weight of power 1 pulls samples onto ridges, and narrow times never show the network the whole way from noise to data.
constexpr Defaults point_defaults{
    .width = 128, .depth = 3, .steps = 8000, .batch = 512, .learning_rate = 3e-3, .equal_share = 0.5, .power = 0, .time_mean = 0, .time_std = 2};
const Defaults& defaults_for(const DataSet& data) { return data.is_image() ? image_defaults : point_defaults; }

NetworkConfig network_for(const Options& options, const DataSet& data) {
  const std::string net = options.net.value_or(data.is_image() ? "dit" : "mlp");
  const Defaults& defaults = defaults_for(data);
  const std::int64_t width = options.width.value_or(defaults.width), depth = options.depth.value_or(defaults.depth);
  if (net == "mlp") {
    if (data.is_image()) throw Error("train: --net mlp works on points; " + data.name() + " holds images, which --net dit takes");
    if (options.heads || options.patch) throw Error("train: --heads and --patch belong to --net dit");
    MlpConfig config{.data_dim = data.sample_shape()[0]};
    config.hidden.assign(static_cast<std::size_t>(depth), width);
    return config;
  }
  if (!data.is_image()) throw Error("train: --net dit works on images; " + data.name() + " holds points, which --net mlp takes");
  const Shape& image = data.sample_shape();
  if (image[0] != image[1]) throw Error("train: --net dit wants square images, " + data.name() + " has " + to_string(image) + "; see --image-size");
  DitConfig config{.image_size = image[0], .channels = image[2]};
  config.patch_size = options.patch.value_or(image[0] % 4 == 0 ? 4 : 2);
  config.hidden_size = width;
  config.depth = depth;
  config.num_heads = options.heads.value_or(std::max<std::int64_t>(1, width / 32));
  config.num_classes = data.classes();
  return config;
}

ObjectiveConfig objective_for(const Options& options, const DataSet& data) {
  ObjectiveConfig objective;
  const bool guided = options.omega || options.kappa;
  if (options.objective == "meanflow") {
    objective.kind = guided ? ObjectiveKind::meanflow_cfg : ObjectiveKind::meanflow;
  } else {
    if (guided) throw Error("train: --omega and --kappa train guidance into MeanFlow; with --objective " + options.objective + " leave them out");
    objective.kind = options.objective == "flow-matching" ? ObjectiveKind::flow_matching : ObjectiveKind::split_meanflow;
  }
  if (guided && data.classes() == 0) throw Error("train: --omega and --kappa need labelled data");
  objective.omega = options.omega.value_or(1);
  objective.kappa = options.kappa.value_or(0);
  const Defaults& defaults = defaults_for(data);
  objective.p = options.power.value_or(defaults.power);
  objective.time_mean = options.time_mean.value_or(defaults.time_mean);
  objective.time_std = options.time_std.value_or(defaults.time_std);
  objective.equal_share = options.equal_share.value_or(defaults.equal_share);
  objective.subset_jvp = options.tangent == "subset";
  objective.label_dropout = options.label_dropout;
  return objective;
}

std::string progress_text(const RunProgress& progress, bool bounded) {
  char text[200];
  const std::string of = bounded ? "/" + std::to_string(progress.steps) : "";
  std::snprintf(text, sizeof text, "step %lld%s  loss %.4f  error %.4f  %.1f steps/s  %s left", static_cast<long long>(progress.step), of.c_str(),
                progress.loss, progress.error, progress.steps_per_second, clock_text(progress.seconds_left).c_str());
  return text;
}

// Refuses what the machine can't hold, before anything runs.
void check_memory(const MemoryReport& report, std::int64_t batch) {
  const std::optional<std::uint64_t> available = available_memory_bytes();
  if (available && report.peak_bytes() > *available)
    throw OutOfMemory("train: a step needs " + bytes_text(report.peak_bytes()) + ", " + bytes_text(*available) +
                      " are free; a smaller --batch (now " + std::to_string(batch) + ") or --width would fit");
}

int train(const Options& options, const Streams& streams) {
  const Device device = cpu({.threads = options.threads});
  const std::shared_ptr<const DataSet> data = open_data_set(options.data, streams);
  const Defaults& defaults = defaults_for(*data);

  TrainingConfig config;
  config.network = network_for(options, *data);
  config.objective = objective_for(options, *data);
  config.optimiser = {.weight_decay = options.weight_decay, .clip_norm = options.clip, .ema_decay = options.ema};
  config.learning_rate = options.learning_rate.value_or(defaults.learning_rate);
  config.warm_up_steps = options.warm_up;
  config.batch = options.batch.value_or(defaults.batch);
  config.seed = options.seed;
  Trainer trainer(config, data, device);

  const bool bounded = options.steps || options.minutes == 0;
  const RunLimits limits{.steps = bounded ? options.steps.value_or(defaults.steps) : std::numeric_limits<std::int64_t>::max(),
                         .minutes = options.minutes};
  const MemoryReport memory = trainer.memory_report();
  const std::int64_t parameters = parameter_count(config.network);
  streams.error << "data       " << data->name() << " " << to_string(data->sample_shape());
  if (num_classes(config.network) > 0) streams.error << ", " << num_classes(config.network) << " classes";
  streams.error << "\nnetwork    " << family(config.network) << ", " << grouped(parameters) << " parameters\nobjective  "
                << to_string(config.objective.kind) << "\ndevice     " << device.name() << "\nmemory     " << bytes_text(memory.peak_bytes())
                << " at most in a step of batch " << config.batch << ", " << memory.kernels << " kernels\n";
  check_memory(memory, config.batch);

  const std::size_t warnings = data->warnings().size();
  RunSummary summary;
  int signal = 0;
  {
    ProgressLine line(streams);
    InterruptGuard interrupt;
    const auto report = [&](const RunProgress& progress) {
      if (line.due() || progress.seconds_left == 0) line.show(progress_text(progress, bounded));
    };
    summary = run_training(trainer, limits, {.folder = options.out, .save_seconds = options.save_every}, report, interrupt.token());
    signal = interrupt.signal();
  }
  const RunProgress& last = summary.last;
  show_warnings(*data, streams, warnings);
  if (summary.stopped) streams.error << "interrupted after step " << last.step << "; what was learned so far is saved\n";
  if (options.json) {
    write_json(streams.out, {{"data", data->name()},
                             {"objective", to_string(config.objective.kind)},
                             {"network", family(config.network)},
                             {"parameters", parameters},
                             {"seed", options.seed},
                             {"batch", config.batch},
                             {"steps", last.step},
                             {"seconds", last.seconds},
                             {"steps_per_second", last.steps_per_second},
                             {"loss", last.loss},
                             {"error", last.error},
                             {"gradient_norm", last.gradient_norm},
                             {"peak_bytes", memory.peak_bytes()},
                             {"kernels", memory.kernels},
                             {"traces", trainer.traces()},
                             {"interrupted", summary.stopped},
                             {"model", summary.model.string()},
                             {"raw_model", summary.raw_model.string()},
                             {"samples", summary.samples.string()},
                             {"log", summary.log.string()}});
  } else {
    streams.out << last.step << " steps in " << clock_text(last.seconds) << ", error " << last.error << "\nmodel    " << summary.model.string()
                << "\nsamples  " << summary.samples.string() << "\nlog      " << summary.log.string() << std::endl;
  }
  return signal != 0 ? 128 + signal : 0;
}

}  // namespace

Command add_train(CLI::App& program, const Streams& streams) {
  auto options = std::make_shared<Options>();
  CLI::App& parser = *program.add_subcommand("train", "Train a generator on a data set");
  parser.footer(
      "OUT receives model.safetensors (averaged weights: the one to sample from), model-raw.safetensors,\n"
      "samples.png (and samples-STEP.png on the way) and log.csv. Ctrl-C ends a run early and saves it.\n"
      "The same command, seed and thread count give the same model, bit for bit.\n\n"
      "Examples:\n"
      "  fluxion train --data glyphs --minutes 5 --out out/digits\n"
      "  fluxion train --data glyphs --omega 1 --kappa 0.5 --out out/guided\n"
      "  fluxion train --data 8gaussians --objective flow-matching --out out/flow\n"
      "  fluxion train --data path/to/mnist --patch 4 --minutes 15 --out out/mnist");

  add_data_options(parser, options->data);

  const std::string network = "Network";
  parser.add_option("--net", options->net, "mlp or dit (default: dit for images, mlp for points)")
      ->check(CLI::IsMember({"mlp", "dit"}))
      ->type_name("NET")
      ->group(network);
  parser.add_option("--width", options->width, "Hidden size (default: 128)")->check(CLI::Range(1, 8192))->type_name("N")->group(network);
  parser.add_option("--depth", options->depth, "Blocks of a dit, hidden layers of an mlp (default: 4 and 3)")
      ->check(CLI::Range(1, 256))
      ->type_name("N")
      ->group(network);
  parser.add_option("--heads", options->heads, "Attention heads of a dit (default: width / 32)")
      ->check(CLI::Range(1, 1024))
      ->type_name("N")
      ->group(network);
  parser.add_option("--patch", options->patch, "Pixels of a dit's patch (default: 4, or 2 where 4 does not divide the image)")
      ->check(CLI::Range(1, 64))
      ->type_name("N")
      ->group(network);

  const std::string objective = "Objective";
  parser.add_option("--objective", options->objective, "meanflow or split-meanflow: one step draws a sample; flow-matching: many steps")
      ->check(CLI::IsMember({"meanflow", "flow-matching", "split-meanflow"}))
      ->type_name("NAME")
      ->capture_default_str()
      ->group(objective);
  parser.add_option("--omega", options->omega, "MeanFlow: train guidance in; its scale is omega / (1 - kappa) (default: 1 if --kappa is given)")
      ->type_name("X")
      ->group(objective);
  parser.add_option("--kappa", options->kappa, "MeanFlow: share of the conditional velocity in the guided target (default: 0 if --omega is given)")
      ->check(CLI::Range(0.0, 0.999))
      ->type_name("X")
      ->group(objective);
  parser.add_option("--label-dropout", options->label_dropout, "Share of rows trained without their label")
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("X")
      ->capture_default_str()
      ->group(objective);
  parser
      .add_option("--equal-share", options->equal_share,
                  "MeanFlow: share of rows with r = t, which learn the velocity itself (default: 0.75 for images, 0.5 for points)")
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("X")
      ->group(objective);
  parser.add_option("--tangent", options->tangent, "MeanFlow: run the derivative over the rows that need it (subset) or over all; same numbers")
      ->check(CLI::IsMember({"subset", "all"}))
      ->type_name("ROWS")
      ->capture_default_str()
      ->group(objective);
  parser.add_option("--power", options->power, "MeanFlow: p of the adaptive weight (error + c)^-p (default: 1 for images, 0 for points)")
      ->check(CLI::Range(0.0, 4.0))
      ->type_name("P")
      ->group(objective);
  parser.add_option("--time-mean", options->time_mean, "Mean of the logit-normal times; higher: more noise (default: -0.4 for images, 0 for points)")
      ->type_name("X")
      ->group(objective);
  parser.add_option("--time-std", options->time_std, "Standard deviation of the logit-normal times (default: 1 for images, 2 for points)")
      ->check(more_than_zero())
      ->type_name("X")
      ->group(objective);

  const std::string optimiser = "Optimiser";
  parser.add_option("--steps", options->steps, "Updates (default: 4000 for images, 8000 for points; no limit if --minutes is given)")
      ->check(more_than_zero())
      ->type_name("N")
      ->group(optimiser);
  parser.add_option("--minutes", options->minutes, "Stop after this much time; 0: no limit")
      ->check(not_negative())
      ->type_name("M")
      ->capture_default_str()
      ->group(optimiser);
  parser.add_option("--batch", options->batch, "Samples in an update (default: 64 images, 512 points)")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("B")
      ->group(optimiser);
  parser.add_option("--lr", options->learning_rate, "Learning rate of AdamW (default: 0.001 for images, 0.003 for points)")
      ->check(more_than_zero())
      ->type_name("X")
      ->group(optimiser);
  parser.add_option("--warmup", options->warm_up, "Updates over which the rate rises to --lr")
      ->check(not_negative())
      ->type_name("N")
      ->capture_default_str()
      ->group(optimiser);
  parser.add_option("--clip", options->clip, "Longest gradient, over all parameters together; 0: any")
      ->check(not_negative())
      ->type_name("X")
      ->capture_default_str()
      ->group(optimiser);
  parser.add_option("--weight-decay", options->weight_decay, "Decoupled weight decay")
      ->check(not_negative())
      ->type_name("X")
      ->capture_default_str()
      ->group(optimiser);
  parser.add_option("--ema", options->ema, "Decay of the averaged weights")
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("X")
      ->capture_default_str()
      ->group(optimiser);

  const std::string run = "Run";
  parser.add_option("--out", options->out, "Folder for the results")->type_name("DIR")->capture_default_str()->group(run);
  parser.add_option("--save-every", options->save_every, "Seconds between pictures and model files; always at the end")
      ->check(not_negative())
      ->type_name("S")
      ->capture_default_str()
      ->group(run);
  parser.add_option("--seed", options->seed, "Seed of everything random")->type_name("S")->capture_default_str()->group(run);
  add_threads(parser, *options);
  add_json(parser, *options);
  return {&parser, [options, &streams] { return train(*options, streams); }};
}

}  // namespace fluxion::cli
