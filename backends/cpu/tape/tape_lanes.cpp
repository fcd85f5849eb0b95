// Kernels of arithmetic, comparisons, conversions and reductions.
#include "backends/cpu/tape/tape_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/tape/tape_lanes.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <limits>

#include "backends/cpu/runtime/with_f64.h"
#include "backends/cpu/tape/tape_convert.h"
#include "backends/cpu/tape/tape_lanes-inl.h"
#include "engine/graph/op_names.h"

HWY_BEFORE_NAMESPACE();
namespace fluxion::cpu_backend {
namespace HWY_NAMESPACE {

template <class T>
inline constexpr bool floating = std::is_floating_point_v<T>;

// ---- elementwise

struct Neg {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    if constexpr (floating<hn::TFromD<D>>)
      return hn::Neg(x);
    else
      return hn::Sub(hn::Zero(d), x);
  }
};
struct Abs {
  template <class D, class V>
  HWY_INLINE V operator()(D, V x) const {
    if constexpr (std::is_unsigned_v<hn::TFromD<D>>)
      return x;
    else
      return hn::Abs(x);
  }
};
struct Sign {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    using T = hn::TFromD<D>;
    const V zero = hn::Zero(d);
    if constexpr (std::is_unsigned_v<T>) {
      return hn::IfThenElse(hn::Eq(x, zero), zero, hn::Set(d, T(1)));
    } else {
      // Zeros (of either sign) and NaN are their own sign.
      return hn::IfThenElse(hn::Gt(x, zero), hn::Set(d, T(1)),
                            hn::IfThenElse(hn::Lt(x, zero), hn::Set(d, T(-1)), x));
    }
  }
};
struct Floor {
  template <class D, class V>
  HWY_INLINE V operator()(D, V x) const {
    return hn::Floor(x);
  }
};
struct Sqrt {
  template <class D, class V>
  HWY_INLINE V operator()(D, V x) const {
    return hn::Sqrt(x);
  }
};
struct Rsqrt {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return hn::Div(hn::Set(d, hn::TFromD<D>(1)), hn::Sqrt(x));
  }
};
struct Div {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    return hn::Div(a, b);
  }
};
struct StrongDiv {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V a, V b) const {
    const auto zero = hn::Or(hn::Eq(a, hn::Zero(d)), hn::Eq(hn::Abs(b), hn::Inf(d)));
    return hn::IfThenZeroElse(zero, hn::Div(a, b));
  }
};
struct Maximum {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    if constexpr (floating<hn::TFromD<D>>)
      return hn::IfThenElse(hn::Or(hn::IsNaN(a), hn::IsNaN(b)), hn::Add(a, b), hn::Max(a, b));
    else
      return hn::Max(a, b);
  }
};
struct Minimum {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    if constexpr (floating<hn::TFromD<D>>)
      return hn::IfThenElse(hn::Or(hn::IsNaN(a), hn::IsNaN(b)), hn::Add(a, b), hn::Min(a, b));
    else
      return hn::Min(a, b);
  }
};
struct ShiftRight {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V a, V b) const {
    return hn::Shr(a, hn::And(b, hn::Set(d, hn::TFromD<D>(31))));
  }
};
struct BothBits {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    return hn::And(a, b);
  }
};
struct EitherBits {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    return hn::Or(a, b);
  }
};

struct Lt {
  template <class V>
  HWY_INLINE auto operator()(V a, V b) const {
    return hn::Lt(a, b);
  }
};
struct Le {  // not "not greater": NaN compares false. Integers lack Le, and have no NaN.
  template <class V>
  HWY_INLINE auto operator()(V a, V b) const {
    if constexpr (floating<hn::TFromV<V>>)
      return hn::Le(a, b);
    else
      return hn::Not(hn::Gt(a, b));
  }
};
struct Eq {
  template <class V>
  HWY_INLINE auto operator()(V a, V b) const {
    return hn::Eq(a, b);
  }
};
struct Ne {  // Highway's Ne is false for NaN on AVX-512
  template <class V>
  HWY_INLINE auto operator()(V a, V b) const {
    return hn::Not(hn::Eq(a, b));
  }
};

// f(a, b) -> mask; in[first] is a. gt and ge are lt and le with the operands exchanged.
template <class T, class F, int first>
void compare(std::byte* out, std::int64_t out_step, const Lanes* in, std::int64_t rows,
             std::int64_t columns) {
  const hn::ScalableTag<T> d;
  const size_t vector = hn::Lanes(d);
  Row<T> a, b;
  for (std::int64_t row = 0; row < rows; ++row) {
    a.set(in[first], row, vector);
    b.set(in[1 - first], row, vector);
    std::int32_t* y = row_of<std::int32_t>(out, out_step, row);
    for (std::int64_t i = 0; i < columns; i += vector, a.at += a.step, b.at += b.step) {
      const auto mask = F()(hn::LoadU(d, a.at), hn::LoadU(d, b.at));
      if constexpr (sizeof(T) == 4) {
        const hn::Rebind<std::int32_t, decltype(d)> di;
        hn::StoreU(hn::BitCast(di, hn::VecFromMask(d, mask)), di, y + i);
      } else {
        const hn::Rebind<std::int32_t, decltype(d)> di;
        hn::StoreU(hn::DemoteTo(di, hn::IfThenElseZero(mask, hn::Set(d, T(-1)))), di, y + i);
      }
    }
  }
}

