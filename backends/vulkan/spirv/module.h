// Builds one compute shader as SPIR-V 1.3.
//
// A complete kernel, y[i] = 2 x[i] for i < 1000, 64 invocations a workgroup:
//
//   using namespace spirv;
//   Module m(target, "double", {64, 1, 1});
//   const Buffer x = m.buffer(0, F32), y = m.buffer(1, F32);
//   const Value i = m.workgroup_id(0) * 64 + m.local_index();
//   m.if_then(i < 1000, [&] { y.store(i, x.load(i) * 2); });
//   work.shaders.push_back(m.finish());
//
// A sum over a row with a loop, and a tree in shared memory:
//
//   const SharedArray partial = m.shared(F32, 64);
//   const Value lane = m.local_index();
//   const Variable sum = m.variable(m.f32(0));
//   m.for_range(lane, m.u32(length), 64, [&](Value i) { sum.set(sum.get() + x.load(i)); });
//   partial.store(lane, sum.get());
//   for (std::uint32_t half = 32; half > 0; half /= 2) {
//     m.barrier();
//     m.if_then(lane < half, [&] {
//       partial.store(lane, partial.load(lane) + partial.load(lane + half));
//     });
//   }
//
// Control flow is by callables, which emit the code of a branch or of a loop's body. A value that
// was made inside of a branch or a loop may be used only there: carry it out by a Variable, by
// choose() or by loop(). Known conditions and empty loops fold away. Variables cost nothing:
// drivers turn them into registers.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <set>
#include <spirv/unified1/spirv.hpp11>
#include <string>
#include <vector>

#include "backends/vulkan/kernel.h"
#include "backends/vulkan/spirv/value.h"

namespace fluxion::vulkan_backend::spirv {

// Storage buffer (0, binding) as an array. One binding may be seen as arrays of several types: for
// example F32 and F32x4, whose element i is elements 4 i to 4 i + 3.
class Buffer {
 public:
  Buffer() = default;
  Type element() const { return element_; }
  Value load(Value index) const;
  void store(Value index, Value value) const;
  // Adds to element `index` of U32 or I32; gives the element before.
  Value atomic_add(Value index, Value value) const;

 private:
  friend class Module;
  Buffer(Module& module, std::uint32_t variable, Type element)
      : module_(&module), variable_(variable), element_(element) {}
  Module* module_ = nullptr;
  std::uint32_t variable_ = 0;
  Type element_;
};

// An array in the workgroup's shared memory; its content is undefined at first.
class SharedArray {
 public:
  SharedArray() = default;
  Type element() const { return element_; }
  std::uint32_t size() const { return size_; }
  Value load(Value index) const;
  void store(Value index, Value value) const;
  Value atomic_add(Value index, Value value) const;

 private:
  friend class Module;
  SharedArray(Module& module, std::uint32_t variable, Type element, std::uint32_t size)
      : module_(&module), variable_(variable), element_(element), size_(size) {}
  Module* module_ = nullptr;
  std::uint32_t variable_ = 0;
  Type element_;
  std::uint32_t size_ = 0;
};

// A variable of one invocation.
class Variable {
 public:
  Variable() = default;
  Value get() const;
  void set(Value value) const;

 private:
  friend class Module;
  Variable(Module& module, std::uint32_t id, Type type) : module_(&module), id_(id), type_(type) {}
  Module* module_ = nullptr;
  std::uint32_t id_ = 0;
  Type type_;
};

enum class Unroll : std::uint8_t { driver, yes, no };

enum class SubgroupReduction : std::uint8_t { add, min, max };

class Module {
 public:
  Module(const ShaderTarget& target, std::string name, std::array<std::uint32_t, 3> local_size);
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  const ShaderTarget& target() const { return target_; }
  std::array<std::uint32_t, 3> local_size() const { return local_size_; }
  std::uint32_t invocations() const { return local_size_[0] * local_size_[1] * local_size_[2]; }

  // ---- constants

  Value u32(std::uint32_t value);
  Value i32(std::int32_t value);
  Value f32(float value);
  Value boolean(bool value);
  // The scalar of `type` with these bits.
  Value constant(Type type, std::uint32_t bits);

  // ---- memory

  Buffer buffer(std::uint32_t binding, Type element);
  SharedArray shared(Type element, std::uint32_t size);
  Variable variable(Type type);             // undefined at first
  Variable variable(Value initial);         // set here: in a loop, each time round
  Value push_constant(std::uint32_t word);  // as u32

  // ---- built-in inputs, all u32

  Value workgroup_id(std::uint32_t axis);
  Value local_id(std::uint32_t axis);
  Value local_index();  // of the invocation in its workgroup
  Value global_id(std::uint32_t axis);
  Value subgroup_size();
  Value subgroup_lane();
  Value subgroup_id();     // in the workgroup
  Value subgroup_count();  // of the workgroup

  // ---- control flow

