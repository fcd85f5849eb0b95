#pragma once

#include "engine/graph/tensor.h"
#include "models/layers/precision.h"

namespace fluxion {

// How to run a network, not what it is: configurations that differ here alone are equal, and files
// don't hold it.
struct Running {
  bool checkpoint_blocks = false;  // gradients compute each block again: the blocks' inputs are all
                                   // that a step keeps of them
  Precision precision = {};        // of the products of linear maps and convolutions
  double dropout = 0;       // share of what is left out before the last convolution of each block
  Tensor dropout_key = {};  // u32[2], that decides which: calls with one key leave out the same
  bool operator==(const Running&) const { return true; }
};

}  // namespace fluxion
