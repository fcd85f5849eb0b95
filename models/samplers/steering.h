// Samples that agree with what is known of them: with some of a picture's pixels (inpainting), a
// small version of it (super-resolution), or a blurred one (deblurring). The network is the one
// that draws without: no derivative of it is needed.
#pragma once

#include "models/samplers/stepper.h"

namespace fluxion {

// What is known of a sample x [height, width, channels]: y = A x, A linear.
enum class ObservationKind {
  pixels,   // A x = m x, m 1 where a pixel is known
  reduced,  // means over squares of factor x factor pixels
  blurred,  // convolution with a normal density, cut off and normalised at the borders
};
struct Observation {
  ObservationKind kind = ObservationKind::pixels;
  // y of one sample, which all have in common: [height, width, channels]; of kind reduced
  // [height / factor, width / factor, channels]. Pixels that are not known may hold anything.
  Tensor value = {};
  Tensor mask = {};         // pixels: m, [height, width, 1], 0 or 1
  std::int64_t factor = 1;  // reduced
  double blur = 0;          // blurred: standard deviation in pixels, above 0
};
// A x of samples [batch, height, width, channels].
Tensor observe(const Observation& known, const Tensor& x);
// A'r / |A|^2, |A| the largest factor by which A changes a norm: the gradient of |A x - y|^2 / 2
// for r = A x - y, in steps of which 1 is the largest that can't overshoot.
Tensor back_project(const Observation& known, const Tensor& r);

enum class SteeringKind {
  // After each step the known pixels are those of the known picture under the noise that the sample
  // began with: z = m (alpha y + sigma e) + (1 - m) z. Of pixels alone.
  replacement,
  // Before each step z - scale A'(A x - y) / |A|^2, x the data that the network sees in z, its
  // derivative taken as that of z (FlowChef, Patel et al. 2024). One more call of the network a
  // step. Known pixels are put into the result.
  flowchef,
};
std::string to_string(SteeringKind kind);
SteeringKind steering_kind_from(const std::string& name);  // throws FormatError

struct Steering {
  SteeringKind kind = SteeringKind::flowchef;
  Observation known = {};
  double scale = 1;  // flowchef, above 0
};

// Throws Error, saying what would be right, for a value, mask, factor or scale that samples of that
// shape can't have, and for replacement of anything but pixels.
void check(const Steering& steering, const Shape& sample_shape);

// The sampler that steers in each of its steps. Throws Error for one with error control: its steps
// follow from the ones before.
Stepper steered(Stepper stepper, const Steering& steering);

}  // namespace fluxion
