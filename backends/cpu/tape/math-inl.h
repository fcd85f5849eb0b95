// Elementary functions on Highway vectors, compiled once per target. f32 has its own range
// reductions and polynomials, good to two units in the last place - sigmoid to three, its slope to
// five, erfc to six - with *relative* accuracy in the tails; f64, which exists for checking
// derivatives, calls the standard library lane by lane.
//
// The polynomials were fitted for this file by Remez exchange on the reduced intervals named beside
// them, minimising the relative error of the function; errors before rounding are below 6e-9.
// Reductions follow W. J. Cody and W. Waite, "Software Manual for the Elementary Functions" (1980).
#if defined(FLUXION_CPU_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FLUXION_CPU_MATH_INL_H_
#undef FLUXION_CPU_MATH_INL_H_
#else
#define FLUXION_CPU_MATH_INL_H_
#endif

#include <hwy/highway.h>

#include <cmath>
#include <limits>

HWY_BEFORE_NAMESPACE();
namespace fluxion::cpu_backend {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// ---- lane by lane: functions without a vector form

template <class D, class V, class F>
HWY_INLINE V each_lane(D d, V x, F f) {
  using T = hn::TFromD<D>;
  HWY_ALIGN T lanes[hn::MaxLanes(D())];
  hn::Store(x, d, lanes);
  for (size_t i = 0; i < hn::Lanes(d); ++i) lanes[i] = f(lanes[i]);
  return hn::Load(d, lanes);
}

template <class D, class V, class F>
HWY_INLINE V each_lane(D d, V x, V y, F f) {
  using T = hn::TFromD<D>;
  HWY_ALIGN T left[hn::MaxLanes(D())];
  HWY_ALIGN T right[hn::MaxLanes(D())];
  hn::Store(x, d, left);
  hn::Store(y, d, right);
  for (size_t i = 0; i < hn::Lanes(d); ++i) left[i] = f(left[i], right[i]);
  return hn::Load(d, left);
}

// c0 + c1 x + c2 x^2 + ..
template <class D, class V>
HWY_INLINE V polynomial(D d, V, float c) {
  return hn::Set(d, c);
}
template <class D, class V, class... C>
HWY_INLINE V polynomial(D d, V x, float c0, C... higher) {
  return hn::MulAdd(polynomial(d, x, higher...), x, hn::Set(d, c0));
}

// ---- f32

template <class D>
using Float32 = hwy::EnableIf<hwy::IsSame<hn::TFromD<D>, float>()>*;
template <class D>
using Float64 = hwy::EnableIf<hwy::IsSame<hn::TFromD<D>, double>()>*;

// The bounds let NaN pass.
template <class D, class V>
HWY_INLINE V not_below(D d, float low, V x) {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  return hn::IfThenElse(hn::Lt(x, hn::Set(d, low)), hn::Set(d, low), x);
#else  // x86 returns the second operand where either is NaN, others NaN
  return hn::Max(hn::Set(d, low), x);
#endif
}
template <class D, class V>
HWY_INLINE V not_above(D d, float high, V x) {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  return hn::IfThenElse(hn::Gt(x, hn::Set(d, high)), hn::Set(d, high), x);
#else
  return hn::Min(hn::Set(d, high), x);
#endif
}

// An integer n as a number, and as 1.5 * 2^23 + n, whose last bits are those of n.
template <class V>
struct Exponent {
  V n, shifted;
};

// The integer nearest to x y, |x y| < 2^22.
template <class D, class V>
HWY_INLINE Exponent<V> nearest_to_product(D d, V x, float y) {
  const V shift = hn::Set(d, 12582912.0f);
  const V shifted = hn::MulAdd(x, hn::Set(d, y), shift);
  return {hn::Sub(shifted, shift), shifted};
}

// 2^(n + more) for integers in [-126, 127].
template <class D, class V>
HWY_INLINE V power_of_two(D d, const Exponent<V>& exponent, int more = 0) {
  const hn::RebindToSigned<D> di;
  return hn::BitCast(d, hn::Add(hn::ShiftLeft<23>(hn::BitCast(di, exponent.shifted)),
                                hn::Set(di, (127 + more) << 23)));
}

#if HWY_TARGET == HWY_AVX3
// It has an instruction for y 2^n, which rounds once.
template <class D>
using ScalesItself = hwy::EnableIf<hn::MaxLanes(D()) == 16>*;
template <class D>
using ScalesByProducts = hwy::EnableIf<hn::MaxLanes(D()) != 16>*;

template <class D, class V, ScalesItself<D> = nullptr>
HWY_INLINE V times_power_of_two(D, V y, const Exponent<V>& exponent) {
  return V{_mm512_scalef_ps(y.raw, exponent.n.raw)};
}
template <class D, class V, ScalesItself<D> = nullptr>
HWY_INLINE V times_small_power_of_two(D, V y, const Exponent<V>& exponent) {
  return V{_mm512_scalef_ps(y.raw, exponent.n.raw)};
}
#else
template <class D>
using ScalesByProducts = void*;
#endif

// y 2^n for integers n in [-252, 254]. Two scalings, so that subnormals round once and the top
// binade does not overflow early.
template <class D, class V, ScalesByProducts<D> = nullptr>
HWY_INLINE V times_power_of_two(D d, V y, const Exponent<V>& exponent) {
  const hn::RebindToSigned<D> di;
  // Half of 1.5 * 2^23 has nine last bits of zero too.
  const auto all = hn::BitCast(di, exponent.shifted), half = hn::ShiftRight<1>(all);
  const auto power = [&](auto n) {
    return hn::BitCast(d, hn::Add(hn::ShiftLeft<23>(n), hn::Set(di, 127 << 23)));
  };
  return hn::Mul(hn::Mul(y, power(half)), power(hn::Sub(all, half)));
}

// y 2^n for integers n in [-190, 0].
template <class D, class V, ScalesByProducts<D> = nullptr>
HWY_INLINE V times_small_power_of_two(D d, V y, const Exponent<V>& exponent) {
  return hn::Mul(hn::Mul(y, power_of_two(d, exponent, 64)), hn::Set(d, 0x1p-64f));
}

// The first part of ln 2 has nine bits, so that small integers times it are exact.
constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f, inverse_ln2 = 1.44269504f;

// e^r - 1, |r| <= ln 2 / 2.
template <class D, class V>
HWY_INLINE V expm1_near_zero(D d, V r) {
  // (e^r - 1 - r) / r^2, |r| <= ln 2 / 2
  const V g = polynomial(d, r, 0.5000000078f, 0.1666666686f, 0.04166626851f, 0.008333264105f,
                         0.001394617658f, 0.0001991852493f);
  return hn::MulAdd(hn::Mul(r, r), g, r);
}

// x = n ln 2 + r with |r| <= ln 2 / 2: returns e^r - 1 and n.
template <class D, class V>
HWY_INLINE V exp_reduced_minus_one(D d, V x, Exponent<V>& exponent) {
  exponent = nearest_to_product(d, x, inverse_ln2);
  const V r = hn::NegMulAdd(exponent.n, hn::Set(d, ln2_high), x);
  return expm1_near_zero(d, hn::NegMulAdd(exponent.n, hn::Set(d, ln2_low), r));
}

// e^x for x in [-87, 88]: no special values but NaN, no subnormal results.
template <class D, class V>
HWY_INLINE V exp_moderate(D d, V x) {
  Exponent<V> exponent;
  const V p = exp_reduced_minus_one(d, x, exponent);
  return hn::Mul(hn::Add(p, hn::Set(d, 1.0f)), power_of_two(d, exponent));
}

template <class D, class V, Float32<D> = nullptr>
HWY_INLINE V exp(D d, V x) {
  // Below -104 e^x rounds to 0; above 89 it is infinite.
  Exponent<V> exponent;
  const V p = exp_reduced_minus_one(d, not_above(d, 89.0f, not_below(d, -104.0f, x)), exponent);
  return times_power_of_two(d, hn::Add(p, hn::Set(d, 1.0f)), exponent);
}

// e^x for x <= 0, with the same bits.
template <class D, class V, Float32<D> = nullptr>
HWY_INLINE V exp_not_positive(D d, V x) {
  Exponent<V> exponent;
  const V p = exp_reduced_minus_one(d, not_below(d, -104.0f, x), exponent);
  return times_small_power_of_two(d, hn::Add(p, hn::Set(d, 1.0f)), exponent);
}

template <class D, class V, Float32<D> = nullptr>
HWY_INLINE V expm1(D d, V x) {
  const V clamped = not_above(d, 89.0f, not_below(d, -25.0f, x));
  Exponent<V> exponent;
  const V p = exp_reduced_minus_one(d, clamped, exponent);
  // 2^n p + (2^n - 1), halved while it is formed so that n = 128 fits.
  const V scale = power_of_two(d, exponent, -1);
  const V half = hn::MulAdd(scale, p, hn::Sub(scale, hn::Set(d, 0.5f)));
  // Where x^2 does not change x, return x. Keeps -0 and subnormals.
  return hn::IfThenElse(hn::Lt(hn::Abs(x), hn::Set(d, 1e-8f)), x, hn::Add(half, half));
}

// log of a positive normal number, plus a small correction (log1p's rounding error of 1 + x).
template <class D, class V>
HWY_INLINE V log_normal(D d, V x, V exponent_shift, V correction) {
  const hn::RebindToSigned<D> di;
  // x = 2^e m with m in [sqrt(1/2), sqrt(2)): subtracting the bits of sqrt(1/2) makes the exponent
  // field count from there.
  const auto bits = hn::Sub(hn::BitCast(di, x), hn::Set(di, 0x3F3504F3));
  const V e = hn::Add(hn::ConvertTo(d, hn::ShiftRight<23>(bits)), exponent_shift);
  const V m =
      hn::BitCast(d, hn::Add(hn::And(bits, hn::Set(di, 0x007FFFFF)), hn::Set(di, 0x3F3504F3)));
  const V f = hn::Sub(m, hn::Set(d, 1.0f));
  const V f2 = hn::Mul(f, f);
  // (log(1 + f) - f + f^2 / 2) / f^3, sqrt(1/2) <= 1 + f <= sqrt(2)
  const V g =
      polynomial(d, f, 0.3333331045f, -0.2499998658f, 0.2000222632f, -0.1666925182f, 0.1421866379f,
                 -0.1238433504f, 0.1187292598f, -0.1178986555f, 0.06915541185f);
  V tail = hn::MulAdd(e, hn::Set(d, -2.12194440e-4f), correction);
  tail = hn::MulAdd(hn::Mul(f2, f), g, tail);
  tail = hn::NegMulAdd(hn::Set(d, 0.5f), f2, tail);
  return hn::MulAdd(e, hn::Set(d, 0.693359375f), hn::Add(f, tail));
}

// The values of log and log1p where the argument of the logarithm, u, is zero, negative, infinite
// or NaN.
template <class D, class V>
HWY_INLINE V log_special(D d, V u, V y) {
  const V infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  const V zero = hn::Zero(d);
  y = hn::IfThenElse(hn::Eq(u, infinity), infinity, y);
  y = hn::IfThenElse(hn::Eq(u, zero), hn::Neg(infinity), y);
  y = hn::IfThenElse(hn::Lt(u, zero), hn::Set(d, std::numeric_limits<float>::quiet_NaN()), y);
  return hn::IfThenElse(hn::IsNaN(u), u, y);
}

template <class D, class V, Float32<D> = nullptr>
HWY_INLINE V log(D d, V x) {
  const auto subnormal = hn::Lt(x, hn::Set(d, std::numeric_limits<float>::min()));
  const V scaled = hn::IfThenElse(subnormal, hn::Mul(x, hn::Set(d, 33554432.0f)), x);  // 2^25
  return log_special(
      d, x, log_normal(d, scaled, hn::IfThenElseZero(subnormal, hn::Set(d, -25.0f)), hn::Zero(d)));
}

template <class D, class V, Float32<D> = nullptr>
HWY_INLINE V log1p(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  const V u = hn::Add(one, x);
  // 1 + x = u + lost; log(u + lost) = log u + lost / u. Which of 1 and x is larger decides how
  // `lost` is found exactly.
  const V lost =
      hn::IfThenElse(hn::Gt(x, one), hn::Sub(one, hn::Sub(u, x)), hn::Sub(x, hn::Sub(u, one)));
  const V y = log_special(d, u, log_normal(d, u, hn::Zero(d), hn::Div(lost, u)));
  return hn::IfThenElse(hn::Lt(hn::Abs(x), hn::Set(d, 1e-8f)), x, y);
}

// sin(x + quarter pi/2). The reduction runs in f64, where n times the leading 33 bits of pi/2 is
// exact up to 1.6e6; beyond, and for infinities, std.
template <class D, class V>
HWY_INLINE V sine_of_quarter(D d, V x, int quarter) {
  const auto standard = [quarter](float lane) { return quarter ? std::cos(lane) : std::sin(lane); };
#if HWY_TARGET == HWY_SCALAR  // has no halves
  return each_lane(d, x, standard);
#else
  const hn::RebindToSigned<D> di;
  const hn::Half<D> dh;
  const hn::Rebind<double, decltype(dh)> dd;
  const hn::Rebind<int32_t, decltype(dd)> dhi;
  const auto inverse = hn::Set(dd, 0.63661977236758134308);  // 2 / pi
  const auto high = hn::Set(dd, 1.57079632673412561417);     // 33 bits of pi / 2
  const auto low = hn::Set(dd, 6.07710050650619224932e-11);  // pi / 2 - high
  const auto x0 = hn::PromoteTo(dd, hn::LowerHalf(dh, x)),
             x1 = hn::PromoteTo(dd, hn::UpperHalf(dh, x));
  const auto n0 = hn::Round(hn::Mul(x0, inverse)), n1 = hn::Round(hn::Mul(x1, inverse));
  const auto r0 = hn::NegMulAdd(n0, low, hn::NegMulAdd(n0, high, x0)),
             r1 = hn::NegMulAdd(n1, low, hn::NegMulAdd(n1, high, x1));
  const V r = hn::Combine(d, hn::DemoteTo(dh, r1), hn::DemoteTo(dh, r0));
  const auto n =
      hn::Add(hn::Combine(di, hn::DemoteTo(dhi, n1), hn::DemoteTo(dhi, n0)), hn::Set(di, quarter));
  const V s = hn::Mul(r, r);
  // (sin r - r) / r^3 and (cos r - 1 + r^2/2) / r^4, |r| <= pi / 4
  const V sine = hn::MulAdd(
      hn::Mul(s, r),
      polynomial(d, s, -0.1666666664f, 0.008333329362f, -0.0001983932714f, 2.71823731e-6f), r);
  const V cosine =
      hn::MulAdd(hn::Mul(s, s), polynomial(d, s, 0.04166664675f, -0.001388736145f, 2.443773046e-5f),
                 hn::NegMulAdd(hn::Set(d, 0.5f), s, hn::Set(d, 1.0f)));
  const auto odd = hn::RebindMask(d, hn::Ne(hn::And(n, hn::Set(di, 1)), hn::Zero(di)));
  const V sign = hn::BitCast(d, hn::ShiftLeft<30>(hn::And(n, hn::Set(di, 2))));
  const V y = hn::Xor(hn::IfThenElse(odd, cosine, sine), sign);
  const auto near = hn::Le(hn::Abs(x), hn::Set(d, 1.6e6f));
  if (HWY_LIKELY(hn::AllTrue(d, near))) return y;
  return hn::IfThenElse(near, y, each_lane(d, x, standard));
#endif
}

template <class D, class V, Float32<D> = nullptr>
HWY_INLINE V sin(D d, V x) {
  return hn::IfThenElse(hn::Eq(x, hn::Zero(d)), x, sine_of_quarter(d, x, 0));  // keeps -0
}
template <class D, class V, Float32<D> = nullptr>
HWY_INLINE V cos(D d, V x) {
  return sine_of_quarter(d, x, 1);
}

template <class D, class V, Float32<D> = nullptr>
HWY_INLINE V tanh(D d, V x) {
  const V magnitude = hn::Abs(x);
  const V s = hn::Mul(x, x);
  // (tanh x - x) / x^3, |x| <= 0.625
  const V g = polynomial(d, s, -0.3333333091f, 0.1333320977f, -0.05394720462f, 0.02170296881f,
                         -0.00818267771f, 0.002147540129f);
  const V near = hn::MulAdd(hn::Mul(s, x), g, x);
  // 1 - 2 / (e^2x + 1), which rounds to 1 from 9.02 on
  const V twice = not_above(d, 20.0f, hn::Add(magnitude, magnitude));
  const V e = hn::Add(exp_moderate(d, twice), hn::Set(d, 1.0f));
  const V far = hn::Sub(hn::Set(d, 1.0f), hn::Div(hn::Set(d, 2.0f), e));
  return hn::CopySign(hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 0.625f)), near, far), x);
}

