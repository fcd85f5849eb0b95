#include "models/evaluation/evaluation.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "engine/error.h"
#include "engine/number_text.h"
#include "models/data/points.h"
#include "models/evaluation/classifier_test.h"
#include "models/evaluation/distances.h"
#include "models/evaluation/frechet.h"
#include "models/evaluation/modes.h"
#include "models/evaluation/neighbours.h"
#include "models/evaluation/planar_divergence.h"
#include "models/evaluation/two_sample.h"

namespace fluxion {

namespace {

constexpr std::int64_t largest_assignment = 2000;
constexpr std::int64_t ball_neighbours = 3;  // of precision and recall

// What is known of a built-in density, by the name of its set.
struct KnownModes {
  std::vector<std::array<float, 2>> centres;
  double deviation = 0;
  std::optional<Checkerboard> board;
};
std::optional<KnownModes> known_modes(const DataSet& data) {
  if (data.name() == "8gaussians" || data.name() == "8gaussians-torchcfm") {
    const PlanarMixture mixture = planar_mixture(data.name());
    KnownModes modes{.centres = {}, .deviation = mixture.deviation, .board = {}};
    for (const auto& [x, y] : mixture.centres)
      modes.centres.push_back({static_cast<float>(x), static_cast<float>(y)});
    return modes;
  }
  if (data.name() == "checkerboard")
    return KnownModes{.centres = {}, .deviation = 0, .board = Checkerboard{}};
  return std::nullopt;
}

// A set of samples as all metrics see it.
struct Subject {
  SampleView samples;   // coordinates or pixels
  SampleView features;  // of the judge, or the coordinates of points
};

// One metric gives one number or several that are computed together.
using Numbers = std::vector<Measurement>;
using Metric = std::function<Numbers(const Subject& x)>;

std::string counted(std::int64_t count, const char* what) {
  return std::to_string(count) + " " + what;
}

class Evaluator {
 public:
  Evaluator(const SampleView& samples, const std::vector<std::int32_t>& asked,
            const EvaluationData& data, const Judge* judge, const EvaluationOptions& options,
            const EvaluationProgress& progress)
      : samples_(samples),
        asked_(asked),
        data_(data),
        judge_(judge),
        options_(options),
        progress_(progress) {
    check_samples(samples, 1, "evaluation");
    const Shape& shape = data.train().sample_shape();
    if (samples.dim != shape.elements())
      throw ShapeError("evaluation: the data's samples are " + to_string(shape) +
                       ", the generated ones have " + std::to_string(samples.dim) +
                       " numbers each");
    if (judge && judge->info().sample_shape != shape)
      throw ShapeError("evaluation: the classifier judges samples of shape " +
                       to_string(judge->info().sample_shape) + ", the data's are " +
                       to_string(shape));
    reference_ = data.reference(samples.count);
    floor_count_ = data.draws(samples.count, 1) > 0
                       ? samples.count
                       : static_cast<std::int64_t>(reference_.labels.size());
    draws_ = data.draws(floor_count_, options.draws);
  }

  Numbers operator()(const std::string& name) {
    tell(name);
    if (name == "classifier") return {accuracy()};
    const Metric metric = this->metric(name);
    Numbers numbers = metric(subject(samples_, generated_features_));
    // The same with fresh data in place of the samples.
    std::vector<std::vector<double>> floors(numbers.size());
    for (std::int64_t draw = 0; draw < draws_; ++draw) {
      tell(name + ", noise floor " + std::to_string(draw + 1) + " of " + std::to_string(draws_));
      Features features;
      const HostBatch fresh = data_.fresh(floor_count_, draw);
      const Numbers values = metric(subject(data_.view(fresh), features));
      for (std::size_t i = 0; i < values.size(); ++i) floors[i].push_back(values[i].value);
    }
    for (std::size_t i = 0; i < numbers.size(); ++i) add_floor(numbers[i], floors[i]);
    if (name == "frechet") add_large_floor(metric, numbers.front());
    return numbers;
  }

