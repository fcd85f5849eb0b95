#include "cli/eval_diagnostics.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "models/data/points.h"
#include "models/exact/gaussian_mixture.h"
#include "models/layers/host_numbers.h"
#include "models/samplers/default_sampler.h"
#if FLUXION_WITH_AUTOGRAD
#include "models/diagnostics/jacobian.h"
#endif

namespace fluxion::cli {

namespace {

#if FLUXION_WITH_AUTOGRAD
constexpr std::int64_t diagnosed_points = 500, diagnosed_images = 16, diagnosed_at_once = 250;
constexpr std::int64_t most_directions = 64;  // that are counted
// Of the noise, in standard deviations of the data.
const std::vector<double> asymmetry_levels = {0.1, 0.5, 2}, dimension_levels = {0.05, 0.1, 0.2};

double deviation_of(const SampleView& samples) {
  double total = 0;
  for (std::int64_t k = 0; k < samples.dim; ++k) {
    double sum = 0, squares = 0;
    const auto at = [&](std::int64_t i) {
      return double{samples.values[static_cast<std::size_t>(i * samples.dim + k)]};
    };
    for (std::int64_t i = 0; i < samples.count; ++i) sum += at(i);
    const double mean = sum / static_cast<double>(samples.count);
    for (std::int64_t i = 0; i < samples.count; ++i) squares += (at(i) - mean) * (at(i) - mean);
    total += squares / static_cast<double>(samples.count);
  }
  return std::sqrt(total / static_cast<double>(samples.dim));
}

// The best network there can be for a built-in set whose density is a mixture.
std::optional<GaussianMixture> exact_model(const DataSet& data, const Device& device) {
  if (data.name() != "8gaussians" && data.name() != "8gaussians-torchcfm") return std::nullopt;
  const PlanarMixture known = planar_mixture(data.name());
  std::vector<GaussianComponent> components;
  for (const auto& [x, y] : known.centres)
    components.push_back(isotropic(1, {x, y}, known.deviation * known.deviation));
  return GaussianMixture(components, device, DType::f32);
}

// Real samples, the same at every level, and what is measured at them.
class Diagnosis {
 public:
  Diagnosis(const EvalArguments& options, const Model& model, const EvaluationData& data,
            const Device& device, ProgressLine& line)
      : options_(options), device_(device), line_(line), shape_(sample_shape(model.info.network)) {
    const bool images = shape_.rank() == 3;
    real_ = data.reference(options.count.value_or(images ? diagnosed_images : diagnosed_points));
    samples_ = data.view(real_);
    batch_ = std::min(options.batch.value_or(images ? diagnosed_images : diagnosed_at_once),
                      samples_.count);
    probes_ = chosen_probes(options, shape_);
    classes_ = num_classes(model.info.network);
    deviation_ = deviation_of(samples_);
    if (!(deviation_ > 0))
      throw Error("eval: noise is measured by the spread of the data, and there is none among " +
                  number() + "; --count takes more");
  }

  const Shape& shape() const { return shape_; }
  std::int64_t dimensions() const { return shape_.elements(); }
  std::int64_t probes() const { return probes_; }
  std::string number() const { return counted(samples_.count, "real sample"); }
  double time(const Path& path, double level) const {
    const double t = path.time_of(PathNumbers{1, level * deviation_, 0, 0});
    return std::clamp(t, path.clean_time(), path.noise_time());
  }
  // Probes of entries +-1, or, for 0 of them, all unit vectors.
  Tensor probes_for(const Tensor& x, const Tensor& key) const {
    if (probes_ > 0) return rademacher_probes(key, x, probes_);
    const std::int64_t d = dimensions();
    const Tensor unit =
        eq(iota({d, d}, 0, DType::i32, device_), iota({d, d}, 1, DType::i32, device_));
    Dims once = x.shape().dims();
    once.front() = 1;
    once.insert(once.begin(), d);
    return broadcast_to(reshape(convert(unit, x.dtype()), Shape(once)),
                        with_leading_axis(d, x.shape()));
  }
  // body(x, labels, key) for the samples in batches, one number or several for each. Throws Error
  // for those that are not finite.
  std::vector<double> each(
      const std::string& doing,
      const std::function<std::vector<double>(const Tensor& x, const Tensor& labels,
                                              const Tensor& key)>& body) const {
    std::vector<double> result;
    const Tensor key = random_key(options_.seed, device_);
    for (std::int64_t begin = 0; begin < samples_.count; begin += batch_) {
      if (line_.due())
        line_.show(doing + ": " + grouped(begin) + " of " + grouped(samples_.count) + " samples");
      const std::int64_t used = std::min(batch_, samples_.count - begin);
      const auto values = samples_.values.subspan(static_cast<std::size_t>(begin * samples_.dim),
                                                  static_cast<std::size_t>(used * samples_.dim));
      const Tensor x = Tensor::from(std::vector<float>(values.begin(), values.end()),
                                    with_leading_axis(used, shape_), device_);
      const Tensor labels = classes_ > 0
                                ? full({used}, static_cast<double>(classes_), DType::i32, device_)
                                : Tensor();
      const std::vector<double> rows =
          body(x, labels, fold_in(key, static_cast<std::uint32_t>(begin)));
      check_finite(options_, doing, rows, begin, used);
      result.insert(result.end(), rows.begin(), rows.end());
    }
    return result;
  }