template <class D, class V, Float32<D> = nullptr>
HWY_INLINE V erf(D d, V x) {
  const V magnitude = hn::Abs(x);
  const V s = hn::Mul(x, x);
  // erf(x) / x - 1, |x| <= 1
  const V g = polynomial(d, s, 0.1283791671f, -0.3761263843f, 0.1128378197f, -0.02686540005f,
                         0.005220945445f, -0.0008482829024f, 0.0001125694919f, -9.641519694e-6f);
  const V near = hn::MulAdd(x, g, x);
  // log(erfc(t)), 0.98 <= t <= 4; erf rounds to 1 from 3.92 on
  const V t = not_above(d, 4.0f, magnitude);
  const V q = polynomial(d, t, 0.0001884684285f, -1.129580314f, -0.6332163929f, -0.1084221032f,
                         0.02521034172f, -0.004205285398f, 0.0004414727672f, -2.16976229e-5f);
  const V far = hn::CopySign(hn::Sub(hn::Set(d, 1.0f), exp_moderate(d, q)), x);
  return hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 1.0f)), near, far);
}

// x^2 - square, the rounding error of square = x x.
template <class D, class V>
HWY_INLINE V error_of_square(D d, V x, V square) {
#if HWY_NATIVE_FMA
  (void)d;
  return hn::MulSub(x, x, square);
#else  // x^2 = h^2 + (x - h) (x + h): of h, the first twelve bits of x, the square is exact
  const hn::RebindToUnsigned<D> du;
  const V h = hn::BitCast(d, hn::And(hn::BitCast(du, x), hn::Set(du, 0xFFFFF000u)));
  return hn::Add(hn::Sub(hn::Mul(h, h), square), hn::Mul(hn::Sub(x, h), hn::Add(x, h)));
#endif
}

