#include "backends/cpu/gemm/gemm_kernel.h"

#include <type_traits>
#include <utility>

#include "backends/cpu/tape/tape_targets.h"
#include "engine/graph/dtype.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/gemm/gemm_kernel.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>  // must precede highway.h
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace fluxion::cpu_backend {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// A tile of rows x 2 vectors lives in registers, beside two vectors of B and one broadcast element
// of A. Two multiply-adds a cycle, each waiting four cycles for its sum, want eight sums and more.
#if HWY_TARGET == HWY_AVX3
constexpr int tile_rows = 14, narrow_rows = 14;  // of 32 registers, 28 + 2 + 1
#elif HWY_TARGET == HWY_NEON
constexpr int tile_rows = 12, narrow_rows = 12;  // of 32 registers, 24 + 2 + 1
#else
constexpr int tile_rows = 6, narrow_rows = 12;  // of 16 registers, 12 + 2 + 1
#endif
static_assert(tile_rows <= narrow_rows && narrow_rows <= gemm_max_rows);

// Vectors of a fixed size, so that tiles are known at compile time; scalable instruction sets use a
// part of theirs.
template <class T>
using Lanes = hn::CappedTag<T, gemm_max_lanes<T>>;

template <class D, class T = hn::TFromD<D>>
HWY_INLINE void StorePart(D d, hn::Vec<D> v, T* to, std::int64_t count) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  hn::BlendedStore(v, hn::FirstN(d, static_cast<std::size_t>(count)), d, to);
#else
  alignas(64) T lanes[hn::MaxLanes(d)];
  hn::Store(v, d, lanes);
  for (std::int64_t j = 0; j < count; ++j) to[j] = lanes[j];
#endif
}

template <class D, class T = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> LoadPart(D d, const T* from, std::int64_t count) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  return hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(count)), d, from);
#else
  alignas(64) T lanes[hn::MaxLanes(d)] = {};
  for (std::int64_t j = 0; j < count; ++j) lanes[j] = from[j];
  return hn::Load(d, lanes);
#endif
}

// ---- elements in memory: T itself, or 16-bit floats, which are converted exactly

template <class D>
using Bits16 = hn::Rebind<std::uint16_t, D>;  // as many lanes as D has

inline const std::uint16_t* Bits(const BFloat16* from) { return &from->bits; }
inline const std::uint16_t* Bits(const Float16* from) { return &from->bits; }

template <class S, class D>
HWY_INLINE hn::Vec<D> Widened(D d, hn::Vec<Bits16<D>> bits) {
  const hn::RebindToUnsigned<D> d32;
  const auto wide = hn::PromoteTo(d32, bits);
  if constexpr (std::is_same_v<S, BFloat16>) {
    return hn::BitCast(d, hn::ShiftLeft<16>(wide));
  } else {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
    return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, D>(), bits));  // F16C
#else
    // The exponent is 5 bits wide with bias 15, to become 8 with bias 127: a multiplication by
    // 2^112, which is exact and gives subnormal numbers theirs. Infinities and NaN keep all ones.
    const auto magnitude = hn::ShiftLeft<13>(hn::And(wide, hn::Set(d32, 0x7FFFu)));
    const auto sign = hn::ShiftLeft<16>(hn::And(wide, hn::Set(d32, 0x8000u)));
    const auto number = hn::BitCast(d32, hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p112f)));
    const auto special = hn::Or(magnitude, hn::Set(d32, 0x7F800000u));
    const auto is_special = hn::Gt(magnitude, hn::Set(d32, 0x0F7FFFFFu));
    return hn::BitCast(d, hn::Or(sign, hn::IfThenElse(is_special, special, number)));
#endif
  }
}

template <class T, class S>
HWY_INLINE T Lane(S element) {
  if constexpr (std::is_same_v<T, S>) {
    return element;
  } else {
    return to_f32(element);
  }
}

template <class D, class S>
HWY_INLINE hn::Vec<D> LoadAs(D d, const S* from) {
  if constexpr (std::is_same_v<S, hn::TFromD<D>>) {
    return hn::LoadU(d, from);
  } else {
    return Widened<S>(d, hn::LoadU(Bits16<D>(), Bits(from)));
  }
}

template <class D, class S, class T = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> LoadPartAs(D d, const S* from, std::int64_t count) {
  if constexpr (std::is_same_v<S, T>) {
    return LoadPart(d, from, count);
  } else {
    alignas(64) std::uint16_t lanes[hn::MaxLanes(d)] = {};
    for (std::int64_t j = 0; j < count; ++j) lanes[j] = from[j].bits;
    return Widened<S>(d, hn::Load(Bits16<D>(), lanes));
  }
}

