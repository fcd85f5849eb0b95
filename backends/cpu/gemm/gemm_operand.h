// Matrix operands as the packing sees them: axes made of digits, resolved to offsets.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/program/program.h"

namespace fluxion::cpu_backend {

// One axis of an operand: the offset of each position, and stretches of constant stride to read it
// by.
class GemmAxis {
 public:
  // A table of offsets has at most this many.
  static constexpr std::int64_t most_listed = std::int64_t{1} << 18;

  // Merges digits that form one run in memory; what remains composite gets a table of offsets, or,
  // where that would be long, adds up its digits at each use.
  explicit GemmAxis(const OperandAxis& axis);

  std::int64_t size() const { return size_; }
  // Whether offset(i) is i * stride() throughout.
  bool is_affine() const { return sizes_.empty(); }
  // Within a stretch.
  std::int64_t stride() const { return stride_; }
  std::int64_t offset(std::int64_t i) const {
    if (is_affine()) return i * stride_;
    return table_.empty() ? sum_digits(i) : table_[static_cast<std::size_t>(i)];
  }
  // How many positions from i on, at most `limit`, lie stride() apart.
  std::int64_t stretch(std::int64_t i, std::int64_t limit) const {
    return is_affine() ? limit : std::min(limit, run_ - i % run_);
  }
  // The length of its longest stretch.
  std::int64_t run() const { return is_affine() ? size_ : run_; }
  // Whether every block of `width` positions that starts at a multiple of it lies in one stretch.
  bool aligned_stretches(std::int64_t width) const { return is_affine() || run_ % width == 0; }
  bool is_broadcast() const { return is_affine() && (stride_ == 0 || size_ == 1); }

 private:
  std::int64_t sum_digits(std::int64_t i) const;

  std::int64_t size_ = 1, stride_ = 0;
  std::int64_t run_ = 1;  // length of the innermost digit
  Dims sizes_, strides_;  // of a composite axis' digits
  Dims table_;
};

// An operand of a product, seen from the inner axis: `strips` runs over the rows of lhs, or the
// columns of rhs.
struct GemmOperand {
  std::int32_t buffer;
  std::int64_t offset;
  GemmAxis batch, strips, inner;
  DType dtype;  // in memory

  static GemmOperand of_lhs(const ContractOperand& operand, DType dtype);
  static GemmOperand of_rhs(const ContractOperand& operand, DType dtype);
};

}  // namespace fluxion::cpu_backend