// erfc(x) and the bell curve e^(-x^2), which erfc is times a function of |x| that varies little;
// from 10.06 on it rounds to 0. (Either function alone gives the same bits, and the bell those of
// exp(-(x x)).)
template <class V>
struct ErfcAndBell {
  V erfc, bell;
};
template <class D, class V, Float32<D> = nullptr>
HWY_INLINE ErfcAndBell<V> erfc_and_bell(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  const V t = not_above(d, 10.5f, hn::Abs(x));
  const V w = hn::Div(one, hn::MulAdd(t, hn::Set(d, 0.425f), one));
  const V u = hn::MulAdd(w, hn::Set(d, -2.0f), one);
  // e^(t^2) erfc(t) / w, 0 <= t <= 10.2
  const V g =
      hn::Mul(w, polynomial(d, u, 0.4446115494f, -0.3293590546f, 0.1728224903f, -0.05513115972f,
                            0.003422215348f, 0.004871973302f, -0.001111454447f, -0.0005684368662f,
                            0.0001490826544f, 8.05624295e-05f));
  const V square = hn::Mul(t, t);
  Exponent<V> exponent;
  const V p = exp_reduced_minus_one(d, hn::Neg(square), exponent), e = hn::Add(p, one);
  // The square is rounded, by an error that e^-error = 1 - error makes good.
  const V q = hn::NegMulAdd(error_of_square(d, t, square), e, p);
  const V y = times_small_power_of_two(d, hn::MulAdd(q, g, g), exponent);
  return {hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Sub(hn::Set(d, 2.0f), y), y),
          times_small_power_of_two(d, e, exponent)};
}
template <class D, class V, Float32<D> = nullptr>
HWY_INLINE V erfc(D d, V x) {
  return erfc_and_bell(d, x).erfc;
}

