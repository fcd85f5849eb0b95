#include "models/benchmark/bound_program.h"

#include "engine/error.h"

namespace fluxion {
namespace {

std::span<float> elements(Buffer& buffer, const TensorType& type) {
  if (type.dtype != DType::f32)
    throw DTypeError("bound program: asked for f32 elements of " + to_string(type));
  if (!buffer.host()) throw DeviceError("bound program: the host can't read this device's memory");
  return {static_cast<float*>(buffer.host()), static_cast<std::size_t>(type.shape.elements())};
}

}  // namespace

BoundProgram::BoundProgram(const Program& program, const Device& device, double scalar)
    : device_(device),
      input_types_(program.inputs),
      output_types_(program.outputs),
      scalars_(static_cast<std::size_t>(program.scalars), scalar),
      executable_(device.backend().compile(program)) {
  const auto allocate = [&](const std::vector<TensorType>& types,
                            std::vector<std::shared_ptr<Buffer>>& owned,
                            std::vector<Buffer*>& bound) {
    for (const TensorType& type : types) {
      owned.push_back(device.backend().allocate(type));
      device.backend().upload(*owned.back(), type.dtype, std::vector<std::byte>(type.bytes()));
      bound.push_back(owned.back().get());
    }
  };
  allocate(input_types_, inputs_, bound_inputs_);
  allocate(output_types_, outputs_, bound_outputs_);
}

void BoundProgram::run() { executable_->run({bound_inputs_, bound_outputs_, scalars_}, {}); }

std::span<float> BoundProgram::input(std::size_t index) {
  return elements(*inputs_.at(index), input_types_.at(index));
}

std::span<float> BoundProgram::output(std::size_t index) {
  return elements(*outputs_.at(index), output_types_.at(index));
}

}  // namespace fluxion
