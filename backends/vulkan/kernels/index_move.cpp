// take, take_along_axis and after: elements are only moved, so their bits are.
#include "backends/vulkan/kernels/index_op.h"

namespace fluxion::vulkan_backend {

using spirv::Split;
using spirv::Value;

namespace {

// The widest unit in which the device can move rows of this many bytes. (One that keeps elements of
// a byte or two has units of as many.)
spirv::Type unit_of(std::int64_t row_bytes, const ShaderTarget& target) {
  if (row_bytes % 16 == 0) return spirv::U32x4;
  if (row_bytes % 8 == 0) return spirv::U32x2;
  if (row_bytes % 4 == 0) return spirv::U32;
  return row_bytes % 2 == 0 && target.storage_16 ? spirv::U16 : spirv::U8;
}

}  // namespace

// out[o, k, i] = x[o, indices[k], i]
void lower_take(OpWork& work) {
  const OpKernel& kernel = work.kernel();
  const TensorType& type = kernel.input_types[0];
  const AxisView x = axis_view(type.shape, axis_of(kernel));
  const std::int64_t count = kernel.input_types[1].shape.elements();
  const std::int64_t row_bytes = x.inner * work.element_bytes(type.dtype);
  if (x.outer * count * row_bytes == 0) return;
  const spirv::Type unit = unit_of(row_bytes, work.target());
  const std::int64_t units = row_bytes / unit.bytes(), items = x.outer * count * units;

  OpShader shader(work, "take", Items{items});
  const spirv::Buffer from = shader.reads(work.input(0), unit),
                      indices = shader.reads(work.input(1), spirv::I32),
                      to = shader.writes(work.output(), unit);
  shader.for_each_item([&](Value item) {
    const Split row = split(item, static_cast<std::uint32_t>(units));
    const Split place = split(row.quotient, static_cast<std::uint32_t>(count));
    const Value source = clamped_index(indices, place.remainder, x.axis);
    to.store(item, from.load((place.quotient * x.axis + source) * units + row.remainder));
  });
  shader.finish(0, 2.0 * static_cast<double>(items) * unit.bytes());
}

// out[o, k, i] = x[o, indices[o, k, i], i]
void lower_take_along_axis(OpWork& work) {
  const OpKernel& kernel = work.kernel();
  const TensorType& type = kernel.input_types[0];
  const AxisView x = axis_view(type.shape, axis_of(kernel)),
                 out = axis_view(kernel.output_types[0].shape, axis_of(kernel));
  const std::int64_t items = out.elements();
  const spirv::Type element = work.moved(type.dtype);
  if (items == 0) return;

  OpShader shader(work, "take along axis", Items{items});
  const spirv::Buffer from = shader.reads(work.input(0), element),
                      indices = shader.reads(work.input(1), spirv::I32),
                      to = shader.writes(work.output(), element);
  shader.for_each_item([&](Value item) {
    const Split row = split(item, static_cast<std::uint32_t>(out.inner));
    const Value outer = split(row.quotient, static_cast<std::uint32_t>(out.axis)).quotient;
    const Value source = clamped_index(indices, item, x.axis);
    to.store(item, from.load(element_of(x, outer, source, row.remainder)));
  });
  shader.finish(0, static_cast<double>(items) * (2.0 * element.bytes() + 4));
}

// A copy of x.
void lower_after(OpWork& work) {
  const OpKernel& kernel = work.kernel();
  work.element_bytes(kernel.input_types[0].dtype);
  const DispatchBinding from_binding = work.input(0), to_binding = work.output();
  const std::int64_t bytes = to_binding.bytes;
  if (bytes == 0 || kernel.inputs[0] == kernel.outputs[0]) return;
  const spirv::Type unit = unit_of(bytes, work.target());
  const std::int64_t items = bytes / unit.bytes();

  OpShader shader(work, "copy", Items{items});
  const spirv::Buffer from = shader.reads(from_binding, unit), to = shader.writes(to_binding, unit);
  shader.for_each_item([&](Value item) { to.store(item, from.load(item)); });
  shader.finish(0, 2.0 * static_cast<double>(bytes));
}

}  // namespace fluxion::vulkan_backend
