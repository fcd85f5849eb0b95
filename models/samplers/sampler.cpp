#include "models/samplers/sampler.h"

#include <algorithm>
#include <utility>

#include "engine/compile.h"
#include "engine/error.h"
#include "engine/export/sample_noise.h"
#include "engine/graph/ops.h"
#include "models/data/source_set.h"
#include "models/exact/gaussian_mixture.h"
#include "models/samplers/head_start.h"

namespace fluxion {
Tensor sampler_step(SamplerKind kind, const Velocity& network, const Tensor& z, const Tensor& t,
                    const Tensor& s, const Tensor& labels) {
  const Shape batch{z.size(0)};
  const Tensor h = s - t;
  const auto scaled = [&](const Tensor& step, const Tensor& slope) {
    return over_samples(step, z.rank()) * slope;
  };
  const auto times = [&](const Tensor& time) { return broadcast_to(time, batch); };
  if (kind == SamplerKind::meanflow) return z + scaled(h, network(z, {times(t), times(s)}, labels));

  const auto velocity = [&](const Tensor& at, const Tensor& time) {
    return network(at, {times(time), times(time)}, labels);
  };
  const Tensor k1 = velocity(z, t);
  if (kind == SamplerKind::ode_euler) return z + scaled(h, k1);
  if (kind == SamplerKind::ode_heun)
    return z + scaled(0.5 * h, k1 + velocity(z + scaled(h, k1), s));
  const Tensor half = 0.5 * h, middle = t + half;
  if (kind == SamplerKind::ode_midpoint)
    return z + scaled(h, velocity(z + scaled(half, k1), middle));
  if (kind != SamplerKind::ode_rk4)
    throw Error("sampler_step: " + to_string(kind) + " needs more than two times; Solver runs it");
  const Tensor k2 = velocity(z + scaled(half, k1), middle);
  const Tensor k3 = velocity(z + scaled(half, k2), middle);
  const Tensor k4 = velocity(z + scaled(h, k3), s);
  return z + scaled(h / 6.0, k1 + 2.0 * k2 + 2.0 * k3 + k4);
}

SamplerOptions with_times(SamplerOptions options, const TimeGrid& grid) {
  options.times.clear();
  for (const GridPoint& point : grid) options.times.push_back(point.t);
  return options;
}

struct Sampler::State {
  Shape sample_shape;
  std::int64_t classes;
  DType dtype;
  Device device;
  std::optional<BestSteps> best;
  Solver solver;
  SampleNoise noise;                      // copied by each call, for the block that it keeps
  std::optional<Gaussian> head_start;     // of the data, whose flow is gone first
  std::shared_ptr<const DataSet> source;  // of what samples begin with; none: the noise

  State(Predictor predictor, Shape shape, std::int64_t num_classes, DType number_type,
        const Device& on, const SamplerOptions& options, const std::optional<Steering>& steering)
      : sample_shape(std::move(shape)),
        classes(num_classes),
        dtype(number_type),
        device(on),
        best(found_best(predictor, options)),
        solver(std::move(predictor), best ? with_times(options, best->grid) : options, num_classes,
               steering),
        noise(sample_shape, dtype, device) {
    if (steering) check(*steering, sample_shape);
    if (steering && !options.on_path)
      throw Error(
          "steering: this model is a flow of its own, whose states are not data under noise, and "
          "what is steered is");
    if (options.head_start) {
      const HeadStart& fitted = *options.head_start;
      if (std::ssize(fitted.mean) != sample_shape.elements())
        throw ShapeError("sampler: the head start is of " + std::to_string(fitted.mean.size()) +
                         " numbers, samples have " + std::to_string(sample_shape.elements()));
      head_start.emplace(fitted.mean, fitted.covariance, device, dtype);
    }
    if (!options.source.empty()) source = source_set(options.source, sample_shape);
  }

