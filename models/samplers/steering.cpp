#include "models/samplers/steering.h"

#include <cmath>

#include "engine/error.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "models/layers/einsum.h"
#include "models/layers/image.h"
#include "models/names.h"

namespace fluxion {
namespace {

constexpr EnumNames<SteeringKind, 2> steering_names{
    {{SteeringKind::replacement, "replacement"}, {SteeringKind::flowchef, "flowchef"}}};

// [size, size]: row i holds the weights of the points of a line in the blurred point i.
Tensor blur_matrix(std::int64_t size, double deviation, const Tensor& like) {
  std::vector<double> weights;
  for (std::int64_t i = 0; i < size; ++i) {
    double sum = 0;
    for (std::int64_t j = 0; j < size; ++j) {
      const double distance = static_cast<double>(i - j) / deviation;
      weights.push_back(std::exp(-0.5 * distance * distance));
      sum += weights.back();
    }
    for (auto row = weights.end() - size; row != weights.end(); ++row) *row /= sum;
  }
  if (like.dtype() == DType::f64) return Tensor::from(weights, {size, size}, like.device());
  const std::vector<float> single(weights.begin(), weights.end());
  return Tensor::from(single, {size, size}, like.device()).to(like.dtype());
}

// The blur of [batch, height, width, channels], or its transpose.
Tensor blurred(const Tensor& x, double deviation, bool transposed) {
  const Tensor down = blur_matrix(x.size(1), deviation, x),
               across = blur_matrix(x.size(2), deviation, x);
  return einsum(transposed ? "ih,jw,bijc->bhwc" : "hi,wj,bijc->bhwc", {down, across, x});
}

Tensor in_batch(const Tensor& value, const Tensor& z) {
  return expand_dims(value.to(z.dtype()), 0);
}

Stepper replacing(const Stepper& inner, const Observation& known) {
  Stepper result = inner;
  // Memory, after the sampler's own: the noise that the sample began with.
  result.start = [start = inner.start](const LabelledPredictor& network, const Tensor& z,
                                       const Tensor& noise) {
    std::vector<Tensor> memory = start ? start(network, z, noise) : std::vector<Tensor>();
    memory.push_back(noise);
    return memory;
  };
  // Numbers, after the sampler's own: alpha and sigma where the step ends.
  result.call = [call = inner.call, grid = inner.grid](std::size_t i) {
    Stepper::Call next = call(i);
    // The last step leaves known pixels as they are, also where the path ends with some noise.
    const bool last = i + 2 == grid.size();
    next.numbers.push_back(last ? 1 : grid[i + 1].alpha);
    next.numbers.push_back(last ? 0 : grid[i + 1].sigma);
    return next;
  };
  result.step = [step = inner.step, known](int form, const LabelledPredictor& network,
                                           const StepInput& given) {
    StepInput input = given;
    const Tensor noise = input.memory.back(), sigma = input.numbers.back(),
                 alpha = input.numbers[input.numbers.size() - 2];
    input.memory.pop_back();
    input.numbers.resize(input.numbers.size() - 2);
    StepOutput output = step(form, network, input);
    const Tensor& z = output.z;
    output.z = where(ge(in_batch(known.mask, z), 0.5),
                     alpha * in_batch(known.value, z) + sigma * noise, z);
    output.memory.push_back(noise);
    return output;
  };
  return result;
}

Stepper descending(const Stepper& inner, const Observation& known, double scale) {
  Stepper result = inner;
  // Numbers, after the sampler's own: the time where the step begins, and whether it is the last.
  result.call = [call = inner.call, grid = inner.grid](std::size_t i) {
    Stepper::Call next = call(i);
    next.numbers.push_back(grid[i].t);
    next.numbers.push_back(i + 2 == grid.size() ? 1 : 0);
    return next;
  };
  result.step = [step = inner.step, known, scale, clean = inner.path.clean_time()](
                    int form, const LabelledPredictor& network, const StepInput& given) {
    StepInput input = given;
    const Tensor last = input.numbers.back(), t = input.numbers[input.numbers.size() - 2];
    input.numbers.resize(input.numbers.size() - 2);
    const Tensor x = network.predictor.jumps() ? network.jump(input.z, t, full_like(t, clean))
                                               : network(Prediction::data, input.z, t);
    const Tensor y = in_batch(known.value, x);
    Tensor error = observe(known, x) - y;
    if (known.kind == ObservationKind::pixels)  // whatever y holds elsewhere
      error = where(ge(in_batch(known.mask, x), 0.5), error, zeros_like(error));
    input.z = input.z - scale * back_project(known, error);
    StepOutput output = step(form, network, input);
    if (known.kind == ObservationKind::pixels)
      output.z = where(ge(last * in_batch(known.mask, x), 0.5), y, output.z);
    return output;
  };
  return result;
}

[[noreturn]] void refuse(const std::string& why) { throw Error("steering: " + why); }

}  // namespace

std::string to_string(SteeringKind kind) { return name_of(steering_names, kind); }

SteeringKind steering_kind_from(const std::string& name) {
  return value_named(steering_names, name, "steering");
}

Tensor observe(const Observation& known, const Tensor& x) {
  switch (known.kind) {
    case ObservationKind::pixels:
      return where(ge(in_batch(known.mask, x), 0.5), x, zeros_like(x));
    case ObservationKind::reduced:
      return avg_pool2d(x, {known.factor, known.factor}, {known.factor, known.factor});
    case ObservationKind::blurred:
      return blurred(x, known.blur, false);
  }
  throw Error("steering: unknown kind");
}

Tensor back_project(const Observation& known, const Tensor& r) {
  switch (known.kind) {
    case ObservationKind::pixels:
      return observe(known, r);
    case ObservationKind::reduced:  // A A' = 1 / factor^2
      return upsample_nearest2d(r, {known.factor, known.factor});
    case ObservationKind::blurred:  // |A| is 1, but for the borders
      return blurred(r, known.blur, true);
  }
  throw Error("steering: unknown kind");
}

void check(const Steering& steering, const Shape& sample_shape) {
  const Observation& known = steering.known;
  if (sample_shape.rank() != 3)
    refuse("samples must be images [height, width, channels], not " + to_string(sample_shape));
  if (!(steering.scale > 0) || !std::isfinite(steering.scale))
    refuse("scale must be above 0, got " + number_text(steering.scale));
  if (steering.kind == SteeringKind::replacement && known.kind != ObservationKind::pixels)
    refuse("replacement wants known pixels; flowchef takes smaller and blurred pictures, too");
  Shape wanted = sample_shape;
  if (known.kind == ObservationKind::reduced) {
    if (known.factor < 1 || sample_shape[0] % known.factor != 0 ||
        sample_shape[1] % known.factor != 0)
      refuse("the factor must divide " + std::to_string(sample_shape[0]) + " x " +
             std::to_string(sample_shape[1]) + " pixels, got " + std::to_string(known.factor));
    wanted = {sample_shape[0] / known.factor, sample_shape[1] / known.factor, sample_shape[2]};
  }
  if (known.kind == ObservationKind::blurred && (!(known.blur > 0) || !std::isfinite(known.blur)))
    refuse("the blur's deviation must be above 0 pixels, got " + number_text(known.blur));
  if (!known.value || known.value.shape() != wanted)
    refuse("what is known must have the shape " + to_string(wanted) + ", got " +
           (known.value ? to_string(known.value.shape()) : "nothing"));
  if (known.kind != ObservationKind::pixels) return;
  const Shape of_mask{sample_shape[0], sample_shape[1], 1};
  if (!known.mask || known.mask.shape() != of_mask)
    refuse("the mask must have the shape " + to_string(of_mask) + ", got " +
           (known.mask ? to_string(known.mask.shape()) : "nothing"));
}

Stepper steered(Stepper stepper, const Steering& steering) {
  if (stepper.unfinished)
    refuse("error control can't follow steps that are steered; take a sampler of fixed steps");
  return steering.kind == SteeringKind::replacement
             ? replacing(stepper, steering.known)
             : descending(stepper, steering.known, steering.scale);
}

}  // namespace fluxion
