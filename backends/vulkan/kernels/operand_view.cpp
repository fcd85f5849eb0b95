#include "backends/vulkan/kernels/operand_view.h"

#include <algorithm>
#include <cstdlib>

namespace fluxion::vulkan_backend {

namespace {

bool all_multiples(const Dims& strides, std::size_t count, std::int64_t of) {
  return std::all_of(strides.begin(), strides.begin() + static_cast<std::ptrdiff_t>(count),
                     [=](std::int64_t stride) { return stride % of == 0; });
}
bool all_multiples(const ViewAxis& axis, std::int64_t of) {
  return all_multiples(axis.strides, axis.strides.size(), of);
}
// Whether positions `together` i and those after it lie side by side, at a multiple of `together`
// as far as this axis is concerned.
bool lie_together(const ViewAxis& axis, std::int64_t together) {
  return axis.stride() == 1 && axis.run() % together == 0 &&
         all_multiples(axis.strides, axis.strides.size() - 1, together);
}

}  // namespace

ViewAxis ViewAxis::of(const OperandAxis& axis) {
  ViewAxis view;
  for (std::size_t i = 0; i < axis.sizes.size(); ++i) {
    const std::int64_t size = axis.sizes[i], stride = axis.strides[i];
    view.size *= size;
    if (size == 1) continue;
    if (!view.sizes.empty() && view.strides.back() == size * stride) {
      view.sizes.back() *= size;
      view.strides.back() = stride;
    } else {
      view.sizes.push_back(size);
      view.strides.push_back(stride);
    }
  }
  return view;
}

std::int64_t ViewAxis::offset(std::int64_t i) const {
  std::int64_t result = 0;
  for (std::size_t digit = sizes.size(); digit-- > 0; i /= sizes[digit])
    result += i % sizes[digit] * strides[digit];
  return result;
}

OperandView OperandView::of_lhs(const ContractOperand& operand, DType kept) {
  return {operand.buffer,
          kept,
          operand.offset,
          ViewAxis::of(operand.batch),
          ViewAxis::of(operand.rows),
          ViewAxis::of(operand.columns)};
}
OperandView OperandView::of_rhs(const ContractOperand& operand, DType kept) {
  return {operand.buffer,
          kept,
          operand.offset,
          ViewAxis::of(operand.batch),
          ViewAxis::of(operand.columns),
          ViewAxis::of(operand.rows)};
}

TileAccess OperandView::access(std::int64_t together) const {
  if (offset % together != 0 || !all_multiples(batch, together)) return TileAccess::single;
  if (lie_together(strips, together) && all_multiples(inner, together))
    return TileAccess::along_strips;
  if (lie_together(inner, together) && all_multiples(strips, together))
    return TileAccess::along_inner;
  return TileAccess::single;
}

bool OperandView::inner_is_nearer() const {
  if (inner.sizes.empty()) return false;
  return strips.sizes.empty() || std::abs(inner.stride()) < std::abs(strips.stride());
}

}  // namespace fluxion::vulkan_backend