 private:
  using Features = std::optional<Judge::Verdict>;

  void tell(const std::string& doing) const {
    if (progress_) progress_(doing);
  }

  void add_floor(Measurement& number, const std::vector<double>& values) const {
    if (values.empty()) return;
    const auto count = static_cast<double>(values.size());
    const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
    double squares = 0;
    for (const double value : values) squares += (value - mean) * (value - mean);
    number.floor = mean;
    number.spread = values.size() > 1 ? std::sqrt(squares / (count - 1)) : 0;
    number.draws = static_cast<std::int64_t>(values.size());
    number.floor_count = floor_count_;
    if (floor_count_ != samples_.count)
      number.note += "; floor: " + counted(floor_count_, "real samples");
  }

  // The features come from the judge, once for each set of samples; points without a judge are
  // their own.
  SampleView features_of(const SampleView& samples, Features& kept) {
    if (!judge_) {
      if (data_.train().is_image())
        throw Error("evaluation: features of images need a classifier, which needs labelled data");
      return samples;
    }
    if (!kept) kept = (*judge_)(samples);
    return kept->view();
  }
  // Lazy: only frechet and recall ask for features.
  Subject subject(const SampleView& samples, Features& kept) {
    return {samples, wants_features_ ? features_of(samples, kept) : SampleView{}};
  }

  const HostBatch& large_reference() {
    if (large_reference_.labels.empty()) large_reference_ = data_.reference(options_.reference);
    return large_reference_;
  }
  SampleView large_reference_features() {
    return features_of(data_.view(large_reference()), large_reference_features_);
  }

  Measurement accuracy() {
    if (!judge_) throw Error("evaluation: classifier needs labelled data");
    if (asked_.empty())
      throw Error(
          "evaluation: classifier needs to know the class that each sample was asked to be");
    features_of(samples_, generated_features_);
    Measurement result{.name = "accuracy",
                       .value = class_accuracy(generated_features_->classes, asked_),
                       .lower_is_better = false};
    result.note = "samples classified as asked";
    if (data_.train().classes() == 0 || options_.draws == 0)
      return result;  // without labels nobody knows what is right
    large_reference_features();
    // Of the classes that the judge has seen: it can't be right about another.
    std::vector<std::int32_t> judged, labels;
    for (std::size_t i = 0; i < large_reference().labels.size(); ++i) {
      if (!judge_->knows(large_reference().labels[i])) continue;
      judged.push_back(large_reference_features_->classes[i]);
      labels.push_back(large_reference().labels[i]);
    }
    if (labels.empty()) return result;
    result.floor = class_accuracy(judged, labels);
    result.draws = 1;
    result.floor_count = static_cast<std::int64_t>(labels.size());
    result.note += "; floor: " + counted(result.floor_count, "real samples");
    return result;
  }

