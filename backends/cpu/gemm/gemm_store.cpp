#include "backends/cpu/gemm/gemm_store.h"

#include <array>
#include <optional>

namespace fluxion::cpu_backend {

namespace {

// Splits the axes of an affine address over batch x m x n. Empty if they don't split there.
std::optional<std::array<OperandAxis, 3>> split_address(const Dims& extents, const Affine& address,
                                                        const std::array<std::int64_t, 3>& sizes) {
  std::array<OperandAxis, 3> parts;
  std::size_t axis = 0;
  for (std::size_t part = 0; part < 3; ++part) {
    std::int64_t size = 1;
    while (size < sizes[part]) {
      while (axis < extents.size() && extents[axis] == 1) ++axis;
      if (axis == extents.size()) return std::nullopt;
      size *= extents[axis];
      parts[part].sizes.push_back(extents[axis]);
      parts[part].strides.push_back(axis < address.coefficients.size() ? address.coefficients[axis]
                                                                       : 0);
      ++axis;
    }
    if (size != sizes[part]) return std::nullopt;
  }
  return parts;
}

}  // namespace

std::vector<DirectStore> direct_stores(const ContractKernel& kernel) {
  std::vector<std::optional<DirectStore>> found(static_cast<std::size_t>(kernel.results));
  const Tape& tape = kernel.epilogue;
  for (const TapeStore& store : tape.stores) {
    const TapeInstruction& instruction = tape.instructions[static_cast<std::size_t>(store.value)];
    if (instruction.code != TapeCode::result || instruction.dtype != kernel.accumulate ||
        store.dtype != kernel.accumulate)
      return {};
    auto& direct = found[static_cast<std::size_t>(instruction.argument)];
    if (direct) return {};
    OperandAxis whole;
    whole.sizes = tape.extents;
    whole.strides = store.address.coefficients;
    whole.strides.resize(whole.sizes.size(), 0);
    if (const GemmAxis flat(whole);
        flat.is_affine() &&
        flat.stride() == 1) {  // row-major, even where the axes of the tape straddle m and n
      direct = DirectStore{store.buffer, store.address.constant,
                           GemmAxis({{kernel.batch}, {kernel.m * kernel.n}}), kernel.n};
      continue;
    }
    const auto parts =
        split_address(tape.extents, store.address, {kernel.batch, kernel.m, kernel.n});
    if (!parts) return {};
    const GemmAxis rows((*parts)[1]), columns((*parts)[2]);
    if (!rows.is_affine() || !columns.is_affine() || (columns.stride() != 1 && kernel.n != 1))
      return {};
    direct =
        DirectStore{store.buffer, store.address.constant, GemmAxis((*parts)[0]), rows.stride()};
  }
  std::vector<DirectStore> stores;
  for (auto& direct : found) {
    if (!direct) return {};
    stores.push_back(std::move(*direct));
  }
  return stores;
}

}  // namespace fluxion::cpu_backend