template <class T, int rows, int vectors>
void Tile(const GemmTile<T>& given) {
  // A copy, since for all the compiler knows what is stored may change what was given.
  const GemmTile<T> tile = given;
  const Lanes<T> d;
  using V = hn::Vec<Lanes<T>>;
  constexpr std::int64_t lanes = hn::MaxLanes(Lanes<T>());
  V sum[rows][vectors];
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) sum[i][v] = hn::Zero(d);
  }
  // The lines of C arrive while the tile is computed, unless that takes too short a time.
  constexpr std::int64_t long_inner = 64;
  if (tile.accumulate || (tile.segment_count > 0 && tile.segments[0].inner >= long_inner)) {
    constexpr int line = 64 / sizeof(T);
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < vectors * lanes; j += line) hwy::Prefetch(tile.c + i * tile.c_row + j);
    }
  }
  for (std::int64_t s = 0; s < tile.segment_count; ++s) {
    const GemmSegment<T>& segment = tile.segments[s];
    const T* a = segment.a;
    const T* b = segment.b;
    const std::int64_t a_row = segment.a_row, a_inner = segment.a_inner, b_inner = segment.b_inner;
    for (std::int64_t p = segment.inner; p > 0; --p) {
      V row_of_b[vectors];
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) row_of_b[v] = hn::LoadU(d, b + v * lanes);
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
        const V element_of_a = hn::Set(d, a[i * a_row]);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v)
          sum[i][v] = hn::MulAdd(element_of_a, row_of_b[v], sum[i][v]);
      }
      a += a_inner;
      b += b_inner;
    }
  }
  const std::int64_t last = tile.columns - (vectors - 1) * lanes;  // columns in the last vector
  const auto store = [&](auto accumulate, auto whole) HWY_ATTR {
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) {
        T* c = tile.c + i * tile.c_row + v * lanes;
        if (whole() || v < vectors - 1) {
          hn::StoreU(accumulate() ? hn::Add(hn::LoadU(d, c), sum[i][v]) : sum[i][v], d, c);
        } else {
          StorePart(d, accumulate() ? hn::Add(LoadPart(d, c, last), sum[i][v]) : sum[i][v], c,
                    last);
        }
      }
    }
  };
  const std::true_type yes;
  const std::false_type no;
  if (last == lanes) {
    if (tile.accumulate)
      store(yes, yes);
    else
      store(no, yes);
  } else if (tile.accumulate) {
    store(yes, no);
  } else {
    store(no, no);
  }
}

#if HWY_TARGET != HWY_SCALAR
// Block b of the result is the 16 bytes at from[offsets[b * stride]].
template <class D, class T = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> LoadBlocks(D d, const T* from, const std::int64_t* offsets,
                                 std::int64_t stride) {
  constexpr std::size_t blocks = hn::MaxLanes(D()) * sizeof(T) / 16;
  if constexpr (blocks <= 1) {
    return hn::LoadU(d, from + offsets[0]);
  } else {
    const hn::Half<D> half;
    return hn::Combine(
        d, LoadBlocks(half, from, offsets + stride * static_cast<std::int64_t>(blocks / 2), stride),
        LoadBlocks(half, from, offsets, stride));
  }
}

// Four elements of 16 bits in the place of each block.
template <class D>
HWY_INLINE hn::Vec<D> LoadQuads(D d, const std::uint16_t* from, const std::int64_t* offsets,
                                std::int64_t stride) {
  constexpr std::size_t quads = hn::MaxLanes(D()) / 4;
  if constexpr (quads <= 1) {
    return hn::LoadU(d, from + offsets[0]);
  } else {
    const hn::Half<D> half;
    return hn::Combine(
        d, LoadQuads(half, from, offsets + stride * static_cast<std::int64_t>(quads / 2), stride),
        LoadQuads(half, from, offsets, stride));
  }
}

// The same for elements of another type, converted: block b is the 16 / sizeof(T) elements there.
template <class D, class S>
HWY_INLINE hn::Vec<D> LoadBlocksAs(D d, const S* from, const std::int64_t* offsets,
                                   std::int64_t stride) {
  if constexpr (std::is_same_v<S, hn::TFromD<D>>) {
    return LoadBlocks(d, from, offsets, stride);
  } else {
    const Bits16<D> d16;
    return Widened<S>(d, LoadQuads(d16, Bits(from), offsets, stride));
  }
}

