// A program's buffers in a shader: bindings, and elements between memory and registers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backends/vulkan/kernel.h"
#include "backends/vulkan/spirv/module.h"

namespace fluxion::vulkan_backend {

// The bindings of one dispatch, numbered in the order in which they are first asked for.
class ShaderBindings {
 public:
  explicit ShaderBindings(const LoweringContext& context) : context_(context) {}

  std::uint32_t buffer(std::int32_t number, bool reads, bool writes);
  // The whole of the kernel's scratch memory.
  std::uint32_t scratch(std::int64_t bytes, bool reads, bool writes);
  // The call's run-time scalars. Scalar i is elements 4 i (as f32), 4 i + 1 (i32), 4 i + 2 (u32)
  // and 4 i + 3 (boolean, 0 or 1).
  std::uint32_t scalars();

  const LoweringContext& context() const { return context_; }
  const std::vector<DispatchBinding>& list() const { return list_; }

 private:
  std::uint32_t add(const DispatchBinding& binding);

  const LoweringContext& context_;
  std::vector<DispatchBinding> list_;
};

// The type in which a tape's register of `dtype` is held. Throws DTypeError for f64 and i64.
spirv::Type register_type(DType dtype);

// The elements of one of the program's buffers, whichever way the storage keeps them. Registers
// hold f32 (of bf16 and f16 too), i32, u32 (of u8 too) or booleans.
class TensorMemory {
 public:
  // Throws DTypeError for f64 and i64.
  TensorMemory(spirv::Module& module, ShaderBindings& bindings, std::int32_t buffer, bool reads,
               bool writes);

  DType dtype() const { return dtype_; }
  std::int64_t elements() const { return elements_; }
  // What load gives.
  spirv::Type type() const { return type_; }

  spirv::Value load(spirv::Value index) const;
  // Converts a value of any register type as engine/graph/numbers.h says.
  void store(spirv::Value index, spirv::Value value) const;

  // How many neighbours load_many and store_many take at most: as many as 16 bytes hold, up to 8.
  std::uint32_t most_at_once() const { return most_at_once(kept_); }
  static std::uint32_t most_at_once(DType kept) { return size_of(kept) < 4 ? 8 : 4; }
  // 4 or 8 neighbouring elements at once; the index is a multiple of their number.
  void load_many(spirv::Value index, std::span<spirv::Value> values) const;
  void store_many(spirv::Value index, std::span<const spirv::Value> values) const;

 private:
  spirv::Value from_memory(spirv::Value kept) const;  // of 8- and 16-bit elements: as u32
  spirv::Value to_memory(spirv::Value value) const;
  // The buffer as vectors of `count` elements, of which 8- and 16-bit ones share words.
  spirv::Buffer vectors(std::size_t count) const;

  spirv::Module& module_;
  DType dtype_, kept_;
  spirv::Type type_;
  std::int64_t elements_;
  std::uint32_t binding_;
};

}  // namespace fluxion::vulkan_backend
