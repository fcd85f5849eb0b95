// Ops and their attributes as plain data: the vocabulary that graphs, plans and backends share.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <variant>

#include "engine/graph/shape.h"

namespace fluxion {

enum class OpClass : std::uint8_t {
  leaf,
  elementwise,
  movement,
  reduction,
  contraction,
  index,
  random,
  order,
  fused,
  region
};

// Whether an op of this class runs as a kernel of its own on whole tensors in memory (plans hold
// the fused ops only that their backend has kernels for).
constexpr bool is_whole(OpClass op_class) {
  return op_class == OpClass::index || op_class == OpClass::random || op_class == OpClass::order ||
         op_class == OpClass::fused;
}

class Region;  // engine/graph/region.h

// Declared here, so that what only passes ops on does not depend on the op table; its enumerators
// are in engine/graph/op_names.h.
enum class Op : std::uint8_t;

// Each attribute type lists its members once; hashing, printing and serialisation walk that list.
struct NoAttributes {
  static auto members(auto&) { return std::tie(); }
  bool operator==(const NoAttributes&) const = default;
};
struct IndexAttributes {
  std::int64_t index = 0;
  static auto members(auto& self) { return std::tie(self.index); }
  bool operator==(const IndexAttributes&) const = default;
};
struct ValueAttributes {
  double value = 0;
  static auto members(auto& self) { return std::tie(self.value); }
  // Bits, not values: NaN equals itself and -0 differs from 0, as a cache key needs.
  bool operator==(const ValueAttributes& other) const {
    return std::bit_cast<std::uint64_t>(value) == std::bit_cast<std::uint64_t>(other.value);
  }
};
struct AxisAttributes {
  std::int64_t axis = 0;  // non-negative
  static auto members(auto& self) { return std::tie(self.axis); }
  bool operator==(const AxisAttributes&) const = default;
};
struct AxesAttributes {
  Dims axes;  // non-negative; ascending except for transpose
  static auto members(auto& self) { return std::tie(self.axes); }
  bool operator==(const AxesAttributes&) const = default;
};
struct DTypeAttributes {
  DType dtype = DType::f32;
  static auto members(auto& self) { return std::tie(self.dtype); }
  bool operator==(const DTypeAttributes&) const = default;
};
struct ShapeAttributes {
  Dims shape;
  static auto members(auto& self) { return std::tie(self.shape); }
  bool operator==(const ShapeAttributes&) const = default;
};
struct SliceAttributes {
  Dims start, stop, step;  // per axis, 0 <= start <= stop <= size, step >= 1
  static auto members(auto& self) { return std::tie(self.start, self.stop, self.step); }
  bool operator==(const SliceAttributes&) const = default;
};
struct PadAttributes {
  Dims low, high;  // per axis, non-negative
  double value = 0;
  static auto members(auto& self) { return std::tie(self.low, self.high, self.value); }
  bool operator==(const PadAttributes& other) const {
    return low == other.low && high == other.high &&
           ValueAttributes{value} == ValueAttributes{other.value};
  }
};
struct RandomAttributes {
  Dims shape;
  std::int64_t domain = 0;  // keeps draws, splits and folds of one key apart
  static auto members(auto& self) { return std::tie(self.shape, self.domain); }
  bool operator==(const RandomAttributes&) const = default;
};
struct EpsilonAttributes {
  double epsilon = 1e-5;
  static auto members(auto& self) { return std::tie(self.epsilon); }
  bool operator==(const EpsilonAttributes&) const = default;
};

struct SortAttributes {
  std::int64_t axis = 0;  // non-negative
  bool descending = false;
  static auto members(auto& self) { return std::tie(self.axis, self.descending); }
  bool operator==(const SortAttributes&) const = default;
};
// Everything of height and width.
struct WindowAttributes {
  Dims kernel, stride, dilation;
  static auto members(auto& self) { return std::tie(self.kernel, self.stride, self.dilation); }
  bool operator==(const WindowAttributes&) const = default;
};
// The dtypes of a sum of products. Each operand has its own, which is converted - exactly - to
// `accumulate` before it is multiplied; the sum is converted to `result`.
struct ContractAttributes {
  DType accumulate = DType::f32;  // f64 for operands of f64, else f32
  DType result = DType::f32;      // of f64 sums f64, of f32 sums f32, bf16 or f16
  static auto members(auto& self) { return std::tie(self.accumulate, self.result); }
  bool operator==(const ContractAttributes&) const = default;
};
// What products of operands of these dtypes have unless the caller states a result: the sums
// themselves.
constexpr ContractAttributes contraction_of(DType a, DType b) {
  const DType sums = a == DType::f64 || b == DType::f64 ? DType::f64 : DType::f32;
  return {sums, sums};
}
// Everything of height and width. The image is spread - spread - 1 zeros between its pixels -, then
// padded by `low` and `high`, which may be negative (cropped); the kernel takes steps of `stride`,
// its own elements lie `dilation` apart. The dtypes are those of ContractAttributes.
struct ConvAttributes {
  Dims stride{1, 1}, dilation{1, 1}, spread{1, 1}, low{0, 0}, high{0, 0};
  std::int64_t groups = 1;
  DType accumulate = DType::f32, result = DType::f32;
  static auto members(auto& self) {
    return std::tie(self.stride, self.dilation, self.spread, self.low, self.high, self.groups,
                    self.accumulate, self.result);
  }
  ContractAttributes contraction() const { return {accumulate, result}; }
  void contract_as(ContractAttributes dtypes) {
    accumulate = dtypes.accumulate, result = dtypes.result;
  }
  bool operator==(const ConvAttributes&) const = default;
};
struct AttentionAttributes {
  double scale = 1;
  bool causal = false;  // key j is seen by query i if j <= i
  static auto members(auto& self) { return std::tie(self.scale, self.causal); }
  bool operator==(const AttentionAttributes&) const = default;
};
// Graphs only: a plan holds what is inside the region, so nothing hashes or serialises it.
struct RegionAttributes {
  std::shared_ptr<const Region> region;
  static auto members(auto&) { return std::tie(); }
  bool operator==(const RegionAttributes&) const = default;
};

using Attributes =
    std::variant<NoAttributes, IndexAttributes, ValueAttributes, AxisAttributes, AxesAttributes,
                 DTypeAttributes, ShapeAttributes, SliceAttributes, PadAttributes, RandomAttributes,
                 EpsilonAttributes, SortAttributes, WindowAttributes, ConvAttributes,
                 AttentionAttributes, ContractAttributes, RegionAttributes>;

struct OpInfo {
  std::string_view name;
  int inputs;   // -1: one or more
  int outputs;  // -1: as many as the region has
  OpClass op_class;
  std::size_t attributes;  // index into Attributes
};

const OpInfo& info(Op op);
inline std::string_view to_string(Op op) { return info(op).name; }

// "axes=[0, 2]", "" for none: the text that print(graph) and print(plan) show.
std::string to_string(const Attributes& attributes);

}  // namespace fluxion
