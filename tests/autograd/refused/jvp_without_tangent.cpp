// The compiler refuses this, in words.
#include "autograd/transforms.h"

fluxion::Tensor f(const fluxion::Tensor& x) { return x; }

void call(const fluxion::Tensor& x) { fluxion::jvp(f, std::tuple(x)); }
