// The shaders of ops on whole tensors, on devices that are not there: valid for each, within its
// limits, and with bindings that lie inside of their buffers.
#include <algorithm>
#include <cmath>

#include "backends/vulkan/capabilities.h"
#include "engine/error.h"
#include "tests/catch.h"
#include "tests/vulkan/op/op_call.h"
#include "tests/vulkan/valid_spirv.h"

namespace {

using namespace fluxion;
using namespace fluxion::testing;
using namespace fluxion::vulkan_backend;

DeviceFacts facts_with(const ShaderTarget& target) {
  DeviceFacts facts;
  facts.shaders = target;
  facts.max_storage_buffers = 8;
  return facts;
}

std::vector<DeviceFacts> invented_devices() {
  ShaderTarget least, bytes, most, tiny;
  bytes.storage_8 = true;
  most.shared_bytes = 65536;
  most.max_invocations = 1024;
  most.max_local_size = {1024, 1024, 1024};
  most.subgroup_size = 64;
  most.subgroup_arithmetic = most.subgroup_size_control = true;
  most.storage_16 = most.storage_8 = most.float_16 = most.integer_16 = most.integer_8 = true;
  most.preserves_special_values = most.preserves_f16_subnormals = true;
  tiny.shared_bytes = 1024;
  tiny.max_invocations = 16;
  tiny.max_local_size = {16, 16, 16};
  tiny.max_groups = 300;
  return {facts_with(least), facts_with(bytes), facts_with(most), facts_with(tiny)};
}

std::int64_t bytes_behind(const DispatchBinding& binding, const Program& program,
                          const Storage& storage, const KernelWork& work) {
  if (binding.kind == BindingKind::scratch) return work.scratch_bytes;
  const auto buffer = static_cast<std::size_t>(binding.number);
  return static_cast<std::int64_t>(bytes_of(program.buffers.at(buffer).type, storage));
}

void check_work(const KernelWork& work, const Program& program, const DeviceFacts& facts,
                const Storage& storage) {
  const ShaderTarget& target = facts.shaders;
  for (const Shader& shader : work.shaders) {
    INFO(shader.name);
    CHECK(spirv_faults(shader.words, target) == "");
    CHECK(shader.bindings <= facts.max_storage_buffers);
    CHECK(shader.local_size[0] * shader.local_size[1] * shader.local_size[2] <=
          target.max_invocations);
  }
  bool sound = true;
  for (const Dispatch& dispatch : work.dispatches) {
    const Shader& shader = work.shaders.at(dispatch.shader);
    sound = sound && dispatch.bindings.size() == shader.bindings &&
            dispatch.push.size() * 4 == shader.push_bytes && std::isfinite(dispatch.flops) &&
            std::isfinite(dispatch.moved_bytes);
    for (const std::uint32_t groups : dispatch.groups)
      sound = sound && groups > 0 && groups <= target.max_groups;
    for (const DispatchBinding& binding : dispatch.bindings)
      sound = sound && binding.offset % 256 == 0 && binding.bytes > 0 && binding.bytes % 4 == 0 &&
              binding.offset + binding.bytes <= bytes_behind(binding, program, storage, work) &&
              (binding.reads || binding.writes);
  }
  CHECK(sound);
}

void check_op(Op op, const Attributes& attributes, const std::vector<TensorType>& inputs) {
  const Program program = program_of_op(op, attributes, inputs);
  for (const DeviceFacts& facts : invented_devices()) {
    const Storage storage = capabilities_of(facts).storage;
    INFO(to_string(op) << " of " << to_string(inputs[0]));
    const KernelWork work = lower(program.kernels[0], {program, storage, facts.shaders});
    CHECK(work.dispatches.empty() == (program.outputs[0].shape.elements() == 0));
    check_work(work, program, facts, storage);
  }
}

}  // namespace

TEST_CASE("vulkan: shaders of index ops are valid on any device", "[vulkan][op]") {
  const auto type = [](const Shape& shape, DType dtype) { return TensorType{shape, dtype}; };
  for (const std::int64_t updates : {0, 5, 700})
    for (const Shape& shape : {Shape{2, 3, 5}, Shape{2, 4, 6}, Shape{1, 4, 8}, Shape{0, 3, 2}}) {
      Shape picked = shape;
      picked[1] = updates;
      const TensorType list = type({updates}, DType::i32), places = type(picked, DType::i32);
      for (const DType dtype : {DType::f32, DType::bf16, DType::u8, DType::boolean}) {
        check_op(Op::take, AxisAttributes{1}, {type(shape, dtype), list});
        check_op(Op::take_along_axis, AxisAttributes{1}, {type(shape, dtype), places});
        check_op(Op::after, NoAttributes{}, {type(shape, dtype), list});
      }
      for (const DType dtype : {DType::f32, DType::i32, DType::u32}) {
        const TensorType base = type(shape, dtype), added = type(picked, dtype);
        check_op(Op::index_add, AxisAttributes{1}, {base, list, added});
        check_op(Op::scatter_add, AxisAttributes{1}, {base, places, added});
      }
    }
}

TEST_CASE("vulkan: shaders of sorts and scans are valid on any device", "[vulkan][op]") {
  for (const Shape& shape :
       {Shape{2, 3, 5}, Shape{1, 300, 1}, Shape{70000, 2, 1}, Shape{1, 2500, 2}, Shape{0, 3, 2}})
    for (const DType dtype : {DType::f32, DType::i32, DType::u32}) {
      check_op(Op::cumsum, AxisAttributes{1}, {{shape, dtype}});
      check_op(Op::argmax, AxisAttributes{1}, {{shape, dtype}});
      for (const bool descending : {false, true})
        check_op(Op::argsort, SortAttributes{.axis = 1, .descending = descending},
                 {{shape, dtype}});
    }
  for (const std::int64_t count : {0, 1, 8, 100001})
    check_op(Op::random_bits, RandomAttributes{.shape = {count}, .domain = 7},
             {{{2}, DType::u32}, {{}, DType::u32}});
}

TEST_CASE("vulkan: i64 and f64 are refused by name", "[vulkan][op]") {
  const DeviceFacts facts = invented_devices()[0];
  const Storage storage = capabilities_of(facts).storage;
  const auto lowered = [&](Op op, const Attributes& attributes,
                           const std::vector<TensorType>& inputs) {
    const Program program = program_of_op(op, attributes, inputs);
    return lower(program.kernels[0], {program, storage, facts.shaders});
  };
  const TensorType list{{2}, DType::i32};
  CHECK_THROWS_WITH(lowered(Op::take, AxisAttributes{0}, {{{4}, DType::i64}, list}),
                    has_text("take") && has_text("i64"));
  CHECK_THROWS_WITH(lowered(Op::cumsum, AxisAttributes{0}, {{{4}, DType::f64}}),
                    has_text("cumsum") && has_text("f64"));
  CHECK_THROWS_AS(lowered(Op::argsort, SortAttributes{.axis = 0}, {{{4}, DType::f64}}), DTypeError);
  CHECK_THROWS_WITH(lowered(Op::neg, NoAttributes{}, {{{4}, DType::f32}}), has_text("neg"));
}
