#include "models/likelihood/probability_flow.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "autograd/divergence.h"
#include "engine/compile.h"
#include "engine/error.h"
#include "engine/graph/ops.h"
#include "models/layers/losses.h"
#include "models/samplers/runge_kutta.h"
#include "models/samplers/time_grid.h"

namespace fluxion {
namespace {

// The times that the flow is followed between: those at which the network has a velocity.
struct FlowTimes {
  double from, to;
};
FlowTimes flow_times(const Predictor& predictor) {
  SamplerOptions ends{.steps = 1, .path = predictor.path, .prediction = predictor.prediction};
  ends.grid = GridKind::uniform;
  const TimeGrid grid = time_grid(ends, predictor.path, false);
  return {grid.back().t, grid.front().t};
}

// y [batch, elements + 1]: z, and l in the last column.
Tensor packed(const Tensor& z, const Tensor& l) {
  return concat({reshape(z, {z.size(0), -1}), expand_dims(l, 1)}, 1);
}
Tensor packed_z(const Tensor& y, const Shape& shape) {
  return reshape(slice_axis(y, 1, 0, y.size(1) - 1), shape);
}
Tensor packed_l(const Tensor& y) {
  return reshape(slice_axis(y, 1, y.size(1) - 1, y.size(1)), {y.size(0)});
}

Slope flow_slope(const Predictor& predictor, const Shape& shape, const Tensor& probes,
                 const Tensor& labels) {
  return [=](const Tensor& y, const Tensor& t) {
    const Tensor z = packed_z(y, shape);
    const Field field = [&](const Tensor& at) {
      return predictor(Prediction::velocity, at, t, labels);
    };
    const FieldDivergence found = probes
                                      ? hutchinson(field, z, probes)
                                      : divergence(field, z, z.device().costs().tangents_at_once);
    return packed(found.value, found.divergence);
  };
}

Tensor log_normal(const Tensor& z, double sigma) {
  const double dimensions = static_cast<double>(z.elements() / z.size(0));
  return -0.5 / (sigma * sigma) * squared_norm(z) -
         0.5 * dimensions * std::log(2 * std::numbers::pi * sigma * sigma);
}

// The classical step for a slope of packed states.
Tensor rk4_step(const Slope& f, const Tensor& y, const Tensor& t, const Tensor& h) {
  const Tensor half = 0.5 * h, middle = t + half;
  const Tensor k1 = f(y, t), k2 = f(y + half * k1, middle), k3 = f(y + half * k2, middle),
               k4 = f(y + h * k3, t + h);
  return y + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4);
}

void check_data(const Tensor& x) {
  if (!x || x.rank() < 1 || x.size(0) < 1 || x.elements() < 1)
    throw ShapeError("likelihood: wants data [batch, ..]" +
                     (x ? ", got " + to_string(x.type()) : std::string()));
}

void check_predictor(const Predictor& predictor) {
  if (predictor.prediction == Prediction::end_point)
    throw Error("likelihood: a network that predicts end points has no velocity to follow");
  check(predictor.path);
}

}  // namespace

struct ProbabilityFlow::State {
  using List = std::vector<Tensor>;  // none or one tensor
  using Start = std::function<AdaptiveState(const Tensor& y, const Shape& shape, const List& probes,
                                            const List& labels)>;
  using Attempt = std::function<AdaptiveState(const AdaptiveState& state, const Shape& shape,
                                              const List& probes, const List& labels)>;
  using Step = std::function<Tensor(const Tensor& y, const Tensor& t, const Tensor& h,
                                    const Shape& shape, const List& probes, const List& labels)>;
  ProbabilityFlowOptions options;
  double from, to, sigma;
  Compiled<Start> start;
  Compiled<Attempt> attempt;
  Compiled<Step> step;

  // The result of a solve, and how many evaluations of the slope it took a sample.
  std::pair<Tensor, double> adaptive(const Tensor& y, const Shape& shape, const List& probes,
                                     const List& labels, const RunOptions& run) const {
    AdaptiveState state = start.run(run, y, shape, probes, labels);
    double evaluations = 2;
    for (std::int64_t tries = 0;; ++tries) {
      const std::vector<bool> left =
          ne(state.t, full({}, to, y.dtype(), y.device())).to_host<bool>();
      const auto count = std::count(left.begin(), left.end(), true);
      if (count == 0) return {state.y, evaluations};
      if (tries == options.most_tries)
        throw Error("likelihood: error control has not arrived after " + std::to_string(tries) +
                    " tries; allow more or a larger tolerance");
      state = attempt.run(run, state, shape, probes, labels);
      evaluations += 6 * static_cast<double>(count) / static_cast<double>(left.size());
    }
  }
  std::pair<Tensor, double> fixed(Tensor y, std::int64_t steps, const Shape& shape,
                                  const List& probes, const List& labels,
                                  const RunOptions& run) const {
    const double h = (to - from) / static_cast<double>(steps);
    const auto number = [&](double value) {
      return Tensor::from(std::vector<double>{value}, {}, y.device()).to(y.dtype());
    };
    for (std::int64_t i = 0; i < steps; ++i)
      y = step.run(run, y, number(from + static_cast<double>(i) * h), number(h), shape, probes,
                   labels);
    return {y, 4 * static_cast<double>(steps)};
  }
};

