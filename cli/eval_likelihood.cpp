#include "cli/eval_likelihood.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#if FLUXION_WITH_AUTOGRAD
#include "engine/compile.h"
#include "models/likelihood/elbo.h"
#include "models/likelihood/probability_flow.h"
#endif

namespace fluxion::cli {

namespace {

#if FLUXION_WITH_AUTOGRAD
constexpr std::int64_t likelihood_points = 1000, likelihood_images = 32;

struct MeanAndError {
  double mean = 0;
  std::optional<double> error = {};  // of one number nobody knows it
};
MeanAndError mean_and_error(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double value : values) sum += value;
  for (const double value : values) squares += (value - sum / n) * (value - sum / n);
  if (n < 2) return {sum};
  return {sum / n, std::sqrt(squares / (n - 1) / n)};
}
#endif

}  // namespace

std::vector<Measurement> model_likelihood([[maybe_unused]] const std::string& metric,
                                          [[maybe_unused]] const EvalArguments& options,
                                          [[maybe_unused]] const Model& model,
                                          [[maybe_unused]] const EvaluationData& data,
                                          [[maybe_unused]] const Device& device,
                                          [[maybe_unused]] ProgressLine& line) {
#if FLUXION_WITH_AUTOGRAD
  const Shape shape = sample_shape(model.info.network);
  const bool images = shape.rank() == 3;
  const std::int64_t dimensions = shape.elements(), classes = num_classes(model.info.network);
  const HostBatch real =
      data.reference(options.count.value_or(images ? likelihood_images : likelihood_points));
  const SampleView samples = data.view(real);
  const std::int64_t batch =
      std::min(options.batch.value_or(images ? likelihood_images : 250), samples.count);
  const bool bound = metric == "elbo";
  ProbabilityFlowOptions how;
  how.sketched = options.trace == "hutch++";
  how.probes = chosen_probes(options, shape);
  if (options.sampler.tolerance)
    how.relative_tolerance = how.absolute_tolerance = *options.sampler.tolerance;
  const NetworkConfig network =
      with_precision(model.info.network, precision_from(options.precision));
  const Predictor own = predictor(model.info, bind_parameters(network, model.parameters));
  const ProbabilityFlow flow(own, how);
  // The width of the levels of pictures; of points a hundredth of unit noise.
  const ElboOptions levels{.least_noise = images ? 1.0 / 128 : 0.01};
  const auto bounded = compile(std::function(
      [&](const Tensor& x, const Tensor& bound_key, const std::vector<Tensor>& classes_of) {
        return elbo(own, x, bound_key, levels, classes_of.empty() ? Tensor() : classes_of[0]);
      }));

  const Tensor key = random_key(options.seed, device);
  std::vector<double> surprise;  // -log p
  double evaluations = 0;
  for (std::int64_t begin = 0; begin < samples.count; begin += batch) {
    if (line.due())
      line.show("likelihood: " + grouped(begin) + " of " + grouped(samples.count) + " samples");
    const std::int64_t used = std::min(batch, samples.count - begin);
    // The last batch is filled up, so that all have one shape.
    std::vector<float> values;
    for (std::int64_t i = 0; i < batch; ++i) {
      const auto row =
          samples.values.subspan(static_cast<std::size_t>((begin + i % used) * dimensions),
                                 static_cast<std::size_t>(dimensions));
      values.insert(values.end(), row.begin(), row.end());
    }
    Tensor x = Tensor::from(values, with_leading_axis(batch, shape), device);
    const Tensor chunk_key = fold_in(key, static_cast<std::uint32_t>(begin));
    if (images) x = dequantised(x, fold_in(chunk_key, 1));
    const Tensor labels =
        classes > 0 ? full({batch}, static_cast<double>(classes), DType::i32, device) : Tensor();
    FlowLikelihood found{.log_p = {}, .z = {}, .divergence = {}};
    if (bound) {
      found.log_p = bounded(x, fold_in(chunk_key, 2),
                            labels ? std::vector<Tensor>{labels} : std::vector<Tensor>{});
      found.evaluations = static_cast<double>(levels.levels);
    } else {
      found = flow(x, labels, fold_in(chunk_key, 2));
    }
    const std::vector<float> log_p = found.log_p.to_host<float>();
    const std::vector<double> nats(log_p.begin(), log_p.begin() + used);
    check_finite(options, metric, nats, begin, used);
    for (const double each : nats) surprise.push_back(-each);
    evaluations += found.evaluations * static_cast<double>(used);
  }

  const MeanAndError nats = mean_and_error(surprise);
  const double per_sample = evaluations / static_cast<double>(samples.count);
  const std::string how_many =
      counted(samples.count, data.held_out() ? "test sample" : "real sample");
  const std::string divergence = how.probes == 0 ? "exact divergence"
                                                 : counted(how.probes, "probe") +
                                                       (how.sketched ? " of Hutch++" : "") +
                                                       " for the divergence";
  const double bits = images ? 7 : 0;
  Measurement in_nats{.name = bound ? "elbo" : "nll", .value = nats.mean};
  in_nats.note = (bound ? "nats, at least -log p of " : "nats, -log p of ") + how_many +
                 (nats.error ? ", +- " + rounded_text(*nats.error, 2) : "") + "; " +
                 (bound ? "" : divergence + ", ") + rounded_text(per_sample, 3) +
                 " evaluations each";
  if (!images) in_nats.floor = known_surprise(data.train(), samples);
  if (in_nats.floor) in_nats.draws = 1, in_nats.floor_count = samples.count;
  Measurement in_bits{.name = bound ? "elbo-bits/dim" : "bits/dim",
                      .value = bits_per_dimension(-nats.mean, dimensions, bits)};
  in_bits.note = images ? "of 256 levels, dequantised" : "of the density";
  if (in_nats.floor) {
    in_bits.floor = bits_per_dimension(-*in_nats.floor, dimensions, bits);
    in_bits.draws = 1, in_bits.floor_count = samples.count;
  }
  return {in_nats, in_bits};
#else
  return {};
#endif
}

}  // namespace fluxion::cli
