#include "models/benchmark/benchmark.h"

#include <algorithm>
#include <functional>
#include <variant>

#include "autograd/transforms.h"
#include "engine/graph/ops.h"
#include "models/names.h"
#include "models/optimisers/optimiser.h"

namespace fluxion {
namespace {

constexpr double learning_rate = 1e-4;
// Share of the rows whose r differs from t.
constexpr double unequal_share = 0.25;

bool trains(BenchmarkTask task) {
  return task != BenchmarkTask::forward && task != BenchmarkTask::sample;
}

DrawOptions draw_options(BenchmarkTask task) {
  return {.equal_share = 1 - unequal_share, .fixed_share = task == BenchmarkTask::meanflow_subset};
}

struct TrainingStep {
  BenchmarkTask task;
  NetworkConfig network;

  std::pair<TrainState, Tensor> operator()(const TrainState& state, const Tensor& x,
                                           const Tensor& labels, const Tensor& key,
                                           const Tensor& rate) const {
    FlowDraws draws = draw(draw_options(task), x, {}, 0, fold_in(key, state.step));
    if (num_classes(network) > 0) draws.labels = {labels, {}, num_classes(network)};
    const auto loss = [&](const Parameters& parameters) {
      return benchmark_loss(task, network, parameters, draws).loss;
    };
    const auto [value, gradient] = value_and_grad(loss)(state.parameters);
    return {update({.ema_decays = {}}, state, gradient, rate).state, value};
  }
};

struct Evaluation {
  BenchmarkTask task;
  NetworkConfig network;

  Tensor operator()(const Parameters& parameters, const Tensor& x, const Tensor& labels,
                    const Tensor& key, const Tensor& t) const {
    if (task == BenchmarkTask::forward)
      return apply(network, parameters, x, {.t = t, .r = 0.5 * t}, labels);
    const Tensor noise = normal(key, x.shape(), x.dtype());
    return noise -
           apply(network, parameters, noise, {.t = ones_like(t), .r = zeros_like(t)}, labels);
  }
};

// Rows that a weight of one sample's forward pass meets: one for what conditions the network, one
// per token or pixel for the rest, none in a table.
using Rows = std::function<std::int64_t(const std::string& weight)>;

Rows rows_of(const MlpConfig&) {
  return [](const std::string&) { return 1; };
}

Rows rows_of(const DitConfig& dit) {
  return [tokens = dit.tokens()](const std::string& weight) -> std::int64_t {
    if (weight.starts_with("y_embedder.") || weight == "pos_embed") return 0;
    const bool conditions = weight.starts_with("t_embedder.") ||
                            weight.starts_with("r_embedder.") ||
                            weight.find("adaLN_modulation") != weight.npos;
    return conditions ? 1 : tokens;
  };
}

Rows rows_of(const UnetConfig& unet) {
  return [layers = unet_layers(unet)](const std::string& weight) -> std::int64_t {
    if (weight.starts_with("label_emb.")) return 0;
    if (weight.find(".emb_layers.") != weight.npos) return 1;
    const auto owner = std::ranges::find_if(
        layers, [&](const UnetLayer& layer) { return weight.starts_with(layer.name + "."); });
    return owner == layers.end() ? 1 : owner->image[0] * owner->image[1];
  };
}

Rows rows_of(const SongUnetConfig& song) {
  return [layers = song_layers(song)](const std::string& weight) -> std::int64_t {
    if (weight.starts_with("map_label.")) return 0;
    if (weight.ends_with(".affine.weight")) return 1;
    const auto owner = std::ranges::find_if(
        layers, [&](const SongLayer& layer) { return weight.starts_with(layer.name); });
    return owner == layers.end() ? 1 : owner->image[0] * owner->image[1];
  };
}

// The products of activations of one sample: scores and mixing, over all heads, of `tokens` with
// each other.
double attention_flops(std::int64_t tokens, std::int64_t width) {
  return 2.0 * 2.0 * static_cast<double>(tokens * tokens * width);
}

double activation_flops(const MlpConfig&) { return 0; }

double activation_flops(const DitConfig& dit) {
  return static_cast<double>(dit.depth) * attention_flops(dit.tokens(), dit.hidden_size);
}

double activation_flops(const UnetConfig& unet) {
  double flops = 0;
  for (const UnetLayer& layer : unet_layers(unet))
    if (layer.kind == UnetLayer::Kind::attention)
      flops += attention_flops(layer.image[0] * layer.image[1], layer.in);
  return flops;
}

double activation_flops(const SongUnetConfig& song) {
  double flops = 0;
  for (const SongLayer& layer : song_layers(song))
    if (layer.attention) flops += attention_flops(layer.image[0] * layer.image[1], layer.out);
  return flops;
}

}  // namespace

const std::vector<BenchmarkNetwork>& benchmark_networks() {
  static const std::vector<BenchmarkNetwork> networks = {
      {"mlp2d",
       MlpConfig{.data_dim = 2,
                 .hidden = {512, 512, 512, 512, 512},
                 .time_features = 64,
                 .time_scale = 1000},
       4096},
      {"dit28",
       DitConfig{.depth = 6,
                 .num_classes = 10,
                 .time_scale = 1000,
                 .gelu = Gelu::erf,
                 .positions = Positions::learned},
       64},
      {"unet32", UnetConfig{.time_scale = 1000, .frequency_embedding_size = 256}, 16}};
  return networks;
}

const BenchmarkNetwork& benchmark_network(const std::string& name) {
  for (const BenchmarkNetwork& network : benchmark_networks())
    if (network.name == name) return network;
  throw Error("benchmark: network '" + name + "' is not one of " +
              quoted_names(benchmark_networks(), &BenchmarkNetwork::name));
}

ProductFlops product_flops(const NetworkConfig& network, std::int64_t batch) {
  return std::visit(
      [&](const auto& config) {
        const Rows rows = rows_of(config);
        double weight = 0;
        for (const auto& [name, shape] : parameter_shapes(config))
          if (shape.rank() >= 2) weight += 2.0 * static_cast<double>(shape.elements() * rows(name));
        const auto samples = static_cast<double>(batch);
        return ProductFlops{.weight = samples * weight,
                            .activation = samples * activation_flops(config)};
      },
      network);
}

double necessary_flops(BenchmarkTask task, const NetworkConfig& network, std::int64_t batch) {
  const ProductFlops flops = product_flops(network, batch);
  if (!trains(task)) return flops.forward();
  double tangent = 0;
  if (task == BenchmarkTask::meanflow) tangent = 1;
  if (task == BenchmarkTask::meanflow_subset)
    tangent =
        static_cast<double>(unequal_rows(draw_options(task), batch)) / static_cast<double>(batch);
  return (3 + tangent) * flops.weight + (3 + 2 * tangent) * flops.activation;
}

MeanFlowResult benchmark_loss(BenchmarkTask task, const NetworkConfig& network,
                              const Parameters& parameters, const FlowDraws& draws) {
  const std::int64_t batch = draws.x.size(0);
  // s / (s + c) with s the mean over n elements is S / (S + n c) with S their sum.
  MeanFlowOptions options{.c = 1e-3 * static_cast<double>(draws.x.elements() / batch), .p = 1};
  FlowDraws effective = draws;
  if (task == BenchmarkTask::flow_matching) {
    effective.r = draws.t;
    effective.equal_mask = {};
    options.jvp_rows = 0;
  }
  if (task == BenchmarkTask::meanflow_subset)
    options.jvp_rows = unequal_rows(draw_options(task), batch);
  return meanflow(bind_parameters(network, parameters), effective, options);
}

struct Benchmark::State {
  BenchmarkTask task;
  Tensor x, labels, key, t, rate;
  TrainState training;  // without averages
  Parameters parameters;
  Compiled<TrainingStep> training_step;
  Compiled<Evaluation> evaluation;