  Metric metric(const std::string& name) {
    const SampleView reference = data_.view(reference_);
    const int threads = options_.threads;
    wants_features_ = name == "frechet" || name == "recall";
    if (name == "sliced-wasserstein")
      return [=](const Subject& x) -> Numbers {
        return {{.name = name,
                 .value = sliced_wasserstein2(x.samples, reference, Slices{}, threads),
                 .note = "512 directions"}};
      };
    if (name == "wasserstein" || name == "wasserstein-1")
      return [=](const Subject& x) -> Numbers {
        const std::int64_t count = std::min({x.samples.count, reference.count, largest_assignment});
        const auto distance = name == "wasserstein" ? wasserstein2 : wasserstein1;
        const SomeSamples some(x.samples, count), others(reference, count);
        return {{.name = name,
                 .value = distance(some.view(), others.view(), threads),
                 .note = counted(count, "samples, exact")}};
      };
    if (name == "kl")
      return [=](const Subject& x) -> Numbers {
        const GridCells cells;
        const std::string side = std::to_string(cells.per_axis);
        return {{.name = name,
                 .value = planar_divergence(reference, x.samples, cells),
                 .note = "nats, of the data from the samples on " + side + " x " + side +
                         " cells, 1/2 added to each"}};
      };
    if (name == "c2st")
      return [=](const Subject& x) -> Numbers {
        const ClassifierTest test;
        const std::int64_t count = std::min({x.samples.count, reference.count, test.most_samples});
        return {{.name = name,
                 .value = classifier_test(x.samples, reference, test, threads),
                 .note = "told from " + counted(count, "real ones by a classifier; best: 0.5")}};
      };
    if (name == "energy")
      return [=](const Subject& x) -> Numbers {
        return {{.name = name,
                 .value = energy_distance(x.samples, reference, true, threads),
                 .note = "unbiased: may be negative"}};
      };
    if (name == "mmd") {
      const RbfKernel kernel{.bandwidth = median_distance(reference, threads), .octaves = 2};
      const std::string note = "squared, unbiased; RBF bandwidths " +
                               rounded_text(kernel.bandwidth / 4, 3) + " to " +
                               rounded_text(kernel.bandwidth * 4, 3);
      return [=](const Subject& x) -> Numbers {
        return {
            {.name = name, .value = mmd2_rbf(x.samples, reference, kernel, threads), .note = note}};
      };
    }
    if (name == "modes") return modes();
    if (name == "frechet") {
      const SampleView features = large_reference_features();
      const std::string title = !judge_                    ? "frechet"
                                : data_.train().is_image() ? "LeNet-FD"
                                                           : "feature-FD";
      const std::string note =
          "to " + counted(features.count, data_.held_out() ? "test samples" : "real samples");
      return [=, moments = moments(features)](const Subject& x) -> Numbers {
        return {{.name = title,
                 .value = frechet_distance(fluxion::moments(x.features), moments),
                 .note = note}};
      };
    }
    if (name == "recall") {
      const SampleView features = features_of(reference, reference_features_);
      return [=](const Subject& x) -> Numbers {
        const Coverage found = precision_recall(features, x.features, ball_neighbours, threads);
        return {{.name = "precision",
                 .value = found.precision,
                 .lower_is_better = false,
                 .note = "samples within a " + std::to_string(ball_neighbours) +
                         "-neighbour ball of the data"},
                {.name = "recall",
                 .value = found.recall,
                 .lower_is_better = false,
                 .note = "data within a " + std::to_string(ball_neighbours) +
                         "-neighbour ball of the samples"},
                {.name = "density",
                 .value = found.density,
                 .lower_is_better = false,
                 .note = "data balls around a sample / 3"},
                {.name = "coverage",
                 .value = found.coverage,
                 .lower_is_better = false,
                 .note = "data balls with a sample inside"}};
      };
    }
    if (is_of_model(name))
      throw Error("evaluation: the metric " + name + " is of a model, and samples don't tell it");
    throw Error("evaluation: no metric \"" + name + "\"");
  }

  Metric modes() const {
    const std::optional<KnownModes> known = known_modes(data_.train());  // there: check_metrics
    if (known->board)
      return [board = *known->board](const Subject& x) -> Numbers {
        return {{.name = "on-board",
                 .value = share_on_board(x.samples, board),
                 .lower_is_better = false,
                 .note = "points in occupied squares; a uniform density gives 0.5"}};
      };
    return [known = *known](const Subject& x) -> Numbers {
      const ModeCounts counts = count_modes(x.samples, known.centres, known.deviation);
      return {{.name = "within-3-sigma",
               .value = counts.within,
               .lower_is_better = false,
               .note = "points near a centre"},
              {.name = "worst-mode",
               .value = counts.worst,
               .note = "largest |share of a mode - 1/8|",
               .parts = counts.shares}};
    };
  }

  // Frechet distances shrink with the sample: what the data get with many samples says how far down
  // a model could go.
  void add_large_floor(const Metric& metric, Measurement& number) {
    const std::int64_t count = options_.reference;
    if (options_.draws == 0 || data_.draws(count, 1) == 0 || count == floor_count_) return;
    tell("frechet, noise floor of " + counted(count, "samples"));
    Features features;
    const HostBatch fresh = data_.fresh(count, 0);
    number.large_floor = metric(subject(data_.view(fresh), features)).front().value;
    number.large_draw = count;
  }

