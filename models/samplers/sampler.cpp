#include "models/samplers/sampler.h"

#include <algorithm>
#include <array>
#include <utility>

#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "engine/single_precision.h"

namespace fluxion {
namespace {

// Noise is drawn in blocks of this many samples with a key each, so that sample i is the same
// whatever the batch and the count.
constexpr std::int64_t noise_block = 64;

constexpr std::array<std::pair<SamplerKind, const char*>, 4> kind_names = {
    {{SamplerKind::meanflow, "meanflow"},
     {SamplerKind::ode_euler, "euler"},
     {SamplerKind::ode_heun, "heun"},
     {SamplerKind::ode_rk4, "rk4"}}};

Tensor scalar(double value, DType dtype, const Device& device) {
  if (dtype == DType::f64) return Tensor::from(std::vector<double>{value}, {}, device);
  return Tensor::from(std::vector<float>{static_cast<float>(value)}, {}, device).to(dtype);
}

Shape with_batch(std::int64_t batch, const Shape& sample) {
  Dims sizes = sample.dims();
  sizes.insert(sizes.begin(), batch);
  return Shape(std::move(sizes));
}

}  // namespace

std::string to_string(SamplerKind kind) {
  for (const auto& [value, name] : kind_names)
    if (value == kind) return name;
  return "unknown";
}

SamplerKind sampler_kind_from(const std::string& name) {
  std::string known;
  for (const auto& [value, candidate] : kind_names) {
    if (name == candidate) return value;
    known += (known.empty() ? "'" : ", '") + std::string(candidate) + "'";
  }
  throw FormatError("sampler '" + name + "' is not one of " + known);
}

Tensor sampler_step(SamplerKind kind, const Velocity& network, const Tensor& z, const Tensor& t,
                    const Tensor& s, const Tensor& labels) {
  const Shape batch{z.size(0)};
  const Tensor h = s - t;
  const auto scaled = [&](const Tensor& step, const Tensor& slope) {
    Dims shape(static_cast<std::size_t>(z.rank()), 1);
    if (step.rank() == 1) shape.front() = batch[0];
    return reshape(step, Shape(std::move(shape))) * slope;
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
  const Tensor k2 = velocity(z + scaled(half, k1), middle);
  const Tensor k3 = velocity(z + scaled(half, k2), middle);
  const Tensor k4 = velocity(z + scaled(h, k3), s);
  return z + scaled(h / 6.0, k1 + 2.0 * k2 + 2.0 * k3 + k4);
}

Velocity guided(const Velocity& network, double scale, std::int64_t null_class) {
  return [=](const Tensor& z, const Times& times, const Tensor& labels) {
    if (!labels) throw Error("guidance: needs labels");
    const Tensor null = full_like(labels, static_cast<double>(null_class));
    const auto twice = [](const Tensor& x) { return concat({x, x}, 0); };
    const std::vector<Tensor> both =
        split(network(twice(z), {twice(times.t), twice(times.r)}, concat({labels, null}, 0)), 2, 0);
    return both[1] + scale * (both[0] - both[1]);
  };
}

struct Sampler::State {
  // Labels are a list of none or one, so that networks without classes compile without them.
  using Step = std::function<Tensor(const Tensor& z, const Tensor& t, const Tensor& s,
                                    const std::vector<Tensor>& labels)>;
  using Noise = std::function<Tensor(const Tensor& key, const Tensor& block)>;

  NetworkConfig network;
  SamplerOptions options;
  DType dtype;
  Device device;
  Compiled<Step> step;
  Compiled<Noise> noise;

  Tensor labels_or_null(const Tensor& labels, std::int64_t batch) const {
    const std::int64_t classes = num_classes(network);
    if (classes == 0 || labels) return labels;
    return Tensor::from(std::vector<std::int32_t>(static_cast<std::size_t>(batch),
                                                  static_cast<std::int32_t>(classes)),
                        {batch}, device);
  }

  // From noise to data; `visit` sees every state, the noise included.
  Tensor walk(const Tensor& noise_in, const Tensor& labels_in, const RunOptions& run,
              const std::function<void(const Tensor&)>& visit) const {
    const Tensor labels = labels_or_null(labels_in, noise_in.size(0));
    const std::vector<Tensor> labels_list =
        num_classes(network) > 0 ? std::vector<Tensor>{labels} : std::vector<Tensor>{};
    const auto time = [&](std::int64_t i) {
      return scalar(1 - static_cast<double>(i) / static_cast<double>(options.steps), dtype, device);
    };
    Tensor z = noise_in;
    visit(z);
    for (std::int64_t i = 0; i < options.steps; ++i) {
      z = step.run(run, z, time(i), time(i + 1), labels_list);
      visit(z);
    }
    return z;
  }
};

Sampler::Sampler(NetworkConfig network, Parameters parameters, SamplerOptions options) {
  if (options.steps < 1)
    throw Error("sampler: wants at least 1 step, got " + std::to_string(options.steps));
  if (!fits_single(options.guidance))
    throw Error("sampler: guidance must be 0 or a number that single precision holds, got " +
                number_text(options.guidance));
  const std::int64_t classes = num_classes(network);
  if (options.guidance != 1 && classes == 0)
    throw Error("sampler: guidance needs a network with classes");
  if (parameters.empty()) throw Error("sampler: the network has no parameters");
  const Tensor& first = parameters.begin()->second;
  const DType dtype = first.dtype();
  const Device device = first.device();

  Velocity velocity = bind_parameters(network, parameters);
  if (options.guidance != 1) velocity = guided(velocity, options.guidance, classes);
  State::Step step = [velocity, kind = options.kind](const Tensor& z, const Tensor& t,
                                                     const Tensor& s,
                                                     const std::vector<Tensor>& labels) {
    return sampler_step(kind, velocity, z, t, s, labels.empty() ? Tensor() : labels.front());
  };
  const Shape block_shape = with_batch(noise_block, sample_shape(network));
  State::Noise noise = [block_shape, dtype](const Tensor& key, const Tensor& block) {
    return normal(fold_in(key, block), block_shape, dtype);
  };
  state_ =
      std::make_shared<const State>(State{std::move(network), options, dtype, device,
                                          compile(std::move(step)), compile(std::move(noise))});
}

Tensor Sampler::operator()(const Tensor& noise, const Tensor& labels, const RunOptions& run) const {
  return state_->walk(noise, labels, run, [](const Tensor&) {});
}

Tensor Sampler::path(const Tensor& noise, const Tensor& labels, const RunOptions& run) const {
  std::vector<Tensor> states;
  state_->walk(noise, labels, run, [&](const Tensor& z) { states.push_back(expand_dims(z, 0)); });
  return concat(states, 0);
}

std::vector<float> Sampler::sample(std::int64_t count, std::int64_t batch, std::uint64_t seed,
                                   const std::vector<std::int32_t>& labels, const RunOptions& run,
                                   const Progress& progress) const {
  if (count < 0 || batch < 1)
    throw Error("sampler: wants a count of at least 0 in batches of at least 1, got " +
                std::to_string(count) + " in batches of " + std::to_string(batch));
  const std::int64_t classes = num_classes(state_->network);
  if (!labels.empty() && (classes == 0 || static_cast<std::int64_t>(labels.size()) != count))
    throw Error("sampler: got " + std::to_string(labels.size()) + " labels for " +
                std::to_string(count) + " samples of a network with " + std::to_string(classes) +
                " classes");
  for (const std::int32_t label : labels)
    if (label < 0 || label > classes)
      throw Error("sampler: label " + std::to_string(label) + " is outside 0.." +
                  std::to_string(classes) + ", the last being the null class");

  const Shape sample = sample_shape(state_->network);
  const auto elements = static_cast<std::size_t>(sample.elements());
  const Tensor key = random_key(seed, state_->device);
  std::vector<float> noise, result;
  std::int64_t noise_at = -1;  // the block that `noise` holds
  result.reserve(static_cast<std::size_t>(count) * elements);
  for (std::int64_t begin = 0; begin < count; begin += batch) {
    const std::int64_t used = std::min(batch, count - begin);
    std::vector<float> z(static_cast<std::size_t>(batch) * elements, 0.0f);
    std::vector<std::int32_t> chunk_labels(static_cast<std::size_t>(batch),
                                           static_cast<std::int32_t>(classes));
    for (std::int64_t i = 0; i < used; ++i) {
      const std::int64_t index = begin + i, block = index / noise_block;
      if (block != noise_at) {
        const Tensor number = Tensor::from(
            std::vector<std::int32_t>{static_cast<std::int32_t>(block)}, {}, state_->device);
        noise = state_->noise.run(run, key, number).to(DType::f32).to_host<float>();
        noise_at = block;
      }
      const auto from =
          noise.begin() +
          static_cast<std::ptrdiff_t>(static_cast<std::size_t>(index % noise_block) * elements);
      std::copy_n(from, elements,
                  z.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(i) * elements));
      if (!labels.empty())
        chunk_labels[static_cast<std::size_t>(i)] = labels[static_cast<std::size_t>(index)];
    }
    const Tensor start =
        Tensor::from(z, with_batch(batch, sample), state_->device).to(state_->dtype);
    const Tensor label_tensor =
        classes > 0 ? Tensor::from(chunk_labels, {batch}, state_->device) : Tensor();
    const std::vector<float> values =
        (*this)(start, label_tensor, run).to(DType::f32).to_host<float>();
    result.insert(
        result.end(), values.begin(),
        values.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(used) * elements));
    if (progress) progress(begin + used);
  }
  return result;
}

std::uint64_t Sampler::host_bytes(const Shape& sample_shape, std::int64_t count,
                                  std::int64_t batch) {
  // The samples, a batch before and after its steps, and two blocks of noise.
  const double samples = static_cast<double>(count) +
                         2.0 * static_cast<double>(std::min(batch, count)) + 2.0 * noise_block;
  const double bytes = samples * static_cast<double>(sample_shape.elements()) * sizeof(float);
  constexpr double most = 9e18;
  return static_cast<std::uint64_t>(std::min(bytes, most));
}

std::size_t Sampler::traces() const { return state_->step.traces(); }

std::int64_t Sampler::evaluations() const {
  const std::int64_t per_step = state_->options.kind == SamplerKind::ode_rk4    ? 4
                                : state_->options.kind == SamplerKind::ode_heun ? 2
                                                                                : 1;
  return state_->options.steps * per_step * (state_->options.guidance != 1 ? 2 : 1);
}

}  // namespace fluxion
