// fluxion zoo: every training method on one set of points, for as long each, on one page.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "cli/command.h"
#include "cli/progress.h"
#include "cli/train_options.h"
#include "cli/zoo_page.h"
#include "engine/error.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "engine/platform/file.h"
#include "models/data/checksum.h"
#include "models/data/data_set.h"
#include "models/evaluation/evaluation.h"
#include "models/evaluation/two_sample.h"
#include "models/images/scatter.h"
#include "models/methods/method.h"
#include "models/samplers/default_sampler.h"
#include "models/training/checkpoint.h"
#include "models/training/pairs.h"
#include "models/training/run_files.h"

namespace fluxion::cli {

namespace {

namespace fs = std::filesystem;

struct ZooOptions : CommonOptions {
  MethodTable methods;
  std::string data = "8gaussians";
  std::vector<std::string> chosen;
  double minutes = 1;
  std::optional<std::int64_t> steps;
  std::int64_t width = 128, depth = 3, batch = 256, count = 2000;
  std::uint64_t seed = 0;
  std::string out = "out/zoo";
  bool quiet = false;
};

const std::vector<std::int64_t>& drawn_steps() {
  static const std::vector<std::int64_t> steps{1, 2, 4, 8};
  return steps;
}

bool learns_from_model(const Method& method) {
  return method.needs_pairs || !method.teacher_option.empty();
}

// Methods that learn from a model come after those that learn from data alone.
std::vector<std::shared_ptr<const Method>> in_order(const ZooOptions& options) {
  std::vector<std::shared_ptr<const Method>> methods;
  if (options.chosen.empty()) {
    methods = options.methods;
  } else {
    for (const std::string& name : options.chosen) {
      methods.push_back(method_named(name, options.methods));
      if (std::count(methods.begin(), methods.end(), methods.back()) > 1)
        throw Error("zoo: --methods names " + name + " twice");
    }
  }
  std::stable_sort(methods.begin(), methods.end(), [](const auto& a, const auto& b) {
    return !learns_from_model(*a) && learns_from_model(*b);
  });
  return methods;
}

// As a shell takes it for one word.
std::string shell_word(const std::string& text) {
  const bool plain = std::ranges::all_of(text, [](unsigned char c) {
    return std::isalnum(c) != 0 || c >= 0x80 ||
           std::string_view("-_./,:+=@").find(static_cast<char>(c)) != std::string_view::npos;
  });
  if (plain && !text.empty()) return text;
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

// What `train` is asked for; --out and --teacher beside it.
std::vector<std::string> train_arguments(const ZooOptions& options, const Method& method) {
  std::vector<std::string> arguments{"--method", method.name,
                                     "--width",  std::to_string(options.width),
                                     "--depth",  std::to_string(options.depth),
                                     "--batch",  std::to_string(options.batch),
                                     "--seed",   std::to_string(options.seed),
                                     "--device", device_name(options)};
  // Pairs are the data of a method that wants them.
  if (!method.needs_pairs) arguments.insert(arguments.end(), {"--data", options.data});
  if (options.steps)
    arguments.insert(arguments.end(), {"--steps", std::to_string(*options.steps)});
  else
    arguments.insert(arguments.end(), {"--minutes", number_text(options.minutes)});
  return arguments;
}

// Tells the content of a set from that of another, and of itself before it was changed; "" of one
// without end.
std::string data_checksum(const DataSet& data) {
  constexpr std::int64_t at_once = 4096;
  if (!data.size()) return "";
  Checksum checksum;
  for (std::int64_t begin = 0; begin < *data.size(); begin += at_once)
    checksum.add(data.batch(at_once, 0, static_cast<std::uint64_t>(begin / at_once)).x);
  return checksum.text();
}

struct Trained {
  int code = 0;
  std::string error;  // the last line on its error stream
};

Trained run_train(const std::vector<std::string>& arguments, const MethodTable& methods) {
  std::ostringstream out, error;
  std::vector<const char*> argv{"fluxion", "train", "--quiet"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  const int code =
      run(static_cast<int>(argv.size()), argv.data(), Streams{.out = out, .error = error}, methods);
  std::string text = error.str();
  while (!text.empty() && text.back() == '\n') text.pop_back();
  text = text.substr(text.rfind('\n') == text.npos ? 0 : text.rfind('\n') + 1);
  return {code, text.starts_with("fluxion: ") ? text.substr(9) : text};
}

// Training of a method, as it is noted in its folder: a run of the same settings that has ended is
// not repeated, one that was cut off goes on.
class ZooRun {
 public:
  // data: the checksum of its set; teacher: the model that the method learns from, empty: none.
  ZooRun(const ZooOptions& options, const Method& method, std::vector<std::string> arguments,
         std::string data, const fs::path& teacher)
      : options_(options),
        method_(method),
        arguments_(std::move(arguments)),
        folder_(fs::path(options.out) / method.name),
        file_(folder_ / "zoo.json"),
        checkpoint_(folder_ / "checkpoint.safetensors"),
        data_(std::move(data)) {
    if (!teacher.empty()) {
      arguments_.insert(arguments_.end(), {"--teacher", teacher.string()});
      teacher_ = teacher_checksum(teacher);
    }
    if (!fs::exists(file_)) return;
    const nlohmann::json before = read_settings(file_.string());
    if (before.value("arguments", nlohmann::json()) != arguments_ ||
        before.value("teacher", "") != teacher_ || before.value("data", "") != data_)
      return;
    const bool ended = before.value("ended", false);
    if (ended && !fs::exists(folder_ / "model.safetensors")) return;  // nothing is left to go on to
    known_ = true;
    ended_ = ended && fs::exists(checkpoint_);
    updates_ = before.value("updates", std::int64_t{0});
  }

  // Throws Error where the folder holds a run that the zoo has not made.
  static void check_own(const fs::path& folder) {
    for (const char* name : {"checkpoint.safetensors", "model.safetensors"})
      if (!fs::exists(folder / "zoo.json") && fs::exists(folder / name))
        throw Error("zoo: " + folder.string() +
                    " holds a run that the zoo has not made, and would be trained over; choose "
                    "another --out");
  }

  // Returns the exit code of an interruption, else 0. `warn` is told what is trained over. Throws
  // Error.
  int finish(const std::function<void(const std::string&)>& warn) {
    if (ended_) return 0;
    fs::create_directories(folder_);
    const bool goes_on = known_ && fs::exists(checkpoint_);
    if (!goes_on) {
      if (!known_) clear_folder(warn);
      // A schedule goes over the whole run: how many updates that is, a twentieth of it tells.
      if (method_.has_schedule && !options_.steps) {
        const fs::path trial = folder_ / "speed";
        std::vector<std::string> all = arguments_;
        *(std::find(all.begin(), all.end(), "--minutes") + 1) = number_text(options_.minutes / 20);
        all.insert(all.end(), {"--steps", std::to_string(most_steps), "--out", trial.string()});
        if (const int code = train(all)) return code;
        const CheckpointInfo info =
            read_checkpoint_info(trial / "checkpoint.safetensors", options_.methods);
        fs::remove_all(trial);
        updates_ = std::max<std::int64_t>(
            1, std::llround(static_cast<double>(info.step) * 60 * options_.minutes /
                            std::max(info.seconds, 1e-3)));
      }
      note();  // whatever is there from now on is of this run
    }
    std::vector<std::string> all{"--resume", folder_.string()};
    if (!goes_on) {
      all = arguments_;
      all.insert(all.end(), {"--out", folder_.string()});
      if (updates_ > 0) all.insert(all.end(), {"--steps", std::to_string(updates_)});
    }
    if (const int code = train(all)) return code;
    ended_ = true;
    note();
    return 0;
  }

 private:
  // What a run of other settings would go on with.
  void clear_folder(const std::function<void(const std::string&)>& warn) const {
    if (fs::exists(checkpoint_)) {
      warn(method_.name +
           " is trained anew: its settings, data or model are not those of before; its last "
           "checkpoint is kept as " +
           put_checkpoint_aside(checkpoint_).string());
      fs::remove(folder_ / "checkpoint-previous.safetensors");
    }
    if (fs::exists(file_)) fs::remove_all(folder_ / "pairs");  // made by the zoo
  }
  void note() const {
    const std::string text = nlohmann::json{{"arguments", arguments_},
                                            {"teacher", teacher_},
                                            {"data", data_},
                                            {"ended", ended_},
                                            {"updates", updates_}}
                                 .dump(2) +
                             "\n";
    replace_file(file_, std::as_bytes(std::span(text)));
  }
  int train(const std::vector<std::string>& arguments) const {
    const Trained trained = run_train(arguments, options_.methods);
    if (trained.code != 0 && trained.code <= 128) throw Error(trained.error);
    return trained.code;
  }

  const ZooOptions& options_;
  const Method& method_;
  std::vector<std::string> arguments_;
  fs::path folder_, file_, checkpoint_;
  std::string data_, teacher_;  // their checksums
  bool known_ = false, ended_ = false;
  std::int64_t updates_ = 0;  // of the run, where its method has to know; 0: what the options say
};

// As the zoo trains it, alone in a table of its own.
MethodConfig in_zoo(const std::shared_ptr<const Method>& method) {
  return configure(method->name, {}, SampleKind::points, {method});
}

bool takes_teacher(const std::shared_ptr<const Method>& method, const ModelInfo& teacher) {
  if (method->teacher_refusal && !method->teacher_refusal(teacher, in_zoo(method).options).empty())
    return false;
  return teacher.prediction != Prediction::end_point;
}

// A trained model of the zoo that the method can learn from; empty: none.
std::string teacher_for(const std::shared_ptr<const Method>& method,
                        const std::vector<ZooEntry>& entries, const fs::path& folder) {
  for (const ZooEntry& entry : entries)
    if (entry.failure.empty() && entry.teacher.empty() &&
        takes_teacher(method, read_model_info(folder / entry.name / "model.safetensors")))
      return entry.name;
  return "";
}

// What to do where there is none: the first method of the table that makes one, if any does.
std::string teacher_advice(const std::shared_ptr<const Method>& method, const MethodTable& table) {
  for (const auto& other : table) {
    ModelInfo info;
    describe(in_zoo(other), info);
    if (!learns_from_model(*other) && takes_teacher(method, info))
      return ": add one to --methods, such as " + other->name;
  }
  return "";
}

struct ZooReference {
  HostBatch real, other;  // draws of the data without a sample in common
  float reach = 1;        // of the axes of all pictures

  SampleView view(const std::vector<float>& values) const {
    return {values, static_cast<std::int64_t>(values.size()) / 2, 2};
  }
  std::map<std::string, double> metrics(const std::vector<float>& samples, int threads) const {
    return {{"energy distance", energy_distance(view(samples), view(real.x), false, threads)},
            {"sliced Wasserstein-2",
             sliced_wasserstein2(view(samples), view(real.x), Slices{}, threads)}};
  }
  ScatterOptions axes(int size) const { return {.panel_size = size, .low = -reach, .high = reach}; }
};

// The velocity halfway between noise and data, or, of a model without one, the way to the end.
std::string field_of(const Model& model, const ZooReference& reference) {
  const ModelInfo& info = model.info;
  const Predictor predictor =
      fluxion::predictor(info, bind_parameters(info.network, model.parameters));
  constexpr int side = 15;
  std::vector<float> at;
  for (int i = 0; i < side * side; ++i)
    for (const int place : {i % side, i / side})
      at.push_back(reference.reach * (2 * (static_cast<float>(place) + 0.5f) / side - 1));
  const Device device = model.parameters.begin()->second.device();
  // There sigma is half as large as data and noise together.
  const Path& path = info.path;
  const double t = path.time_of(PathNumbers{1, 1, 0, 0});
  const PathNumbers here = path.at(t);
  const Tensor z = Tensor::from(at, {side * side, 2}, device),
               time = full({side * side}, t, DType::f32, device);
  const Tensor moved =
      info.prediction == Prediction::end_point
          ? predictor.jump(here.alpha * z, time, full_like(time, path.clean_time())) - z
          : -1.0 * predictor(Prediction::velocity, here.alpha * z, time);
  return arrows_address(at, moved.to_host<float>(), static_cast<double>(reference.reach));
}

void look_at(ZooEntry& entry, const fs::path& file, const ZooOptions& options,
             const ZooReference& reference, const Device& device) {
  const Model model = read_model(file, device);
  const SamplerOptions usual = default_sampler(model.info);
  entry.prediction = to_string(model.info.prediction);
  entry.sampler = to_string(usual.kind);
  entry.usual_steps = usual.steps;
  std::vector<std::int64_t> steps = drawn_steps();
  if (std::find(steps.begin(), steps.end(), usual.steps) == steps.end())
    steps.push_back(usual.steps);
  for (const std::int64_t each : steps) {
    SamplerOptions chosen = usual;
    chosen.steps = each;
    const Sampler sampler(model.info.network, model.parameters, chosen);
    const std::vector<float> samples = sampler.sample(
        options.count, std::min<std::int64_t>(options.count, 1000), options.seed + 1);
    ZooDraw draw{.steps = each, .evaluations = sampler.evaluations()};
    if (std::all_of(samples.begin(), samples.end(),
                    [](float value) { return std::isfinite(value); }))
      draw.metrics = reference.metrics(samples, host_threads(options));
    draw.picture = data_address(scatter_plot({{.points = samples}}, reference.axes(180)));
    entry.draws.push_back(std::move(draw));
  }
  // Paths of some sixty samples, with the usual sampler but in no fewer than 8 steps.
  SamplerOptions chosen = usual;
  chosen.steps = std::max<std::int64_t>(8, usual.steps);
  const Sampler sampler(model.info.network, model.parameters, chosen);
  constexpr std::int64_t walkers = 64;
  const Tensor ways =
      sampler.path(normal(random_key(options.seed + 2, device), {walkers, 2}, DType::f32));
  const std::vector<float> all = ways.to_host<float>(), ends = {all.end() - 2 * walkers, all.end()};
  entry.ways = data_address(
      scatter_plot({{.points = ends, .paths = all, .states = ways.size(0)}}, reference.axes(300)));
  entry.field = field_of(model, reference);
}

nlohmann::json to_json(const ZooEntry& entry) {
  nlohmann::json draws = nlohmann::json::array();
  for (const ZooDraw& draw : entry.draws)
    draws.push_back(
        {{"steps", draw.steps}, {"evaluations", draw.evaluations}, {"metrics", draw.metrics}});
  return {{"method", entry.name},
          {"failure", entry.failure},
          {"teacher", entry.teacher},
          {"steps", entry.steps},
          {"seconds", entry.seconds},
          {"sampler", entry.sampler},
          {"usual_steps", entry.usual_steps},
          {"draws", draws}};
}

int zoo(ZooOptions options, const Streams& streams) {
  const Device device = open_device(options, streams, options.quiet);
  const std::shared_ptr<DataSet> data = make_data_set(options.data);
  if (data->sample_shape() != Shape{2})
    throw Error("zoo: --data " + options.data + " has samples of shape " +
                to_string(data->sample_shape()) + "; the zoo draws points of the plane");
  const EvaluationData parts(data);
  if (const std::int64_t half = parts.reference_size().value_or(options.count);
      half < options.count) {
    streams.error << "warning    " << printable(options.data) << " holds " << grouped(*data->size())
                  << " samples: " << grouped(half) << " are compared, and as many are the floor\n";
    options.count = half;
  }
  ZooReference reference{parts.reference(options.count), parts.fresh(options.count, 0)};
  for (const float value : reference.real.x)
    reference.reach = std::max(reference.reach, 1.15f * std::abs(value));

  ZooPage page{
      .data = data->name(),
      .device = device.name(),
      .count = options.count,
      .minutes = options.steps ? 0 : options.minutes,
      .steps = options.steps.value_or(0),
      .metrics = {"energy distance", "sliced Wasserstein-2"},
      .floor = reference.metrics(reference.other.x, host_threads(options)),
      .real = data_address(scatter_plot({{.points = reference.real.x}}, reference.axes(300)))};
  page.network =
      "an MLP of " + counted(options.depth, "layer") + " of " + std::to_string(options.width);
  page.seen = data->size().has_value();
  if (page.seen)
    streams.error
        << "warning    the methods are trained on all samples of " << printable(options.data)
        << ", also on those that they are compared with: below the floor they have learned "
           "them by heart\n";
  std::string chosen;
  for (const std::string& name : options.chosen) chosen += (chosen.empty() ? "" : ",") + name;
  page.command = "fluxion zoo --data " + shell_word(options.data) +
                 (chosen.empty() ? "" : " --methods " + chosen) +
                 (options.steps ? " --steps " + std::to_string(*options.steps)
                                : " --minutes " + number_text(options.minutes)) +
                 " --width " + std::to_string(options.width) + " --depth " +
                 std::to_string(options.depth) + " --batch " + std::to_string(options.batch) +
                 " --count " + std::to_string(options.count) + " --seed " +
                 std::to_string(options.seed) + " --device " + device_name(options);
  const fs::path folder = options.out, html = folder / "index.html";
  std::error_code refused;
  fs::create_directories(folder, refused);
  if (!fs::is_directory(folder))
    throw IoError("zoo: " + options.out + ": the folder can't be made: " + refused.message());
  const auto write_page = [&] {
    const std::string text = zoo_html(page);
    replace_file(html, std::as_bytes(std::span(text)));
  };

  const std::vector<std::shared_ptr<const Method>> methods = in_order(options);
  for (const auto& method : methods) ZooRun::check_own(folder / method->name);
  const std::string checksum = data_checksum(*data);
  ProgressLine line(streams);
  for (std::size_t i = 0; i < methods.size(); ++i) {
    const Method& method = *methods[i];
    if (!options.quiet)
      line.show(std::to_string(i + 1) + "/" + std::to_string(methods.size()) + " " + method.name);
    ZooEntry entry{.name = method.name, .summary = method.summary, .paper = method.paper};
    const fs::path own = folder / method.name;
    fs::path teacher;
    if (learns_from_model(method)) {
      entry.teacher = teacher_for(methods[i], page.entries, folder);
      if (entry.teacher.empty()) {
        entry.failure =
            "It learns from a trained model, and none of the methods above made one that it takes" +
            teacher_advice(methods[i], options.methods) + ".";
      } else {
        teacher = folder / entry.teacher / "model.safetensors";
      }
    }
    try {
      if (entry.failure.empty()) {
        ZooRun run(options, method, train_arguments(options, method), checksum, teacher);
        const auto warn = [&](const std::string& text) {
          line.finish();
          streams.error << "warning    " << printable(text, 1000) << "\n";
        };
        if (const int code = run.finish(warn)) {
          line.finish();
          streams.error << "interrupted while " << method.name
                        << " was trained; the same command goes on\n";
          write_page();
          return code;
        }
        const CheckpointInfo info =
            read_checkpoint_info(own / "checkpoint.safetensors", options.methods);
        entry.steps = info.step;
        entry.seconds = info.seconds;
        page.parameters = parameter_count(info.config.network);
        look_at(entry, own / "model.safetensors", options, reference, device);
      }
    } catch (const OutOfMemory&) {
      throw;
    } catch (const Error& error) {
      entry.failure = error.what();
      entry.draws.clear();  // no part of the tables
    }
    page.entries.push_back(std::move(entry));
    write_page();
  }
  line.finish();

  std::string failed;
  for (const ZooEntry& entry : page.entries)
    if (!entry.failure.empty()) failed += (failed.empty() ? "" : ", ") + entry.name;
  if (options.json) {
    nlohmann::json entries = nlohmann::json::array();
    for (const ZooEntry& entry : page.entries) entries.push_back(to_json(entry));
    write_json(streams.out, {{"page", html.string()}, {"floor", page.floor}, {"methods", entries}});
  } else {
    for (const ZooEntry& entry : page.entries) {
      std::string text = entry.name;
      text.resize(std::max<std::size_t>(text.size(), 16), ' ');
      if (!entry.failure.empty()) {
        streams.out << text << "failed: " << printable(entry.failure, 300) << "\n";
        continue;
      }
      streams.out << text;
      for (const ZooDraw& draw : entry.draws) {
        const auto value = draw.metrics.find("energy distance");
        streams.out << "  " << draw.steps << ": "
                    << (value == draw.metrics.end() ? "not finite"
                                                    : rounded_text(value->second, 3));
      }
      streams.out << "\n";
    }
    streams.out << "real samples    " << rounded_text(page.floor.at("energy distance"), 3)
                << " (energy distance, by steps)\npage     " << html.string() << "\n"
                << std::flush;
  }
  if (failed.empty()) return 0;
  streams.error << "fluxion: zoo: " << failed << " failed; the page says why\n";
  return 1;
}

}  // namespace

Command add_zoo(CommandLine& program, const Streams& streams, const MethodTable& methods) {
  auto options = std::make_shared<ZooOptions>();
  options->methods = methods;
  const Parser parser =
      program.add_subcommand("zoo", "Train every method on points and compare them on a page");
  parser.footer(
      "Each method trains for the same time with the same network; the page - samples in 1, 2, 4 "
      "and 8 steps, paths, velocities, distances - is renewed after each. Stopped, the same "
      "command goes "
      "on where it was.\n\n"
      "Examples:\n"
      "  fluxion zoo --minutes 2 --out out/zoo\n"
      "  fluxion zoo --data checkerboard --methods flow-matching,meanflow,lsd,ict --steps 5000");
  parser.add_option("--data", options->data, "Points of the plane: a built-in set, or a file")
      .type_name("SET")
      .show_default();
  parser.add_option("--methods", options->chosen, "Those to compare (default: all of `train`)")
      .delimiter(',')
      .type_name("A,B,..");
  const Option minutes = parser
                             .add_number("--minutes", options->minutes, real(0.001, 1e5),
                                         "Time to train each method for")
                             .type_name("M")
                             .show_default();
  parser.add_number("--steps", options->steps, whole(1, most_steps), "Updates of each, instead")
      .type_name("N")
      .excludes(minutes);
  parser.add_number("--width", options->width, whole(1, 8192), "Of the network's layers")
      .type_name("N")
      .show_default();
  parser.add_number("--depth", options->depth, whole(1, 1000), "Layers of the network")
      .type_name("N")
      .show_default();
  parser.add_number("--batch", options->batch, whole(2, 1 << 20), "Samples of an update")
      .type_name("N")
      .show_default();
  parser
      .add_number("--count", options->count, whole(10, 20000),
                  "Samples that are drawn and compared")
      .type_name("N")
      .show_default();
  parser.add_number("--seed", options->seed, seeds(), "Of all that is random")
      .type_name("S")
      .show_default();
  parser.add_option("--out", options->out, "Folder of the page and of a run for each method")
      .type_name("FOLDER")
      .show_default();
  parser.add_flag("--quiet", options->quiet, "No progress");
  add_device(parser, *options);
  add_json(parser, *options);
  return {parser, [options, &streams] { return zoo(*options, streams); }};
}

}  // namespace fluxion::cli
