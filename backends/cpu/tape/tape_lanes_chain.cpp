// Chains of additions, subtractions and multiplications in one pass: eight vectors at a time go
// through all links in registers, where kernels of one op each would carry every intermediate
// result to memory and back.
#include "backends/cpu/tape/tape_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/tape/tape_lanes_chain.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "backends/cpu/tape/tape_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fluxion::cpu_backend {
namespace HWY_NAMESPACE {

// An operand's row: its vectors are `step` lanes apart, 0 for a splat.
template <class T>
struct Source {
  alignas(largest_vector_bytes) T copies[largest_vector_bytes / sizeof(T)];
  const T* at;
  size_t step;
};

// Vectors are variables, not an array, so that they live in registers.
#define FLUXION_EACH_VECTOR(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
constexpr size_t vectors_at_once = 8;

template <class T>
void chain(std::byte* out, std::int64_t out_step, const Lanes* in, const ChainLink* links,
           std::int64_t count, std::int64_t rows, std::int64_t columns) {
  const hn::ScalableTag<T> d;
  const size_t vector = hn::Lanes(d), wide = vectors_at_once * vector,
               end = static_cast<size_t>(columns);
  Source<T> sources[max_chain_links + 1];
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t k = 0; k <= count; ++k) {
      Source<T>& source = sources[k];
      source.at = reinterpret_cast<const T*>(in[k].data + row * in[k].row_step);
      source.step = in[k].splat ? 0 : vector;
      if (in[k].splat) {
        hn::Store(hn::Set(d, *source.at), d, source.copies);
        source.at = source.copies;
      }
    }
    T* to = row_of<T>(out, out_step, row);
    size_t i = 0;
    for (; i + wide <= end; i += wide) {
      const T* from = sources[0].at + (sources[0].step ? i : 0);
      size_t step = sources[0].step;
#define FLUXION_LOAD(j) auto v##j = hn::LoadU(d, from + j * step);
      FLUXION_EACH_VECTOR(FLUXION_LOAD)
      for (std::int64_t k = 0; k < count; ++k) {
        step = sources[k + 1].step;
        from = sources[k + 1].at + (step ? i : 0);
        switch (links[k]) {
#define FLUXION_ADD(j) v##j = hn::Add(v##j, hn::LoadU(d, from + j * step));
#define FLUXION_SUB(j) v##j = hn::Sub(v##j, hn::LoadU(d, from + j * step));
#define FLUXION_SUB_FROM(j) v##j = hn::Sub(hn::LoadU(d, from + j * step), v##j);
#define FLUXION_MUL(j) v##j = hn::Mul(v##j, hn::LoadU(d, from + j * step));
#define FLUXION_STRONG_MUL(j) v##j = strong_product(d, v##j, hn::LoadU(d, from + j * step));
          case ChainLink::add:
            FLUXION_EACH_VECTOR(FLUXION_ADD)
            break;
          case ChainLink::sub:
            FLUXION_EACH_VECTOR(FLUXION_SUB)
            break;
          case ChainLink::sub_from:
            FLUXION_EACH_VECTOR(FLUXION_SUB_FROM)
            break;
          case ChainLink::mul:
            FLUXION_EACH_VECTOR(FLUXION_MUL)
            break;
          case ChainLink::strong_mul:
            FLUXION_EACH_VECTOR(FLUXION_STRONG_MUL)
            break;
        }
      }
#define FLUXION_STORE(j) hn::StoreU(v##j, d, to + i + j * vector);
      FLUXION_EACH_VECTOR(FLUXION_STORE)
    }
    for (; i < end; i += vector) {
      auto v = hn::LoadU(d, sources[0].at + (sources[0].step ? i : 0));
      for (std::int64_t k = 0; k < count; ++k) {
        const auto operand = hn::LoadU(d, sources[k + 1].at + (sources[k + 1].step ? i : 0));
        switch (links[k]) {
          case ChainLink::add:
            v = hn::Add(v, operand);
            break;
          case ChainLink::sub:
            v = hn::Sub(v, operand);
            break;
          case ChainLink::sub_from:
            v = hn::Sub(operand, v);
            break;
          case ChainLink::mul:
            v = hn::Mul(v, operand);
            break;
          case ChainLink::strong_mul:
            v = strong_product(d, v, operand);
            break;
        }
      }
      hn::StoreU(v, d, to + i);
    }
  }
}

#undef FLUXION_LOAD
#undef FLUXION_ADD
#undef FLUXION_SUB
#undef FLUXION_SUB_FROM
#undef FLUXION_MUL
#undef FLUXION_STRONG_MUL
#undef FLUXION_STORE
#undef FLUXION_EACH_VECTOR

ChainKernel FindChainKernel(DType dtype) {
  return dtype == DType::f32 ? chain<float> : dtype == DType::f64 ? chain<double> : nullptr;
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
