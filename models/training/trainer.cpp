#include "models/training/trainer.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "autograd/transforms.h"
#include "engine/graph/ops.h"
#include "models/data/prefetch.h"
#include "models/data/source_set.h"

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

constexpr std::string_view learned_prefix = "learned.";
// Of a step's key: apart from the small numbers that methods fold into it.
constexpr std::uint32_t dropout_stream = 0x64726f70;

// Parameters that training changes, as those of the network and those of its method.
struct Owners {
  Parameters network, learned;
};

Owners by_owner(const Parameters& trained) {
  Owners owners;
  for (const auto& [name, tensor] : trained) {
    if (name.starts_with(learned_prefix))
      owners.learned.emplace(name.substr(learned_prefix.size()), tensor);
    else
      owners.network.emplace(name, tensor);
  }
  return owners;
}

std::int64_t restart_of(const MethodUse& use, const Method& method) {
  return method.restart ? method.restart(use) : 0;
}

// The function that is compiled: everything that changes from step to step is an argument; the
// frozen parameters are captured.
struct TrainStep {
  NetworkConfig network;
  MethodConfig method;
  std::int64_t total_steps = 0;
  OptimiserOptions optimiser;
  LossScaleOptions loss_scale;
  Parameters frozen;
  double dropout = 0;

