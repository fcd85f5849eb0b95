// Larger graphs than those of tests/op_examples.h: what a network does, at odd sizes.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion::testing {

struct PortableNetwork {
  std::string name;
  DType dtype = DType::f32;
  // How far a device may be from the reference, in units of epsilon times the largest magnitude of
  // the result: the square root of the number of terms of its longest sum, times what follows.
  double tolerance = 0;
  std::function<std::vector<Tensor>(const Device& device, DType dtype)> make;
};

std::vector<PortableNetwork> portable_networks();

}  // namespace fluxion::testing