// Columns [0, lanes) x inner [0, 16 / sizeof(T)) of a strip whose inner stride is one: transposes
// within each 16-byte block.
template <class T, class S>
HWY_INLINE void TransposeBlocks(const S* from, const std::int64_t* offsets, T* to,
                                std::int64_t to_inner) {
  const Lanes<T> d;
  if constexpr (sizeof(T) == 4) {
    const auto v0 = LoadBlocksAs(d, from, offsets, 4), v1 = LoadBlocksAs(d, from, offsets + 1, 4);
    const auto v2 = LoadBlocksAs(d, from, offsets + 2, 4),
               v3 = LoadBlocksAs(d, from, offsets + 3, 4);
    const auto low02 = hn::InterleaveLower(d, v0, v2), low13 = hn::InterleaveLower(d, v1, v3);
    const auto high02 = hn::InterleaveUpper(d, v0, v2), high13 = hn::InterleaveUpper(d, v1, v3);
    hn::StoreU(hn::InterleaveLower(d, low02, low13), d, to);
    hn::StoreU(hn::InterleaveUpper(d, low02, low13), d, to + to_inner);
    hn::StoreU(hn::InterleaveLower(d, high02, high13), d, to + 2 * to_inner);
    hn::StoreU(hn::InterleaveUpper(d, high02, high13), d, to + 3 * to_inner);
  } else {
    const auto v0 = LoadBlocks(d, from, offsets, 2), v1 = LoadBlocks(d, from, offsets + 1, 2);
    hn::StoreU(hn::InterleaveLower(d, v0, v1), d, to);
    hn::StoreU(hn::InterleaveUpper(d, v0, v1), d, to + to_inner);
  }
}
#endif

template <class T, class S>
void Pack(const GemmStrip<T>& strip) {
  const Lanes<T> d;
  const S* const begin = static_cast<const S*>(strip.from);
  constexpr std::int64_t lanes = hn::MaxLanes(Lanes<T>());
  const std::int64_t padded = (strip.width + lanes - 1) / lanes * lanes;
  if (strip.contiguous) {
    const S* from = begin + strip.offsets[0];
    const std::int64_t whole = strip.width / lanes * lanes, rest = strip.width - whole;
    // The processor does not foresee steps from page to page. What lies ahead may be outside the
    // operand, so its address is a number here.
    constexpr std::uintptr_t rows_ahead = 16;
    const std::uintptr_t ahead = (rows_ahead * static_cast<std::uintptr_t>(strip.inner_stride) +
                                  static_cast<std::uintptr_t>(strip.width - 1)) *
                                 sizeof(S);
    for (std::int64_t p = 0; p < strip.inner; ++p) {
      T* to = strip.to + p * strip.to_inner;
      hwy::Prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(from) + ahead));
      for (std::int64_t j = 0; j < whole; j += lanes) hn::StoreU(LoadAs(d, from + j), d, to + j);
      if (rest != 0) hn::StoreU(LoadPartAs(d, from + whole, rest), d, to + whole);
      from += strip.inner_stride;
    }
    return;
  }
  // Missing columns repeat the last one, so that every read lies in the operand.
  std::int64_t offsets[gemm_max_vectors * gemm_max_lanes<T>];
  for (std::int64_t j = 0; j < padded; ++j)
    offsets[j] = strip.offsets[j < strip.width ? j : strip.width - 1];
  std::int64_t p = 0;
#if HWY_TARGET != HWY_SCALAR
  if (strip.inner_stride == 1) {
    constexpr std::int64_t step = 16 / sizeof(T), line = 64 / sizeof(S);
    // Asks for the next strip meanwhile, if it lies where the rows go on: of short rows the
    // processor does not foresee it. It may be outside the operand, so its address is a number
    // here.
    const auto next =
        reinterpret_cast<std::uintptr_t>(begin) +
        static_cast<std::uintptr_t>(strip.width * (offsets[1] - offsets[0])) * sizeof(S);
    for (; p + step <= strip.inner; p += step) {
      if (p % line == 0)
        for (std::int64_t j = 0; j < strip.width; ++j)
          hwy::Prefetch(reinterpret_cast<const void*>(
              next + static_cast<std::uintptr_t>(offsets[j] + p) * sizeof(S)));
      for (std::int64_t j = 0; j < padded; j += lanes) {
        TransposeBlocks(begin + p, offsets + j, strip.to + p * strip.to_inner + j, strip.to_inner);
      }
    }
  }