// ---- f64

template <class D, class V, Float64<D> = nullptr>
HWY_INLINE V exp(D d, V x) {
  return each_lane(d, x, [](double lane) { return std::exp(lane); });
}
template <class D, class V, Float64<D> = nullptr>
HWY_INLINE V exp_not_positive(D d, V x) {
  return exp(d, x);
}
template <class D, class V, Float64<D> = nullptr>
HWY_INLINE V expm1(D d, V x) {
  return each_lane(d, x, [](double lane) { return std::expm1(lane); });
}
template <class D, class V, Float64<D> = nullptr>
HWY_INLINE V log(D d, V x) {
  return each_lane(d, x, [](double lane) { return std::log(lane); });
}
template <class D, class V, Float64<D> = nullptr>
HWY_INLINE V log1p(D d, V x) {
  return each_lane(d, x, [](double lane) { return std::log1p(lane); });
}
template <class D, class V, Float64<D> = nullptr>
HWY_INLINE V sin(D d, V x) {
  return each_lane(d, x, [](double lane) { return std::sin(lane); });
}
template <class D, class V, Float64<D> = nullptr>
HWY_INLINE V cos(D d, V x) {
  return each_lane(d, x, [](double lane) { return std::cos(lane); });
}
template <class D, class V, Float64<D> = nullptr>
HWY_INLINE V tanh(D d, V x) {
  return each_lane(d, x, [](double lane) { return std::tanh(lane); });
}
template <class D, class V, Float64<D> = nullptr>
HWY_INLINE V erf(D d, V x) {
  return each_lane(d, x, [](double lane) { return std::erf(lane); });
}
template <class D, class V, Float64<D> = nullptr>
HWY_INLINE V erfc(D d, V x) {
  return each_lane(d, x, [](double lane) { return std::erfc(lane); });
}

