// Chains of additions, subtractions and multiplications in one pass: eight vectors at a time go
// through all links in registers, where kernels of one op each would carry every intermediate
// result to memory and back.
#include "backends/cpu/tape/tape_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/tape/tape_lanes_chain.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "backends/cpu/runtime/with_f64.h"
#include "backends/cpu/tape/tape_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fluxion::cpu_backend {
namespace HWY_NAMESPACE {

// An operand's row.
template <class T>
struct Source {
  const T* at;
  bool splat;
};

struct SubFrom {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    return hn::Sub(b, a);
  }
};

// v[j] = v[j] (link) the operand. A splat is spread in a register; the vectors of others lie at
// fixed distances, which needs no arithmetic of addresses.
template <class F, int vectors, class D, class V, class T>
HWY_INLINE void link(D d, V (&v)[vectors], const Source<T>& operand, std::size_t i) {
  const F f;
  if (operand.splat) {
    const V x = hn::Set(d, *operand.at);
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) v[j] = f(d, v[j], x);
  } else {
    const T* const at = operand.at + i;
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j)
      v[j] = f(d, v[j], hn::LoadU(d, at + static_cast<std::size_t>(j) * hn::MaxLanes(d)));
  }
}

// Some vectors from column i on go through all links in registers.
template <int vectors, class D, class T>
HWY_INLINE void pass(D d, const Source<T>* sources, const ChainLink* links, std::int64_t count,
                     std::size_t i, T* to) {
  using V = hn::Vec<D>;
  V v[vectors];
  if (sources[0].splat) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) v[j] = hn::Set(d, *sources[0].at);
  } else {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j)
      v[j] = hn::LoadU(d, sources[0].at + i + static_cast<std::size_t>(j) * hn::MaxLanes(d));
  }
  for (std::int64_t k = 0; k < count; ++k) {
    const Source<T>& operand = sources[k + 1];
    switch (links[k]) {
      case ChainLink::add:
        link<Add>(d, v, operand, i);
        break;
      case ChainLink::sub:
        link<Sub>(d, v, operand, i);
        break;
      case ChainLink::sub_from:
        link<SubFrom>(d, v, operand, i);
        break;
      case ChainLink::mul:
        link<Mul>(d, v, operand, i);
        break;
      case ChainLink::strong_mul:
        link<StrongMul>(d, v, operand, i);
        break;
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < vectors; ++j)
    hn::StoreU(v[j], d, to + i + static_cast<std::size_t>(j) * hn::MaxLanes(d));
}

template <class T>
void chain(std::byte* out, std::int64_t out_step, const Lanes* in, const ChainLink* links,
           std::int64_t count, std::int64_t rows, std::int64_t columns) {
  const hn::ScalableTag<T> d;
  constexpr std::size_t vector = hn::MaxLanes(d);  // every target's vectors have one size
  const std::size_t end = static_cast<std::size_t>(columns);
  Source<T> sources[max_chain_links + 1];
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t k = 0; k <= count; ++k)
      sources[k] = {reinterpret_cast<const T*>(in[k].data + row * in[k].row_step), in[k].splat};
    T* to = row_of<T>(out, out_step, row);
    std::size_t i = 0;
    for (; i + 8 * vector <= end; i += 8 * vector) pass<8>(d, sources, links, count, i, to);
    if (i + 4 * vector <= end) pass<4>(d, sources, links, count, i, to), i += 4 * vector;
    if (i + 2 * vector <= end) pass<2>(d, sources, links, count, i, to), i += 2 * vector;
    if (i < end) pass<1>(d, sources, links, count, i, to);
  }
}

ChainKernel FindChainKernel(DType dtype) {
  return dtype == DType::f32 ? chain<float> : dtype == DType::f64 ? chain<Wide> : nullptr;
}

}  // namespace HWY_NAMESPACE
}  // namespace fluxion::cpu_backend
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fluxion::cpu_backend {

HWY_EXPORT(FindChainKernel);

ChainKernel find_chain_kernel(DType dtype) { return HWY_DYNAMIC_DISPATCH(FindChainKernel)(dtype); }

}  // namespace fluxion::cpu_backend
#endif
