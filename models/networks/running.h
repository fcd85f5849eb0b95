#pragma once

#include "models/layers/precision.h"

namespace fluxion {

// How to run a network, not what it is: configurations that differ here alone are equal, and files
// don't hold it.
struct Running {
  bool checkpoint_blocks = false;  // gradients compute each block again: the blocks' inputs are all
                                   // that a step keeps of them
  Precision precision = {};        // of the products of linear maps and convolutions
  bool operator==(const Running&) const { return true; }
};

}  // namespace fluxion