 private:
  const EvalArguments& options_;
  const Device& device_;
  ProgressLine& line_;
  Shape shape_;
  HostBatch real_;
  SampleView samples_;
  std::int64_t batch_ = 1, probes_ = 0, classes_ = 0;
  double deviation_ = 1;
};

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// A ratio of means and how far off it may be, from its numerators and denominators in turn; 0 where
// all are 0.
struct Ratio {
  double value = 0, error = 0;
};
Ratio ratio_of(const std::vector<double>& pairs) {
  double above = 0, below = 0, squares = 0;
  for (std::size_t i = 0; i < pairs.size(); i += 2) above += pairs[i], below += pairs[i + 1];
  if (below == 0) return {};
  const double value = above / below;
  for (std::size_t i = 0; i < pairs.size(); i += 2)
    squares += (pairs[i] - value * pairs[i + 1]) * (pairs[i] - value * pairs[i + 1]);
  return {value, std::sqrt(squares) / below};
}

Ratio asymmetry_at(const Diagnosis& diagnosis, const Predictor& predictor, double level) {
  const double t = diagnosis.time(predictor.path, level);
  return ratio_of(diagnosis.each("conservativity", [&](const Tensor& x, const Tensor& labels,
                                                       const Tensor& key) {
    const Tensor time = full({x.size(0)}, t, DType::f32, x.device());
    const Tensor z = noised(predictor.path, x, normal(fold_in(key, 1), x.shape()), time);
    // A multiple of the score.
    const Field noise = [&](const Tensor& at) {
      return predictor(Prediction::noise, at, time, labels);
    };
    const Asymmetry found = asymmetry(noise, z, diagnosis.probes_for(x, fold_in(key, 2)));
    const std::vector<double> above = doubles_of(found.difference), below = doubles_of(found.size);
    std::vector<double> pairs;
    for (std::size_t i = 0; i < above.size(); ++i) pairs.insert(pairs.end(), {above[i], below[i]});
    return pairs;
  }));
}

double directions_at(const Diagnosis& diagnosis, const Predictor& predictor, double level,
                     std::uint64_t seed) {
  const double t = diagnosis.time(predictor.path, level);
  const SpectrumOptions how{.count = std::min(diagnosis.dimensions(), most_directions),
                            .seed = seed};
  return mean_of(
      diagnosis.each("dimension", [&](const Tensor& x, const Tensor& labels, const Tensor& key) {
        const Tensor time = full({x.size(0)}, t, DType::f32, x.device());
        const Tensor z = noised(predictor.path, x, normal(fold_in(key, 1), x.shape()), time);
        return wide_directions(predictor, z, t, how, labels);
      }));
}

double flipd_at(const Diagnosis& diagnosis, const Predictor& predictor, double level) {
  const double t = diagnosis.time(predictor.path, level);
  return mean_of(
      diagnosis.each("dimension", [&](const Tensor& x, const Tensor& labels, const Tensor& key) {
        const Tensor probes = diagnosis.probes() > 0 ? diagnosis.probes_for(x, key) : Tensor();
        return doubles_of(flipd(predictor, x, t, probes, labels));
      }));
}

void set_floor(Measurement& number, double value, std::int64_t count) {
  number.floor = value;
  number.draws = 1;
  number.floor_count = count;
  number.note += "; floor: the exact score of the set";
}
#endif

}  // namespace

void check_model_metric(const std::string& metric, const EvalArguments& options,
                        const ModelInfo& info) {
  const std::string start = "eval: the metric " + metric + " ";
#if FLUXION_WITH_AUTOGRAD
  if (options.guidance != 1) throw Error(start + "is of the model itself: leave --guidance out");
  if (info.prediction == Prediction::end_point)
    throw Error(start + "needs a velocity, and this model predicts end points");
  if (!info.source.empty())
    throw Error(start +
                "is of a flow from standard normal noise, and this model begins with points "
                "of " +
                info.source);
  if (metric != "likelihood" && !info.coupling.empty())
    throw Error(start +
                "needs the score, and this model was trained without noise that is "
                "independent of the data");
  if (metric == "likelihood" && options.trace &&
      chosen_probes(options, sample_shape(info.network)) == 0)
    throw Error("eval: --trace " + *options.trace +
                " is for random probes, and the divergence is exact here; --probes N takes N");
  default_sampler(info);  // refuses models that do not say on which path they predict
  check_open_class(info);
#else
  (void)options, (void)info;
  throw Error(start + "needs derivatives, which this build has not");
#endif
}

std::vector<Measurement> model_diagnostic([[maybe_unused]] const std::string& metric,
                                          [[maybe_unused]] const EvalArguments& options,
                                          [[maybe_unused]] const Model& model,
                                          [[maybe_unused]] const EvaluationData& data,
                                          [[maybe_unused]] const Device& device,
                                          [[maybe_unused]] ProgressLine& line) {
  std::vector<Measurement> result;
#if FLUXION_WITH_AUTOGRAD
  const Diagnosis diagnosis(options, model, data, device, line);
  const NetworkConfig network =
      with_precision(model.info.network, precision_from(options.precision));
  const Predictor own = predictor(model.info, bind_parameters(network, model.parameters));
  const std::optional<GaussianMixture> exact = exact_model(data.train(), device);
  const auto best = [&] { return exact->predictor(own.prediction, own.path); };
  const auto named = [](const char* name, double level) {
    return name + ("@" + rounded_text(level, 3));
  };
  const std::string probed =
      diagnosis.probes() == 0 ? "exact" : counted(diagnosis.probes(), "probe");
  if (metric == "conservativity") {
    for (const double level : asymmetry_levels) {
      const Ratio found = asymmetry_at(diagnosis, own, level);
      Measurement row{.name = named("asymmetry", level), .value = found.value};
      row.note = "+- " + rounded_text(found.error, 2) + ", |J - J'|^2 / 2|J|^2 of the score at " +
                 diagnosis.number() + ", " + probed;
      if (exact) set_floor(row, asymmetry_at(diagnosis, best(), level).value, 0);
      result.push_back(std::move(row));
    }
    return result;
  }
  for (const double level : dimension_levels) {
    Measurement row{.name = named("dimension", level),
                    .value = directions_at(diagnosis, own, level, options.seed)};
    const std::int64_t looked_at = std::min(diagnosis.dimensions(), most_directions);
    row.note = "of " + std::to_string(looked_at) + " directions, those wider than the noise" +
               (looked_at < diagnosis.dimensions()
                    ? "; there are " + std::to_string(diagnosis.dimensions())
                    : std::string());
    if (exact) set_floor(row, directions_at(diagnosis, best(), level, options.seed), 0);
    result.push_back(std::move(row));
  }
  for (const double level : dimension_levels) {
    Measurement row{.name = named("flipd", level), .value = flipd_at(diagnosis, own, level)};
    row.note = "dimension of the data by the score's trace, " + probed;
    if (exact) set_floor(row, flipd_at(diagnosis, best(), level), 0);
    result.push_back(std::move(row));
  }
#endif
  return result;
}

}  // namespace fluxion::cli