  // `noise`: one or none.
  StepResult operator()(const TrainState& state, const Tensor& x, const Tensor& labels,
                        const std::vector<Tensor>& noise, const Tensor& key,
                        const Tensor& learning_rate) const {
    std::vector<Tensor> scale;
    if (!state.loss_scale.empty()) scale.push_back(state.loss_scale[0].scale);
    const MethodUse use{network, method.options, total_steps};
    const Tensor step_key = fold_in(key, state.step);
    const NetworkConfig training =
        dropout > 0 ? with_dropout(network, dropout, fold_in(step_key, dropout_stream)) : network;
    const auto bind = [&](const Parameters& own) {
      return bind_parameters(training, merge(own, frozen));
    };
    const auto bind_trained = [&](const Parameters& own) {
      return bind_parameters(network, merge(own, frozen));
    };
    const auto loss = [&](const Parameters& trained) {
      const Owners owners = by_owner(trained);
      LossValue value = method.method->loss({.use = use,
                                             .velocity = bind(owners.network),
                                             .parameters = owners.network,
                                             .learned = owners.learned,
                                             .state = state.method,
                                             .bind = bind,
                                             .bind_trained = bind_trained,
                                             .x = x,
                                             .labels = labels,
                                             .noise = noise.empty() ? Tensor() : noise[0],
                                             .key = step_key,
                                             .step = state.step});
      if (value.loss.rank() != 0)
        throw ShapeError("method " + method.method->name + ": its loss is " +
                         to_string(value.loss.type()) +
                         ", and must be a scalar, say the mean of that");
      const Tensor differentiated = scale.empty() ? value.loss : value.loss * scale[0];
      return std::pair(differentiated, std::pair(value.loss, value.error));
    };
    auto [value, gradient] = value_and_grad(loss)(state.parameters);
    if (!scale.empty())
      gradient = map_tree(std::move(gradient), [&](const Tensor& g) { return g / scale[0]; });
    TrainState counted = state;  // from the last start of the run on
    if (const std::int64_t restart = restart_of(use, *method.method); restart > 0) {
      counted.step = where(lt(state.step, restart), state.step, state.step - restart);
      // (Those skipped before the start count in a state that an older program left after it.)
      if (!scale.empty()) counted.step = maximum(counted.step, state.loss_scale[0].skipped);
    }
    UpdateResult next = update(optimiser, counted, gradient, learning_rate, loss_scale);
    next.state.step = state.step + 1.0;
    if (method.method->after_update) {
      const Parameters moved = by_owner(next.state.parameters).network;
      const MethodState after = method.method->after_update(
          {.use = use, .state = state.method, .trained = moved, .step = state.step});
      for (const auto& [name, tree] : after) {
        const auto updated = [&](const Tensor& fresh, const Tensor& before) {
          return scale.empty() ? fresh : where(is_finite_norm(next.gradient_norm), fresh, before);
        };
        next.state.method[name] = zip_tree(tree, state.method.at(name), updated);
      }
    }
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
  if (config.method.method->needs_pairs && !data.has_noise())
    throw Error("train: method " + config.method.method->name +
                " learns from pairs of noise and sample, which --teacher MODEL makes and --data "
                "FOLDER takes where they are made; " +
                data.name() + " holds none");
  if (data.has_noise()) {
    check_takes_pairs(*config.method.method);
    if (gives_noise(config.coupling))
      throw Error(
          "train: " + data.name() +
          " holds pairs of sample and noise, which no coupling changes; leave it independent");
  }
  if (!config.coupling.source.empty()) source_set(config.coupling.source, data.sample_shape());
  // A network without classes takes labelled data, too.
  if (num_classes(config.network) != 0 && num_classes(config.network) != data.classes())
    throw Error("train: the network has " + std::to_string(num_classes(config.network)) +
                " classes, " + data.name() + " has " + std::to_string(data.classes()));
}

Shape batch_shape(const TrainingConfig& config) {
  return with_leading_axis(config.batch, sample_shape(config.network));
}

// Independent keys of one seed: for the network's parameters, the training steps, and what the
// method learns beside the network.
constexpr std::uint32_t initial_stream = 0, step_stream = 1, learned_stream = 2;

using Step = Compiled<TrainStep>;

Step compile_step(const TrainingConfig& config, const Parameters& frozen) {
  const NetworkConfig network = with_precision(
      config.recompute ? with_checkpoints(config.network) : config.network, config.precision);
  return compile(TrainStep{network, config.method, config.total_steps, config.optimiser,
                           config.loss_scale, frozen, config.dropout},
                 {.donate = {0}});
}

// The arguments of a step by their types alone: lazy tensors that nobody evaluates, so that a step
// can be planned without a batch.
struct Placeholders {
  Tensor x, labels, key, learning_rate;
  std::vector<Tensor> noise;
  Placeholders(const TrainingConfig& config, bool paired, const Device& device)
      : x(zeros(batch_shape(config), DType::f32, device)),
        labels(zeros({config.batch}, DType::i32, device)),
        key(random_key(config.seed, device)),
        learning_rate(zeros({}, DType::f32, device)) {
    if (paired) noise.push_back(zeros(batch_shape(config), DType::f32, device));
  }
};

Parameters initial_parameters(const TrainingConfig& config, const Device& device) {
  return initialise(config.network, fold_in(random_key(config.seed, device), initial_stream));
}

// The parameters that the method learns, as they are named beside those of the network.
Parameters initial_learned(const TrainingConfig& config, const Device& device) {
  Parameters learned;
  if (!config.method.method->learned) return learned;
  const Tensor key = fold_in(random_key(config.seed, device), learned_stream);
  for (const auto& [name, tensor] : config.method.method->learned(use_of(config), key))
    learned.emplace(std::string(learned_prefix) + name, tensor);
  return learned;
}

bool fits(const Tensor& tensor, const Shape& shape) {
  return tensor.type() == TensorType{shape, DType::f32};
}

// What the weights of another network of one's kind and width are made for, and no shape shows.
template <class Config>
void take_times(Config& own, const Config& other) {
  own.second_time = other.second_time;
  own.time_scale = other.time_scale;
}
void take_unseen(MlpConfig& own, const MlpConfig& other) {
  if (own.hidden == other.hidden) take_times(own, other);
}
void take_unseen(DitConfig& own, const DitConfig& other) {
  if (own.hidden_size != other.hidden_size) return;
  take_times(own, other);
  own.num_heads = other.num_heads;
  own.gelu = other.gelu;
  if (own.tokens() == other.tokens()) own.positions = other.positions;
}
void take_unseen(UnetConfig& own, const UnetConfig& other) {
  if (own.base != other.base) return;
  take_times(own, other);
  own.norm_groups = other.norm_groups;
  own.num_heads = other.num_heads;
  own.num_head_channels = other.num_head_channels;
  own.attention_order = other.attention_order;
}
void take_unseen(SongUnetConfig& own, const SongUnetConfig& other) {
  if (own.base != other.base) return;
  take_times(own, other);
  own.filter = other.filter;
}

// Names for a line: the first few, and how many more.
class NameList {
 public:
  void add(const std::string& name) {
    constexpr std::size_t most = 4;
    if (++count_ <= most) names_ += (names_.empty() ? "" : ", ") + name;
    more_ = count_ - std::min(count_, most);
  }
  std::string text(const std::string& start) const {
    if (count_ == 0) return "";
    return start + names_ + (more_ > 0 ? " and " + std::to_string(more_) + " more" : "");
  }