  const SampleView samples_;
  const std::vector<std::int32_t>& asked_;
  const EvaluationData& data_;
  const Judge* judge_;
  const EvaluationOptions& options_;
  const EvaluationProgress& progress_;
  HostBatch reference_, large_reference_;
  Features generated_features_, reference_features_, large_reference_features_;
  std::int64_t floor_count_ = 0, draws_ = 0;
  bool wants_features_ = false;
};

}  // namespace

std::optional<double> known_surprise(const DataSet& data, const SampleView& points) {
  const std::optional<KnownModes> known = known_modes(data);
  if (!known) return std::nullopt;
  check_samples(points, 1, "likelihood");
  if (known->board) {
    const double side = known->board->high - known->board->low;
    return std::log(side * side / 2);  // half of the cells are occupied
  }
  const double variance = known->deviation * known->deviation;
  double total = 0;
  for (std::int64_t i = 0; i < points.count; ++i) {
    const auto at = static_cast<std::size_t>(2 * i);
    std::vector<double> squares;
    for (const auto& [x, y] : known->centres)
      squares.push_back(std::pow(points.values[at] - x, 2) +
                        std::pow(points.values[at + 1] - y, 2));
    const double nearest = *std::min_element(squares.begin(), squares.end());
    double sum = 0;
    for (const double square : squares) sum += std::exp((nearest - square) / (2 * variance));
    total += nearest / (2 * variance) - std::log(sum / static_cast<double>(squares.size())) +
             std::log(2 * std::numbers::pi * variance);
  }
  return total / static_cast<double>(points.count);
}

const std::vector<MetricName>& metric_names() {
  static const std::vector<MetricName> names = {
      {"sliced-wasserstein", "sliced 2-Wasserstein distance"},
      {"energy", "energy distance"},
      {"mmd", "squared maximum mean discrepancy"},
      {"wasserstein", "exact 2-Wasserstein distance of up to 2,000 samples"},
      {"wasserstein-1", "exact 1-Wasserstein distance of up to 2,000 samples"},
      {"kl", "Kullback-Leibler divergence on a grid, of points in the plane"},
      {"c2st", "share of samples that a classifier tells from real ones"},
      {"modes", "share of points near the modes of a built-in set"},
      {"classifier", "share of samples that a classifier takes for what was asked"},
      {"frechet", "Frechet distance of a classifier's features"},
      {"recall", "precision, recall, density and coverage"},
      {"likelihood", "how likely real samples are to a model, in nats and bits per dimension"},
      {"elbo", "the variational bound of that likelihood, which needs no derivative"},
      {"conservativity", "how far a model's score is from a gradient"},
      {"dimension", "directions in which data vary, by the Jacobian of a model's denoiser"},
  };
  return names;
}

bool is_of_model(const std::string& metric) {
  return metric == "likelihood" || metric == "elbo" || metric == "conservativity" ||
         metric == "dimension";
}

bool needs_judge(const std::string& metric, const DataSet& data) {
  if (metric == "classifier") return true;
  return (metric == "frechet" || metric == "recall") && (data.is_image() || data.classes() > 1);
}

void check_metrics(const std::vector<std::string>& metrics, const DataSet& data) {
  for (const std::string& name : metrics) {
    std::string names;
    bool found = false;
    for (const MetricName& known : metric_names()) {
      names += (names.empty() ? "" : ", ") + known.name;
      found = found || known.name == name;
    }
    if (!found) throw Error("evaluation: no metric \"" + name + "\"; there are " + names);
    if (name == "kl" && data.sample_shape() != Shape{2})
      throw Error("evaluation: kl counts points of the plane, and " + data.name() +
                  " holds samples of shape " + to_string(data.sample_shape()) +
                  "; leave the metric kl out");
    if (name == "modes" && !known_modes(data))
      throw Error("evaluation: the modes of " + data.name() +
                  " are not known; leave the metric modes out");
  }
}

namespace {

// The bandwidths of mmd are multiples of the median distance of the reference.
void check_bandwidth(std::int64_t count, const EvaluationData& data) {
  const auto differ = [&](std::int64_t first) {
    const HostBatch batch = data.reference(first);
    const SampleView samples = data.view(batch);
    for (std::int64_t i = samples.dim; i < std::ssize(batch.x); ++i)
      if (batch.x[static_cast<std::size_t>(i)] !=
          batch.x[static_cast<std::size_t>(i - samples.dim)])
        return true;
    return false;
  };
  // Two nearly always do.
  const std::int64_t looked_at = std::min(count, median_samples);
  if (!differ(2) && !differ(looked_at))
    throw Error("evaluation: mmd needs real samples that differ, and the first " +
                std::to_string(looked_at) + " of " + data.train().name() +
                " to compare with are all equal; leave the metric mmd out");
}

}  // namespace

void check_counts(const std::vector<std::string>& metrics, std::int64_t count,
                  const EvaluationData& data) {
  for (const std::string& name : metrics) {
    const std::int64_t least = name == "recall" ? ball_neighbours + 1
                               : name == "c2st" ? 2 * ClassifierTest().folds
                               : name == "frechet" || name == "energy" || name == "mmd" ? 2
                                                                                        : 1;
    if (count < least)
      throw ShapeError("evaluation: " + name + " needs at least " + std::to_string(least) +
                       " samples, got " + std::to_string(count));
    const std::int64_t real = data.reference_size().value_or(least);
    if (name != "classifier" && real < least)
      throw ShapeError("evaluation: " + name + " needs at least " + std::to_string(least) +
                       " real samples to compare with, " + data.train().name() + " has " +
                       std::to_string(real) + (data.held_out() ? " held out" : " in half of it"));
    if (name == "mmd") check_bandwidth(count, data);
  }
}

double evaluation_bytes(const EvaluationOptions& options, std::int64_t count,
                        const EvaluationData& data) {
  const auto wanted = [&](const char* name) {
    return std::ranges::count(options.metrics, name) > 0;
  };
  const auto real = [&](std::int64_t most) {
    return std::min(most, data.reference_size().value_or(most));
  };
  const bool floors = options.draws > 0;
  double bytes = data.batch_bytes(real(count));
  if (floors) bytes += data.batch_bytes(data.draws(count, 1) > 0 ? count : real(count));
  if (wanted("frechet") || wanted("classifier")) bytes += data.batch_bytes(real(options.reference));
  // For the noise floor of that many.
  if (wanted("frechet") && floors && data.draws(options.reference, 1) > 0)
    bytes += data.batch_bytes(options.reference);
  // Of images, neighbours are those of a classifier's few features.
  if (wanted("energy") || wanted("mmd") || (wanted("recall") && !data.train().is_image()))
    bytes += distance_bytes(count, count, data.train().sample_shape().elements());
  return bytes;
}

std::vector<std::string> default_metrics(const DataSet& data, bool with_judge) {
  if (with_judge) return {"classifier", "frechet", "recall"};
  std::vector<std::string> names = {"sliced-wasserstein", "energy", "mmd"};
  if (known_modes(data)) names.push_back("modes");
  return names;
}

std::vector<Measurement> evaluate_samples(const SampleView& samples,
                                          const std::vector<std::int32_t>& asked,
                                          const EvaluationData& data, const Judge* judge,
                                          const EvaluationOptions& options,
                                          const EvaluationProgress& progress) {
  check_metrics(options.metrics, data.train());
  check_samples(samples, 1, "evaluation");
  check_counts(options.metrics, samples.count, data);
  Evaluator evaluator(samples, asked, data, judge, options, progress);
  std::vector<Measurement> result;
  for (const std::string& name : options.metrics)
    for (Measurement& number : evaluator(name)) result.push_back(std::move(number));
  return result;
}

}  // namespace fluxion
