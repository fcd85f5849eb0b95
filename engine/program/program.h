// Program: what a backend receives. It is plain data, without pointers or closures, so it can be
// printed, serialised, parsed and run again.
//
// A program is a list of kernels over numbered buffers. A kernel is one of
//   TapeKernel      an expression tape over an iteration space (map, row reduction, copy)
//   ContractKernel  batched matrix products; their results run through an expression tape (the
//                   epilogue) tile by tile
//   OpKernel        one op of the table on whole tensors (index ops, random bits, attention;
//                   every op on the reference backend)
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "engine/graph/op.h"
#include "engine/program/storage.h"

namespace fluxion {

// Bounds the reach of every affine function of a program over its iteration space,
//   |constant| + sum_k |coefficients[k]| * (extents[k] - 1),
// so that its values can be computed step by step, in any order, without overflow. Points where a
// guard fails count too: the address there is computed, though not used.
inline constexpr std::int64_t max_reach = std::int64_t{1} << 60;

// constant + sum_k coefficients[k] * i_k over the axes i_k of an iteration space.
struct Affine {
  std::int64_t constant = 0;
  Dims coefficients;
  static auto members(auto& self) { return std::tie(self.constant, self.coefficients); }
  bool operator==(const Affine&) const = default;
};

// low <= index < high.
struct AffineRange {
  Affine index;
  std::int64_t low = 0, high = 0;
  static auto members(auto& self) { return std::tie(self.index, self.low, self.high); }
  bool operator==(const AffineRange&) const = default;
};

// A condition of a load: it reads only where range.low <= range.index < range.high. One unit of the
// index moves the address by `stride`.
struct LoadGuard {
  AffineRange range;
  std::int64_t stride = 0;
  static auto members(auto& self) { return std::tie(self.range, self.stride); }
  bool operator==(const LoadGuard&) const = default;
};

// A read of buffer element `address` at each point of the iteration space. It gives zero where a
// guard fails; the address may then lie outside the buffer and must not be accessed.
//
// The guards prove that all reads lie inside the buffer. The address is
//   sum_g guards[g].stride * guards[g].range.index + rest,
// where each index is bounded by its range, and the affine function `rest` by the extents alone;
// the sum of these bounds lies inside the buffer. The planner writes guards in a normal form: the
// index has no constant, and coefficients without a common divisor, the first of which is positive;
// no two guards have the same index; the range lies within the values that the index takes; no
// range always holds. So the guards of nested pads and concatenations intersect: unless something
// is reshaped between them, a load has at most as many guards as the buffer has axes. A load that
// reads nowhere has one guard, with the empty range 0 <= 0 < 0.
struct TapeLoad {
  std::int32_t buffer = 0;
  DType dtype = DType::f32;
  Affine address;
  std::vector<LoadGuard> guards;
  static auto members(auto& self) {
    return std::tie(self.buffer, self.dtype, self.address, self.guards);
  }
  bool operator==(const TapeLoad&) const = default;
};

// A write of value `value` to buffer element `address`. Distinct points of the value's space have
// distinct addresses.
struct TapeStore {
  std::int32_t value = 0;
  std::int32_t buffer = 0;
  DType dtype = DType::f32;
  Affine address;
  static auto members(auto& self) {
    return std::tie(self.value, self.buffer, self.dtype, self.address);
  }
  bool operator==(const TapeStore&) const = default;
};

// Whether registers of tapes can hold a dtype. The others exist in memory only: values are rounded
// to them when they are stored.
constexpr bool is_register(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f64 || dtype == DType::i32 || dtype == DType::u32 ||
         dtype == DType::boolean;
}

enum class TapeCode : std::uint8_t {
  load,      // argument: index into Tape::loads
  scalar,    // argument: index of a run-time scalar, converted to dtype
  literal,   // 0, 1 or -1: the argument itself, converted to dtype
  index,     // argument: index into Tape::indices; the affine value, converted to dtype
  in_range,  // argument: index into Tape::ranges; a boolean
  result,    // argument: which result of the contraction (epilogues only)
  apply,     // op of class elementwise on `operands`
  reduce,    // op sum, max or min of operands[0] along the row: wide in, narrow out
};

// Instruction i defines value i. A value is *wide* (one element per point of the iteration space)
// or *narrow* (one per row: it does not depend on the reduced axes). A wide instruction may also
// read narrow operands, which are constant along the row. A narrow one reads only narrow operands,
// except `reduce`.
struct TapeInstruction {
  TapeCode code = TapeCode::literal;
  Op op{};                   // apply, reduce
  DType dtype = DType::f32;  // of the value
  bool narrow = false;
  std::int32_t argument = 0;
  std::array<std::int32_t, 3> operands{-1, -1, -1};
  static auto members(auto& self) {
    return std::tie(self.code, self.op, self.dtype, self.narrow, self.argument, self.operands);
  }
  bool operator==(const TapeInstruction&) const = default;
};

// An expression over an iteration space of `extents`, outermost first; the last `reduced_axes` form
// the row. Loads and stores convert between registers (is_register) and memory of any dtype. If
// `streaming`, no wide instruction and no wide store depends on a reduction, so a row may be
// processed piece by piece; otherwise it must stay resident, and fits into
// KernelLimits::max_row_elements. (Not the tape of reverse mode; Fluxion has none.)
struct Tape {
  Dims extents;
  std::int32_t reduced_axes = 0;
  bool streaming = false;
  std::vector<TapeLoad> loads;
  std::vector<Affine> indices;
  std::vector<AffineRange> ranges;
  std::vector<TapeInstruction> instructions;
  std::vector<TapeStore> stores;
  static auto members(auto& self) {
    return std::tie(self.extents, self.reduced_axes, self.streaming, self.loads, self.indices,
                    self.ranges, self.instructions, self.stores);
  }
  bool operator==(const Tape&) const = default;
};

struct TapeKernel {
  Tape tape;
  static auto members(auto& self) { return std::tie(self.tape); }
  bool operator==(const TapeKernel&) const = default;
};

// One axis of a matrix operand in memory, as the product of digits (size, stride), outermost first.
// Memory [n, h, d] read as rows n and columns (h, d) has two digits in its columns.
struct OperandAxis {
  Dims sizes, strides;
  static auto members(auto& self) { return std::tie(self.sizes, self.strides); }
  bool operator==(const OperandAxis&) const = default;
};

// A batched matrix, read through a view: element (b, r, c) is at offset + batch(b) + rows(r) +
// columns(c).
struct ContractOperand {
  std::int32_t buffer = 0;
  std::int64_t offset = 0;
  OperandAxis batch, rows, columns;
  static auto members(auto& self) {
    return std::tie(self.buffer, self.offset, self.batch, self.rows, self.columns);
  }
  bool operator==(const ContractOperand&) const = default;
};

// One product, lhs [batch, m, k] x rhs [batch, k, n], added into result `result`.
struct ContractTerm {
  ContractOperand lhs, rhs;
  std::int32_t result = 0;
  static auto members(auto& self) { return std::tie(self.lhs, self.rhs, self.result); }
  bool operator==(const ContractTerm&) const = default;
};

// Products of one shape, computed tile by tile; for example primal and tangent of a layer, which
// share the weight. The epilogue's iteration space is batch x m x n, in this order, each possibly
// split into several axes. It reads results through TapeCode::result and has no reduced axes. Terms
// with the same lhs (or rhs) operand can share its packing.
//
// Operands are converted, exactly, to the accumulator's dtype, in which they are multiplied and
// summed. Results enter the epilogue in that dtype; its stores convert.
struct ContractKernel {
  DType lhs = DType::f32, rhs = DType::f32;  // of the operands in memory: bf16, f16, f32; or f64
  DType accumulate = DType::f32;             // of sums and results: f32; of f64 operands f64
  std::int64_t batch = 1, m = 1, n = 1, k = 1;
  std::int32_t results = 1;
  std::vector<ContractTerm> terms;
  Tape epilogue;
  static auto members(auto& self) {
    return std::tie(self.lhs, self.rhs, self.accumulate, self.batch, self.m, self.n, self.k,
                    self.results, self.terms, self.epilogue);
  }
  bool operator==(const ContractKernel&) const = default;
};

struct OpKernel {
  Op op{};
  Attributes attributes;  // a constant with IndexAttributes is a run-time scalar
  std::vector<std::int32_t> inputs, outputs;  // buffers, contiguous row-major
  std::vector<TensorType> input_types, output_types;
  // Only for attention and its derivatives: how each input lies in memory, as a batched matrix
  // [.., tokens, features] (the mask: [.., queries, keys]; the cotangent of lse: [.., tokens], rows
  // of one column). The order and the buffers are those of `inputs`.
  std::vector<ContractOperand> views{};
  static auto members(auto& self) {
    return std::tie(self.op, self.attributes, self.inputs, self.outputs, self.input_types,
                    self.output_types, self.views);
  }
  bool operator==(const OpKernel&) const = default;
};

using Kernel = std::variant<TapeKernel, ContractKernel, OpKernel>;

enum class BufferKind : std::uint8_t {
  input,      // bound at the call: inputs[index]
  output,     // bound at the call: outputs[index]
  temporary,  // bytes [offset, offset + bytes_of(type, storage)) of the call's arena
};

struct BufferSlot {
  BufferKind kind = BufferKind::temporary;
  TensorType type;
  std::int64_t index = 0;   // input, output
  std::int64_t offset = 0;  // temporary; a multiple of 64
  static auto members(auto& self) {
    return std::tie(self.kind, self.type, self.index, self.offset);
  }
  bool operator==(const BufferSlot&) const = default;
};

struct Program {
  std::vector<BufferSlot> buffers;
  std::vector<Kernel> kernels;
  std::vector<TensorType> inputs, outputs;
  // donations[o] is the input whose memory output o may take over, or -1. All reads of that input
  // come before the kernel that writes o, or are reads of the same element in that kernel.
  std::vector<std::int32_t> donations;
  std::int32_t scalars = 0;  // run-time scalars bound at the call
  std::int64_t arena_bytes = 0;
  // The first kernel that may write donated memory. From there on a call may neither be cancelled
  // nor allocate.
  std::int32_t commit_point = 0;
  static auto members(auto& self) {
    return std::tie(self.buffers, self.kernels, self.inputs, self.outputs, self.donations,
                    self.scalars, self.arena_bytes, self.commit_point);
  }
  bool operator==(const Program&) const = default;
};

// Readable text: buffers, then a block per kernel.
std::string to_string(const Program& program);
std::string to_string(const Tape& tape, const std::vector<BufferSlot>& buffers);

// A self-contained, versioned encoding. parse_program(serialise(p)) == p. parse_program throws
// FormatError for all other bytes; it does not verify the program.
std::vector<std::byte> serialise(const Program& program);
Program parse_program(std::span<const std::byte> bytes);

// Checks the invariants: numbering, shapes, bounds of every address, and no overlap of live
// buffers, whose sizes `storage` states. Throws Error, which names the first that does not hold.
void verify(const Program& program, const Storage& storage = {});

}  // namespace fluxion
