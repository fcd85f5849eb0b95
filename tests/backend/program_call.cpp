#include "tests/backend/program_call.h"

namespace fluxion::testing {

ProgramCall::ProgramCall(const Program& program, const Device& device,
                         const std::vector<float>& values)
    : scalars(static_cast<std::size_t>(program.scalars), 0.5), program_(program), device_(device) {
  for (std::size_t i = 0; i < program.inputs.size(); ++i) {
    const TensorType& type = program.inputs[i];
    const std::vector<float> filled(static_cast<std::size_t>(type.shape.elements()), values.at(i));
    inputs.push_back(device.backend().allocate(type));
    device.backend().upload(*inputs.back(), DType::f32, std::as_bytes(std::span(filled)));
    in.push_back(inputs.back().get());
  }
  for (const TensorType& type : program.outputs) {
    outputs.push_back(device.backend().allocate(type));
    out.push_back(outputs.back().get());
  }
}

std::vector<float> ProgramCall::output(std::size_t index) const {
  return read(*out[index], program_.outputs[index]);
}
std::vector<float> ProgramCall::input(std::size_t index) const {
  return read(*in[index], program_.inputs[index]);
}

void ProgramCall::donate(std::size_t output) {
  out[output] = in[static_cast<std::size_t>(program_.donations[output])];
}

std::vector<float> ProgramCall::read(Buffer& buffer, const TensorType& type) const {
  std::vector<float> values(static_cast<std::size_t>(type.shape.elements()));
  device_.backend().download(buffer, DType::f32, std::as_writable_bytes(std::span(values)));
  return values;
}

}  // namespace fluxion::testing
