// What the kernels of index ops share: tensors around one axis, and shaders with their dispatches
// under way.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "backends/vulkan/kernel.h"
#include "backends/vulkan/spirv/module.h"

namespace fluxion::vulkan_backend {

// A tensor as [outer, axis, inner] around one axis: element (o, k, i) is number
// (o * axis + k) * inner + i. A line is all k of one (o, i).
struct AxisView {
  std::int64_t outer = 1, axis = 1, inner = 1;
  std::int64_t lines() const { return outer * inner; }
  std::int64_t elements() const { return outer * axis * inner; }
};
AxisView axis_view(const Shape& shape, std::int64_t axis);
std::int64_t axis_of(const OpKernel& kernel);  // of AxisAttributes

// The work of one op under way.
class OpWork {
 public:
  OpWork(const OpKernel& kernel, const LoweringContext& context)
      : kernel_(kernel), context_(context) {}

  const OpKernel& kernel() const { return kernel_; }
  const ShaderTarget& target() const { return context_.target; }
  // Bytes of an element in memory, and the type of one that is only moved: U8, U16 or U32. Throws
  // DTypeError for a dtype that the device doesn't have.
  std::uint32_t element_bytes(DType dtype) const;
  spirv::Type moved(DType dtype) const;
  // Of the f32, i32 or u32 that an op computes in.
  spirv::Type computed(DType dtype) const;

  DispatchBinding input(std::size_t number) const;
  DispatchBinding output() const;
  // New memory of the kernel alone, of this many u32 or f32.
  DispatchBinding scratch(std::int64_t elements);

  // Invocations of a workgroup: a power of two, at most 128.
  std::uint32_t group_size() const;

  void add(Shader shader, Dispatch dispatch);
  KernelWork take() { return std::move(work_); }

 private:
  DispatchBinding binding(std::int32_t buffer) const;

  const OpKernel& kernel_;
  const LoweringContext& context_;
  KernelWork work_;
};

struct Items {
  std::int64_t count;
};

// A shader and its only dispatch, under way.
class OpShader {
 public:
  // `invocations` of each of `groups` workgroups.
  OpShader(OpWork& work, const std::string& name, std::int64_t groups, std::uint32_t invocations);
  // One invocation per item, in workgroups of OpWork::group_size().
  OpShader(OpWork& work, const std::string& name, Items items);

  spirv::Module& module() { return module_; }
  // Resources, numbered in the order of the calls.
  spirv::Buffer reads(DispatchBinding binding, spirv::Type element);
  spirv::Buffer writes(DispatchBinding binding, spirv::Type element);

  // Emits the code of a workgroup, given its number; that of one item, given its number.
  void for_each_group(const std::function<void(spirv::Value group)>& body);
  void for_each_item(const std::function<void(spirv::Value item)>& body);
  // Adds shader and dispatch to the work. The estimates are of all invocations.
  void finish(double flops, double moved_bytes);

 private:
  spirv::Buffer bind(DispatchBinding binding, spirv::Type element);

  OpWork& work_;
  std::int64_t groups_, items_ = 0;
  spirv::Module module_;
  Dispatch dispatch_;
};

// The entry `at` of a buffer of i32 indices, clamped to [0, length).
spirv::Value clamped_index(const spirv::Buffer& indices, spirv::Value at, std::int64_t length);

// Element number (outer * axis + k) * inner + i.
spirv::Value element_of(const AxisView& view, spirv::Value outer, spirv::Value k,
                        spirv::Value inner);

// The value's bits (f32, i32 or u32) as a u32 key that increases with the value. -0 has the key of
// 0. NaN has the largest key, which no other f32 has.
spirv::Value ordered_key(DType dtype, spirv::Value bits);
// The same, decreasing with the value; NaN still has the largest key.
spirv::Value descending_key(DType dtype, spirv::Value bits);

// A running sum. Of f32 it holds what rounding lost beside the sum itself, so that the result is
// about as good as that of a sum in f64, rounded once; where f32 overflows on the way, it stays
// infinite. Integers wrap.
class RunningSum {
 public:
  explicit RunningSum(spirv::Value start);
  RunningSum(spirv::Value start, spirv::Value lost);  // lost: of f32
  void add(spirv::Value value);
  spirv::Value rounded() const;
  spirv::Value sum() const { return sum_.get(); }
  spirv::Value lost() const { return lost_.get(); }  // of f32
  // Adds another sum with what it lost.
  void add(spirv::Value sum, spirv::Value lost);

 private:
  bool floating_;
  spirv::Variable sum_, lost_;
};

// ---- the kernels

void lower_take(OpWork& work);
void lower_take_along_axis(OpWork& work);
void lower_after(OpWork& work);
void lower_index_add(OpWork& work);
void lower_scatter_add(OpWork& work);
void lower_cumsum(OpWork& work);
void lower_argmax(OpWork& work);
void lower_argsort(OpWork& work);
void lower_random_bits(OpWork& work);

}  // namespace fluxion::vulkan_backend
