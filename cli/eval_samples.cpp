#include "cli/eval_samples.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "models/data/npz_data.h"
#include "models/data/random.h"
#include "models/samplers/default_sampler.h"

namespace fluxion::cli {

namespace {

constexpr std::int64_t default_points = 10'000, default_images = 2'000;
constexpr std::int64_t point_batch = 1000, image_batch = 64;  // drawn at a time

// The first `count` of the labels of `samples` samples.
std::vector<std::int64_t> read_labels(const std::string& path, std::int64_t samples,
                                      std::int64_t count, std::uint64_t memory) {
  const auto wanted = [&](const TensorType& type) {
    const Shape& shape = type.shape;
    if ((shape.rank() != 1 && !(shape.rank() == 2 && shape[1] == 1)) || shape[0] != samples)
      throw FormatError(path + ": wants one whole number for each of " + std::to_string(samples) +
                        " samples, the array is " + to_string(type));
  };
  std::vector<std::int64_t> labels = whole_numbers(path, open_labels(path, wanted, memory), memory);
  labels.resize(static_cast<std::size_t>(count));
  return labels;
}

SamplerOptions eval_sampler(const EvalArguments& options, const ModelInfo& info) {
  SamplerChoice choice = options.sampler;
  // The likelihood has the tolerance where the sampler has none.
  const std::string kind = choice.sampler.value_or(info.sampling.sampler);
  if (std::ranges::count(options.metrics, "likelihood") > 0 &&
      kind != to_string(SamplerKind::ode_dopri5))
    choice.tolerance.reset();
  return chosen_sampler(choice, options.guidance, info, "eval");
}

}  // namespace

Samples plan_samples(const EvalArguments& options, const Model& model) {
  eval_sampler(options, model.info);  // refuses what does not fit
  Samples result{.shape = sample_shape(model.info.network)};
  result.count = options.count.value_or(result.shape.rank() == 3 ? default_images : default_points);
  return result;
}

void ask(Samples& samples, const DrawnClasses& classes) {
  for (std::int64_t i = 0; !classes.empty() && i < samples.count; ++i) {
    const auto& [drawn, asked] = classes[static_cast<std::size_t>(i % std::ssize(classes))];
    samples.drawn.push_back(drawn);
    samples.asked.push_back(asked);
  }
}

void draw_samples(const EvalArguments& options, const Model& model, const DataSet& data,
                  Samples& samples, ProgressLine& line) {
  const std::int64_t batch =
      options.batch.value_or(samples.shape.rank() == 3 ? image_batch : point_batch);
  check_room_for_samples(options, samples.shape, samples.count, batch);
  SamplerOptions chosen = eval_sampler(options, model.info);
  take_head_start(options.sampler, chosen, data, samples.shape);
  const Sampler sampler(with_precision(model.info.network, precision_from(options.precision)),
                        model.parameters, chosen);
  const auto report = [&](std::int64_t done) {
    if (line.due())
      line.show("drawing samples: " + grouped(done) + " of " + grouped(samples.count));
  };
  samples.values = sampler.sample(samples.count, std::min(batch, samples.count), options.seed,
                                  samples.drawn, {}, report);
  samples.what =
      grouped(samples.count) + " of " + printable(options.model) + ", " +
      evaluations_text(sampler.evaluations()) +
      (sampler.evaluations() == 1 ? " network evaluation each" : " network evaluations each");
  check_samples(samples.view(), 1, options.model.c_str());
}

std::int64_t chosen_probes(const EvalArguments& options, const Shape& sample_shape) {
  constexpr std::int64_t exact_dimensions = 16;
  return options.probes.value_or(sample_shape.elements() <= exact_dimensions ? 0 : 1);
}

void check_finite(const EvalArguments& options, const std::string& metric,
                  const std::vector<double>& values, std::int64_t first, std::int64_t count) {
  for (std::int64_t i = 0; i < std::ssize(values); ++i)
    if (!std::isfinite(values[static_cast<std::size_t>(i)]))
      throw Error("eval: " + options.model + ": " + metric + " of real sample " +
                  std::to_string(first + i * count / std::ssize(values)) +
                  " is not finite: training may have diverged, or the file be damaged");
}

Samples read_samples(const EvalArguments& options, const DataSet& set) {
  if (!set.size()) throw Error("eval: --samples " + options.samples + ": wants a file or folder");
  const std::int64_t size = *set.size(), wanted = options.count.value_or(size);
  if (wanted > size)
    throw Error("eval: --count " + std::to_string(wanted) + ": " + options.samples + " holds " +
                std::to_string(size) + " samples");
  Samples result{.shape = set.sample_shape(), .count = wanted};
  const auto elements = static_cast<std::size_t>(result.shape.elements());
  check_room_for_samples(options, result.shape, wanted, 1);
  result.values.resize(static_cast<std::size_t>(wanted) * elements);
  if (set.classes() > 0) result.asked.resize(static_cast<std::size_t>(wanted));
  for (std::int64_t position = 0; position < size; ++position) {
    const std::uint64_t row =
        permuted(static_cast<std::uint64_t>(position), static_cast<std::uint64_t>(size), 0,
                 0);  // where seed 0 puts it
    if (row >= static_cast<std::uint64_t>(wanted)) continue;
    const HostBatch one = set.batch(1, 0, static_cast<std::uint64_t>(position));
    std::copy(one.x.begin(), one.x.end(),
              result.values.begin() + static_cast<std::ptrdiff_t>(row * elements));
    if (set.classes() > 0) result.asked[row] = one.labels.front();
  }
  result.what = grouped(wanted) + " of " + printable(options.samples);
  return result;
}

std::vector<std::int32_t> asked_of(const EvalArguments& options, const DataSet& set,
                                   const std::vector<std::int32_t>& beside, std::int64_t count,
                                   const JudgedClasses& judged) {
  std::vector<std::int32_t> asked;
  const auto refuse = [&](const std::string& source, std::size_t sample, const std::string& name) {
    throw FormatError("eval: " + source + ": sample " + std::to_string(sample) +
                      " was asked to be of class " + name + ", " + judged.of + " has the classes " +
                      judged.text());
  };
  if (!options.labels.empty()) {
    for (const std::int64_t label :
         read_labels(options.labels, *set.size(), count, free_memory(options))) {
      const std::string name = std::to_string(label);
      asked.push_back(judged.find(name));
      if (asked.back() < 0) refuse(options.labels, asked.size() - 1, name);
    }
    return asked;
  }
  const std::string chosen = options.chosen_class.value_or("balanced");
  if (!options.chosen_class && !beside.empty()) {
    // Numbers that mean places where the data have names, as those of a file beside an array.
    const std::vector<std::string>& names = set.class_names();
    std::vector<std::int32_t> numbers;
    if (options.relabel) {
      numbers = judged_numbers(names, set.classes(), judged, options.samples, true);
    } else {
      for (const std::string& name : names) numbers.push_back(judged.find(name));
    }
    for (const std::int32_t label : beside) {
      asked.push_back(numbers[static_cast<std::size_t>(label)]);
      if (asked.back() < 0)
        throw Error("eval: --samples " + options.samples + ": class " +
                    names[static_cast<std::size_t>(label)] + " is not among those of " + judged.of +
                    ", " + judged.text() +
                    "; --labels or --class say what was asked for, --relabel takes classes in "
                    "their order");
    }
    return asked;
  }
  if (chosen == "none" || (chosen == "balanced" && judged.count == 0)) return asked;
  if (chosen != "balanced" && judged.count == 0)
    throw Error("eval: --class " + chosen + ": there are no classes");
  const std::int32_t one = chosen == "balanced" ? 0 : judged.find(chosen);
  if (one < 0)
    throw Error("eval: --class " + chosen + ": wants a class by name or number, " + judged.text() +
                ", balanced or none");
  for (std::int64_t i = 0; i < count; ++i)
    asked.push_back(chosen == "balanced" ? static_cast<std::int32_t>(i % judged.count) : one);
  return asked;
}

}  // namespace fluxion::cli