  std::optional<BestSteps> found_best(const Predictor& predictor,
                                      const SamplerOptions& options) const {
    if (options.grid != GridKind::best || !options.times.empty()) return std::nullopt;
    return find_best_steps(options, predictor, sample_shape, classes, dtype, device);
  }
  Tensor labels_or_null(const Tensor& labels, std::int64_t batch) const {
    if (classes == 0 || labels) return labels;
    return Tensor::from(std::vector<std::int32_t>(static_cast<std::size_t>(batch),
                                                  static_cast<std::int32_t>(classes)),
                        {batch}, device);
  }
  // Noise at the noisiest time, at that where the grid begins.
  Tensor started(const Tensor& noise) const {
    const Path& path = solver.path();
    const auto time = [&](double t) { return full({}, t, dtype, device); };
    const double from = path.noise_time();
    const Tensor z = reshape(path.at(from).sigma * noise, {noise.size(0), -1});
    return reshape(head_start->flow_map(path, z, time(from), time(solver.grid().front().t)),
                   noise.shape());
  }
  Tensor walk(SolverBatch batch, const RunOptions& run) const {
    batch.labels = classes > 0 ? labels_or_null(batch.labels, batch.noise.size(0)) : Tensor();
    if (head_start) batch.start = [this](const Tensor& z) { return started(z); };
    return solver.run(batch, run);
  }
};

Sampler::Sampler(NetworkConfig network, Parameters parameters, SamplerOptions options,
                 const std::optional<Steering>& steering) {
  check(options);
  const std::int64_t classes = num_classes(network);
  if (options.guidance != 1 && classes == 0)
    throw Error("sampler: guidance needs a network with classes");
  if (parameters.empty()) throw Error("sampler: the network has no parameters");
  const Tensor& first = parameters.begin()->second;
  state_ = std::make_shared<const State>(
      Predictor{wrapped(options.wrapping, bind_parameters(network, parameters), options.path),
                options.path, options.prediction},
      fluxion::sample_shape(network), classes, first.dtype(), first.device(), options, steering);
}

Sampler::Sampler(Predictor predictor, Shape sample_shape, std::int64_t classes, DType dtype,
                 const Device& device, SamplerOptions options,
                 const std::optional<Steering>& steering) {
  if (options.guidance != 1 && classes == 0)
    throw Error("sampler: guidance needs a network with classes");
  state_ = std::make_shared<const State>(std::move(predictor), std::move(sample_shape), classes,
                                         dtype, device, options, steering);
}

Tensor Sampler::operator()(const Tensor& noise, const Tensor& labels, const RunOptions& run) const {
  return state_->walk({.noise = noise, .labels = labels}, run);
}

Tensor Sampler::path(const Tensor& noise, const Tensor& labels, const RunOptions& run) const {
  std::vector<Tensor> states;
  state_->walk({.noise = noise,
                .labels = labels,
                .visit = [&](const Tensor& z) { states.push_back(expand_dims(z, 0)); }},
               run);
  return concat(states, 0);
}

std::vector<float> Sampler::sample(const Request& request, const RunOptions& run) const {
  const std::int64_t count = request.count, batch = request.batch;
  const std::vector<std::int32_t>& labels = request.labels;
  if (count < 0 || batch < 1)
    throw Error("sampler: wants a count of at least 0 in batches of at least 1, got " +
                std::to_string(count) + " in batches of " + std::to_string(batch));
  const std::int64_t classes = state_->classes;
  if (!labels.empty() && (classes == 0 || static_cast<std::int64_t>(labels.size()) != count))
    throw Error("sampler: got " + std::to_string(labels.size()) + " labels for " +
                std::to_string(count) + " samples of a network with " + std::to_string(classes) +
                " classes");
  for (const std::int32_t label : labels)
    if (label < 0 || label > classes)
      throw Error("sampler: label " + std::to_string(label) + " is outside 0.." +
                  std::to_string(classes) + ", the last being the null class");

  const Shape& sample = state_->sample_shape;
  const auto elements = static_cast<std::size_t>(sample.elements());
  const auto check_size = [](const char* what, std::size_t got, std::size_t wanted) {
    if (got != 0 && got != wanted)
      throw Error("sampler: " + std::string(what) + " must hold " + std::to_string(wanted) +
                  " numbers, got " + std::to_string(got));
  };
  check_size("noise", request.noise.size(), static_cast<std::size_t>(count) * elements);
  check_size("data", request.data.size(), elements);
  const NoiseKeys keys = noise_keys(request.seed, state_->device);
  const Tensor data = request.data.empty()
                          ? Tensor()
                          : Tensor::from(request.data, sample, state_->device).to(state_->dtype);
  SampleNoise noise = state_->noise;
  std::vector<float> result;
  result.reserve(static_cast<std::size_t>(count) * elements);
  for (std::int64_t begin = 0; begin < count; begin += batch) {
    const std::int64_t used = std::min(batch, count - begin);
    std::vector<float> z(static_cast<std::size_t>(batch) * elements, 0.0f);
    const auto numbers = static_cast<std::size_t>(used) * elements;
    // Rows that nobody asked for are like the others: some samplers take means over a batch.
    if (request.noise.empty() && state_->source)
      std::ranges::copy(
          source_points(*state_->source, SourceUse::drawing, request.seed, begin, batch),
          z.begin());
    else if (request.noise.empty())
      noise.draw(keys.of_start, begin, batch, z, run);
    else
      for (std::size_t i = 0; i < z.size(); ++i)
        z[i] = request.noise[static_cast<std::size_t>(begin) * elements + i % numbers];
    std::vector<std::int32_t> chunk_labels(static_cast<std::size_t>(batch),
                                           static_cast<std::int32_t>(classes));
    for (std::int64_t i = 0; !labels.empty() && i < batch; ++i)
      chunk_labels[static_cast<std::size_t>(i)] =
          labels[static_cast<std::size_t>(begin + i % used)];
    const Tensor start =
        Tensor::from(z, with_leading_axis(batch, sample), state_->device).to(state_->dtype);
    const Tensor label_tensor =
        classes > 0 ? Tensor::from(chunk_labels, {batch}, state_->device) : Tensor();
    const auto host_values = [&](const Tensor& at) {
      std::vector<float> values = at.to(DType::f32).to_host<float>();
      values.resize(numbers);
      return values;
    };
    SolverBatch walked{.noise = start,
                       .labels = label_tensor,
                       .data = data,
                       .rows = {keys.of_steps, begin},
                       .used = used};
    if (request.visit)
      walked.visit = [&, state = std::size_t{0}](const Tensor& at) mutable {
        request.visit(state++, begin, host_values(at));
      };
    const std::vector<float> values = host_values(state_->walk(std::move(walked), run));
    result.insert(result.end(), values.begin(), values.end());
    if (request.progress) request.progress(begin + used);
  }
  return result;
}

std::uint64_t Sampler::host_bytes(const Shape& sample_shape, std::int64_t count,
                                  std::int64_t batch) {
  // The samples, a batch before and after its steps, and two blocks of noise.
  const double samples = static_cast<double>(count) +
                         2.0 * static_cast<double>(std::min(batch, count)) + 2.0 * samples_per_key;
  const double bytes = samples * static_cast<double>(sample_shape.elements()) * sizeof(float);
  constexpr double most = 9e18;
  return static_cast<std::uint64_t>(std::min(bytes, most));
}

std::size_t Sampler::traces() const { return state_->solver.traces(); }

const TimeGrid& Sampler::grid() const { return state_->solver.grid(); }

const std::optional<BestSteps>& Sampler::best() const { return state_->best; }

BestSteps find_best_steps(const SamplerOptions& given, const Predictor& predictor,
                          const Shape& sample_shape, std::int64_t classes, DType dtype,
                          const Device& device) {
  SamplerOptions options = given;
  options.path = predictor.path;
  options.prediction = predictor.prediction;
  check(options);
  if (options.grid != GridKind::best) throw Error("best steps: the grid is another");
  options.grid = GridKind::uniform;
  options.times.clear();
  options.steps = fine_steps(options.steps);
  const Sampler sampler(predictor, sample_shape, classes, dtype, device, options);
  // Ways are alike: fewer of large samples will do, as many as fit into some memory.
  constexpr std::int64_t most_numbers = std::int64_t{1} << 22;
  const std::int64_t usual = sample_shape.elements() > 64 ? 32 : 128;
  const std::int64_t ways = std::clamp<std::int64_t>(
      most_numbers / ((options.steps + 1) * sample_shape.elements()), 1, usual);
  Sampler::Request request{.count = ways, .batch = ways, .seed = 0x626f7373};
  std::vector<std::int32_t> in_turn = given.best_classes;
  for (std::int64_t i = 0; given.best_classes.empty() && i < classes; ++i)
    in_turn.push_back(static_cast<std::int32_t>(i));
  for (std::size_t i = 0; !in_turn.empty() && i < static_cast<std::size_t>(ways); ++i)
    request.labels.push_back(in_turn[i % in_turn.size()]);
  std::vector<std::vector<float>> states;
  request.visit = [&](std::size_t, std::int64_t, std::span<const float> values) {
    states.emplace_back(values.begin(), values.end());
  };
  sampler.sample(request);
  return best_steps(sampler.grid(), states, ways, given.steps);
}

double Sampler::evaluations() const { return state_->solver.evaluations(); }

}  // namespace fluxion
