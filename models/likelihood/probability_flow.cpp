#include "models/likelihood/probability_flow.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "autograd/divergence.h"
#include "autograd/transforms.h"
#include "engine/compile.h"
#include "engine/error.h"
#include "engine/graph/custom.h"
#include "engine/graph/ops.h"
#include "models/layers/host_numbers.h"
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

// y [batch, elements + n]: z, and n numbers of a sample in the last columns, the first of them l.
Tensor packed(const Tensor& z, const std::vector<Tensor>& numbers) {
  std::vector<Tensor> columns{reshape(z, {z.size(0), -1})};
  for (const Tensor& number : numbers) columns.push_back(expand_dims(number, 1));
  return concat(columns, 1);
}
std::int64_t elements_of(const Shape& shape) { return shape.elements() / shape[0]; }
Tensor packed_z(const Tensor& y, const Shape& shape) {
  return reshape(slice_axis(y, 1, 0, elements_of(shape)), shape);
}
Tensor packed_number(const Tensor& y, const Shape& shape, std::int64_t which) {
  const std::int64_t column = elements_of(shape) + which;
  return reshape(slice_axis(y, 1, column, column + 1), {y.size(0)});
}

// Of z and l, and with `costs` of what the way costs: |v|^2 and |dv/dz|_F^2.
Slope flow_slope(const Predictor& predictor, const Shape& shape, const Tensor& probes,
                 const Tensor& labels, const Tensor& sketch = {}, bool costs = false) {
  return [=](const Tensor& y, const Tensor& t) {
    const Tensor z = packed_z(y, shape);
    const Field field = [&](const Tensor& at) {
      return predictor(Prediction::velocity, at, t, labels);
    };
    const FieldDivergence found = sketch ? hutch_plus_plus(field, z, sketch, probes)
                                  : probes
                                      ? hutchinson(field, z, probes)
                                      : divergence(field, z, z.device().costs().tangents_at_once);
    std::vector<Tensor> numbers{found.divergence};
    if (costs) {
      numbers.push_back(squared_norm(found.value));
      numbers.push_back(found.squared_norm);
    }
    return packed(found.value, numbers);
  };
}

Tensor log_normal(const Tensor& z, double sigma) {
  const double dimensions = static_cast<double>(z.elements() / z.size(0));
  return -0.5 / (sigma * sigma) * squared_norm(z) -
         0.5 * dimensions * std::log(2 * std::numbers::pi * sigma * sigma);
}

// The classical step for a slope of packed states, or of trees of them.
template <class State, class F>
State rk4_step(const F& f, const State& y, const Tensor& t, const Tensor& h) {
  const Tensor half = 0.5 * h, middle = t + half;
  const auto moved = [&](const Tensor& by, const State& slope) {
    return zip_tree(y, slope, [&](const Tensor& a, const Tensor& b) { return a + by * b; });
  };
  const State k1 = f(y, t), k2 = f(moved(half, k1), middle), k3 = f(moved(half, k2), middle),
              k4 = f(moved(h, k3), t + h);
  const auto inner = zip_tree(k2, k3, [](const Tensor& a, const Tensor& b) { return a + b; });
  const auto outer = zip_tree(k1, k4, [](const Tensor& a, const Tensor& b) { return a + b; });
  return moved(h / 6.0, zip_tree(outer, inner,
                                 [](const Tensor& a, const Tensor& b) { return a + 2.0 * b; }));
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
  using List = std::vector<Tensor>;  // none or one tensor; of probes also a sketch behind them
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
      const std::vector<bool> stuck =
          adaptive_stuck(state, full({}, to, y.dtype(), y.device())).to_host<bool>();
      const std::string of_all = " of " + std::to_string(left.size()) + " samples ";
      if (const auto lost = std::count(stuck.begin(), stuck.end(), true); lost > 0)
        throw Error("likelihood: " + std::to_string(lost) + of_all +
                    "can't go on: the field is not finite where they are, or too steep for this "
                    "tolerance");
      if (tries == options.most_tries)
        throw Error("likelihood: error control has not arrived after " + std::to_string(tries) +
                    " tries, " + std::to_string(count) + of_all +
                    "are on their way; a larger tolerance takes fewer");
      state = attempt.run(run, state, shape, probes, labels);
      evaluations += 6 * static_cast<double>(count) / static_cast<double>(left.size());
    }
  }
  std::pair<Tensor, double> fixed(Tensor y, std::int64_t steps, const Shape& shape,
                                  const List& probes, const List& labels,
                                  const RunOptions& run) const {
    const double h = (to - from) / static_cast<double>(steps);
    const auto number = [&](double value) { return tensor_of({value}, {}, y.dtype(), y.device()); };
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
  if (options.sketched && options.probes == 0)
    throw Error("likelihood: Hutch++ wants 1 probe or more, and the exact divergence has none");
  if (!(options.relative_tolerance > 0) || !(options.absolute_tolerance > 0))
    throw Error("likelihood: tolerances must be above 0");
  const FlowTimes times = flow_times(predictor);
  const AdaptiveOptions control{options.relative_tolerance, options.absolute_tolerance, true};
  const auto slope = [predictor](const Shape& shape, const State::List& probes,
                                 const State::List& labels) {
    const auto at = [](const State::List& list, std::size_t i) {
      return i < list.size() ? list[i] : Tensor();
    };
    return flow_slope(predictor, shape, at(probes, 0), at(labels, 0), at(probes, 1));
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
    if (options.sketched) probes.push_back(gaussian_probes(fold_in(key, 1), x, options.probes));
    eval(probes);
  }
  if (labels) label_list.push_back(labels);
  const Tensor y = packed(x, {zeros({x.size(0)}, x.dtype(), x.device())});
  const auto [end, evaluations] =
      options.rk4_steps ? state_->fixed(y, *options.rk4_steps, x.shape(), probes, label_list, run)
                        : state_->adaptive(y, x.shape(), probes, label_list, run);
  const Tensor z = packed_z(end, x.shape()), l = packed_number(end, x.shape(), 0);
  return {.log_p = log_normal(z, state_->sigma) + l,
          .z = z,
          .divergence = l,
          .evaluations = evaluations};
}

