#include "models/samplers/solver.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "engine/compile.h"
#include "engine/error.h"
#include "engine/graph/ops.h"
#include "models/layers/host_numbers.h"
#include "models/layers/layers.h"

namespace fluxion {
namespace {

// Enough whole blocks to hold `like`'s rows wherever they begin, and those rows.
Tensor drawn_rows(const Tensor& key, const Tensor& first_block, const Tensor& rows,
                  const Tensor& like) {
  const std::int64_t batch = like.size(0),
                     blocks = (batch + samples_per_key - 2) / samples_per_key + 1;
  Dims shape = like.shape().dims();
  shape.front() = samples_per_key;
  std::vector<Tensor> parts;
  for (std::int64_t b = 0; b < blocks; ++b)
    parts.push_back(
        normal(fold_in(key, first_block + static_cast<double>(b)), Shape(shape), like.dtype()));
  return take(concat(parts, 0), rows, 0);
}

}  // namespace

Velocity guided(const Velocity& network, const Operand& scale, std::int64_t null_class, double low,
                double high) {
  return [=](const Tensor& z, const Times& times, const Tensor& labels) {
    if (!labels) throw Error("guidance: needs labels");
    const Tensor null = full_like(labels, static_cast<double>(null_class));
    const auto twice = [](const Tensor& x) { return concat({x, x}, 0); };
    const std::vector<Tensor> both =
        split(network(twice(z), {twice(times.t), twice(times.r)}, concat({labels, null}, 0)), 2, 0);
    const Tensor difference = both[0] - both[1];
    if (low <= 0 && high >= 1e30) return both[1] + scale * difference;
    const Tensor guides = where(ge(times.t, low), le(times.t, high), lt(times.t, times.t));
    return both[1] + per_sample(where(guides, scale, ones_like(times.t)), z.rank()) * difference;
  };
}

Predictor stepped(Predictor predictor, const SamplerOptions& options, const Stepper& stepper,
                  std::int64_t null_class, const Tensor& guidance) {
  if (guidance || options.guidance != 1)
    predictor.network =
        guided(predictor.network, guidance ? Operand(guidance) : Operand(options.guidance),
               null_class, options.guidance_low, options.guidance_high);
  return stepper.path == predictor.path ? predictor : predictor.on(stepper.path);
}

struct Solver::State {
  using Step =
      std::function<StepOutput(int form, const Tensor& z, const std::vector<Tensor>& memory,
                               const std::vector<Tensor>& numbers, const std::vector<Tensor>& noise,
                               const std::vector<Tensor>& labels)>;
  using Start = std::function<std::vector<Tensor>(const Tensor& z, const Tensor& noise,
                                                  const std::vector<Tensor>& labels)>;

  // What traces have counted, and what runs have.
  struct Counts {
    std::mutex mutex;
    std::int64_t rows = 0;               // that the network was called with, in this trace
    std::map<int, double> of_form = {};  // calls of the network in a step
    double of_start = 0;
    double evaluations = 0, samples = 0;
  };

  Stepper stepper;
  std::size_t visits_of_none = 0;  // of an empty batch
  std::shared_ptr<Counts> counts = std::make_shared<Counts>();
  std::optional<Compiled<Step>> step = {};
  std::optional<Compiled<Start>> start = {};