template <class T>
void where(std::byte* out, std::int64_t out_step, const Lanes* in, std::int64_t rows,
           std::int64_t columns) {
  const hn::ScalableTag<T> d;
  const hn::Rebind<std::int32_t, decltype(d)> di;
  const size_t vector = hn::Lanes(d);
  Row<std::int32_t> condition;
  Row<T> a, b;
  for (std::int64_t row = 0; row < rows; ++row) {
    condition.set(in[0], row, vector);
    a.set(in[1], row, vector);
    b.set(in[2], row, vector);
    T* y = row_of<T>(out, out_step, row);
    for (std::int64_t i = 0; i < columns;
         i += vector, condition.at += condition.step, a.at += a.step, b.at += b.step) {
      const auto bits = hn::LoadU(di, condition.at);
      const auto choose = [&](auto mask) {
        hn::StoreU(hn::IfThenElse(mask, hn::LoadU(d, a.at), hn::LoadU(d, b.at)), d, y + i);
      };
      if constexpr (sizeof(T) == 4) {
        choose(hn::MaskFromVec(hn::BitCast(d, bits)));
      } else {
        const hn::Rebind<std::int64_t, decltype(d)> wide;
        choose(hn::MaskFromVec(hn::BitCast(d, hn::PromoteTo(wide, bits))));
      }
    }
  }
}

// Conversions are plain loops that the compiler vectorises for the target.
template <class To, class From>
void convert(std::byte* out, std::int64_t out_step, const Lanes* in, std::int64_t rows,
             std::int64_t columns) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const From* x = reinterpret_cast<const From*>(in[0].data + row * in[0].row_step);
    To* y = row_of<To>(out, out_step, row);
    for (std::int64_t i = 0; i < columns; ++i) y[i] = convert_lane<To>(x[i]);
  }
}

template <class T>
void spread(std::byte* out, std::int64_t out_step, const Lanes* in, std::int64_t rows,
            std::int64_t columns) {
  const hn::ScalableTag<T> d;
  const size_t vector = hn::Lanes(d);
  Row<T> a;
  for (std::int64_t row = 0; row < rows; ++row) {
    a.set(in[0], row, vector);
    T* y = row_of<T>(out, out_step, row);
    for (std::int64_t i = 0; i < columns; i += vector, a.at += a.step)
      hn::StoreU(hn::LoadU(d, a.at), d, y + i);
  }
}

// ---- reductions

// Each reduction: the value of nothing, and the combination of two vectors.
struct SumOf {
  template <class T>
  static constexpr T nothing = T(0);
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    return hn::Add(a, b);
  }
};
struct MaxOf : Maximum {
  template <class T>
  static constexpr T nothing = floating<T> ? -std::numeric_limits<T>::infinity()
                                           : std::numeric_limits<T>::lowest();
};
struct MinOf : Minimum {
  template <class T>
  static constexpr T nothing = floating<T> ? std::numeric_limits<T>::infinity()
                                           : std::numeric_limits<T>::max();
};

// Pieces of this many columns (rows, for columns) are summed by themselves, which bounds the
// rounding error of long sums.
inline constexpr std::int64_t row_piece = 1024;
inline constexpr std::int64_t column_piece = 32;

template <class T, class F>
HWY_INLINE T reduce_piece(const T* x, std::int64_t columns) {
  const hn::ScalableTag<T> d;
  const std::int64_t vector = static_cast<std::int64_t>(hn::Lanes(d));
  const F f;
  const auto nothing = hn::Set(d, F::template nothing<T>);
  auto a = nothing, b = nothing, c = nothing, e = nothing;
  std::int64_t i = 0;
  for (; i + 4 * vector <= columns; i += 4 * vector) {
    a = f(d, a, hn::LoadU(d, x + i));
    b = f(d, b, hn::LoadU(d, x + i + vector));
    c = f(d, c, hn::LoadU(d, x + i + 2 * vector));
    e = f(d, e, hn::LoadU(d, x + i + 3 * vector));
  }
  for (; i + vector <= columns; i += vector) a = f(d, a, hn::LoadU(d, x + i));
  if (i < columns)
    b = f(d, b,
          hn::IfThenElse(hn::FirstN(d, static_cast<size_t>(columns - i)), hn::LoadU(d, x + i),
                         nothing));
  a = f(d, f(d, a, b), f(d, c, e));
  if constexpr (std::is_same_v<F, SumOf>) {
    return hn::GetLane(hn::SumOfLanes(d, a));
  } else {
    if constexpr (floating<T>) {
      if (!hn::AllFalse(d, hn::IsNaN(a))) return std::numeric_limits<T>::quiet_NaN();
    }
    if constexpr (std::is_same_v<F, MaxOf>)
      return hn::GetLane(hn::MaxOfLanes(d, a));
    else
      return hn::GetLane(hn::MinOfLanes(d, a));
  }
}

