// The shaders of a training step, without a device: the step is planned for a card of AMD's, and
// its kernels are lowered.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backends/vulkan/capabilities.h"
#include "backends/vulkan/kernel.h"

namespace fluxion::amd {

struct StepShader {
  vulkan_backend::Shader shader;
  std::int64_t dispatches = 0;  // in one step
  std::string first_kernel;     // of the program that uses it, as text: "kernel 12: tanh, .."
};

struct StepShaders {
  std::string net;
  std::int64_t kernels = 0, dispatches = 0;
  std::vector<StepShader> shaders;       // each different one once
  std::vector<std::string> not_lowered;  // kernels that have no shader, and why
};

// A MeanFlow training step (all rows with a tangent) of a network of models/benchmark, with its
// usual batch: "dit28"; or with factors of products in bf16: "dit28 in bf16".
StepShaders shaders_of_step(const std::string& net, const vulkan_backend::DeviceFacts& facts);

// The shaders of the ops on whole tensors that no step above has, on sizes of the usual kind:
// sorts, scans and sums at indices. `net` is "index ops".
StepShaders shaders_of_index_ops(const vulkan_backend::DeviceFacts& facts);

}  // namespace fluxion::amd
