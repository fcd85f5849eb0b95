// Checks the invariants of a Program without running it. A program that passes accesses no memory
// outside its buffers. The time grows with the size of the program, not of its tensors.
#include <algorithm>
#include <variant>

#include "engine/error.h"
#include "engine/program/verify_parts.h"

namespace fluxion {
namespace verification {

namespace {

Wide magnitude(std::int64_t number) { return number < 0 ? -Wide{number} : Wide{number}; }

std::string text(Wide number) {
  const bool negative = number < 0;
  std::string digits;
  do {
    const auto digit = static_cast<int>(number % 10);
    digits.insert(digits.begin(), static_cast<char>('0' + (digit < 0 ? -digit : digit)));
    number /= 10;
  } while (number != 0);
  return negative ? "-" + digits : digits;
}

}  // namespace

void Inspection::fail(const std::string& what) const {
  throw Error(
      "verify: " + (kernel < 0 ? std::string() : "kernel " + std::to_string(kernel) + ": ") + what);
}

const BufferSlot& Inspection::slot(std::int32_t buffer) const {
  if (!(buffer >= 0 && static_cast<std::size_t>(buffer) < program.buffers.size()))
    fail("there is no buffer b" + std::to_string(buffer));
  return program.buffers[static_cast<std::size_t>(buffer)];
}

void Inspection::write(const Access& access) {
  if (slot(access.buffer).kind == BufferKind::input)
    fail("writes b" + std::to_string(access.buffer) + ", which is an input");
  std::vector<Access>& writes = accesses.back().writes;
  if (std::any_of(writes.begin(), writes.end(),
                  [&](const Access& other) { return other.buffer == access.buffer; }))
    fail("writes b" + std::to_string(access.buffer) + " twice");
  writes.push_back(access);
}

std::int64_t Inspection::points(const Dims& extents) const {
  if (extents.size() > max_axes)
    fail("an iteration space of " + std::to_string(extents.size()) + " axes");
  if (!is_representable(extents, DType::u8))
    fail("an absurd iteration space " + to_string(extents));
  return Shape(extents).elements();
}

void Inspection::check_affine(const Affine& affine, const Dims& extents,
                              const std::string& what) const {
  if (affine.coefficients.size() != extents.size())
    fail(what + ": " + std::to_string(affine.coefficients.size()) + " coefficients for " +
         std::to_string(extents.size()) + " axes");
  Wide reach = magnitude(affine.constant);
  for (std::size_t axis = 0; axis < extents.size(); ++axis)
    reach += magnitude(affine.coefficients[axis]) * std::max<std::int64_t>(extents[axis] - 1, 0);
  for (const std::int64_t coefficient : affine.coefficients)
    if (coefficient > max_reach || coefficient < -max_reach) reach = Wide{max_reach} + 1;
  if (reach > max_reach) fail(what + ": absurdly large coefficients");
}

std::string text(const Bounds& bounds) { return text(bounds.low) + " to " + text(bounds.high); }

Bounds values_of(const Affine& affine, const Dims& extents) {
  Bounds bounds{affine.constant, affine.constant};
  for (std::size_t axis = 0; axis < extents.size(); ++axis) {
    const Wide last = Wide{affine.coefficients[axis]} * (extents[axis] - 1);
    (last < 0 ? bounds.low : bounds.high) += last;
  }
  return bounds;
}

void check_slots(const Inspection& inspection) {
  const Program& program = inspection.program;
  const auto fail = [&](const std::string& what) { inspection.fail(what); };
  const auto check_type = [&](const TensorType& type) {
    if (!is_representable(type.shape.dims(), type.dtype))
      fail("a tensor of absurd shape " + to_string(type.shape));
  };
  if (program.scalars < 0) fail("a negative number of scalars");
  if (program.arena_bytes < 0) fail("an arena of negative size");
  if (program.arena_bytes > max_reach) fail("an arena of absurd size");
  for (const auto* types : {&program.inputs, &program.outputs})
    for (const TensorType& type : *types) check_type(type);
  std::vector<int> inputs(program.inputs.size()), outputs(program.outputs.size());
  for (std::size_t number = 0; number < program.buffers.size(); ++number) {
    const BufferSlot& slot = program.buffers[number];
    const std::string name = "buffer b" + std::to_string(number);
    check_type(slot.type);
    if (slot.kind == BufferKind::temporary) {
      const auto bytes = static_cast<std::int64_t>(bytes_of(slot.type, inspection.storage));
      if (!(slot.offset >= 0 && slot.offset % 64 == 0))
        fail(name + " lies at " + std::to_string(slot.offset) + ", which is no multiple of 64");
      if (!(slot.offset <= program.arena_bytes && bytes <= program.arena_bytes - slot.offset))
        fail(name + " reaches beyond the arena");
      continue;
    }
    const bool input = slot.kind == BufferKind::input;
    const std::string role = input ? "input" : "output";
    const TensorType& bound = inspection.item(input ? program.inputs : program.outputs, slot.index,
                                              name + " is bound to " + role);
    if (!(bound.dtype == slot.type.dtype && bound.shape.elements() == slot.type.shape.elements()))
      fail(name + " is " + to_string(slot.type) + " but " + role + " " +
           std::to_string(slot.index) + " is " + to_string(bound));
    if (++(input ? inputs : outputs)[static_cast<std::size_t>(slot.index)] != 1)
      fail(role + " " + std::to_string(slot.index) + " has two buffers");
  }
  for (std::size_t output = 0; output < outputs.size(); ++output)
    if (outputs[output] != 1) fail("output " + std::to_string(output) + " has no buffer");
}

}  // namespace verification

void verify(const Program& program, const Storage& storage) {
  verification::Inspection inspection(program, storage);
  verification::check_slots(inspection);
  for (const Kernel& kernel : program.kernels) {
    ++inspection.kernel;
    inspection.accesses.emplace_back();
    std::visit([&](const auto& each) { verification::check_kernel(inspection, each); }, kernel);
  }
  inspection.kernel = -1;
  verification::check_memory(inspection);
}

}  // namespace fluxion
