#include "backends/cpu/gemm/gemm_operand.h"

#include "engine/error.h"

namespace fluxion::cpu_backend {

GemmAxis::GemmAxis(const OperandAxis& axis) {
  if (axis.sizes.size() != axis.strides.size())
    throw ShapeError("contraction: an operand's axis needs one stride per size");
  Dims sizes, strides;
  for (std::size_t i = 0; i < axis.sizes.size(); ++i) {
    const std::int64_t size = axis.sizes[i], stride = axis.strides[i];
    if (size < 0) throw ShapeError("contraction: negative size in an operand's axis");
    size_ *= size;
    if (size == 1) continue;
    if (!sizes.empty() && strides.back() == stride * size) {
      sizes.back() *= size;
      strides.back() = stride;
    } else {
      sizes.push_back(size);
      strides.push_back(stride);
    }
  }
  if (sizes.empty() || size_ == 0) return;
  stride_ = strides.back();
  run_ = sizes.back();
  if (sizes.size() == 1) return;
  sizes_ = sizes;
  strides_ = strides;
  if (size_ > most_listed) return;
  table_.assign(1, 0);
  for (std::size_t digit = 0; digit < sizes.size(); ++digit) {
    Dims finer;
    finer.reserve(table_.size() * static_cast<std::size_t>(sizes[digit]));
    for (const std::int64_t outer : table_) {
      for (std::int64_t i = 0; i < sizes[digit]; ++i) finer.push_back(outer + i * strides[digit]);
    }
    table_ = std::move(finer);
  }
}

std::int64_t GemmAxis::sum_digits(std::int64_t i) const {
  std::int64_t offset = 0;
  for (std::size_t digit = sizes_.size(); digit-- > 0; i /= sizes_[digit])
    offset += i % sizes_[digit] * strides_[digit];
  return offset;
}

GemmOperand GemmOperand::of_lhs(const ContractOperand& operand, DType dtype) {
  return {operand.buffer,
          operand.offset,
          GemmAxis(operand.batch),
          GemmAxis(operand.rows),
          GemmAxis(operand.columns),
          dtype};
}

GemmOperand GemmOperand::of_rhs(const ContractOperand& operand, DType dtype) {
  return {operand.buffer,          operand.offset,
          GemmAxis(operand.batch), GemmAxis(operand.columns),
          GemmAxis(operand.rows),  dtype};
}

}  // namespace fluxion::cpu_backend