namespace {

// What is fixed about a flow that is followed by equal steps.
struct EqualSteps {
  FlowTimes times;
  double sigma;  // of the noise at the end
  std::int64_t steps;
  bool costs;

  EqualSteps(const Predictor& predictor, const Tensor& x, const FollowOptions& options)
      : times(), sigma(0), steps(options.steps), costs(options.costs) {
    check_predictor(predictor);
    check_data(x);
    if (steps < 1) throw Error("likelihood: wants at least 1 step, got " + std::to_string(steps));
    times = flow_times(predictor);
    sigma = predictor.path.at(times.to).sigma;
  }
  double step() const { return (times.to - times.from) / static_cast<double>(steps); }
  double time(std::int64_t i) const { return times.from + static_cast<double>(i) * step(); }
  Tensor start(const Tensor& x) const {
    return packed(x, std::vector<Tensor>(costs ? 3 : 1, zeros({x.size(0)}, x.dtype(), x.device())));
  }
  FollowedFlow end(const Tensor& y, const Shape& shape) const {
    const Tensor z = packed_z(y, shape);
    FollowedFlow flow{.log_p = log_normal(z, sigma) + packed_number(y, shape, 0), .z = z};
    if (costs) {
      flow.kinetic_energy = packed_number(y, shape, 1);
      flow.jacobian_norm = packed_number(y, shape, 2);
    }
    return flow;
  }
};

// On the way back: the state, the cotangent of the end with respect to it, and that with respect to
// the parameters so far.
struct AdjointState {
  Tensor y, a;
  Parameters g;
  static auto members(auto& self) { return std::tie(self.y, self.a, self.g); }
};

}  // namespace

FollowedFlow follow_flow(const Predictor& predictor, const Tensor& x,
                         const FollowOptions& options) {
  const EqualSteps way(predictor, x, options);
  const Slope slope =
      flow_slope(predictor, x.shape(), options.probes, options.labels, {}, options.costs);
  const auto number = [&](double value) { return full({}, value, x.dtype(), x.device()); };
  Tensor y = way.start(x);
  for (std::int64_t i = 0; i < options.steps; ++i) {
    const auto step = [&](const Tensor& at) {
      return rk4_step(slope, at, number(way.time(i)), number(way.step()));
    };
    y = options.recompute ? checkpoint(step, "step of the flow")(y) : step(y);
  }
  return way.end(y, x.shape());
}

FollowedFlow follow_flow_by_adjoint(const std::function<Predictor(const Parameters&)>& bind,
                                    const Parameters& parameters, const Tensor& x,
                                    const FollowOptions& options) {
  const EqualSteps way(bind(parameters), x, options);
  const auto number = [dtype = x.dtype(), device = x.device()](double value) {
    return full({}, value, dtype, device);
  };
  const auto slope = [bind, options, shape = x.shape()](const Parameters& p) {
    return flow_slope(bind(p), shape, options.probes, options.labels, {}, options.costs);
  };
  const auto there = [=](const Parameters& p, const Tensor& start) {
    Tensor y = start;
    for (std::int64_t i = 0; i < way.steps; ++i)
      y = rk4_step(slope(p), y, number(way.time(i)), number(way.step()));
    return y;
  };
  const auto back = [=](const std::tuple<Parameters, Tensor>& primals, const Tensor& end,
                        const Tensor& cotangent) {
    const Parameters& p = std::get<0>(primals);
    const auto rates = [&](const AdjointState& state, const Tensor& t) -> AdjointState {
      const auto f = [&](const Parameters& q, const Tensor& y) { return slope(q)(y, t); };
      const auto [rate, pull] = vjp(f, p, state.y);
      const auto [of_p, of_y] = pull(state.a);
      return {rate, neg(of_y), map_tree(of_p, [](const Tensor& g) { return neg(g); })};
    };
    AdjointState state{end, cotangent, map_tree(p, [](const Tensor& q) { return zeros_like(q); })};
    for (std::int64_t i = way.steps; i > 0; --i)
      state = rk4_step(rates, state, number(way.time(i)), number(-way.step()));
    return std::tuple(state.g, state.a);
  };
  return way.end(custom_vjp(there, back, "flow")(parameters, way.start(x)), x.shape());
}

Tensor log_likelihood(const Predictor& predictor, const Tensor& x, std::int64_t steps,
                      const Tensor& probes, const Tensor& labels) {
  return follow_flow(predictor, x, {.steps = steps, .probes = probes, .labels = labels}).log_p;
}

double bits_per_dimension(double log_p, std::int64_t dimensions, double bits) {
  return -log_p / (static_cast<double>(dimensions) * std::numbers::ln2) + bits;
}

Tensor dequantised(const Tensor& x, const Tensor& key) {
  return 255.0 / 256 * x + (uniform(key, x.shape(), x.dtype()) - 0.5) / 128.0;
}

}  // namespace fluxion
