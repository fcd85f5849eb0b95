#include "models/training/trainer.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "autograd/transforms.h"
#include "engine/graph/ops.h"
#include "models/data/prefetch.h"

namespace fluxion {

namespace {

struct StepResult {
  TrainState state;
  Tensor loss, error, gradient_norm;
  std::vector<Tensor> loss_scale;  // one or none
  static auto members(auto& self) {
    return std::tie(self.state, self.loss, self.error, self.gradient_norm, self.loss_scale);
  }
};

// The function that is compiled: everything that changes from step to step is an argument; the
// frozen parameters are captured.
struct TrainStep {
  NetworkConfig network;
  ObjectiveConfig objective;
  AdamWOptions optimiser;
  LossScaleOptions loss_scale;
  Parameters frozen;

  StepResult operator()(const TrainState& state, const Tensor& x, const Tensor& labels,
                        const Tensor& key, const Tensor& learning_rate) const {
    std::vector<Tensor> scale;
    if (!state.loss_scale.empty()) scale.push_back(state.loss_scale[0].scale);
    const auto loss = [&](const Parameters& trained) {
      ObjectiveValue value = objective_value(objective, network, merge(trained, frozen), x, labels,
                                             fold_in(key, state.step));
      const Tensor differentiated = scale.empty() ? value.loss : value.loss * scale[0];
      return std::pair(differentiated, std::pair(value.loss, value.error));
    };
    auto [value, gradient] = value_and_grad(loss)(state.parameters);
    if (!scale.empty())
      gradient = map_tree(std::move(gradient), [&](const Tensor& g) { return g / scale[0]; });
    UpdateResult next = update(optimiser, state, gradient, learning_rate, loss_scale);
    const auto& [plain, error] = value.second;
    return {std::move(next.state), plain, error, next.gradient_norm, scale};
  }
};

void check_fit(const TrainingConfig& config, const DataSet& data) {
  check(config);
  const Shape expected = sample_shape(config.network);
  if (expected != data.sample_shape())
    throw ShapeError("train: the network makes samples of shape " + to_string(expected) + ", " +
                     data.name() + " holds " + to_string(data.sample_shape()));
  // A network without classes takes labelled data, too.
  if (num_classes(config.network) != 0 && num_classes(config.network) != data.classes())
    throw Error("train: the network has " + std::to_string(num_classes(config.network)) +
                " classes, " + data.name() + " has " + std::to_string(data.classes()));
}

Shape batch_shape(const TrainingConfig& config) {
  Dims shape = sample_shape(config.network).dims();
  shape.insert(shape.begin(), config.batch);
  return Shape(std::move(shape));
}

// Independent keys of one seed: parameters are drawn from one, training steps from the other.
constexpr std::uint32_t initial_stream = 0, step_stream = 1;

using Step = Compiled<TrainStep>;

Step compile_step(const TrainingConfig& config, const Parameters& frozen) {
  const NetworkConfig network = with_precision(
      config.recompute ? with_checkpoints(config.network) : config.network, config.precision);
  return compile(TrainStep{network, config.objective, config.optimiser, config.loss_scale, frozen},
                 {.donate = {0}});
}

// The arguments of a step by their types alone: lazy tensors that nobody evaluates, so that a step
// can be planned without a batch.
struct Placeholders {
  Tensor x, labels, key, learning_rate;
  Placeholders(const TrainingConfig& config, const Device& device)
      : x(zeros(batch_shape(config), DType::f32, device)),
        labels(zeros({config.batch}, DType::i32, device)),
        key(random_key(config.seed, device)),
        learning_rate(zeros({}, DType::f32, device)) {}
};

Parameters initial_parameters(const TrainingConfig& config, const Device& device) {
  return initialise(config.network, fold_in(random_key(config.seed, device), initial_stream));
}

void check_state(const TrainingConfig& config, const TrainState& state) {
  std::map<std::string, Shape> expected = parameter_shapes(config.network);
  for (const std::string& name : frozen_parameters(config.network)) expected.erase(name);
  const auto check_set = [&](const Parameters& set, const std::string& what) {
    for (const auto& [name, shape] : expected) {
      const auto found = set.find(name);
      if (found == set.end()) throw Error("train: the state's " + what + " lack '" + name + "'");
      if (found->second.type() != TensorType{shape, DType::f32})
        throw ShapeError("train: '" + name + "' of the state's " + what + " is " +
                         to_string(found->second.type()) + ", the network needs f32" +
                         to_string(shape));
    }
    if (set.size() != expected.size())
      throw Error("train: the state's " + what + " hold names that the network does not train");
  };
  check_set(state.parameters, "parameters");
  check_set(state.m, "first moments");
  check_set(state.v, "second moments");
  if (state.ema.size() != config.optimiser.ema_decays.size())
    throw Error("train: the state holds " + std::to_string(state.ema.size()) +
                " averages, the configuration names " +
                std::to_string(config.optimiser.ema_decays.size()));
  for (const Parameters& average : state.ema) check_set(average, "averages");
  if (!state.step || state.step.type() != TensorType{Shape{}, DType::i32} ||
      state.step.item<std::int32_t>() < 0)
    throw Error("train: the state's step must be a scalar i32 that is not negative");
  if (state.loss_scale.size() != (needs_loss_scale(config.precision) ? 1u : 0u))
    throw Error(
        "train: the state has " +
        std::string(state.loss_scale.empty() ? "no loss scale, which " : "a loss scale, which ") +
        "precision " + to_string(config.precision) +
        (state.loss_scale.empty() ? " needs" : " does not need"));
  for (const LossScale& now : state.loss_scale) {
    const TensorType count{Shape{}, DType::i32};
    if (now.scale.type() != TensorType{Shape{}, DType::f32} || now.finite.type() != count ||
        now.skipped.type() != count)
      throw Error("train: the state's loss scale must be an f32 and two i32");
    const double scale = now.scale.item<float>();
    if (!(scale >= config.loss_scale.least && scale <= config.loss_scale.most) ||
        now.finite.item<std::int32_t>() < 0 || now.skipped.item<std::int32_t>() < 0 ||
        now.skipped.item<std::int32_t>() > state.step.item<std::int32_t>())
      throw Error("train: the state's loss scale is out of range");
  }
}

}  // namespace

struct Trainer::State {
  TrainingConfig config;
  std::shared_ptr<const DataSet> data;
  Device device;
  Parameters frozen;
  TrainState train_state;
  std::vector<std::string> class_marks;  // of the data as they were opened
  Tensor key;
  Step step;
  std::int64_t steps_done = 0;
  std::optional<Prefetcher> batches;  // from the first step on