 private:
  std::string names_;
  std::size_t count_ = 0, more_ = 0;
};

// A network whose frozen parameters are drawn is another where they are others.
void check_frozen(const TrainingConfig& config, const Parameters& theirs, const Device& device,
                  const std::string& option, const std::string& file) {
  const std::vector<std::string> frozen = frozen_parameters(config.network);
  if (frozen.empty()) return;
  const Parameters own = split_frozen(initial_parameters(config, device), frozen).frozen;
  for (const auto& [name, tensor] : own)
    if (theirs.at(name).to_host<float>() != tensor.to_host<float>())
      throw Error("train: --" + option + " " + file + " has another '" + name +
                  "' than the network that is trained; --init " + file + " begins with its own");
}

Parameters read_teacher(const TrainingConfig& config, const Device& device) {
  const std::string& option = config.method.method->teacher_option;
  const std::string& file = config.method.options.text(option);
  if (file.empty())
    throw Error("train: method " + config.method.method->name +
                " learns from a trained model; name "
                "its file with --" +
                option);
  const Model teacher = read_model(file, device);
  if (const auto& refusal = config.method.method->teacher_refusal) {
    const std::string why = refusal(teacher.info, config.method.options);
    if (!why.empty()) throw Error("train: --" + option + " " + file + " " + why);
  }
  if (teacher.info.network != config.network)
    throw Error("train: --" + option + " " + file + " is a " + family(teacher.info.network) +
                " of another shape than the network that is trained; give both the same network "
                "options, or begin with it: --init " +
                file);
  check_frozen(config, teacher.parameters, device, option, file);
  return split_frozen(teacher.parameters, frozen_parameters(config.network)).trained;
}

// What the method keeps at the start of a run; `teacher` is empty where it has none.
MethodState initial_state(const TrainingConfig& config, const Parameters& trained,
                          const Parameters& teacher) {
  MethodState state;
  for (const std::string& name : state_trees(config.method))
    state.emplace(name, own_copies(teacher.empty() || name != "teacher" ? trained : teacher));
  return state;
}

void check_state(const TrainingConfig& config, const TrainState& state) {
  const auto check_shapes = [&](const std::map<std::string, Shape>& expected, const Parameters& set,
                                const std::string& what) {
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
  const std::map<std::string, Shape> trained = trained_shapes(config);
  const auto check_set = [&](const Parameters& set, const std::string& what) {
    check_shapes(trained, set, what);
  };
  check_set(state.parameters, "parameters");
  check_set(state.m, "first moments");
  check_set(state.v, "second moments");
  if (state.ema.size() != config.optimiser.ema_decays.size())
    throw Error("train: the state holds " + std::to_string(state.ema.size()) +
                " averages, the configuration names " +
                std::to_string(config.optimiser.ema_decays.size()));
  for (const Parameters& average : state.ema) check_set(average, "averages");
  const std::vector<std::string> trees = state_trees(config.method);
  if (state.method.size() != trees.size())
    throw Error("train: the state has " + std::to_string(state.method.size()) +
                " trees of its method, which keeps " + std::to_string(trees.size()));
  for (const std::string& name : trees) {
    const auto found = state.method.find(name);
    if (found == state.method.end())
      throw Error("train: the state lacks '" + name + "', which its method keeps");
    check_shapes(network_shapes(config), found->second, "tree '" + name + "'");
  }
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
    std::vector<Tensor> noise;
  };
  Batch batch_of(const HostBatch& host) const {
    Batch batch{.x = Tensor::from(host.x, batch_shape(config), device),
                .labels = Tensor::from(host.labels, {config.batch}, device),
                .noise = {}};
    if (!host.noise.empty())
      batch.noise.push_back(Tensor::from(host.noise, batch_shape(config), device));
    return batch;
  }

  bool paired() const { return data->has_noise() || gives_noise(config.coupling); }
  // Batches from `step` on, coupled where they are to be.
  Prefetcher batches_from(std::uint64_t step) const {
    PrefetchOptions options;
    if (gives_noise(config.coupling)) {
      std::shared_ptr<const DataSet> source;
      if (!config.coupling.source.empty())
        source = source_set(config.coupling.source, data->sample_shape());
      options.prepare = [coupling = config.coupling, by_class = num_classes(config.network) > 0,
                         seed = config.seed, source](HostBatch& batch, std::uint64_t at) {
        batch.noise = coupled_noise(coupling, batch, by_class, seed, at, source.get());
      };
    }
    return {data, config.batch, config.seed, step, options};
  }

  // See Method::restart. An update of it that failed restarts again, to the same.
  void restart() {
    TrainState fresh =
        make_train_state(merge(train_state.method.at("teacher"), initial_learned(config, device)),
                         config.optimiser.ema_decays.size());
    fresh.step = train_state.step;
    fresh.method = std::move(train_state.method);
    if (!train_state.loss_scale.empty())
      fresh.loss_scale.push_back(initial_loss_scale(config.loss_scale, device));
    train_state = std::move(fresh);
  }

  Tensor learning_rate() const {
    const float rate = static_cast<float>(learning_rate_at(config, steps_done));
    return Tensor::from(std::span<const float>(&rate, 1), {}, device);
  }
};

Trainer::Trainer(TrainingConfig config, std::shared_ptr<const DataSet> data, const Device& device)
    : Trainer(std::move(config), std::move(data), device, Start{}) {}
Trainer::Trainer(TrainingConfig config, std::shared_ptr<const DataSet> data, const Device& device,
                 const Start& start) {
  check_fit(config, *data);
  Parameters initial = initial_parameters(config, device);
  eval_tree(initial);
  const std::map<std::string, Shape> own = network_shapes(config);
  for (const auto& [name, tensor] : start.parameters)
    if (const auto found = own.find(name); found != own.end() && fits(tensor, found->second))
      initial[name] = tensor;
  Parameters teacher;
  if (!config.method.method->teacher_option.empty()) teacher = read_teacher(config, device);
  // A student has its teacher's shape, and begins as it.
  if (start.parameters.empty())
    for (const auto& [name, tensor] : teacher) initial[name] = tensor;
  SplitParameters split = split_frozen(initial, frozen_parameters(config.network));
  const Parameters learned = initial_learned(config, device);
  if (!learned.empty()) eval_tree(learned);
  TrainState state =
      make_train_state(merge(split.trained, learned), config.optimiser.ema_decays.size());
  state.method = initial_state(config, split.trained, teacher);
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
  const Placeholders arguments(state_->config, state_->paired(), state_->device);
  return state_->step.program(state_->train_state, arguments.x, arguments.labels, arguments.noise,
                              arguments.key, arguments.learning_rate);
}

MemoryReport Trainer::memory_report() const {
  const Placeholders arguments(state_->config, state_->paired(), state_->device);
  return state_->step.memory_report(state_->train_state, arguments.x, arguments.labels,
                                    arguments.noise, arguments.key, arguments.learning_rate);
}

std::string take_start(TrainingConfig& config, const Model& model, const std::string& where) {
  std::visit(
      [&](auto& own) {
        if (const auto* other = std::get_if<std::decay_t<decltype(own)>>(&model.info.network))
          take_unseen(own, *other);
      },
      config.network);
  auto* song = std::get_if<SongUnetConfig>(&config.network);
  const auto frequencies = model.parameters.find("map_noise.freqs");
  const std::map<std::string, Shape> all = parameter_shapes(config.network),
                                     own = network_shapes(config);
  if (const auto wanted = all.find("map_noise.freqs"); song && wanted != all.end() &&
                                                       frequencies != model.parameters.end() &&
                                                       fits(frequencies->second, wanted->second)) {
    const std::vector<float> values = frequencies->second.to_host<float>();
    song->frequencies.values.assign(values.begin(), values.end());
  }
  NameList missing, other, unused;
  std::size_t taken = 0;
  for (const auto& [name, shape] : own) {
    const auto found = model.parameters.find(name);
    if (found == model.parameters.end())
      missing.add(name);
    else if (!fits(found->second, shape))
      other.add(name);
    else
      ++taken;
  }
  for (const auto& [name, tensor] : model.parameters)
    if (!all.contains(name)) unused.add(name);
  if (taken == 0)
    throw Error("train: --init " + where + " is a " + family(model.info.network) +
                " none of whose parameters fits the " + family(config.network) +
                " that is trained");
  std::string line = std::to_string(taken) + " of " + std::to_string(own.size()) + " parameters";
  line += missing.text("; not in it: ") + other.text("; of another shape: ") +
          unused.text("; not used: ");
  return line;
}

std::map<std::string, Shape> network_shapes(const TrainingConfig& config) {
  std::map<std::string, Shape> shapes = parameter_shapes(config.network);
  for (const std::string& name : frozen_parameters(config.network)) shapes.erase(name);
  return shapes;
}

std::map<std::string, Shape> trained_shapes(const TrainingConfig& config) {
  std::map<std::string, Shape> shapes = network_shapes(config);
  if (!config.method.method->learned_shapes) return shapes;
  for (const auto& [name, shape] : config.method.method->learned_shapes(use_of(config)))
    shapes.emplace(std::string(learned_prefix) + name, shape);
  return shapes;
}

MemoryReport step_memory(const TrainingConfig& config, const Device& device, bool paired) {
  check(config);
  const SplitParameters split =
      split_frozen(initial_parameters(config, device), frozen_parameters(config.network));
  const auto zeros_of = [](const Tensor& x) { return zeros_like(x); };
  const Parameters zero = map_tree(merge(split.trained, initial_learned(config, device)), zeros_of);
  TrainState state{
      .parameters = zero, .m = zero, .v = zero, .ema = {}, .step = zeros({}, DType::i32, device)};
  state.ema.assign(config.optimiser.ema_decays.size(), zero);
  for (const std::string& name : state_trees(config.method))
    state.method.emplace(name, map_tree(split.trained, zeros_of));
  if (needs_loss_scale(config.precision))
    state.loss_scale.push_back(
        {.scale = zeros({}, DType::f32, device), .finite = state.step, .skipped = state.step});
  const Placeholders arguments(config, paired || gives_noise(config.coupling), device);
  return compile_step(config, split.frozen)
      .memory_report(state, arguments.x, arguments.labels, arguments.noise, arguments.key,
                     arguments.learning_rate);
}

StepMetrics Trainer::step() {
  State& state = *state_;
  // A batch that failed and is asked for again is made again.
  const auto position = static_cast<std::uint64_t>(state.steps_done);
  if (!state.batches || state.batches->step() != position)
    state.batches.emplace(state.batches_from(position));
  const State::Batch batch = state.batch_of(state.batches->next());
  const std::int64_t restart = restart_of(use_of(state.config), *state.config.method.method);
  if (restart > 0 && state.steps_done == restart) state.restart();
  StepResult result = state.step(state.train_state, batch.x, batch.labels, batch.noise, state.key,
                                 state.learning_rate());
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
  describe(config.method, model.info);
  if (gives_noise(config.coupling)) model.info.coupling = coupling_note(config.coupling);
  model.info.source = config.coupling.source;
  if (state_->data->has_noise()) model.info.coupling = "pairs";
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
  const Owners owners = by_owner(weights == Weights::average ? now.ema[average] : now.parameters);
  model.parameters = merge(owners.network, state_->frozen);
  return model;
}

}  // namespace fluxion
