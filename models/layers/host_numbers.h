// Numbers between the host and a device that need not compute with f64: what is rounded is rounded
// on the host.
#pragma once

#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion {

// The values as a floating tensor.
Tensor tensor_of(const std::vector<double>& values, const Shape& shape, DType dtype,
                 const Device& device);
// The elements of a floating tensor.
std::vector<double> doubles_of(const Tensor& x);

}  // namespace fluxion