// ---- both

// sigmoid(x) and sigmoid_slope(x) from one exponential and one division. e = e^-|x| is at most 1:
// it can't overflow, and keeps what is left of the tails. (Either function alone gives the same
// bits.)
template <class V>
struct SigmoidAndSlope {
  V value, slope;
};
template <class D, class V>
HWY_INLINE SigmoidAndSlope<V> sigmoid_and_slope(D d, V x) {
  const V one = hn::Set(d, hn::TFromD<D>(1)), e = exp_not_positive(d, hn::Neg(hn::Abs(x)));
  const V most = hn::Div(one, hn::Add(one, e)), least = hn::Mul(e, most);
  return {hn::IfThenElse(hn::Lt(x, hn::Zero(d)), least, most), hn::Mul(least, most)};
}
template <class D, class V, Float64<D> = nullptr>
HWY_INLINE ErfcAndBell<V> erfc_and_bell(D d, V x) {
  return {erfc(d, x), exp_not_positive(d, hn::Neg(hn::Mul(x, x)))};
}
template <class D, class V>
HWY_INLINE V bell(D d, V x) {
  return exp_not_positive(d, hn::Neg(hn::Mul(x, x)));
}

template <class D, class V>
HWY_INLINE V sigmoid(D d, V x) {
  return sigmoid_and_slope(d, x).value;
}
template <class D, class V>
HWY_INLINE V sigmoid_slope(D d, V x) {
  return sigmoid_and_slope(d, x).slope;
}

