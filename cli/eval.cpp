// fluxion eval: how good are these samples?
#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "cli/eval_diagnostics.h"
#include "cli/eval_likelihood.h"
#include "cli/eval_report.h"
#include "cli/eval_samples.h"
#include "engine/error.h"
#include "engine/export/stored_sampler.h"
#include "engine/platform/file.h"
#include "models/evaluation/classifier_cache.h"
#include "models/evaluation/memorisation.h"
#if FLUXION_WITH_AUTOGRAD
#include "models/evaluation/train_classifier.h"
#endif

namespace fluxion::cli {

namespace {

// Reads a model. Of a sampler file it says how that is judged.
Model read_judged(const std::string& path, const Device& device) {
  check_holds_model(path);
  if (is_sampler_file(MappedFile(model_file(path)).bytes()))
    throw Error("eval: " + path + " is a sampler file; `fluxion sample --model " + path +
                " --count 2000 --npy samples.npy` draws samples of it, which --samples samples.npy "
                "--data DATA measures");
  return read_model(path, device);
}

// Data sets that were opened, for the warnings that come later: of images whose damage only
// decoding shows.
class OpenSets {
 public:
  explicit OpenSets(const Streams& streams) : streams_(streams) {}
  std::shared_ptr<const DataSet> open(const DataOptions& options) {
    const std::shared_ptr<const DataSet> set = open_data_set(options, streams_);
    sets_.emplace_back(set, set->warnings().size());
    return set;
  }
  void show_later_warnings() const {
    for (const auto& [set, shown] : sets_) show_warnings(*set, streams_, shown);
  }

