// What a program's kernel becomes on a Vulkan device: shaders and dispatches, as plain data. The
// emitters (kernels/) make them and know no Vulkan call; recording (program.cpp) runs them and
// knows no SPIR-V. So every kernel can be generated, validated and compiled without a device.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/program/program.h"

namespace fluxion::vulkan_backend {

// What the emitters must know of a device. Plain data: tests mask and invent it.
struct ShaderTarget {
  std::uint32_t shared_bytes = 16384;   // of a workgroup's shared memory
  std::uint32_t max_invocations = 128;  // of a workgroup
  std::array<std::uint32_t, 3> max_local_size{128, 128, 64};
  std::uint32_t max_groups = 65535;    // on each axis of a dispatch
  std::uint32_t subgroup_size = 0;     // 0: unknown, or differs between kernels
  bool subgroup_arithmetic = false;    // in compute shaders; else trees in shared memory
  bool subgroup_size_control = false;  // a shader may require `subgroup_size`
  bool storage_16 = false;             // 16-bit elements in storage buffers; else kept as f32
  bool storage_8 = false;              // 8-bit ones; else kept as u32
  bool float_16 = false;               // f16 arithmetic
  bool integer_16 = false, integer_8 = false;  // arithmetic, so that loads need no unpacking
  bool preserves_special_values = false;       // SignedZeroInfNanPreserve of f32
  bool preserves_f16_subnormals = false;       // DenormPreserve of f16
  std::uint32_t lanes = 4096;  // invocations that compute at once, as far as a choice needs it
  // Compiling a kernel costs more than running it, as on a software device: code is kept short,
  // with one element at a time and nothing unrolled.
  bool short_code = false;
  // How much longer a matrix product takes with each of gemm_tiles() than the model of their cost
  // says, as measured; empty: the model's word is taken.
  std::vector<float> tile_factors{};
  bool operator==(const ShaderTarget&) const = default;
};

// A compute shader. Its entry point is "main"; its resources are the storage buffers (0, 0) to
// (0, bindings - 1), each a block with one run-time array.
struct Shader {
  std::string name;  // of the family, for reports: "map", "rows", "gemm 64x64", "attention"
  std::vector<std::uint32_t> words;  // SPIR-V 1.3
  std::uint32_t bindings = 0;
  std::array<std::uint32_t, 3> local_size{1, 1, 1};
  std::uint32_t push_bytes = 0;     // of push constants, set when recorded; at most 128
  std::uint32_t subgroup_size = 0;  // that it requires; 0: any
  bool operator==(const Shader&) const = default;
};

enum class BindingKind : std::uint8_t {
  buffer,   // buffer `number` of the program
  scratch,  // memory of the kernel alone, KernelWork::scratch_bytes; content undefined at the start
  scalars,  // the call's run-time scalars: each is 16 bytes, its value as f32, i32, u32 and boolean
};

// A resource of a dispatch: bytes [offset, offset + bytes) of what `kind` names. Offsets are
// multiples of 256, and bytes of 4.
struct DispatchBinding {
  BindingKind kind = BindingKind::buffer;
  std::int32_t number = 0;
  std::int64_t offset = 0, bytes = 0;
  bool reads = false, writes = false;
  bool operator==(const DispatchBinding&) const = default;
};

struct Dispatch {
  std::size_t shader = 0;  // of KernelWork::shaders
  std::vector<DispatchBinding> bindings;
  std::array<std::uint32_t, 3> groups{1, 1, 1};
  std::vector<std::uint32_t> push;  // Shader::push_bytes / 4 words
  double flops = 0;                 // estimates, to slice submissions by time
  double moved_bytes = 0;
  bool operator==(const Dispatch&) const = default;
};

// The dispatches of one kernel, in order. One that uses what an earlier one wrote waits for it: the
// recording finds out by the bindings.
struct KernelWork {
  std::vector<Shader> shaders;
  std::vector<Dispatch> dispatches;
  std::int64_t scratch_bytes = 0;
};

// How elements lie in memory (a boolean as u32, ..) is the storage's to say.
struct LoweringContext {
  const Program& program;
  const Storage& storage;
  const ShaderTarget& target;
};

// Throws Error, which names the op, for what the device can't run.
KernelWork lower(const Kernel& kernel, const LoweringContext& context);
// Its three parts, each in kernels/.
KernelWork lower_tape(const TapeKernel& kernel, const LoweringContext& context);
KernelWork lower_contraction(const ContractKernel& kernel, const LoweringContext& context);
KernelWork lower_attention(const OpKernel& kernel, const LoweringContext& context);
KernelWork lower_op(const OpKernel& kernel, const LoweringContext& context);

}  // namespace fluxion::vulkan_backend
