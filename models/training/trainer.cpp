#include "models/training/trainer.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "autograd/transforms.h"
#include "engine/ops.h"

namespace fluxion {

namespace {

struct StepResult {
  TrainState state;
  Tensor loss, error, gradient_norm;
  static auto members(auto& self) { return std::tie(self.state, self.loss, self.error, self.gradient_norm); }
};

// The function that is compiled: everything that changes from step to step is an argument; the frozen parameters are captured.
struct TrainStep {
  NetworkConfig network;
  ObjectiveConfig objective;
  AdamWOptions optimiser;
  Parameters frozen;

  StepResult operator()(const TrainState& state, const Tensor& x, const Tensor& labels, const Tensor& key, const Tensor& learning_rate) const {
    const auto loss = [&](const Parameters& trained) {
      ObjectiveValue value = objective_value(objective, network, merge(trained, frozen), x, labels, fold_in(key, state.step));
      return std::pair(value.loss, value.error);
    };
    auto [value, gradient] = value_and_grad(loss)(state.parameters);
    UpdateResult next = update(optimiser, state, gradient, learning_rate);
    return {std::move(next.state), value.first, value.second, next.gradient_norm};
  }
};

void check_fit(const TrainingConfig& config, const DataSet& data) {
  check(config.network);
  const Shape expected = sample_shape(config.network);
  if (expected != data.sample_shape())
    throw ShapeError("train: the network makes samples of shape " + to_string(expected) + ", " + data.name() + " holds " +
                     to_string(data.sample_shape()));
  if (num_classes(config.network) > data.classes())
    throw Error("train: the network has " + std::to_string(num_classes(config.network)) + " classes, " + data.name() + " has " +
                std::to_string(data.classes()));
  if (config.objective.kind == ObjectiveKind::meanflow_cfg && num_classes(config.network) == 0)
    throw Error("train: guidance (omega, kappa) needs classes, and this network has none");
  if (config.batch < 1) throw Error("train: batch must be at least 1, got " + std::to_string(config.batch));
  if (!(config.learning_rate > 0) || !std::isfinite(config.learning_rate))
    throw Error("train: learning rate must be positive, got " + std::to_string(config.learning_rate));
}

// Independent keys of one seed: parameters are drawn from one, training steps from the other.
constexpr std::uint32_t initial_stream = 0, step_stream = 1;

}  // namespace

struct Trainer::State {
  TrainingConfig config;
  std::shared_ptr<const DataSet> data;
  Device device;
  Parameters frozen;
  TrainState train_state;
  Tensor key;
  Compiled<TrainStep> step;
  std::int64_t steps_done = 0;

  State(TrainingConfig config, std::shared_ptr<const DataSet> data, const Device& device, SplitParameters initial)
      : config(std::move(config)),
        data(std::move(data)),
        device(device),
        frozen(std::move(initial.frozen)),
        train_state(make_train_state(initial.trained)),
        key(fold_in(random_key(this->config.seed, device), step_stream)),
        step(compile(TrainStep{this->config.network, this->config.objective, this->config.optimiser, frozen}, {.donate = {0}})) {
    eval(key);
  }

  struct Batch {
    Tensor x, labels;
  };
  Batch batch_of(const HostBatch& host) const {
    Dims shape{config.batch};
    shape.insert(shape.end(), data->sample_shape().begin(), data->sample_shape().end());
    return {Tensor::from(host.x, Shape(shape), device), Tensor::from(host.labels, {config.batch}, device)};
  }

  Tensor learning_rate() const {
    const float rate = static_cast<float>(warm_up(config.learning_rate, steps_done, config.warm_up_steps));
    return Tensor::from(std::span<const float>(&rate, 1), {}, device);
  }
};

Trainer::Trainer(TrainingConfig config, std::shared_ptr<const DataSet> data, const Device& device) {
  check_fit(config, *data);
  const Parameters initial = initialise(config.network, fold_in(random_key(config.seed, device), initial_stream));
  eval_tree(initial);
  SplitParameters split = split_frozen(initial, frozen_parameters(config.network));
  state_ = std::make_unique<State>(std::move(config), std::move(data), device, std::move(split));
}
Trainer::~Trainer() = default;
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer& Trainer::operator=(Trainer&&) noexcept = default;

const Program& Trainer::program() const {
  const State::Batch batch = state_->batch_of(state_->data->batch(state_->config.batch, state_->config.seed, 0));
  return state_->step.program(state_->train_state, batch.x, batch.labels, state_->key, state_->learning_rate());
}

MemoryReport Trainer::memory_report() const {
  const State::Batch batch = state_->batch_of(state_->data->batch(state_->config.batch, state_->config.seed, 0));
  return state_->step.memory_report(state_->train_state, batch.x, batch.labels, state_->key, state_->learning_rate());
}

StepMetrics Trainer::step() {
  State& state = *state_;
  const State::Batch batch = state.batch_of(state.data->batch(state.config.batch, state.config.seed, static_cast<std::uint64_t>(state.steps_done)));
  StepResult result = state.step(state.train_state, batch.x, batch.labels, state.key, state.learning_rate());
  state.train_state = std::move(result.state);
  ++state.steps_done;
  return {std::move(result.loss), std::move(result.error), std::move(result.gradient_norm)};
}

std::int64_t Trainer::steps_done() const { return state_->steps_done; }
const TrainingConfig& Trainer::config() const { return state_->config; }
const DataSet& Trainer::data() const { return *state_->data; }
const Device& Trainer::device() const { return state_->device; }
std::size_t Trainer::traces() const { return state_->step.traces(); }

Model Trainer::model(Weights weights) const {
  const TrainingConfig& config = state_->config;
  Model model;
  model.info.network = config.network;
  model.info.objective = to_string(config.objective.kind);
  model.info.objective_config = objective_to_json(config.objective).dump();
  if (config.objective.kind == ObjectiveKind::meanflow_cfg) model.info.guidance = TrainedGuidance{config.objective.omega, config.objective.kappa};
  model.info.dataset = state_->data->name();
  model.info.ema = weights == Weights::average;
  model.info.step = state_->steps_done;
  const TrainState& now = state_->train_state;
  model.parameters = merge(weights == Weights::average ? now.ema : now.parameters, state_->frozen);
  return model;
}

}  // namespace fluxion
