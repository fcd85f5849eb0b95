#include "backends/vulkan/kernels/index_op.h"

#include <algorithm>
#include <bit>
#include <variant>

#include "backends/vulkan/spirv/math.h"
#include "engine/divide.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"

namespace fluxion::vulkan_backend {

using spirv::Value;

AxisView axis_view(const Shape& shape, std::int64_t axis) {
  AxisView view;
  for (std::int64_t i = 0; i < shape.rank(); ++i)
    (i < axis ? view.outer : i == axis ? view.axis : view.inner) *= shape[i];
  return view;
}

std::int64_t axis_of(const OpKernel& kernel) {
  return std::get<AxisAttributes>(kernel.attributes).axis;
}

// ---- OpWork

std::uint32_t OpWork::element_bytes(DType dtype) const {
  const auto bytes = static_cast<std::uint32_t>(size_of(context_.storage.kept(dtype)));
  const bool has =
      bytes == 4 || (bytes == 2 && target().storage_16) || (bytes == 1 && target().storage_8);
  if (!has)
    throw DTypeError("vulkan: " + std::string(to_string(kernel_.op)) + " of " +
                     std::string(to_string(dtype)) + ": the device keeps no elements of " +
                     std::to_string(8 * bytes) + " bits");
  return bytes;
}

spirv::Type OpWork::moved(DType dtype) const {
  const std::uint32_t bytes = element_bytes(dtype);
  return bytes == 4 ? spirv::U32 : bytes == 2 ? spirv::U16 : spirv::U8;
}

spirv::Type OpWork::computed(DType dtype) const {
  switch (dtype) {
    case DType::f32:
      return spirv::F32;
    case DType::i32:
      return spirv::I32;
    case DType::u32:
      return spirv::U32;
    default:
      throw DTypeError("vulkan: " + std::string(to_string(kernel_.op)) + " can't compute in " +
                       std::string(to_string(dtype)));
  }
}

DispatchBinding OpWork::binding(std::int32_t buffer) const {
  const BufferSlot& slot = context_.program.buffers.at(static_cast<std::size_t>(buffer));
  const auto bytes = static_cast<std::int64_t>(bytes_of(slot.type, context_.storage));
  return {BindingKind::buffer, buffer, 0, (bytes + 3) / 4 * 4, false, false};
}

DispatchBinding OpWork::input(std::size_t number) const {
  return binding(kernel_.inputs.at(number));
}
DispatchBinding OpWork::output() const { return binding(kernel_.outputs.at(0)); }

DispatchBinding OpWork::scratch(std::int64_t elements) {
  const std::int64_t offset = work_.scratch_bytes;
  work_.scratch_bytes += (4 * elements + 255) / 256 * 256;
  return {BindingKind::scratch, 0, offset, 4 * elements, false, false};
}

std::uint32_t OpWork::group_size() const {
  return std::bit_floor(std::min({128u, target().max_invocations, target().max_local_size[0]}));
}

void OpWork::add(Shader shader, Dispatch dispatch) {
  const auto same = std::find(work_.shaders.begin(), work_.shaders.end(), shader);
  dispatch.shader = static_cast<std::size_t>(same - work_.shaders.begin());
  if (same == work_.shaders.end()) work_.shaders.push_back(std::move(shader));
  work_.dispatches.push_back(std::move(dispatch));
}

// ---- OpShader

OpShader::OpShader(OpWork& work, const std::string& name, std::int64_t groups,
                   std::uint32_t invocations)
    : work_(work), groups_(groups), module_(work.target(), name, {invocations, 1, 1}) {
  // Folded over two axes, where one can't hold them.
  const std::int64_t most = work.target().max_groups, across = std::min(groups, most);
  const std::int64_t down = ceil_div(groups, across);
  if (down > most)
    throw Error("vulkan: " + name + " needs " + std::to_string(groups) + " workgroups");
  dispatch_.groups = {static_cast<std::uint32_t>(across), static_cast<std::uint32_t>(down), 1};
}

OpShader::OpShader(OpWork& work, const std::string& name, Items items)
    : OpShader(work, name, ceil_div(items.count, work.group_size()), work.group_size()) {
  items_ = items.count;
}

spirv::Buffer OpShader::bind(DispatchBinding binding, spirv::Type element) {
  const auto number = static_cast<std::uint32_t>(dispatch_.bindings.size());
  dispatch_.bindings.push_back(binding);
  return module_.buffer(number, element);
}

spirv::Buffer OpShader::reads(DispatchBinding binding, spirv::Type element) {
  binding.reads = true;
  return bind(binding, element);
}

spirv::Buffer OpShader::writes(DispatchBinding binding, spirv::Type element) {
  binding.writes = true;
  return bind(binding, element);
}

void OpShader::for_each_group(const std::function<void(Value)>& body) {
  if (dispatch_.groups[1] == 1) return body(module_.workgroup_id(0));
  const Value group = module_.workgroup_id(1) * dispatch_.groups[0] + module_.workgroup_id(0);
  const std::int64_t folded = std::int64_t{dispatch_.groups[0]} * dispatch_.groups[1];
  if (folded == groups_) return body(group);
  module_.if_then(group < groups_, [&] { body(group); });
}

void OpShader::for_each_item(const std::function<void(Value)>& body) {
  for_each_group([&](Value group) {
    const Value item = group * module_.invocations() + module_.local_index();
    if (items_ == groups_ * module_.invocations()) return body(item);
    module_.if_then(item < items_, [&] { body(item); });
  });
}

void OpShader::finish(double flops, double moved_bytes) {
  Shader shader = module_.finish();
  dispatch_.flops = flops;
  dispatch_.moved_bytes = moved_bytes;
  work_.add(std::move(shader), std::move(dispatch_));
}

// ---- code

Value clamped_index(const spirv::Buffer& indices, Value at, std::int64_t length) {
  const Value index = min(max(indices.load(at), 0), length - 1);
  return bitcast(spirv::U32, index);
}

Value element_of(const AxisView& view, Value outer, Value k, Value inner) {
  return (outer * view.axis + k) * view.inner + inner;
}

Value ordered_key(DType dtype, Value bits) {
  constexpr std::uint32_t sign = 0x80000000u, infinity = 0x7f800000u, all = ~0u;
  if (dtype == DType::u32) return bits;
  if (dtype == DType::i32) return bits ^ sign;
  spirv::Module& m = bits.module();
  const Value magnitude = bits & (all ^ sign);
  const Value number = select(magnitude == 0, m.u32(0), bits);
  const Value key = number ^ select((number & sign) != 0, m.u32(all), m.u32(sign));
  return select(magnitude > infinity, m.u32(all), key);
}

Value descending_key(DType dtype, Value bits) {
  constexpr std::uint32_t all = ~0u;
  const Value key = ordered_key(dtype, bits);
  return dtype == DType::f32 ? select(key == all, key, ~key) : ~key;
}

RunningSum::RunningSum(Value start)
    : floating_(start.type() == spirv::F32), sum_(start.module().variable(start)) {
  if (floating_) lost_ = start.module().variable(start.module().f32(0));
}

RunningSum::RunningSum(Value start, Value lost) : RunningSum(start) {
  if (floating_) lost_.set(lost);
}

void RunningSum::add(Value value) {
  const Value sum = sum_.get(), next = sum + value;
  sum_.set(next);
  if (!floating_) return;
  // Knuth's two-sum: next + error is sum + value exactly.
  const Value part = next - sum;
  const Value error = (sum - (next - part)) + (value - part);
  lost_.set(lost_.get() + error);
}

void RunningSum::add(Value sum, Value lost) {
  add(sum);
  if (floating_) lost_.set(lost_.get() + lost);
}

Value RunningSum::rounded() const {
  const Value sum = sum_.get();
  if (!floating_) return sum;
  // Beside an infinite sum, or next to the largest number, what was lost is not finite either.
  // Nothing lost keeps the sign of a zero.
  const Value lost = lost_.get(), all = sum + lost;
  return select(is_finite(all) & (lost != 0), all, sum);
}

}  // namespace fluxion::vulkan_backend