  void count(double evaluations, std::int64_t samples) const {
    std::lock_guard lock(counts->mutex);
    counts->evaluations += evaluations;
    counts->samples += static_cast<double>(samples);
  }
  double calls_of(int form) const {
    std::lock_guard lock(counts->mutex);
    return counts->of_form[form];
  }
};

Solver::Solver(Predictor predictor, const SamplerOptions& given, std::int64_t null_class,
               const std::optional<Steering>& steering)
    : state_(std::make_shared<State>()) {
  SamplerOptions options = given;
  options.path = predictor.path;
  options.prediction = predictor.prediction;
  state_->stepper = make_stepper(options);
  if (steering) state_->stepper = steered(std::move(state_->stepper), *steering);
  const std::shared_ptr<State::Counts> counts = state_->counts;
  predictor.network = [counts, network = predictor.network](const Tensor& z, const Times& times,
                                                            const Tensor& labels) {
    counts->rows += z.size(0);
    return network(z, times, labels);
  };
  const Stepper& stepper = state_->stepper;
  state_->visits_of_none = stepper.shown        ? static_cast<std::size_t>(options.shown_steps) + 1
                           : stepper.unfinished ? 1
                                                : stepper.grid.size();
  predictor = stepped(std::move(predictor), options, stepper, null_class);

  // What `body` builds; `keep` gets how many calls a sample makes in it.
  const auto counting = [counts](std::int64_t batch, const auto& body, const auto& keep) {
    std::lock_guard lock(counts->mutex);
    counts->rows = 0;
    auto result = body();
    keep(static_cast<double>(counts->rows) / static_cast<double>(batch));
    return result;
  };
  const auto labels_of = [](const std::vector<Tensor>& labels) {
    return labels.empty() ? Tensor() : labels.front();
  };
  state_->step = compile(State::Step(
      [=, body = stepper.step](int form, const Tensor& z, const std::vector<Tensor>& memory,
                               const std::vector<Tensor>& numbers, const std::vector<Tensor>& noise,
                               const std::vector<Tensor>& labels) {
        const LabelledPredictor network{predictor, labels_of(labels)};
        const auto drawn = [&](std::uint32_t draw) {
          return drawn_rows(fold_in(fold_in(noise.at(0), noise.at(1)), draw), noise.at(2),
                            noise.at(3), z);
        };
        return counting(
            z.size(0),
            [&] {
              return body(form, network, {z, memory, numbers, drawn});
            },
            [&](double calls) { counts->of_form[form] = calls; });
      }));
  if (stepper.start)
    state_->start =
        compile(State::Start([=, body = stepper.start](const Tensor& z, const Tensor& noise,
                                                       const std::vector<Tensor>& labels) {
          const LabelledPredictor network{predictor, labels_of(labels)};
          return counting(
              z.size(0), [&] { return body(network, z, noise); },
              [&](double calls) { counts->of_start = calls; });
        }));
}

Tensor Solver::run(const SolverBatch& given, const RunOptions& run) const {
  const auto& [noise, labels, data, start, rows, counted, visit] = given;
  const Stepper& stepper = state_->stepper;
  const Device device = noise.device();
  const DType dtype = noise.dtype();
  const std::int64_t batch = noise.size(0), used = counted < 0 ? batch : counted;
  const std::vector<Tensor> label_list =
      labels ? std::vector<Tensor>{labels} : std::vector<Tensor>{};
  std::vector<Tensor> noise_list;
  if (stepper.draws_noise) {
    const Tensor key = rows.key ? rows.key : noise_keys(0, device).of_steps;
    std::vector<std::int32_t> offsets;
    for (std::int64_t i = 0; i < batch; ++i)
      offsets.push_back(static_cast<std::int32_t>(rows.first % samples_per_key + i));
    const auto integer = [&](std::int64_t value) {
      return Tensor::from(std::vector<std::int32_t>{static_cast<std::int32_t>(value)}, {}, device);
    };
    noise_list = {key, integer(0), integer(rows.first / samples_per_key),
                  Tensor::from(offsets, {batch}, device)};
  }

  const double scale = stepper.grid.front().sigma;
  Tensor z = start ? start(noise) : scale == 1 ? noise : scale * noise;
  if (data) z = stepper.grid.front().alpha * data + z;
  if (batch == 0) {  // of calls for each sample there is no number, and all states are like this
    for (std::size_t i = 0; visit && i < state_->visits_of_none; ++i) visit(z);
    return z;
  }
  const auto see = [&] {
    if (visit && !stepper.shown) visit(z);
  };
  see();
  std::vector<Tensor> memory;
  double calls = 0;
  if (stepper.start) {
    memory = state_->start->run(run, z, noise, label_list);
    std::lock_guard lock(state_->counts->mutex);
    calls += state_->counts->of_start * static_cast<double>(used);
  }
  const auto step = [&](std::size_t i) {
    const Stepper::Call call = stepper.call(i);
    std::vector<Tensor> numbers;
    for (const double number : call.numbers)
      numbers.push_back(tensor_of({number}, {}, dtype, device));
    if (!noise_list.empty())
      noise_list[1] =
          Tensor::from(std::vector<std::int32_t>{static_cast<std::int32_t>(i)}, {}, device);
    StepOutput next = state_->step->run(run, call.form, z, memory, numbers, noise_list, label_list);
    z = next.z;
    memory = std::move(next.memory);
    see();
    return state_->calls_of(call.form);
  };
  if (!stepper.unfinished) {
    for (std::size_t i = 0; i + 1 < stepper.grid.size(); ++i)
      calls += step(i) * static_cast<double>(used);
  } else {
    for (std::int64_t tries = 0;; ++tries) {
      const std::vector<bool> unfinished = stepper.unfinished(memory).to_host<bool>();
      const auto left = std::count(unfinished.begin(), unfinished.end(), true);
      if (left == 0) break;
      const std::vector<bool> stuck = stepper.stuck(memory).to_host<bool>();
      if (const auto lost = std::count(stuck.begin(), stuck.end(), true); lost > 0)
        throw Error("sampler: " + std::to_string(lost) + " of " + std::to_string(batch) +
                    " samples can't go on: the field is not finite where they are, or too steep "
                    "for this tolerance");
      if (tries == stepper.most_tries)
        throw Error("sampler: error control has not arrived after " + std::to_string(tries) +
                    " tries, " + std::to_string(left) + " of " + std::to_string(batch) +
                    " samples are on their way; allow more steps or a larger tolerance");
      calls += step(static_cast<std::size_t>(tries)) *
               static_cast<double>(std::count(unfinished.begin(), unfinished.begin() + used, true));
    }
  }
  if (visit && stepper.shown) {
    const Tensor states = stepper.shown(memory);
    for (std::int64_t i = 0; i < states.size(0); ++i)
      visit(reshape(slice_axis(states, 0, i, i + 1), z.shape()));
  }
  state_->count(calls, used);
  return z;
}

const Path& Solver::path() const { return state_->stepper.path; }

const TimeGrid& Solver::grid() const { return state_->stepper.grid; }

std::size_t Solver::traces() const { return state_->step->traces(); }

double Solver::evaluations() const {
  std::lock_guard lock(state_->counts->mutex);
  return state_->counts->samples > 0 ? state_->counts->evaluations / state_->counts->samples : 0;
}

}  // namespace fluxion