ProbabilityFlow::ProbabilityFlow(Predictor predictor, const ProbabilityFlowOptions& options) {
  check_predictor(predictor);
  if (options.probes < 0 || options.most_tries < 1 || (options.rk4_steps && *options.rk4_steps < 1))
    throw Error("likelihood: wants 0 or more probes and at least 1 step, got " +
                std::to_string(options.probes) + " probes and " +
                std::to_string(options.rk4_steps.value_or(options.most_tries)) + " steps");
  if (!(options.relative_tolerance > 0) || !(options.absolute_tolerance > 0))
    throw Error("likelihood: tolerances must be above 0");
  const FlowTimes times = flow_times(predictor);
  const AdaptiveOptions control{options.relative_tolerance, options.absolute_tolerance, true};
  const auto slope = [predictor](const Shape& shape, const State::List& probes,
                                 const State::List& labels) {
    const auto first = [](const State::List& list) { return list.empty() ? Tensor() : list[0]; };
    return flow_slope(predictor, shape, first(probes), first(labels));
  };
  const auto end = [to = times.to](const Tensor& like) {
    return full({}, to, like.dtype(), like.device());
  };
  State::Start start = [=](const Tensor& y, const Shape& shape, const State::List& probes,
                           const State::List& labels) {
    const Tensor from = full({}, times.from, y.dtype(), y.device());
    return adaptive_start(slope(shape, probes, labels), y, from, end(y), control);
  };
  State::Attempt attempt = [=](const AdaptiveState& state, const Shape& shape,
                               const State::List& probes, const State::List& labels) {
    return adaptive_step(slope(shape, probes, labels), state, end(state.y), control);
  };
  State::Step step = [=](const Tensor& y, const Tensor& t, const Tensor& h, const Shape& shape,
                         const State::List& probes, const State::List& labels) {
    return rk4_step(slope(shape, probes, labels), y, t, h);
  };
  state_ = std::make_shared<const State>(
      State{options, times.from, times.to, predictor.path.at(times.to).sigma,
            compile(std::move(start)), compile(std::move(attempt)), compile(std::move(step))});
}

FlowLikelihood ProbabilityFlow::operator()(const Tensor& x, const Tensor& labels, const Tensor& key,
                                           const RunOptions& run) const {
  check_data(x);
  const ProbabilityFlowOptions& options = state_->options;
  if (options.probes > 0 && !key) throw Error("likelihood: probes need a key");
  State::List probes, label_list;
  if (options.probes > 0) {
    probes.push_back(rademacher_probes(key, x, options.probes));
    eval(probes.front());
  }
  if (labels) label_list.push_back(labels);
  const Tensor y = packed(x, zeros({x.size(0)}, x.dtype(), x.device()));
  const auto [end, evaluations] =
      options.rk4_steps ? state_->fixed(y, *options.rk4_steps, x.shape(), probes, label_list, run)
                        : state_->adaptive(y, x.shape(), probes, label_list, run);
  const Tensor z = packed_z(end, x.shape()), l = packed_l(end);
  return {.log_p = log_normal(z, state_->sigma) + l,
          .z = z,
          .divergence = l,
          .evaluations = evaluations};
}

Tensor log_likelihood(const Predictor& predictor, const Tensor& x, std::int64_t steps,
                      const Tensor& probes, const Tensor& labels) {
  check_predictor(predictor);
  check_data(x);
  if (steps < 1) throw Error("likelihood: wants at least 1 step, got " + std::to_string(steps));
  const FlowTimes times = flow_times(predictor);
  const Slope slope = flow_slope(predictor, x.shape(), probes, labels);
  const double h = (times.to - times.from) / static_cast<double>(steps);
  const auto number = [&](double value) { return full({}, value, x.dtype(), x.device()); };
  Tensor y = packed(x, zeros({x.size(0)}, x.dtype(), x.device()));
  for (std::int64_t i = 0; i < steps; ++i)
    y = rk4_step(slope, y, number(times.from + static_cast<double>(i) * h), number(h));
  return log_normal(packed_z(y, x.shape()), predictor.path.at(times.to).sigma) + packed_l(y);
}

double bits_per_dimension(double log_p, std::int64_t dimensions, double bits) {
  return -log_p / (static_cast<double>(dimensions) * std::numbers::ln2) + bits;
}

Tensor dequantised(const Tensor& x, const Tensor& key) {
  return 255.0 / 256 * x + (uniform(key, x.shape(), x.dtype()) - 0.5) / 128.0;
}

}  // namespace fluxion
