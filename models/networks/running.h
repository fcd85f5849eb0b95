#pragma once

namespace fluxion {

// How to run a network, not what it is: configurations that differ here alone are equal, and files
// don't hold it.
struct Running {
  bool checkpoint_blocks = false;  // gradients compute each block again: the blocks' inputs are all
                                   // that a step keeps of them
  bool operator==(const Running&) const { return true; }
};

}  // namespace fluxion