  State(BenchmarkTask task, const NetworkConfig& network, std::int64_t batch, const Device& device,
        std::uint64_t seed)
      : task(task),
        training_step(compile(TrainingStep{task, network}, {.donate = {0}})),
        evaluation(compile(Evaluation{task, network})) {
    key = random_key(seed, device);
    const Parameters initial = initialise(network, fold_in(key, 0));
    Dims shape{batch};
    const Shape sample = sample_shape(network);
    shape.insert(shape.end(), sample.begin(), sample.end());
    x = normal(fold_in(key, 1), Shape(shape));
    t = uniform(fold_in(key, 2), {batch});
    std::vector<std::int32_t> classes(static_cast<std::size_t>(batch));
    for (std::size_t i = 0; i < classes.size(); ++i)
      classes[i] = static_cast<std::int32_t>(
          i % static_cast<std::size_t>(std::max<std::int64_t>(num_classes(network), 1)));
    labels = Tensor::from(classes, {batch}, device);
    const float value = static_cast<float>(learning_rate);
    rate = Tensor::from(std::span<const float>(&value, 1), {}, device);
    for (const Tensor& tensor : {x, t, key}) eval(tensor);
    if (!trains(task)) {
      parameters = initial;
      return;
    }
    training = make_train_state(initial, 0);
  }
};

Benchmark::Benchmark(BenchmarkTask task, const NetworkConfig& network, std::int64_t batch,
                     const Device& device, std::uint64_t seed) {
  check(network);
  if (batch < 1)
    throw Error("benchmark: a batch must have at least 1 sample, got " + std::to_string(batch));
  state_ = std::make_unique<State>(task, network, batch, device, seed);
}

Benchmark::~Benchmark() = default;

const Program& Benchmark::program() const {
  const State& s = *state_;
  if (trains(s.task)) return s.training_step.program(s.training, s.x, s.labels, s.key, s.rate);
  return s.evaluation.program(s.parameters, s.x, s.labels, s.key, s.t);
}

MemoryReport Benchmark::memory_report() const {
  const State& s = *state_;
  if (trains(s.task))
    return s.training_step.memory_report(s.training, s.x, s.labels, s.key, s.rate);
  return s.evaluation.memory_report(s.parameters, s.x, s.labels, s.key, s.t);
}

Tensor Benchmark::step(const RunOptions& options) {
  State& s = *state_;
  if (!trains(s.task)) return s.evaluation.run(options, s.parameters, s.x, s.labels, s.key, s.t);
  auto [next, loss] = s.training_step.run(options, s.training, s.x, s.labels, s.key, s.rate);
  s.training = std::move(next);
  return loss;
}

}  // namespace fluxion
