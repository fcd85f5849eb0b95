#include "backends/cpu/gemm/gemm_reader.h"

#include <algorithm>

namespace fluxion::cpu_backend {

template <class T>
void GemmReader<T>::pack(const CallMemory& memory, std::int64_t batch, std::int64_t begin,
                         std::int64_t width, std::int64_t inner_begin, std::int64_t inner_end,
                         T* to, std::int64_t to_inner) const {
  std::int64_t offsets[gemm_max_vectors * gemm_max_lanes<T>];
  const std::int64_t first = strips().offset(begin);
  const bool contiguous = strips().stride() == 1 && strips().stretch(begin, width) == width;
  for (std::int64_t i = 0; i < (contiguous ? 1 : width); ++i)
    offsets[i] = strips().offset(begin + i) - first;
  const auto pack = operand_.dtype == DType::bf16  ? kernels_->pack_bf16
                    : operand_.dtype == DType::f16 ? kernels_->pack_f16
                                                   : kernels_->pack;
  GemmStrip<T> strip{};
  strip.offsets = offsets;
  strip.width = width;
  strip.contiguous = contiguous;
  strip.inner_stride = inner().stride();
  strip.to_inner = to_inner;
  for (std::int64_t p = inner_begin; p < inner_end; p += strip.inner) {
    strip.from = element(memory, batch, first + inner().offset(p));
    strip.inner = inner().stretch(p, inner_end - p);
    strip.to = to + (p - inner_begin) * to_inner;
    pack(strip);
  }
}

template <class T>
void GemmReader<T>::prefetch(const CallMemory& memory, std::int64_t batch, std::int64_t begin,
                             std::int64_t width, std::int64_t inner_begin,
                             std::int64_t inner_end) const {
  if (strips().stride() != 1 || !inner().is_affine()) return;
  const auto bytes = static_cast<std::int64_t>(size_of(operand_.dtype));
  // The last lines may be outside the operand, so addresses are numbers here.
  auto from = reinterpret_cast<std::uintptr_t>(
      element(memory, batch, strips().offset(begin) + inner().offset(inner_begin)));
  for (std::int64_t p = inner_begin; p < inner_end; ++p) {
    for (std::int64_t line = 0; line < width * bytes; line += 64)
      __builtin_prefetch(reinterpret_cast<const void*>(from + static_cast<std::uintptr_t>(line)), 0,
                         2);
    from += static_cast<std::uintptr_t>(inner().stride() * bytes);
  }
}

// Whether the rows of lhs come in stretches of one stride that strips of a fair height fit into.
template <class T>
bool GemmReader<T>::has_long_rows() const {
  const std::int64_t run = strips().run();
  return run / ceil_div(run, kernels_->rows) > kernels_->rows / 2;
}

// Whether strips of lhs are best read in place, one stretch of the inner axis after the other, as
// those of the windows of a convolution: neither its rows nor its inner axis have one stride
// throughout, but both have long stretches of one.
template <class T>
bool GemmReader<T>::by_stretches() const {
  constexpr std::int64_t least_inner = 8;
  return is_native() && inner().stride() == 1 &&
         inner().run() >= std::min(least_inner, inner().size()) && has_long_rows();
}

template <class T>
std::int64_t GemmReader<T>::strip_height(std::int64_t row, std::int64_t row_end) const {
  std::int64_t rows = row_end - row;
  if (has_long_rows() && (strips().stride() == 1 || by_stretches()))
    rows = strips().stretch(row, rows);
  return rows / ceil_div(rows, kernels_->rows);
}

template <class T>
std::int64_t GemmReader<T>::segments(std::int64_t block_inner) const {
  return by_stretches() && !inner().is_affine() ? ceil_div(block_inner, inner().run()) + 1 : 1;
}

template <class T>
void GemmReader<T>::find_strips(const CallMemory& memory, const Part& part,
                                GemmStripView<T>* found) const {
  const auto packed = [&](std::int64_t s) { return part.packed + s * part.packed_strip; };
  const std::int64_t stride = strips().stride();
  const bool passes_often = part.columns > 2 * gemm_max_vectors * kernels_->lanes;
  // Rows whose distance is a multiple of the page fall on the same few lines of the first-level
  // cache, where most are lost before they are used again. So do the few elements that a strip has
  // in each row of a transposed operand.
  const bool aliases = stride * static_cast<std::int64_t>(sizeof(T)) % 4096 == 0 && passes_often;
  const bool readable = is_native() && inner().is_affine() &&
                        ((inner().stride() == 1 && !aliases) || (stride == 1 && !passes_often));
  const bool in_stretches = !inner().is_affine() && !aliases && by_stretches();
  bool packs = false;
  for (std::int64_t s = 0, row = part.rows.row; s < part.rows.strips; ++s) {
    const std::int64_t rows = part.rows.heights[s];
    const bool straight = strips().stretch(row, rows) == rows;
    if (readable && straight) {
      found[s] = {
          native(memory, part.batch, strips().offset(row) + inner().offset(part.inner_begin)),
          stride, inner().stride()};
    } else if (in_stretches && straight) {
      found[s] = {native(memory, part.batch, strips().offset(row)), stride, 1, &inner()};
    } else {
      found[s] = {packed(s), 1, part.width};
      packs = true;
    }
    row += rows;
  }
  if (!packs) return;
  // The rows of a transposed operand are gone through once for all strips, so that what comes from
  // memory is used whole.
  const GemmGroup& group = part.rows;
  if (is_native() && stride == 1 && strips().stretch(group.row, group.rows) == group.rows) {
    for (std::int64_t p = part.inner_begin, length = 0; p < part.inner_end; p += length) {
      length = inner().stretch(p, part.inner_end - p);
      kernels_->pack_group(
          {.from = native(memory, part.batch, strips().offset(group.row) + inner().offset(p)),
           .inner = length,
           .inner_stride = inner().stride(),
           .heights = group.heights,
           .strips = group.strips,
           .to = part.packed + (p - part.inner_begin) * part.width,
           .to_strip = part.packed_strip,
           .to_inner = part.width});
    }
    return;
  }
  for (std::int64_t s = 0, row = group.row; s < group.strips; ++s) {
    const std::int64_t rows = group.heights[s];
    if (found[s].data == packed(s))
      pack(memory, part.batch, row, rows, part.inner_begin, part.inner_end, packed(s), part.width);
    row += rows;
  }
}

template class GemmReader<float>;
#if !defined(FLUXION_CPU_WITHOUT_F64)
template class GemmReader<double>;
#endif

}  // namespace fluxion::cpu_backend
