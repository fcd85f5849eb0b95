// A program on buffers of its own, ready to run again and again: for measuring kernels without what
// surrounds a call.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/device.h"

namespace fluxion {

class BoundProgram {
 public:
  // Inputs start as zeros, run-time scalars as `scalar`. Donated inputs keep their own memory.
  BoundProgram(const Program& program, const Device& device, double scalar = 0.5);

  void run();

  // Element access on devices whose memory the host can read (DeviceError elsewhere); f32 inputs
  // and outputs only (DTypeError).
  std::span<float> input(std::size_t index);
  std::span<float> output(std::size_t index);

 private:
  Device device_;
  std::vector<TensorType> input_types_, output_types_;
  std::vector<std::shared_ptr<Buffer>> inputs_, outputs_;
  std::vector<Buffer*> bound_inputs_, bound_outputs_;
  std::vector<double> scalars_;
  std::unique_ptr<Executable> executable_;
};

}  // namespace fluxion
