#include "embed/generator.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <typeinfo>
#include <utility>

#include "engine/compile.h"
#include "engine/export/sample_noise.h"
#include "engine/graph/ops.h"
#include "engine/platform/host_memory.h"

namespace fluxion {

namespace {

// What a form is called with besides the weights, and what it returns: z and the memory.
using Tensors = std::vector<Tensor>;
using StepFunction = std::function<Tensors(const Tensors&)>;

// How many batch sizes stay planned.
constexpr std::size_t most_batch_sizes = 16;

// Memory is given out in sizes that are up to an eighth larger, and in pieces of at least this.
constexpr std::uint64_t smallest_piece = 64;
std::uint64_t with_rounding(std::uint64_t bytes, std::uint64_t pieces) {
  return bytes + bytes / 8 + pieces * smallest_piece;
}

void check_batch(std::int64_t batch) {
  if (batch < 1 || batch > Generator::most_batch)
    throw InvalidArgument("generate: batches have 1 to " + std::to_string(Generator::most_batch) +
                          " samples, got " + std::to_string(batch));
}

// The names of the classes in parentheses, unless they are their numbers.
std::string in_parentheses(const std::vector<std::string>& names) {
  constexpr std::size_t most = 12;
  std::string text;
  bool numbers = true;
  for (std::size_t i = 0; i < names.size(); ++i) {
    numbers = numbers && names[i] == std::to_string(i);
    if (i < most) text += (i == 0 ? "" : ", ") + names[i];
  }
  if (numbers) return {};
  if (names.size() > most) text += " and " + std::to_string(names.size() - most) + " more";
  // A message is one line.
  std::ranges::replace_if(
      text, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return " (" + text + ")";
}

void check_request(const StoredSampler& sampler, const SampleRequest& request) {
  check_batch(request.batch);
  if (request.first < 0 || request.count < 0 || request.first > Generator::most_samples ||
      request.count > Generator::most_samples - request.first)
    throw InvalidArgument("generate: samples " + std::to_string(request.first) + " and " +
                          std::to_string(request.count) +
                          " - 1 more are outside of the numbers 0 to 2^37 - 1");
  const std::int64_t elements = sampler.sample_shape.elements();
  const std::int64_t noise = std::ssize(request.noise);
  if (noise > 0 && (noise % elements != 0 || noise / elements != request.count))
    throw InvalidArgument("generate: got " + std::to_string(noise) + " numbers of noise for " +
                          std::to_string(request.count) + " samples of " +
                          std::to_string(elements));
  if (request.guidance && !sampler.guidance)
    throw InvalidArgument(
        "generate: the guidance of this generator is fixed; `fluxion export --free-guidance` "
        "leaves "
        "it free");
  if (request.guidance && !std::isfinite(static_cast<float>(*request.guidance)))
    throw InvalidArgument("generate: a scale of guidance that single precision can't hold");
  if (request.classes.empty()) return;
  if (sampler.classes == 0)
    throw InvalidArgument("generate: got classes, and the generator has none; pass no classes");
  if (static_cast<std::int64_t>(request.classes.size()) != request.count)
    throw InvalidArgument("generate: got " + std::to_string(request.classes.size()) +
                          " classes for " + std::to_string(request.count) + " samples");
  for (const std::int32_t each : request.classes) {
    if (each == Generator::open_class && sampler.open_class) continue;
    if (each == Generator::open_class)
      throw InvalidArgument("generate: this generator can't leave the class open");
    if (each < 0 || each >= sampler.classes)
      throw InvalidArgument("generate: class " + std::to_string(each) + " is outside of 0 to " +
                            std::to_string(sampler.classes - 1) +
                            in_parentheses(sampler.class_names));
  }
}

// Afterwards count * elements is a size in memory.
void check_room(const StoredSampler& sampler, std::int64_t count, std::size_t room) {
  const auto elements = static_cast<std::uint64_t>(sampler.sample_shape.elements());
  if (count > 0 && room / elements < static_cast<std::uint64_t>(count))
    throw InvalidArgument("generate: " + std::to_string(count) + " samples of " +
                          std::to_string(elements) + " numbers each don't fit into " +
                          std::to_string(room));
}

std::uint8_t pixel_of(float value) {
  const float level = (value + 1) * 127.5f;
  // (NaN compares false.)
  return level > 0 ? static_cast<std::uint8_t>(std::lround(std::min(level, 255.0f))) : 0;
}

// A part of a buffer that the host sees, which it keeps.
class PartOfBuffer final : public Buffer {
 public:
  PartOfBuffer(std::shared_ptr<Buffer> whole, std::size_t at, std::size_t bytes)
      : Buffer(bytes, whole->owner()),
        whole_(std::move(whole)),
        data_(static_cast<std::byte*>(whole_->host()) + at) {}
  void* host() override { return data_; }

 private:
  std::shared_ptr<Buffer> whole_;
  std::byte* data_;
};

std::size_t bytes_of_part(const StoredWeight& weight) {
  const std::size_t bytes = TensorType(weight.shape, DType::f32).bytes();
  return (bytes + host_memory_alignment - 1) / host_memory_alignment * host_memory_alignment;
}

Tensor upload(const StoredWeight& weight, const Device& device) {
  const TensorType type(weight.shape, DType::f32);
  std::shared_ptr<Buffer> buffer = device.backend().allocate(type);
  const std::vector<float> values = weight.values();
  device.backend().upload(*buffer, DType::f32, std::as_bytes(std::span(values)));
  return Tensor::from_buffer(std::move(buffer), type, device);
}

// Decodes them in place into one buffer, whose memory is there after few page faults: weights are
// most of what there is.
Tensors in_one_buffer(const StoredSampler& sampler, const Device& device) {
  std::size_t all = 0, at = 0;
  for (const StoredWeight& weight : sampler.weights)
    if (__builtin_add_overflow(all, bytes_of_part(weight), &all))
      throw OutOfMemory("the weights have more bytes than this system's addresses can count");
  const std::shared_ptr<Buffer> whole = device.backend().allocate(all);
  Tensors tensors;
  for (const StoredWeight& weight : sampler.weights) {
    const TensorType type(weight.shape, DType::f32);
    auto part = std::make_shared<PartOfBuffer>(whole, at, type.bytes());
    weight.copy_to(
        {static_cast<float*>(part->host()), static_cast<std::size_t>(type.shape.elements())});
    tensors.push_back(Tensor::from_buffer(std::move(part), type, device));
    at += bytes_of_part(weight);
  }
  return tensors;
}

// All of them; their bytes in the file are not needed any more.
std::shared_ptr<const Tensors> uploaded(StoredSampler& sampler, const Device& device) {
  Tensors tensors;
  if (device.backend().allocate(std::size_t{1})->host() != nullptr)
    tensors = in_one_buffer(sampler, device);
  else
    for (const StoredWeight& weight : sampler.weights) tensors.push_back(upload(weight, device));
  for (StoredWeight& weight : sampler.weights) weight.bytes = {};
  sampler.storage.reset();
  return std::make_shared<const Tensors>(std::move(tensors));
}

Tensor number_tensor(double number, const Device& device) {
  return Tensor::from(std::vector<float>{static_cast<float>(number)}, Shape{}, device);
}

// Planning uses nothing but the file and a size that may be asked for: what does not fit, or can't
// be computed here, is the file's fault. Turns such errors into a FormatError.
template <class Plan>
void blaming_the_file(const Plan& plan) {
  try {
    plan();
  } catch (const Error& caught) {
    if (typeid(caught) != typeid(Error) && typeid(caught) != typeid(ShapeError) &&
        typeid(caught) != typeid(DTypeError))
      throw;
    throw FormatError(std::string("this generator can't be run: ") + caught.what());
  }
}

void wait_for(const Tensor& tensor) { tensor.node()->value(tensor.output())->written().wait(); }

}  // namespace

struct Generator::State {
  // What one call at a time draws noise with.
  struct Noise {
    Noise(const Shape& sample, const Device& device)
        : of_start(sample, DType::f32, device), of_steps(sample, DType::f32, device) {}
    SampleNoise of_start, of_steps;
  };
  class NoiseLease {
   public:
    explicit NoiseLease(const State& state) : state_(state) {
      {
        std::lock_guard lock(state.noise_mutex);
        if (!state.noise.empty()) {
          noise_ = std::move(state.noise.back());
          state.noise.pop_back();
          return;
        }
      }
      noise_ = std::make_unique<Noise>(state.sampler.sample_shape, state.device);
      // Room for all that are out: giving one back must not fail.
      std::lock_guard lock(state.noise_mutex);
      state.noise.reserve(++state.noises);
    }
    ~NoiseLease() {
      std::lock_guard lock(state_.noise_mutex);
      state_.noise.push_back(std::move(noise_));
    }
    NoiseLease(const NoiseLease&) = delete;
    NoiseLease& operator=(const NoiseLease&) = delete;
    Noise* operator->() const { return noise_.get(); }