template <class D, class V>
HWY_INLINE V pow(D d, V x, V y) {
  return each_lane(d, x, y, [](auto base, auto exponent) { return std::pow(base, exponent); });
}
template <class D, class V>
HWY_INLINE V atan2(D d, V y, V x) {
  return each_lane(d, y, x, [](auto rise, auto run) { return std::atan2(rise, run); });
}
// Powers of two scale both sides where the square of the longer one would leave the normal numbers;
// squares of the shorter one that do are too small to count. Infinity wins over NaN, as in C.
template <class D, class V>
HWY_INLINE V hypot(D d, V x, V y) {
  using T = hn::TFromD<D>;
  const T large = std::ldexp(T{1}, std::numeric_limits<T>::max_exponent / 8 * 3), small = 1 / large;
  const V a = hn::Abs(x), b = hn::Abs(y), longer = hn::Max(a, b), infinity = hn::Inf(d);
  const V up = hn::Set(d, large * large), down = hn::Set(d, small * small);
  const V scale =
      hn::IfThenElse(hn::Gt(longer, hn::Set(d, large)), down,
                     hn::IfThenElse(hn::Lt(longer, hn::Set(d, small)), up, hn::Set(d, T{1})));
  const V p = hn::Mul(a, scale), q = hn::Mul(b, scale);
  const V length = hn::Div(hn::Sqrt(hn::Add(hn::Mul(p, p), hn::Mul(q, q))), scale);
  return hn::IfThenElse(hn::Or(hn::Eq(a, infinity), hn::Eq(b, infinity)), infinity, length);
}

}  // namespace HWY_NAMESPACE
}  // namespace fluxion::cpu_backend
HWY_AFTER_NAMESPACE();

#endif  // FLUXION_CPU_MATH_INL_H_