  using Body = std::function<void()>;
  void if_then(Value condition, const Body& then);
  void if_else(Value condition, const Body& then, const Body& otherwise);
  // A value that only the chosen branch computes.
  Value choose(Value condition, const std::function<Value()>& then,
               const std::function<Value()>& otherwise);
  // i = first, first + step, .. while i < end; u32 or i32.
  void for_range(Value first, Value end, std::uint32_t step, const std::function<void(Value)>& body,
                 Unroll unroll = Unroll::driver);
  // The same with values that the body takes and gives for the next round. Returns the last ones.
  // (break_if here leaves with the values that the round began with.)
  std::vector<Value> loop(
      Value first, Value end, std::uint32_t step, std::vector<Value> carried,
      const std::function<std::vector<Value>(Value, const std::vector<Value>&)>& body,
      Unroll unroll = Unroll::driver);
  // Repeats `body` while `condition`, computed anew each time, holds.
  void while_true(const std::function<Value()>& condition, const Body& body);
  // Leaves the innermost loop; inside of its body only.
  void break_if(Value condition);

  // All invocations of the workgroup meet, and see what the others wrote to shared memory; with
  // `buffers` also to storage buffers. Only in uniform control flow.
  void barrier(bool buffers = false);

  // ---- subgroups: only where the target has subgroup arithmetic, in uniform control flow. f32 min
  // and max lose NaN, as the instructions do.

  Value subgroup_reduce(SubgroupReduction reduction, Value value);
  Value subgroup_inclusive_scan(SubgroupReduction reduction, Value value);
  Value subgroup_exclusive_scan(SubgroupReduction reduction, Value value);

  // ---- the shader

  // Whether arithmetic on floats is NoContraction from here on: kept as written, with its NaN and
  // signed zeros. On at first. (A matrix product's inner loop needs none of it.)
  void set_precise(bool precise) { precise_ = precise; }
  bool precise() const { return precise_; }

  // Keeps subnormals of f16 in the whole shader; only where the target can.
  void preserve_f16_subnormals();

  // Ends the shader. `subgroup_size` is required of the pipeline, 0: any.
  Shader finish(std::uint32_t subgroup_size = 0);

  // ---- for what is not above: instructions as they are

  std::uint32_t new_id() { return next_id_++; }
  std::uint32_t type_id(Type type);
  std::uint32_t pointer_type(spv::StorageClass storage, std::uint32_t type);
  void require(spv::Capability capability);
  void require(const std::string& extension);
  // An instruction of the function that gives a value of `type`.
  Value emit(spv::Op op, Type type, std::initializer_list<std::uint32_t> operands,
             bool arithmetic = false);
  void emit(spv::Op op, std::initializer_list<std::uint32_t> operands);
  // An instruction of GLSL.std.450, for example GLSLstd450Fma.
  Value extended(std::uint32_t instruction, Type type,
                 std::initializer_list<std::uint32_t> operands, bool arithmetic = false);
  // Declares a type or a constant, once for each content. operands[result] is its id: pass 0.
  std::uint32_t declare(spv::Op op, std::vector<std::uint32_t> operands, std::size_t result);
  void decorate(std::initializer_list<std::uint32_t> target_and_decoration);

 private:
  friend class Buffer;
  friend class SharedArray;
  friend class Variable;
  using Words = std::vector<std::uint32_t>;

  struct LoopTargets {
    std::uint32_t merge;
  };

  static void append(Words& words, spv::Op op, std::span<const std::uint32_t> operands);
  std::uint32_t element_pointer(spv::StorageClass storage, std::uint32_t variable, Type element,
                                Value index);
  Value load(Type type, std::uint32_t pointer);
  void store(std::uint32_t pointer, Value value);
  Value atomic_add(spv::StorageClass storage, std::uint32_t pointer, Value value);
  Value built_in(spv::BuiltIn which, Type type);
  Value built_in_part(spv::BuiltIn which, std::uint32_t axis);
  void label(std::uint32_t id);
  void branch(std::uint32_t label);
  Value subgroup_operation(SubgroupReduction reduction, spv::GroupOperation operation, Value value);

  const ShaderTarget target_;
  const std::string name_;
  const std::array<std::uint32_t, 3> local_size_;

  std::uint32_t next_id_ = 1;
  std::uint32_t glsl_ = 0, main_ = 0, entry_ = 0, block_ = 0, push_block_ = 0;
  std::uint32_t bindings_ = 0, push_words_ = 0;
  bool precise_ = true, preserves_f16_subnormals_ = false;
  std::vector<LoopTargets> loops_;
  std::vector<std::uint32_t> interface_;
  std::map<std::uint32_t, bool> capabilities_;
  std::map<std::string, bool> extensions_;
  std::map<std::vector<std::uint32_t>, std::uint32_t> declared_;  // by instruction without result
  std::map<std::pair<std::uint32_t, Type>, std::uint32_t> buffers_;  // variables
  std::set<std::uint32_t> written_;  // those of them that are stored to
  std::map<Type, std::uint32_t> block_types_;
  std::map<std::uint32_t, Value> built_ins_;  // loaded in the prologue
  std::map<std::pair<std::uint32_t, std::uint32_t>, Value> built_in_parts_;
  Words decorations_, globals_, variables_, prologue_, body_;
};

}  // namespace fluxion::vulkan_backend::spirv