template <class T, class F>
void reduce_rows(std::byte* out, const Lanes& in, std::int64_t rows, std::int64_t columns) {
  T* y = reinterpret_cast<T*>(out);
  for (std::int64_t row = 0; row < rows; ++row) {
    const T* x = reinterpret_cast<const T*>(in.data + row * in.row_step);
    if constexpr (std::is_same_v<F, SumOf>) {
      if (columns <= row_piece) {
        y[row] = reduce_piece<T, F>(x, columns);
        continue;
      }
      using Total = std::conditional_t<floating<T>, double, std::uint32_t>;
      Total total = 0;  // integers wrap
      for (std::int64_t i = 0; i < columns; i += row_piece)
        total += static_cast<Total>(reduce_piece<T, F>(x + i, std::min(row_piece, columns - i)));
      y[row] = static_cast<T>(total);
    } else {
      y[row] = reduce_piece<T, F>(x, columns);
    }
  }
}

template <class T, class F>
void reduce_columns(std::byte* out, const Lanes& in, std::int64_t rows, std::int64_t columns) {
  const hn::ScalableTag<T> d;
  const std::int64_t vector = static_cast<std::int64_t>(hn::Lanes(d));
  const F f;
  const auto nothing = hn::Set(d, F::template nothing<T>);
  const auto at = [&](std::int64_t row, std::int64_t column) {
    return reinterpret_cast<const T*>(in.data + row * in.row_step) + column;
  };
  T* y = reinterpret_cast<T*>(out);
  std::int64_t column = 0;
  for (; column + 4 * vector <= columns; column += 4 * vector) {
    auto a = nothing, b = nothing, c = nothing, e = nothing;
    for (std::int64_t begin = 0; begin < rows; begin += column_piece) {
      auto pa = nothing, pb = nothing, pc = nothing, pe = nothing;
      for (std::int64_t row = begin; row < std::min(rows, begin + column_piece); ++row) {
        const T* x = at(row, column);
        pa = f(d, pa, hn::LoadU(d, x));
        pb = f(d, pb, hn::LoadU(d, x + vector));
        pc = f(d, pc, hn::LoadU(d, x + 2 * vector));
        pe = f(d, pe, hn::LoadU(d, x + 3 * vector));
      }
      a = f(d, a, pa);
      b = f(d, b, pb);
      c = f(d, c, pc);
      e = f(d, e, pe);
    }
    hn::StoreU(a, d, y + column);
    hn::StoreU(b, d, y + column + vector);
    hn::StoreU(c, d, y + column + 2 * vector);
    hn::StoreU(e, d, y + column + 3 * vector);
  }
  for (; column < columns; column += vector) {
    auto a = nothing;
    for (std::int64_t begin = 0; begin < rows; begin += column_piece) {
      auto pa = nothing;
      for (std::int64_t row = begin; row < std::min(rows, begin + column_piece); ++row)
        pa = f(d, pa, hn::LoadU(d, at(row, column)));
      a = f(d, a, pa);
    }
    hn::StoreU(a, d, y + column);
  }
}

// ---- tables

template <class T>
ApplyKernel arithmetic_kernel(Op op) {
  switch (op) {
    case Op::neg:
      return unary<T, Neg>;
    case Op::abs:
      return unary<T, Abs>;
    case Op::sign:
      return unary<T, Sign>;
    case Op::add:
      return binary<T, Add>;
    case Op::sub:
      return binary<T, Sub>;
    case Op::mul:
      return binary<T, Mul>;
    case Op::maximum:
      return binary<T, Maximum>;
    case Op::minimum:
      return binary<T, Minimum>;
    case Op::lt:
      return compare<T, Lt, 0>;
    case Op::le:
      return compare<T, Le, 0>;
    case Op::gt:
      return compare<T, Lt, 1>;
    case Op::ge:
      return compare<T, Le, 1>;
    case Op::eq:
      return compare<T, Eq, 0>;
    case Op::ne:
      return compare<T, Ne, 0>;
    case Op::where:
      return where<T>;
    default:
      break;
  }
  if constexpr (floating<T>) {
    switch (op) {
      case Op::div:
        return binary<T, Div>;
      case Op::strong_mul:
        return binary<T, StrongMul>;
      case Op::strong_div:
        return binary<T, StrongDiv>;
      case Op::floor:
        return unary<T, Floor>;
      case Op::sqrt:
        return unary<T, Sqrt>;
      case Op::rsqrt:
        return unary<T, Rsqrt>;
      default:
        break;
    }
  }
  if constexpr (std::is_same_v<T, std::uint32_t>) {
    if (op == Op::shift_right) return binary<T, ShiftRight>;
  }
  return nullptr;
}

