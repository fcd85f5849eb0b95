// Ops and their attributes as plain data: the vocabulary that graphs, plans and backends share.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <variant>

#include "engine/shape.h"

namespace fluxion {

enum class OpClass : std::uint8_t { leaf, elementwise, movement, reduction, contraction, index, random, fused };

enum class Op : std::uint8_t {
#define FLUXION_OP(name, inputs, outputs, attributes, op_class, rule) name,
#include "engine/ops.def"
#undef FLUXION_OP
};

inline constexpr int op_count = 0
#define FLUXION_OP(name, inputs, outputs, attributes, op_class, rule) +1
#include "engine/ops.def"
#undef FLUXION_OP
    ;

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
  bool operator==(const ValueAttributes& other) const { return std::bit_cast<std::uint64_t>(value) == std::bit_cast<std::uint64_t>(other.value); }
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
    return low == other.low && high == other.high && ValueAttributes{value} == ValueAttributes{other.value};
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

using Attributes = std::variant<NoAttributes, IndexAttributes, ValueAttributes, AxisAttributes, AxesAttributes, DTypeAttributes, ShapeAttributes,
                                SliceAttributes, PadAttributes, RandomAttributes, EpsilonAttributes>;

struct OpInfo {
  std::string_view name;
  int inputs;  // -1: one or more
  int outputs;
  OpClass op_class;
  std::size_t attributes;  // index into Attributes
};

const OpInfo& info(Op op);
inline std::string_view to_string(Op op) { return info(op).name; }

// "axes=[0, 2]", "" for none: the text that print(graph) and print(plan) show.
std::string to_string(const Attributes& attributes);

}  // namespace fluxion
