// One call of a program, bound by hand: what the engine does for a compiled function, step by step.
#pragma once

#include <memory>
#include <vector>

#include "engine/device.h"

namespace fluxion::testing {

class ProgramCall {
 public:
  // f32 inputs filled with `values`[i], outputs with anything.
  ProgramCall(const Program& program, const Device& device, const std::vector<float>& values);

  Bindings bindings() const { return {in, out, scalars}; }
  // The f32 elements of an output or input.
  std::vector<float> output(std::size_t index) const;
  std::vector<float> input(std::size_t index) const;
  // Lets output o take over the input that the program says.
  void donate(std::size_t output);

  std::vector<std::shared_ptr<Buffer>> inputs, outputs;
  std::vector<Buffer*> in, out;
  std::vector<double> scalars;

 private:
  std::vector<float> read(Buffer& buffer, const TensorType& type) const;
  const Program program_;
  const Device device_;
};

}  // namespace fluxion::testing