ApplyKernel boolean_kernel(Op op) {
  using T = std::uint32_t;
  switch (op) {
    case Op::mul:
    case Op::minimum:
      return binary<T, BothBits>;
    case Op::add:
    case Op::maximum:
      return binary<T, EitherBits>;
    case Op::lt:
    case Op::le:
    case Op::gt:
    case Op::ge:
    case Op::eq:
    case Op::ne:
    case Op::where:
      return arithmetic_kernel<T>(op);
    default:
      return nullptr;
  }
}

ApplyKernel FindApplyKernel(Op op, DType operand, DType result) {
  if (op == Op::convert)
    return with_register_type(result, [&](auto to) {
      return with_register_type(
          operand, [&](auto from) -> ApplyKernel { return convert<decltype(to), decltype(from)>; });
    });
  switch (operand) {
    case DType::f32:
      return arithmetic_kernel<float>(op);
    case DType::f64:
      return arithmetic_kernel<Wide>(op);
    case DType::i32:
      return arithmetic_kernel<std::int32_t>(op);
    case DType::u32:
      return arithmetic_kernel<std::uint32_t>(op);
    case DType::boolean:
      return boolean_kernel(op);
    default:
      return nullptr;
  }
}

ApplyKernel FindSpreadKernel(DType dtype) {
  return lane_bytes(dtype) == 8 ? spread<Wide> : spread<std::uint32_t>;
}

template <template <class, class> class Choose>
ReduceKernel reduce_kernel(Op op, DType dtype) {
  const auto of_type = [op]<class T>(T) -> ReduceKernel {
    switch (op) {
      case Op::sum:
        return Choose<T, SumOf>::kernel;
      case Op::max:
        return Choose<T, MaxOf>::kernel;
      case Op::min:
        return Choose<T, MinOf>::kernel;
      default:
        return nullptr;
    }
  };
  switch (dtype) {
    case DType::f32:
      return of_type(float{});
    case DType::f64:
      return of_type(Wide{});
    case DType::i32:
      return of_type(std::int32_t{});
    case DType::u32:
    case DType::boolean:
      return of_type(std::uint32_t{});
    default:
      return nullptr;
  }
}

template <class T, class F>
struct OfRows {
  static constexpr ReduceKernel kernel = reduce_rows<T, F>;
};
template <class T, class F>
struct OfColumns {
  static constexpr ReduceKernel kernel = reduce_columns<T, F>;
};

ReduceKernel FindRowKernel(Op op, DType dtype) { return reduce_kernel<OfRows>(op, dtype); }
ReduceKernel FindColumnKernel(Op op, DType dtype) { return reduce_kernel<OfColumns>(op, dtype); }

std::int64_t VectorLanes() {
  return static_cast<std::int64_t>(hn::Lanes(hn::ScalableTag<float>()));
}
std::int64_t VectorTarget() { return HWY_TARGET; }

}  // namespace HWY_NAMESPACE
}  // namespace fluxion::cpu_backend
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fluxion::cpu_backend {

HWY_EXPORT(FindApplyKernel);
HWY_EXPORT(FindSpreadKernel);
HWY_EXPORT(FindRowKernel);
HWY_EXPORT(FindColumnKernel);
HWY_EXPORT(VectorLanes);
HWY_EXPORT(VectorTarget);

std::int64_t vector_lanes() { return HWY_DYNAMIC_DISPATCH(VectorLanes)(); }
std::string vector_target() { return hwy::TargetName(HWY_DYNAMIC_DISPATCH(VectorTarget)()); }

ApplyKernel find_apply_kernel(Op op, DType operand, DType result) {
  if (const ApplyKernel kernel = find_math_kernel(op, operand)) return kernel;
  return HWY_DYNAMIC_DISPATCH(FindApplyKernel)(op, operand, result);
}
ApplyKernel find_spread_kernel(DType dtype) {
  return HWY_DYNAMIC_DISPATCH(FindSpreadKernel)(dtype);
}
ReduceKernel find_row_kernel(Op op, DType dtype) {
  return HWY_DYNAMIC_DISPATCH(FindRowKernel)(op, dtype);
}
ReduceKernel find_column_kernel(Op op, DType dtype) {
  return HWY_DYNAMIC_DISPATCH(FindColumnKernel)(op, dtype);
}

}  // namespace fluxion::cpu_backend
#endif