   private:
    const State& state_;
    std::unique_ptr<Noise> noise_;
  };

  // A form, or the start, ready to run for any batch.
  struct Form {
    std::shared_ptr<const StoredForm> stored;
    Compiled<StepFunction> run;
  };

  State(StoredSampler from, const Device& on);

  Form compiled(const StoredForm& form) const;
  // Whoever waits for the plans of another thread can be cancelled meanwhile.
  std::unique_lock<std::mutex> lock_planning(const std::stop_token& cancel) const;
  // Arguments of these sizes without values, to plan with.
  Tensors placeholders(const Form& form, std::int64_t batch) const;
  std::uint64_t prepare(std::int64_t batch) const;
  void generate(const SampleRequest& request, const Take& take) const;
  // `take` gets the samples of each batch on the host, and the number within the request of the
  // first of them.
  void generate_on_host(
      const SampleRequest& request,
      const std::function<void(std::int64_t first, std::span<const float>)>& take) const;

  Device device;
  std::shared_ptr<const Tensors> weights;
  std::shared_ptr<const StoredSampler> held;  // without the bytes of its weights
  const StoredSampler& sampler;
  std::vector<Form> forms;
  std::optional<Form> start;
  std::vector<Tensors> numbers;  // of each step

  mutable std::mutex planning;             // so that several threads do not make the same plan
  mutable std::set<std::int64_t> planned;  // batch sizes; plans that were forgotten are made anew
  mutable std::mutex noise_mutex;
  mutable std::vector<std::unique_ptr<Noise>> noise;  // those that rest
  mutable std::size_t noises = 0;                     // all
};

Generator::State::State(StoredSampler from, const Device& on)
    : device(on),
      weights(uploaded(from, on)),
      held(std::make_shared<const StoredSampler>(std::move(from))),
      sampler(*held) {
  for (const StoredForm& form : sampler.forms) forms.push_back(compiled(form));
  if (!sampler.start.empty()) start = compiled(sampler.start.front());
  for (const StoredStep& step : sampler.steps) {
    Tensors of_step;
    for (const double number : step.numbers) of_step.push_back(number_tensor(number, device));
    numbers.push_back(std::move(of_step));
  }
}

Generator::State::Form Generator::State::compiled(const StoredForm& form) const {
  const std::shared_ptr<const StoredForm> stored(held, &form);
  return {stored,
          compile(StepFunction([stored, weights = weights, device = device](const Tensors& given) {
                    Tensors arguments = *weights;
                    arguments.insert(arguments.end(), given.begin(), given.end());
                    return call(at_batch(stored->graph, given.front().size(0)), arguments, device);
                  }),
                  {.donate = {}, .max_signatures = most_batch_sizes})};
}

Tensors Generator::State::placeholders(const Form& form, std::int64_t batch) const {
  const StoredGraph graph = at_batch(form.stored->graph, batch);
  Tensors arguments;
  for (std::size_t i = weights->size(); i < graph.inputs.size(); ++i) {
    const TensorType& type = graph.graph.inputs[i];
    arguments.push_back(zeros(type.shape, type.dtype, device));
  }
  return arguments;
}

std::unique_lock<std::mutex> Generator::State::lock_planning(const std::stop_token& cancel) const {
  constexpr std::chrono::milliseconds between_looks{1};
  std::unique_lock lock(planning, std::try_to_lock);
  while (!lock) {
    if (cancel.stop_requested()) throw Cancelled("generate: stopped before it began");
    std::this_thread::sleep_for(between_looks);
    lock.try_lock();
  }
  return lock;
}

std::uint64_t Generator::State::prepare(std::int64_t batch) const {
  check_batch(batch);
  const std::lock_guard lock(planning);
  // Noise is drawn before a step. What it leaves, and what the batch before leaves, is free by
  // then.
  std::uint64_t noise_bytes = 0;
  blaming_the_file([&] { noise_bytes = NoiseLease(*this)->of_steps.bytes(); });
  std::uint64_t most = with_rounding(noise_bytes, 16);
  const auto plan = [&](const Form& form) {
    const Tensors arguments = placeholders(form, batch);
    const MemoryReport report = form.run.memory_report(arguments);
    std::uint64_t given = 0;
    for (const Tensor& each : arguments) given += each.type().bytes();
    most = std::max(most, with_rounding(given + report.output_bytes + report.workspace_bytes,
                                        arguments.size() + 8));
    // Its draws are made while the rest of its arguments is there.
    if (!form.stored->draws.empty())
      most = std::max(most, with_rounding(given + noise_bytes, arguments.size() + 16));
  };
  blaming_the_file([&] {
    check(sampler, batch);
    for (const Form& form : forms) plan(form);
    if (start) plan(*start);
  });
  // Constants of the graphs, for this batch size; the numbers of the steps.
  std::uint64_t constants = 0, pieces = 0;
  const auto add_constants = [&](const Form& form) {
    for (const auto& each : at_batch(form.stored->graph, batch).constants) {
      constants += each.size();
      ++pieces;
    }
  };
  for (const Form& form : forms) add_constants(form);
  if (start) add_constants(*start);
  for (const Tensors& of_step : numbers) pieces += of_step.size();
  std::uint64_t weight_bytes = 0;
  for (const Tensor& weight : *weights) weight_bytes += weight.type().bytes();
  return most + with_rounding(constants, pieces) + with_rounding(weight_bytes, weights->size());
}

void Generator::State::generate(const SampleRequest& request, const Take& take) const {
  if (request.cancel.stop_requested()) throw Cancelled("generate: stopped before it began");
  if (request.count == 0) return;

  {
    // Whoever comes second finds the plans of the first.
    const std::unique_lock lock = lock_planning(request.cancel);
    if (!planned.contains(request.batch)) {
      const auto plan = [&](const Form& form) {
        if (request.cancel.stop_requested()) throw Cancelled("generate: stopped while it planned");
        form.run.program(placeholders(form, request.batch));
      };
      blaming_the_file([&] {
        check(sampler, request.batch);
        NoiseLease(*this)->of_steps.bytes();
        for (const Form& form : forms) plan(form);
        if (start) plan(*start);
      });
      planned.insert(request.batch);
    }
  }

  const RunOptions run{.cancel = request.cancel};
  const auto elements = static_cast<std::size_t>(sampler.sample_shape.elements());
  const NoiseKeys keys = noise_keys(request.seed, device);
  const NoiseLease drawn(*this);
  const auto rows = static_cast<std::size_t>(request.batch);
  const Shape shape = with_leading_axis(request.batch, sampler.sample_shape);
  Tensor guidance;
  if (request.guidance) guidance = number_tensor(*request.guidance, device);
  std::vector<float> host(rows * elements);
  std::vector<std::int32_t> labels(rows);
  const std::int64_t batches = (request.count + request.batch - 1) / request.batch,
                     all = batches * std::ssize(sampler.steps);
  std::int64_t done = 0;
  const auto class_of = [&](std::int64_t index) {
    const auto open = static_cast<std::int32_t>(sampler.classes);
    if (!request.classes.empty()) {
      const std::int32_t wanted = request.classes[static_cast<std::size_t>(index)];
      return wanted == open_class ? open : wanted;
    }
    const std::int64_t number = request.first + index;
    const auto& usual = sampler.usual_classes;
    if (!usual.empty()) return usual[static_cast<std::size_t>(number % std::ssize(usual))];
    return sampler.open_class ? open : static_cast<std::int32_t>(number % sampler.classes);
  };

  for (std::int64_t begin = 0; begin < request.count; begin += request.batch) {
    const std::int64_t used = std::min(request.batch, request.count - begin),
                       first = request.first + begin;
    const std::span<float> used_host =
        std::span(host).first(static_cast<std::size_t>(used) * elements);
    // The noise of this batch; rows that nobody asked for are zeros.
    const auto noise = [&](SampleNoise& of, const Tensor& key) {
      of.draw(key, first, used, used_host, run);
      std::fill(host.begin() + std::ssize(used_host), host.end(), 0.0f);
    };
    Tensors class_list;
    if (sampler.classes > 0) {
      std::fill(labels.begin(), labels.end(), 0);
      for (std::int64_t i = 0; i < used; ++i)
        labels[static_cast<std::size_t>(i)] = class_of(begin + i);
      class_list.push_back(Tensor::from(labels, {request.batch}, device));
    }

    if (request.noise.empty()) {
      noise(drawn->of_start, keys.of_start);
    } else {
      const auto given =
          request.noise.subspan(static_cast<std::size_t>(begin) * elements, used_host.size());
      std::copy(given.begin(), given.end(), host.begin());
      std::fill(host.begin() + std::ssize(used_host), host.end(), 0.0f);
    }
    if (sampler.scale != 1)
      for (float& each : used_host) each *= static_cast<float>(sampler.scale);
    Tensors state{Tensor::from(host, shape, device)};  // z, then the memory
    if (start) {
      Tensors arguments = state;
      arguments.insert(arguments.end(), class_list.begin(), class_list.end());
      for (Tensor& each : start->run.run(run, arguments)) state.push_back(std::move(each));
    }
    for (std::size_t i = 0; i < sampler.steps.size(); ++i) {
      const Form& form = forms[static_cast<std::size_t>(sampler.steps[i].form)];
      Tensors arguments = state;
      arguments.insert(arguments.end(), numbers[i].begin(), numbers[i].end());
      if (guidance) arguments.back() = guidance;
      for (const std::uint32_t draw : form.stored->draws) {
        noise(drawn->of_steps,
              fold_in(fold_in(keys.of_steps, static_cast<std::uint32_t>(i)), draw));
        arguments.push_back(Tensor::from(host, shape, device));
      }
      arguments.insert(arguments.end(), class_list.begin(), class_list.end());
      Tensors next = form.run.run(run, arguments);
      wait_for(state.front());  // at most two steps in flight, so that a cancelled call ends soon
      if (request.progress && !request.progress(++done, all))
        throw Cancelled("generate: stopped by the progress function after step " +
                        std::to_string(done) + " of " + std::to_string(all));
      state = std::move(next);
    }
    // What `take` copies relies on it, whatever the file says.
    if (state.front().shape() != shape)
      throw FormatError("generate: the last step returns " + to_string(state.front().shape()) +
                        ", not samples " + to_string(shape));
    take(begin, used, state.front());
  }
}

void Generator::State::generate_on_host(
    const SampleRequest& request,
    const std::function<void(std::int64_t first, std::span<const float>)>& take) const {
  const auto elements = static_cast<std::size_t>(sampler.sample_shape.elements());
  std::vector<float> host;
  generate(request, [&](std::int64_t begin, std::int64_t used, const Tensor& samples) {
    host.resize(static_cast<std::size_t>(samples.elements()));
    samples.copy_to(std::as_writable_bytes(std::span(host)), DType::f32);
    take(begin, std::span(host).first(static_cast<std::size_t>(used) * elements));
  });
}

Generator::Generator(StoredSampler sampler, const Device& device)
    : state_(std::make_shared<const State>(std::move(sampler), device)) {}

const StoredSampler& Generator::sampler() const { return state_->sampler; }

std::uint64_t Generator::weight_bytes() const {
  std::uint64_t bytes = 0;
  for (const Tensor& weight : *state_->weights) bytes += weight.type().bytes();
  return bytes;
}

std::uint64_t Generator::prepare(std::int64_t batch) const { return state_->prepare(batch); }

void Generator::generate(const SampleRequest& request, std::span<float> to) const {
  check_request(sampler(), request);
  check_room(sampler(), request.count, to.size());
  const auto elements = static_cast<std::size_t>(sampler().sample_shape.elements());
  state_->generate_on_host(request, [&](std::int64_t first, std::span<const float> values) {
    std::copy(values.begin(), values.end(),
              to.begin() + first * static_cast<std::ptrdiff_t>(elements));
  });
}

void Generator::generate(const SampleRequest& request, const Take& take) const {
  check_request(sampler(), request);
  state_->generate(request, take);
}

void Generator::generate_pixels(const SampleRequest& request, std::span<std::uint8_t> to) const {
  if (!has_images())
    throw InvalidArgument("generate: samples of shape " + to_string(sampler().sample_shape) +
                          " are no images [height, width, 1 or 3] to make pixels of");
  check_request(sampler(), request);
  check_room(sampler(), request.count, to.size());
  const auto elements = static_cast<std::size_t>(sampler().sample_shape.elements());
  state_->generate_on_host(request, [&](std::int64_t first, std::span<const float> values) {
    std::transform(values.begin(), values.end(),
                   to.begin() + first * static_cast<std::ptrdiff_t>(elements), pixel_of);
  });
}

void Generator::noise(const SampleRequest& request, std::span<float> to) const {
  check_request(sampler(), request);
  check_room(sampler(), request.count, to.size());
  if (request.cancel.stop_requested()) throw Cancelled("generate: stopped before it began");
  const State::NoiseLease drawn(*state_);
  const auto elements = static_cast<std::size_t>(sampler().sample_shape.elements());
  blaming_the_file([&] {
    drawn->of_start.draw(
        noise_keys(request.seed, state_->device).of_start, request.first, request.count,
        to.first(static_cast<std::size_t>(request.count) * elements), {.cancel = request.cancel});
  });
}

bool Generator::has_images() const {
  const Shape& shape = sampler().sample_shape;
  return shape.rank() == 3 && (shape[2] == 1 || shape[2] == 3);
}

}  // namespace fluxion
