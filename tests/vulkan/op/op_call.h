// One op on whole tensors as a program of its own, run on a device.
#pragma once

#include <cstring>
#include <span>
#include <vector>

#include "engine/device.h"
#include "engine/graph/op_names.h"
#include "engine/graph/shape_rules.h"
#include "engine/program/program.h"

namespace fluxion::testing {

// A tensor on the host.
struct HostTensor {
  TensorType type;
  std::vector<std::byte> bytes;

  template <class T>
  static HostTensor of(const Shape& shape, DType dtype, const std::vector<T>& values) {
    HostTensor tensor{{shape, dtype}, std::vector<std::byte>(values.size() * sizeof(T))};
    if (!values.empty()) std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
    return tensor;
  }
  template <class T>
  std::vector<T> values() const {
    std::vector<T> result(bytes.size() / sizeof(T));
    if (!bytes.empty()) std::memcpy(result.data(), bytes.data(), bytes.size());
    return result;
  }
};

// Inputs and an output of the program are those of the op.
inline Program program_of_op(Op op, const Attributes& attributes,
                             const std::vector<TensorType>& inputs) {
  Program program;
  OpKernel kernel{op, attributes, {}, {}, inputs, {}, {}};
  kernel.output_types = infer_types(op, attributes, inputs, Location::current());
  for (const TensorType& type : inputs) {
    kernel.inputs.push_back(static_cast<std::int32_t>(program.buffers.size()));
    program.buffers.push_back(
        {BufferKind::input, type, static_cast<std::int64_t>(program.inputs.size()), 0});
    program.inputs.push_back(type);
  }
  for (const TensorType& type : kernel.output_types) {
    kernel.outputs.push_back(static_cast<std::int32_t>(program.buffers.size()));
    program.buffers.push_back(
        {BufferKind::output, type, static_cast<std::int64_t>(program.outputs.size()), 0});
    program.outputs.push_back(type);
    program.donations.push_back(-1);
  }
  program.kernels.push_back(kernel);
  return program;
}

// The op's only result. With `in_place`, it takes over the memory of the first input.
inline HostTensor run_op(const Device& device, Op op, const Attributes& attributes,
                         const std::vector<HostTensor>& inputs, bool in_place = false) {
  std::vector<TensorType> types;
  for (const HostTensor& input : inputs) types.push_back(input.type);
  Program program = program_of_op(op, attributes, types);
  if (in_place) program.donations[0] = 0;
  Backend& backend = device.backend();
  const auto executable = backend.compile(program);
  std::vector<std::shared_ptr<Buffer>> memory;
  std::vector<Buffer*> in, out;
  for (const HostTensor& input : inputs) {
    memory.push_back(backend.allocate(input.type));
    backend.upload(*memory.back(), input.type.dtype, input.bytes);
    in.push_back(memory.back().get());
  }
  HostTensor result{program.outputs[0], {}};
  if (in_place) {
    out.push_back(in[0]);
  } else {
    memory.push_back(backend.allocate(result.type));
    out.push_back(memory.back().get());
  }
  executable->run({in, out, {}}, {});
  result.bytes.resize(result.type.bytes());
  backend.download(*out[0], result.type.dtype, result.bytes);
  return result;
}

}  // namespace fluxion::testing
