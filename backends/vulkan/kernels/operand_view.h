// A matrix operand as tiles are read from it: axes made of digits, and the axis along which memory
// can be read several elements at a time.
#pragma once

#include <cstdint>

#include "engine/program/program.h"

namespace fluxion::vulkan_backend {

// One axis: the digits that remain when those which form one run in memory are merged, outermost
// first. None has size 1.
struct ViewAxis {
  Dims sizes, strides;
  std::int64_t size = 1;

  static ViewAxis of(const OperandAxis& axis);
  // Whether position i lies at i * stride() throughout.
  bool is_affine() const { return sizes.size() <= 1; }
  // Of the innermost digit.
  std::int64_t stride() const { return strides.empty() ? 0 : strides.back(); }
  std::int64_t run() const { return sizes.empty() ? 1 : sizes.back(); }
  // The offset of position i.
  std::int64_t offset(std::int64_t i) const;
};

// How a tile of strips x inner elements is read.
enum class TileAccess : std::uint8_t {
  single,        // element by element
  along_strips,  // several strips at once
  along_inner,   // several inner elements at once
};

// An operand of a product, seen from the summed axis: `strips` runs over the rows of the left
// operand, or the columns of the right one; `inner` over the products that are summed.
struct OperandView {
  std::int32_t buffer = 0;
  DType kept = DType::f32;  // in device memory: f32, bf16 or f16
  std::int64_t offset = 0;
  ViewAxis batch, strips, inner;

  static OperandView of_lhs(const ContractOperand& operand, DType kept);
  static OperandView of_rhs(const ContractOperand& operand, DType kept);
  // With so many elements at once: 4 or 8.
  TileAccess access(std::int64_t together = 4) const;
  // Of two neighbours in a tile, whether those along `inner` are nearer in memory.
  bool inner_is_nearer() const;
};

}  // namespace fluxion::vulkan_backend