  State(TrainingConfig config, std::shared_ptr<const DataSet> data, const Device& device,
        Parameters frozen_parameters, TrainState initial)
      : config(std::move(config)),
        data(std::move(data)),
        device(device),
        frozen(std::move(frozen_parameters)),
        train_state(std::move(initial)),
        class_marks(this->data->class_marks()),
        key(fold_in(random_key(this->config.seed, device), step_stream)),
        step(compile_step(this->config, frozen)),
        steps_done(train_state.step.item<std::int32_t>()) {
    eval(key);
  }

  struct Batch {
    Tensor x, labels;
  };
  Batch batch_of(const HostBatch& host) const {
    return {Tensor::from(host.x, batch_shape(config), device),
            Tensor::from(host.labels, {config.batch}, device)};
  }

  Tensor learning_rate() const {
    const float rate = static_cast<float>(learning_rate_at(config.schedule, steps_done));
    return Tensor::from(std::span<const float>(&rate, 1), {}, device);
  }
};

Trainer::Trainer(TrainingConfig config, std::shared_ptr<const DataSet> data, const Device& device) {
  check_fit(config, *data);
  const Parameters initial = initial_parameters(config, device);
  eval_tree(initial);
  SplitParameters split = split_frozen(initial, frozen_parameters(config.network));
  TrainState state = make_train_state(split.trained, config.optimiser.ema_decays.size());
  if (needs_loss_scale(config.precision))
    state.loss_scale.push_back(initial_loss_scale(config.loss_scale, device));
  state_ = std::make_unique<State>(std::move(config), std::move(data), device,
                                   std::move(split.frozen), std::move(state));
}
Trainer::Trainer(TrainingConfig config, std::shared_ptr<const DataSet> data, const Device& device,
                 TrainState state) {
  check_fit(config, *data);
  check_state(config, state);
  Parameters frozen =
      split_frozen(initial_parameters(config, device), frozen_parameters(config.network)).frozen;
  if (!frozen.empty()) eval_tree(frozen);
  state_ = std::make_unique<State>(std::move(config), std::move(data), device, std::move(frozen),
                                   std::move(state));
}
Trainer::~Trainer() = default;
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer& Trainer::operator=(Trainer&&) noexcept = default;

const Program& Trainer::program() const {
  const Placeholders arguments(state_->config, state_->device);
  return state_->step.program(state_->train_state, arguments.x, arguments.labels, arguments.key,
                              arguments.learning_rate);
}

MemoryReport Trainer::memory_report() const {
  const Placeholders arguments(state_->config, state_->device);
  return state_->step.memory_report(state_->train_state, arguments.x, arguments.labels,
                                    arguments.key, arguments.learning_rate);
}

MemoryReport step_memory(const TrainingConfig& config, const Device& device) {
  check(config);
  const SplitParameters split =
      split_frozen(initial_parameters(config, device), frozen_parameters(config.network));
  const Parameters zero = map_tree(split.trained, [](const Tensor& x) { return zeros_like(x); });
  TrainState state{
      .parameters = zero, .m = zero, .v = zero, .ema = {}, .step = zeros({}, DType::i32, device)};
  state.ema.assign(config.optimiser.ema_decays.size(), zero);
  if (needs_loss_scale(config.precision))
    state.loss_scale.push_back(
        {.scale = zeros({}, DType::f32, device), .finite = state.step, .skipped = state.step});
  const Placeholders arguments(config, device);
  return compile_step(config, split.frozen)
      .memory_report(state, arguments.x, arguments.labels, arguments.key, arguments.learning_rate);
}

StepMetrics Trainer::step() {
  State& state = *state_;
  // A batch that failed and is asked for again is made again.
  const auto position = static_cast<std::uint64_t>(state.steps_done);
  if (!state.batches || state.batches->step() != position)
    state.batches.emplace(state.data, state.config.batch, state.config.seed, position);
  const State::Batch batch = state.batch_of(state.batches->next());
  StepResult result =
      state.step(state.train_state, batch.x, batch.labels, state.key, state.learning_rate());
  state.train_state = std::move(result.state);
  ++state.steps_done;
  return {std::move(result.loss), std::move(result.error), std::move(result.gradient_norm),
          result.loss_scale.empty() ? Tensor() : result.loss_scale[0]};
}

std::int64_t Trainer::steps_done() const { return state_->steps_done; }
const TrainingConfig& Trainer::config() const { return state_->config; }
const DataSet& Trainer::data() const { return *state_->data; }
const std::vector<std::string>& Trainer::class_marks() const { return state_->class_marks; }
const Device& Trainer::device() const { return state_->device; }
std::size_t Trainer::traces() const { return state_->step.traces(); }

const TrainState& Trainer::state() const { return state_->train_state; }

Model Trainer::model(Weights weights, std::size_t average) const {
  const TrainingConfig& config = state_->config;
  if (weights == Weights::average && average >= config.optimiser.ema_decays.size())
    throw Error("train: there is no average number " + std::to_string(average) + " of the weights");
  Model model;
  model.info.network = config.network;
  model.info.objective = to_string(config.objective.kind);
  model.info.objective_config = objective_to_json(config.objective).dump();
  if (config.objective.kind == ObjectiveKind::meanflow_cfg)
    model.info.guidance = TrainedGuidance{config.objective.omega, config.objective.kappa};
  model.info.dataset = state_->data->name();
  if (num_classes(config.network) > 0) {
    model.info.class_names = state_->data->class_names();
    model.info.class_marks = state_->class_marks;
    model.info.untrained_classes = state_->data->classes_without_samples();
  }
  model.info.ema = weights == Weights::average;
  if (model.info.ema) model.info.ema_decay = config.optimiser.ema_decays[average];
  model.info.step = state_->steps_done;
  model.info.precision = config.precision;
  const TrainState& now = state_->train_state;
  model.parameters =
      merge(weights == Weights::average ? now.ema[average] : now.parameters, state_->frozen);
  return model;
}

}  // namespace fluxion