#endif
  for (; p < strip.inner; ++p) {
    const S* from = begin + p * strip.inner_stride;
    T* to = strip.to + p * strip.to_inner;
    for (std::int64_t j = 0; j < padded; ++j) to[j] = Lane<T>(from[offsets[j]]);
  }
}

template <class T>
void PackGroup(const GemmStripGroup<T>& given) {
  // A copy, since for all the compiler knows what is stored may change what was given.
  const GemmStripGroup<T> group = given;
  const Lanes<T> d;
  constexpr std::int64_t lanes = hn::MaxLanes(Lanes<T>());
  std::int64_t rows = 0, unmasked = 0;
  for (std::int64_t s = 0; s < group.strips; ++s) rows += group.heights[s];
  // Whole vectors are read of strips that others follow far enough.
  for (std::int64_t begin = 0; unmasked < group.strips; begin += group.heights[unmasked++])
    if (begin + (group.heights[unmasked] + lanes - 1) / lanes * lanes > rows) break;
  // As in Pack.
  constexpr std::uintptr_t rows_ahead = 16, line = 64 / sizeof(T);
  const T* from = group.from;
  T* to = group.to;
  for (std::int64_t p = 0; p < group.inner; ++p) {
    const std::uintptr_t ahead =
        reinterpret_cast<std::uintptr_t>(from) +
        rows_ahead * static_cast<std::uintptr_t>(group.inner_stride) * sizeof(T);
    for (std::uintptr_t j = 0; j < static_cast<std::uintptr_t>(rows); j += line)
      hwy::Prefetch(reinterpret_cast<const void*>(ahead + j * sizeof(T)));
    const T* strip = from;
    T* packed = to;
    std::int64_t s = 0;
    for (; s < unmasked; ++s) {
      for (std::int64_t j = 0; j < group.heights[s]; j += lanes)
        hn::StoreU(hn::LoadU(d, strip + j), d, packed + j);
      strip += group.heights[s];
      packed += group.to_strip;
    }
    for (; s < group.strips; ++s) {
      std::int64_t j = 0;
      for (; j + lanes <= group.heights[s]; j += lanes)
        hn::StoreU(hn::LoadU(d, strip + j), d, packed + j);
      if (j < group.heights[s])
        hn::StoreU(LoadPart(d, strip + j, group.heights[s] - j), d, packed + j);
      strip += group.heights[s];
      packed += group.to_strip;
    }
    from += group.inner_stride;
    to += group.to_inner;
  }
}

template <int vectors, class T, int... rows>
void FillTiles(GemmKernels<T>& kernels, std::integer_sequence<int, rows...>) {
  ((kernels.tile[vectors - 1][rows] = &Tile<T, rows + 1, vectors>), ...);
}

template <class T>
const GemmKernels<T>* Kernels() {
  static const GemmKernels<T> kernels = [] {
    GemmKernels<T> made{};
    made.target = hwy::TargetName(HWY_TARGET);
    made.rows = tile_rows;
    made.narrow_rows = narrow_rows;
    made.lanes = static_cast<int>(hn::MaxLanes(Lanes<T>()));
    FillTiles<1>(made, std::make_integer_sequence<int, narrow_rows>());
    FillTiles<2>(made, std::make_integer_sequence<int, tile_rows>());
    made.pack = &Pack<T, T>;
    made.pack_group = &PackGroup<T>;
    if constexpr (std::is_same_v<T, float>)
      made.pack_bf16 = &Pack<T, BFloat16>, made.pack_f16 = &Pack<T, Float16>;
    return made;
  }();
  return &kernels;
}

const GemmKernels<float>* KernelsF32() { return Kernels<float>(); }
const GemmKernels<double>* KernelsF64() { return Kernels<double>(); }

}  // namespace HWY_NAMESPACE
}  // namespace fluxion::cpu_backend
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fluxion::cpu_backend {

HWY_EXPORT(KernelsF32);
HWY_EXPORT(KernelsF64);

template <>
const GemmKernels<float>& gemm_kernels<float>() {
  return *HWY_DYNAMIC_DISPATCH(KernelsF32)();
}
template <>
const GemmKernels<double>& gemm_kernels<double>() {
  return *HWY_DYNAMIC_DISPATCH(KernelsF64)();
}

}  // namespace fluxion::cpu_backend
#endif