 private:
  const Streams& streams_;
  std::vector<std::pair<std::shared_ptr<const DataSet>, std::size_t>> sets_;
};

std::shared_ptr<const DataSet> open_part(DataOptions options, const Shape& shape, Split split,
                                         OpenSets& sets) {
  // Data that could have another size or other channels are brought to those of the samples.
  const bool image = shape.rank() == 3;
  if (!options.image_size && image && shape[0] == shape[1]) options.image_size = shape[0];
  if (!options.channels && image && (shape[2] == 1 || shape[2] == 3)) options.channels = shape[2];
  options.split = split;
  return sets.open(options);
}

// The set, with its test part where it has one. `warning` says why there is none.
EvaluationData open_data(const DataOptions& options, const Shape& shape, std::string& warning,
                         OpenSets& sets) {
  const std::shared_ptr<const DataSet> train = open_part(options, shape, Split::train, sets);
  if (train->sample_shape() != shape)
    throw ShapeError("eval: " + printable(options.data) + " holds samples of shape " +
                     to_string(train->sample_shape()) + ", these are " + to_string(shape));
  if (!train->size()) return EvaluationData(train);
  try {
    const std::shared_ptr<const DataSet> test = open_part(options, shape, Split::test, sets);
    if (classifier_file_name(*test) != classifier_file_name(*train))
      return EvaluationData(train, test);
    warning = "it is one file";
  } catch (const NoTestPart& error) {
    warning = error.what();
  }
  return EvaluationData(train);
}

// The classifier, as far as it is there, and where it is or will be.
struct ChosenJudge {
  std::optional<Classifier> classifier;
  std::filesystem::path file;
  bool trained = false;
  double seconds = 0;
};

Classifier train_judge([[maybe_unused]] const EvaluationData& data,
                       [[maybe_unused]] const std::filesystem::path& file,
                       [[maybe_unused]] const Device& device, [[maybe_unused]] ProgressLine& line) {
#if FLUXION_WITH_AUTOGRAD
  const ClassifierTraining training = usual_training(data);
  const auto start = std::chrono::steady_clock::now();
  return train_classifier(data, training, device, [&](std::int64_t step) {
    if (!line.due()) return;
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    line.show("training the classifier: step " + grouped(step) + " of " + grouped(training.steps) +
              "  " +
              clock_text(taken.count() / static_cast<double>(step) *
                         static_cast<double>(training.steps - step)) +
              " left");
  });
#else
  throw Error(
      "eval: this build can't train a classifier, and " +
      (file.empty() ? std::string("none is kept") : file.string() + " is not there") +
      "; --classifier takes one that another build has trained, and other metrics need none");
#endif
}

ChosenJudge find_judge(const EvalArguments& options, const EvaluationData& data,
                       const Device& device, const Streams& streams) {
  ChosenJudge result;
  result.file = options.classifier;
  if (options.classifier.empty() && !classifier_cache().empty())
    result.file = classifier_cache() / classifier_file_name(data.train(), !data.held_out());
  std::error_code error;
  if (!options.retrain && std::filesystem::exists(result.file, error)) {
    try {
      result.classifier = read_classifier(result.file, device);
    } catch (const Error& damage) {
      // The cache's own is made again; a file that the user names is the user's.
      if (!options.classifier.empty()) throw;
      streams.error << "warning    " << printable(damage.what(), 500)
                    << "; the classifier is trained again\n";
      return result;
    }
    if (result.classifier->info.sample_shape != data.train().sample_shape())
      throw ShapeError("eval: " + result.file.string() + " judges samples of shape " +
                       to_string(result.classifier->info.sample_shape) + ", the data's are " +
                       to_string(data.train().sample_shape()));
  } else if (!options.classifier.empty()) {
    check_can_be_written({{"--classifier", result.file.string()}});
  }
  return result;
}

void train_missing(ChosenJudge& chosen, const EvalArguments& options, const EvaluationData& data,
                   const Device& device, const Streams& streams, ProgressLine& line) {
  if (chosen.classifier) return;
  constexpr std::int64_t few = 500;
  if (const auto size = data.training_size(); size && *size < few) {
    line.finish();
    streams.error << "warning    " << counted(*size, "sample")
                  << " are few to train a classifier on, and what it says may mean little; "
                     "--metrics energy needs none\n";
  }
  const auto start = std::chrono::steady_clock::now();
  chosen.classifier = train_judge(data, chosen.file, device, line);
  chosen.trained = true;
  chosen.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  try {
    if (options.classifier.empty() && !chosen.file.empty())
      std::filesystem::create_directories(chosen.file.parent_path());
    if (!chosen.file.empty()) write_classifier(chosen.file, *chosen.classifier);
  } catch (const std::exception& failure) {
    if (!options.classifier.empty()) throw;
    line.finish();
    streams.error << "the classifier can't be kept: " << printable(failure.what()) << "\n";
    chosen.file.clear();
  }
}

JudgedClasses judged_classes(const DataSet& data, const ChosenJudge& chosen) {
  if (data.classes() > 0 || !chosen.classifier)
    return {data.name(), data.classes(), data.class_names(), data.class_marks()};
  const ClassifierInfo& info = chosen.classifier->info;
  return {chosen.file.string(), info.classes, info.class_names, info.class_marks};
}

// Throws OutOfMemory where what is drawn, read and computed can't be held.
void check_room(const EvalArguments& options, double needed, const std::string& samples) {
  const std::uint64_t free = free_memory(options);
  constexpr double most = 9e18;
  if (needed > static_cast<double>(free))
    throw OutOfMemory("eval: " + samples + " take " +
                      bytes_text(static_cast<std::uint64_t>(std::min(needed, most))) +
                      " of memory, " + bytes_text(free) +
                      " are free; --count takes fewer, --metrics those that want less");
}

bool is_likelihood(const std::string& metric) { return metric == "likelihood" || metric == "elbo"; }

// `of_samples`: the options that say how samples are drawn and compared.
int eval(const EvalArguments& options, const std::vector<Option>& of_samples,
         const Streams& streams) {
  if (options.model.empty() == options.samples.empty())
    throw Error("eval: wants either --model or --samples");
  check_files_differ("eval",
                     {{"--neighbours", options.neighbours},
                      {"--classifier", options.retrain ? options.classifier : ""}},
                     {{"--model", options.model},
                      {"--samples", options.samples},
                      {"--labels", options.labels},
                      {"--classifier", options.retrain ? "" : options.classifier},
                      {"--data", options.data.data}});
  check_picture_name("eval: --neighbours", options.neighbours);
  const Device device = open_device(options, streams);
  const auto start = std::chrono::steady_clock::now();
  ProgressLine line(streams);
  OpenSets sets(streams);
  DataOptions data_options = options.data;
  data_options.memory_bytes_limit = free_memory(options);
  std::string& data_name = data_options.data;

  // All that can be refused is refused before anything that takes long.
  Samples samples;
  std::optional<Model> model;
  std::shared_ptr<const DataSet> sample_set;
  if (!options.model.empty()) {
    model = read_judged(options.model, device);
    if (data_name.empty()) data_name = model->info.dataset;
    if (data_name.empty())
      throw Error("eval: " + options.model + " does not say what it was trained on; --data does");
    samples = plan_samples(options, *model);
  } else {
    if (data_name.empty()) throw Error("eval: --samples need --data to be compared with");
    DataOptions from = data_options;
    from.data = options.samples;
    from.flip = false;
    from.by_number = true;  // as programs count the samples that they write
    // What lies beside them is asked for only where nothing else says what they should be.
    const bool may_want_class =
        options.metrics.empty() || std::ranges::count(options.metrics, "classifier") > 0;
    from.no_labels |= !may_want_class || !options.labels.empty() || options.chosen_class;
    sample_set = sets.open(from);
    samples = read_samples(options, *sample_set);
  }
  if (!options.neighbours.empty()) {
    if (samples.shape.rank() != 3)
      throw ShapeError("eval: --neighbours searches for images, the samples have shape " +
                       to_string(samples.shape));
    check_can_be_written({{"--neighbours", options.neighbours}});
  }
  std::string no_test_part;
  const EvaluationData data = open_data(data_options, samples.shape, no_test_part, sets);
  const DataSet& train = data.train();

  EvaluationOptions how{
      .metrics = options.metrics, .draws = options.draws, .threads = host_threads(options)};
  if (how.metrics.empty()) how.metrics = default_metrics(train, train.classes() > 1);
  check_metrics(how.metrics, train);
  std::vector<std::string> of_model;
  std::erase_if(how.metrics, [&](const std::string& name) {
    if (is_of_model(name)) of_model.push_back(name);
    return is_of_model(name);
  });
  if (!of_model.empty() && !model)
    throw Error("eval: the metric " + of_model.front() + " is a model's; --samples have none");
  const bool probes = std::ranges::any_of(of_model, [](const std::string& name) {
    return name == "likelihood" || name == "conservativity" || name == "dimension";
  });
  if (!probes && options.probes)
    throw Error("eval: --probes are for --metrics likelihood, conservativity and dimension");
  for (const std::string& name : of_model) check_model_metric(name, options, model->info);
  if (options.trace && std::ranges::count(of_model, "likelihood") == 0)
    throw Error("eval: --trace is for --metrics likelihood");
  const bool wants_samples = !how.metrics.empty() || !options.neighbours.empty();
  for (const Option& each : of_samples) {
    const std::string name = each.long_names().front();
    const bool of_likelihood =
        name == "tolerance" && std::ranges::count(of_model, "likelihood") > 0;
    if (!wants_samples && each.given() && !of_likelihood)
      throw Error("eval: --" + name + " is for samples that are drawn, and " + of_model.front() +
                  " measures the model without any; leave it out");
  }
  if (options.chosen_class == "none" && options.guidance != 1)
    throw Error(
        "eval: --guidance leads towards a class, and --class none leaves it open; leave one out");
  const auto wants_class = [&] {
    return std::find(how.metrics.begin(), how.metrics.end(), "classifier") != how.metrics.end();
  };
  if (sample_set && !wants_class() && (!options.labels.empty() || options.chosen_class))
    throw Error(
        "eval: --labels and --class say what the metric classifier compares with, which is not "
        "among those measured");
  const bool wants_judge =
      std::any_of(how.metrics.begin(), how.metrics.end(),
                  [&](const std::string& name) { return needs_judge(name, train); });
  if (wants_judge && train.classes() < 2 && options.classifier.empty())
    throw Error("eval: " + printable(data_name) +
                " has no labels to train a classifier on; --classifier takes one, and "
                "sliced-wasserstein, energy"
                " and mmd need none");
  if (!wants_judge && (options.retrain || !options.classifier.empty()))
    throw Error("eval: --classifier and --retrain: none of the metrics uses a classifier here");
  check_counts(how.metrics, samples.count, data);
  if (wants_samples) {
    const double held = how.metrics.empty() ? 0 : evaluation_bytes(how, samples.count, data);
    // Those of a file are there by now.
    const double drawn = sample_set ? 0
                                    : static_cast<double>(samples.count) *
                                          static_cast<double>(samples.shape.elements());
    check_room(options, held + drawn * sizeof(float),
               grouped(samples.count) + " samples and the real ones to compare with");
  }
  // Without --count they are few; two numbers are kept of each.
  if (const std::int64_t seen = options.count.value_or(0); !of_model.empty() && seen > 0) {
    const std::int64_t real = std::min(seen, data.reference_size().value_or(seen));
    check_room(options, data.batch_bytes(real) + 2.0 * sizeof(double) * static_cast<double>(real),
               grouped(real) + " real samples");
  }
  ChosenJudge chosen;
  if (wants_judge) chosen = find_judge(options, data, device, streams);
  const JudgedClasses judged = judged_classes(train, chosen);
  DrawnClasses drawn;
  if (model && wants_samples)
    drawn = drawn_classes(options.chosen_class.value_or("balanced"), model->info, options.model,
                          judged, options.relabel, streams);
  if (sample_set && wants_class())
    samples.asked = asked_of(options, *sample_set, samples.asked, samples.count, judged);
  if (sample_set && !wants_class()) samples.asked.clear();
  const bool any_asked = !drawn.empty() || !samples.asked.empty();
  if (options.metrics.empty() && !any_asked) std::erase(how.metrics, "classifier");
  if (wants_class() && !any_asked)
    throw Error(
        "eval: the metric classifier needs to know the class that each sample was asked to be; "
        "--class and --labels say it");
  std::vector<std::int32_t> numbers;
  if (wants_judge) {
    if (chosen.classifier)
      numbers = classifier_numbers(chosen.classifier->info, chosen.file.string(), judged,
                                   options.relabel);
    const std::vector<std::int32_t> unseen =
        chosen.classifier ? unseen_by(chosen.classifier->info, numbers) : data.unseen_classes();
    warn_of_unseen(unseen, judged, streams);
    const bool one_asked = options.chosen_class && *options.chosen_class != "balanced";
    if (wants_class()) leave_out_unseen(unseen, judged, one_asked, drawn);
    if (model && any_asked && drawn.empty())
      throw Error("eval: the classifier has seen no sample of any class that is to be drawn");
  }
  if (model && wants_samples) {
    ask(samples, drawn);
    draw_samples(options, *model, train, samples, line);
  }
  // What takes long comes after what can be looked at.
  std::optional<NearestTraining> nearest;
  if (!options.neighbours.empty()) {
    nearest = nearest_training(
        samples.view(), data, {.threads = host_threads(options)},
        [&](std::int64_t done, std::int64_t of) {
          if (line.due())
            line.show("nearest training images: " + grouped(done) + " of " + grouped(of));
        });
    write_png(options.neighbours, nearest->picture);
  }
  std::unique_ptr<Judge> judge;
  if (wants_judge) {
    train_missing(chosen, options, data, device, streams, line);
    judge = std::make_unique<Judge>(*chosen.classifier, numbers);
  }
  std::vector<Measurement> measurements;
  if (!how.metrics.empty())
    measurements = evaluate_samples(samples.view(), samples.asked, data, judge.get(), how,
                                    [&](const std::string& doing) {
                                      if (line.due()) line.show("measuring " + doing);
                                    });
  for (const std::string& name : of_model)
    for (Measurement& each : is_likelihood(name)
                                 ? model_likelihood(name, options, *model, data, device, line)
                                 : model_diagnostic(name, options, *model, data, device, line))
      measurements.push_back(std::move(each));
  if (!wants_samples) samples.count = 0, samples.what = "none: " + printable(options.model);
  line.finish();
  sets.show_later_warnings();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  const EvalReport report{samples.count,
                          samples.what,
                          data_name,
                          no_test_part,
                          data.held_out(),
                          measurements,
                          judge ? &judge->info() : nullptr,
                          chosen.file.string(),
                          chosen.trained,
                          chosen.seconds,
                          nearest,
                          seconds};
  if (options.json)
    write_report(streams.out, options, report);
  else
    print_report(streams.out, options, report);
  return 0;
}

}  // namespace

Command add_eval(CommandLine& program, const Streams& streams) {
  auto options = std::make_shared<EvalArguments>();
  const Parser parser = program.add_subcommand("eval", "Measure how good samples are");
  std::string metrics = "Metrics, by default those that suit the data:\n";
  std::vector<std::string> metric_words;
  for (const MetricName& metric : metric_names()) {
    metrics += "  " + metric.name + ": " + metric.summary + "\n";
    metric_words.push_back(metric.name);
  }
  parser.footer(
      metrics +
      "Each is printed beside the same number for real samples in place of the generated ones: the "
      "noise floor.\n\n"
      "Examples:\n"
      "  fluxion eval --model out/digits/model.safetensors\n"
      "  fluxion eval --samples theirs.npy --data path/to/mnist --neighbours nearest.png\n"
      "  fluxion eval --model out/points/model.safetensors --metrics energy,modes --count 5000 "
      "--json");
  const Option model =
      parser.add_option("--model", options->model, "Model file to draw samples from (.safetensors)")
          .type_name("FILE");
  const Option samples =
      parser
          .add_option(
              "--samples", options->samples,
              "Or samples of any program: .npy or .npz, points [count, dim] or images [count, "
              "height, width, channels] in [-1, 1]; or a folder of images")
          .type_name("PATH")
          .excludes(model);
  const Option labels =
      parser
          .add_option(
              "--labels", options->labels,
              "Class that each of these was asked to be (default: as --class says; else what "
              "lies beside them as with data; else balanced)")
          .type_name("FILE.npy")
          .needs(samples);
  add_data_options(parser, options->data);
  parser.add_option("--metrics", options->metrics, "Comma-separated list, see below")
      .delimiter(',')
      .check({"", one_of(metric_words).fault})  // the help has them below
      .type_name("NAMES");
  parser
      .add_number("--count", options->count, whole(1, most_samples),
                  "Samples to judge (default: 10000 points, 2000 images, all of --samples)")
      .type_name("N");
  parser
      .add_number("--draws", options->draws, whole(0, 1000),
                  "Draws of real samples that a noise floor is averaged over; 0: none")
      .type_name("N")
      .show_default();
  std::vector<Option> of_samples = add_sampler_options(parser, options->sampler);
  for (const Option& each : of_samples) each.excludes(samples);
  parser
      .add_option(
          "--class", options->chosen_class,
          "Class asked for: a name, or a number where there are no names; balanced: each in turn, "
          "sample i the class i mod classes; none: left open (default: balanced)")
      .type_name("C")
      .excludes(labels);
  parser
      .add_number("--guidance", options->guidance, guidance_scales(),
                  "Scale of classifier-free guidance, for models trained without it; 1: none")
      .type_name("W")
      .excludes(samples)
      .show_default();
  parser.add_number("--seed", options->seed, seeds(), "Seed of the noise")
      .type_name("S")
      .excludes(samples)
      .show_default();
  parser
      .add_number("--batch", options->batch, whole(1, 1 << 20),
                  "Samples computed at a time (default: 64 images, 1000 points)")
      .type_name("B")
      .excludes(samples);
  parser
      .add_number("--probes", options->probes, whole(0, 100000),
                  "likelihood, conservativity, dimension: random probes of the Jacobian; 0: exact "
                  "(default: 0 up to 16 dimensions, else 1)")
      .type_name("N")
      .excludes(samples);
  parser
      .add_option("--trace", options->trace,
                  "likelihood: what is made of the probes: hutchinson, or hutch++, exact for "
                  "Jacobians of low rank at three times the cost (default: hutchinson)")
      .check(one_of({"hutchinson", "hutch++"}))
      .type_name("NAME")
      .excludes(samples);
  add_precision(parser, options->precision).excludes(samples);
  parser
      .add_option(
          "--classifier", options->classifier,
          "File of the classifier (default: one for each data set in the user's cache folder)")
      .type_name("FILE");
  parser.add_flag("--retrain", options->retrain, "Train the classifier again, even if it is there");
  parser.add_flag(
      "--relabel", options->relabel,
      "Take the classes of model, samples and classifier for those of the data in their "
      "order, whatever they are called");
  parser
      .add_option("--neighbours", options->neighbours,
                  "Picture of samples beside their nearest training images")
      .type_name("FILE.png");
  add_device(parser, *options);
  add_memory_limit(parser, *options);
  add_json(parser, *options);
  for (const char* name : {"--class", "--guidance", "--draws", "--relabel"})
    of_samples.push_back(parser.option(name));
  return {parser, [options, of_samples, &streams] { return eval(*options, of_samples, streams); }};
}

}  // namespace fluxion::cli
