#include "backends/vulkan/spirv/math.h"

#include <spirv/unified1/GLSL.std.450.h>

#include <limits>

#include "backends/vulkan/spirv/module.h"

namespace fluxion::vulkan_backend::spirv {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

Value constant_of(Value like, float number) { return like.module().f32(number); }

// c0 + c1 x + c2 x^2 + ..
Value polynomial(Value x, std::initializer_list<float> coefficients) {
  const float* c = coefficients.end();
  Value sum = constant_of(x, *--c);
  while (c != coefficients.begin()) sum = fma(sum, x, constant_of(x, *--c));
  return sum;
}

Value clamped(Value x, float low, float high) {
  return x.module().extended(GLSLstd450FClamp, F32,
                             {x.id(), constant_of(x, low).id(), constant_of(x, high).id()});
}

Value bits_of(Value x) { return bitcast(U32, x); }
// The first twelve bits, of which products are exact.
Value upper(Value x) { return bitcast(F32, bits_of(x) & 0xFFFFF000u); }
Value with_sign_of(Value magnitude, Value sign) {
  return bitcast(F32, (bits_of(magnitude) & 0x7FFFFFFFu) | (bits_of(sign) & 0x80000000u));
}

// 2^n for an i32 n in [-126, 127].
Value power_of_two(Value n) { return bitcast(F32, (n + 127) << n.module().i32(23)); }

// y 2^n for whole n in [-252, 254], an f32. Two scalings, so that subnormals round once and the top
// binade does not overflow early.
Value times_power_of_two(Value y, Value n) {
  const Value exponent = convert(I32, n), half = exponent >> 1;
  return y * power_of_two(half) * power_of_two(exponent - half);
}

// The first part of ln 2 has nine bits, so that small integers times it are exact.
constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f, inverse_ln2 = 1.44269504f;

// e^r - 1, |r| <= ln 2 / 2.
Value expm1_near_zero(Value r) {
  // (e^r - 1 - r) / r^2, |r| <= ln 2 / 2
  const Value g = polynomial(r, {0.5000000078f, 0.1666666686f, 0.04166626851f, 0.008333264105f,
                                 0.001394617658f, 0.0001991852493f});
  return fma(r * r, g, r);
}

struct ReducedExponential {
  Value minus_one;  // e^r - 1
  Value n;          // whole, f32
};

// x = n ln 2 + r with |r| <= ln 2 / 2.
ReducedExponential reduced_exponential(Value x) {
  const Value n = round_even(x * inverse_ln2), minus_n = -n;
  const Value r = fma(minus_n, constant_of(x, ln2_high), x);
  return {expm1_near_zero(fma(minus_n, constant_of(x, ln2_low), r)), n};
}

// log of a positive normal number, plus a small correction (log1p's rounding error of 1 + x).
Value log_normal(Value x, Value exponent_shift, Value correction) {
  Module& m = x.module();
  // x = 2^e m with m in [sqrt(1/2), sqrt(2)): subtracting the bits of sqrt(1/2) makes the exponent
  // field count from there.
  const Value bits = bitcast(I32, x) - m.i32(0x3F3504F3);
  const Value e = convert(F32, bits >> 23) + exponent_shift;
  const Value f = bitcast(F32, (bits & 0x007FFFFF) + m.i32(0x3F3504F3)) - 1;
  const Value f2 = f * f;
  // (log(1 + f) - f + f^2 / 2) / f^3, sqrt(1/2) <= 1 + f <= sqrt(2)
  const Value g =
      polynomial(f, {0.3333331045f, -0.2499998658f, 0.2000222632f, -0.1666925182f, 0.1421866379f,
                     -0.1238433504f, 0.1187292598f, -0.1178986555f, 0.06915541185f});
  Value tail = fma(e, constant_of(x, ln2_low), correction);
  tail = fma(f2 * f, g, tail);
  tail = fma(constant_of(x, -0.5f), f2, tail);
  return fma(e, constant_of(x, ln2_high), f + tail);
}

// The values of log and log1p where the argument of the logarithm, u, is zero, negative, infinite
// or NaN.
Value log_special(Value u, Value y) {
  y = select(has_bits_of(u, infinity), constant_of(u, infinity), y);
  y = select(u == 0, constant_of(u, -infinity), y);
  y = select(u < 0, constant_of(u, not_a_number), y);
  return select(is_nan(u), u, y);
}

// ---- numbers of two f32, high + low

struct Pair {
  Value high, low;
};

// a + b exactly, |a| >= |b| or a = 0.
Pair quick_sum(Value a, Value b) {
  const Value sum = a + b;
  return {sum, b - (sum - a)};
}
// a + b exactly.
Pair two_sum(Value a, Value b) {
  const Value sum = a + b, of_b = sum - a;
  return {sum, (a - (sum - of_b)) + (b - of_b)};
}
// a b exactly: T. J. Dekker, "A Floating-Point Technique for Extending the Available Precision"
// (1971).
Pair two_product(Value a, Value b) {
  const Value product = a * b, a1 = upper(a), a2 = a - a1, b1 = upper(b), b2 = b - b1;
  return {product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2};
}
// 1 / b to about 2^-33, |b| in [2^-60, 2^60], of a quotient that may be off by some units: with its
// first twelve bits, q, the rest 1 - q b is exact. The upper part is q.
Pair reciprocal(Pair b) {
  const Value quotient = 1 / b.high, q = upper(quotient), b1 = upper(b.high), b2 = b.high - b1;
  const Value rest = ((1 - q * b1) - q * b2) - q * b.low;
  return {q, rest * quotient};
}

// Not what the instruction gives for zeros, negative and subnormal numbers, infinities and NaN.
Value is_positive_normal(Value x) { return bits_of(x) - 0x00800000u < 0x7F000000u; }
Value instruction_square_root(Value x) {
  return x.module().extended(GLSLstd450Sqrt, F32, {x.id()}, true);
}

// ---- sine and cosine

struct ReducedAngle {
  Value remainder;  // f32, |remainder| <= pi / 4 or little more
  Value quarters;   // u32, of which the last two bits count
};

// x = quarters pi/2 + remainder, |x| < 8192. The first parts of pi/2 have eleven bits or fewer, so
// that their multiples are exact, and so are the first two differences.
ReducedAngle reduce_small_angle(Value x) {
  const Value n = round_even(x * 0.636619772f);
  const Value near = (x - n * 1.5703125f) - n * 0x1.fb4p-12f;
  const Value third = n * 0x1.444p-24f, sum = near - third;
  const Value lost = (near - sum) - third;  // of that difference
  return {sum + (lost - n * 0x1.68c234p-39f), bitcast(U32, convert(I32, n))};
}

// The same for any finite |x| >= 2^-8, in integers, after M. Payne and R. Hanek, "Radian Reduction
// for Trigonometric Functions" (1983): x 2/pi modulo 4 is the significand of x times a window of
// the bits of 2/pi.
ReducedAngle reduce_large_angle(Value x) {
  Module& m = x.module();
  const Value bits = bits_of(x) & 0x7FFFFFFFu;
  const Value significand = (bits & 0x007FFFFFu) | 0x00800000u;
  // x is significand 2^(e - 23). Bits of 2/pi that weigh 2^(25 - e) or more give multiples of 4. A
  // word of zeros before the others leaves room for e < 25.
  const Value start = (bits >> 23) - (127 - 7);
  const Value word = start >> 5, shift = start & 31;
  constexpr std::array<std::uint32_t, 8> two_over_pi{
      0, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041, 0xFE5163AB};
  std::array<Value, 4> words;
  for (std::uint32_t j = 0; j < 4; ++j) {
    words[j] = m.u32(two_over_pi[j + 4]);
    for (std::uint32_t q = 4; q-- > 0;)
      words[j] = select(word == q, m.u32(two_over_pi[j + q]), words[j]);
  }
  std::array<Value, 3> window;
  for (std::size_t j = 0; j < 3; ++j)
    window[j] = (words[j] << shift) | ((words[j + 1] >> 1) >> (m.u32(31) - shift));
  // The 64 highest bits of the product modulo 2^96: two of quarters, then the fraction.
  const Product middle = multiply_extended(significand, window[1]);
  const Value carried = multiply_high(significand, window[2]);
  const Value low = middle.low + carried;
  const Value high =
      significand * window[0] + middle.high + select(low < carried, m.u32(1), m.u32(0));
  const Value quarters = (high + 0x20000000u) >> 30;
  // The signed rest as sign and magnitude.
  const Value rest = high - (quarters << 30);
  const Value negative = bitcast(I32, rest) < 0;
  const Value low_magnitude = select(negative, m.u32(0) - low, low);
  const Value high_magnitude = select(negative, ~rest + select(low == 0, m.u32(1), m.u32(0)), rest);
  const Value tiny = high_magnitude == 0;
  const Value top = max(select(tiny, low_magnitude, high_magnitude), 1);
  const Value below = select(tiny, m.u32(0), low_magnitude);
  const Value last = bitcast(U32, m.extended(GLSLstd450FindUMsb, U32, {top.id()}));
  const Value zeros = m.u32(31) - last;
  const Value leading = (top << zeros) | ((below >> 1) >> (m.u32(31) - zeros));
  // leading 2^-30 2^-zeros, and 2^-32 more if the upper word was 0
  const Value exponent = m.u32(127 - 30) - zeros - select(tiny, m.u32(32), m.u32(0));
  // In two parts, since one f32 has room for 24 of the 32 bits; then times pi/2.
  const Value scale = bitcast(F32, exponent << 23);
  const Value fraction = convert(F32, leading & 0xFFFFFF00u) * scale,
              fraction_low = convert(F32, leading & 0xFFu) * scale;
  const Pair product = two_product(fraction, m.f32(1.57079637f));
  const Value r = product.high +
                  (product.low + fma(fraction, m.f32(-4.37113883e-8f), fraction_low * 1.57079637f));
  const Value flip = bits_of(x) & 0x80000000u;
  const Value signed_r =
      bitcast(F32, bits_of(r) ^ flip ^ select(negative, m.u32(0x80000000u), m.u32(0)));
  return {signed_r, select(flip == 0, quarters, m.u32(0) - quarters)};
}

// sin(x + quarter pi/2)
Value sine_of_quarter(Value x, std::uint32_t quarter) {
  Module& m = x.module();
  const Variable remainder = m.variable(F32), quarters = m.variable(U32);
  const auto keep = [&](const ReducedAngle& angle) {
    remainder.set(angle.remainder);
    quarters.set(angle.quarters);
  };
  m.if_else(
      absolute(x) < 8192, [&] { keep(reduce_small_angle(x)); },
      [&] { keep(reduce_large_angle(x)); });
  const Value r = remainder.get(), n = quarters.get() + quarter;
  const Value s = r * r;
  // (sin r - r) / r^3 and (cos r - 1 + r^2/2) / r^4, |r| <= pi / 4
  const Value sine =
      fma(s * r,
          polynomial(s, {-0.1666666664f, 0.008333329362f, -0.0001983932714f, 2.71823731e-6f}), r);
  const Value cosine =
      fma(s * s, polynomial(s, {0.04166664675f, -0.001388736145f, 2.443773046e-5f}),
          fma(m.f32(-0.5f), s, m.f32(1)));
  const Value y = select((n & 1) != 0, cosine, sine);
  const Value with_sign = bitcast(F32, bits_of(y) ^ ((n & 2) << 30));
  return select(is_finite(x), with_sign, m.f32(not_a_number));
}

// ---- pow

Pair times(Pair a, Pair b) {
  const Pair product = two_product(a.high, b.high);
  return quick_sum(product.high, product.low + (a.high * b.low + a.low * b.high));
}

// log2 of a positive normal number to about 2^-34: 2 artanh s = 2 s (1 + z/3 + z^2/5 + ..) with
// s = (m - 1) / (m + 1) and z = s^2.
Pair log2_pair(Value x, Value exponent_shift) {
  Module& m = x.module();
  const Value bits = bitcast(I32, x) - m.i32(0x3F3504F3);
  const Value e = convert(F32, bits >> 23) + exponent_shift;
  const Value mantissa = bitcast(F32, (bits & 0x007FFFFF) + m.i32(0x3F3504F3));
  const Value above = mantissa - 1, below = mantissa + 1, below_low = mantissa - (below - 1);
  const Value ratio = above / below;
  const Pair back = two_product(ratio, below);
  const Value rest = ((above - back.high) - back.low) - ratio * below_low;
  const Pair s = quick_sum(ratio, rest / below);
  const Pair z = times(s, s);
  const Pair third = times(z, {m.f32(0.333333343f), m.f32(-9.93410776e-9f)});
  const Value q =
      polynomial(z.high, {0.2f, 0.142857143f, 0.111111111f, 0.0909090909f, 0.0769230769f});
  const Pair sum = quick_sum(m.f32(1), third.high);
  const Pair series = quick_sum(sum.high, sum.low + (third.low + z.high * z.high * q));
  // 2 / ln 2
  const Pair scaled = times(s, {m.f32(2.88539004f), m.f32(3.85192596e-8f)});
  const Pair fraction = times(scaled, series);
  const Pair whole = two_sum(e, fraction.high);
  return quick_sum(whole.high, whole.low + fraction.low);
}

}  // namespace

Value is_nan(Value a) { return (bits_of(a) & 0x7FFFFFFFu) > 0x7F800000u; }
Value is_finite(Value a) { return (bits_of(a) & 0x7F800000u) != 0x7F800000u; }
Value has_bits_of(Value a, float number) {
  return bits_of(a) == std::bit_cast<std::uint32_t>(number);
}

Value exp(Value x) {
  // Below -104 e^x rounds to 0; above 89 it is infinite.
  const ReducedExponential e = reduced_exponential(clamped(x, -104, 89));
  return select(is_nan(x), x, times_power_of_two(e.minus_one + 1, e.n));
}

Value exp_moderate(Value x) {
  const ReducedExponential e = reduced_exponential(x);
  return (e.minus_one + 1) * power_of_two(convert(I32, e.n));
}

Value expm1(Value x) {
  const ReducedExponential e = reduced_exponential(clamped(x, -25, 89));
  // 2^n p + (2^n - 1), halved while it is formed so that n = 128 fits.
  const Value scale = power_of_two(convert(I32, e.n) - 1);
  const Value half = fma(scale, e.minus_one, scale - 0.5f);
  // Where x^2 does not change x, return x. Keeps -0, subnormals and NaN.
  return select((absolute(x) < 1e-8f) | is_nan(x), x, half + half);
}

Value log(Value x) {
  const Value subnormal = x < std::numeric_limits<float>::min();
  const Value scaled = select(subnormal, x * 33554432.0f, x);  // 2^25
  return log_special(x,
                     log_normal(scaled, select(subnormal, constant_of(x, -25), constant_of(x, 0)),
                                constant_of(x, 0)));
}

Value log1p(Value x) {
  const Value u = x + 1;
  // 1 + x = u + lost; log(u + lost) = log u + lost / u. Which of 1 and x is larger decides how
  // `lost` is found exactly.
  const Value lost = select(x > 1, 1 - (u - x), x - (u - 1));
  // Near 1, where lost / u is much of the result, no quotient is needed.
  const Value above = u - 1;
  const Value part = select(absolute(above) < 0x1p-12f, lost - lost * above, lost / u);
  const Value y = log_special(u, log_normal(u, constant_of(x, 0), part));
  return select(absolute(x) < 1e-8f, x, y);
}

Value sin(Value x) { return select(x == 0, x, sine_of_quarter(x, 0)); }  // keeps -0
Value cos(Value x) { return sine_of_quarter(x, 1); }

Value tanh(Value x) {
  const Value magnitude = absolute(x), s = x * x;
  // (tanh x - x) / x^3, |x| <= 0.625
  const Value g = polynomial(s, {-0.3333333091f, 0.1333320977f, -0.05394720462f, 0.02170296881f,
                                 -0.00818267771f, 0.002147540129f});
  const Value near = fma(s * x, g, x);
  // 1 - 2 / (e^2x + 1), which rounds to 1 from 9.02 on
  const Value e = exp_moderate(clamped(magnitude + magnitude, 0, 20)) + 1;
  const Value rough = 1 / e, part = fma(fma(-rough, e, constant_of(x, 1)), rough, rough);
  const Value far = 1 - (part + part);
  // (The sign last: llvmpipe with LLVM 15 may compile a choice between x and what has its sign to
  // neither.)
  return with_sign_of(select(is_nan(x), x, select(magnitude < 0.625f, near, far)), x);
}

namespace {

// e = e^-|x| in two parts, and 1 + e. e is at most 1: it can't overflow, and keeps what is left of
// the tails.
struct SigmoidParts {
  Pair e, one_plus;
};
SigmoidParts sigmoid_parts(Value x) {
  const ReducedExponential reduced = reduced_exponential(clamped(-absolute(x), -104, 0));
  const Pair sum = quick_sum(constant_of(x, 1), reduced.minus_one);
  const Pair e{times_power_of_two(sum.high, reduced.n), times_power_of_two(sum.low, reduced.n)};
  const Pair one_plus = quick_sum(constant_of(x, 1), e.high);
  return {e, {one_plus.high, one_plus.low + e.low}};
}

}  // namespace

// 1 / (1 + e), or e / (1 + e) for x < 0.
Value sigmoid(Value x) {
  const auto [e, one_plus] = sigmoid_parts(x);
  const Pair parts = reciprocal(one_plus), y = quick_sum(parts.high, parts.low);
  const Value of_negative = e.high * y.high + (e.high * y.low + e.low * y.high);
  return select(is_nan(x), x, select(x < 0, of_negative, y.high));
}

// e / (1 + e)^2, corrected by what is left of e after the product with the square.
Value sigmoid_slope(Value x) {
  const auto [e, one_plus] = sigmoid_parts(x);
  Pair square = two_product(one_plus.high, one_plus.high);
  square.low = square.low + 2 * one_plus.high * one_plus.low;
  const Value reciprocal = 1 / square.high, y = e.high * reciprocal;
  const Pair back = two_product(y, square.high);
  const Value rest = ((e.high - back.high) - back.low) + (e.low - y * square.low);
  return select(is_nan(x), x, y + rest * reciprocal);
}

Value erf(Value x) {
  const Value magnitude = absolute(x), s = x * x;
  // erf(x) / x - 1, |x| <= 1
  const Value g =
      polynomial(s, {0.1283791671f, -0.3761263843f, 0.1128378197f, -0.02686540005f, 0.005220945445f,
                     -0.0008482829024f, 0.0001125694919f, -9.641519694e-6f});
  // (Scaled, so that x g is not flushed to zero where x is not.)
  const Value scaled = x * 0x1p24f, near = fma(scaled, g, scaled) * 0x1p-24f;
  // log(erfc(t)), 0.98 <= t <= 4; erf rounds to 1 from 3.92 on
  const Value t = clamped(magnitude, 0, 4);
  const Value q =
      polynomial(t, {0.0001884684285f, -1.129580314f, -0.6332163929f, -0.1084221032f,
                     0.02521034172f, -0.004205285398f, 0.0004414727672f, -2.16976229e-5f});
  const Value far = with_sign_of(1 - exp_moderate(q), x);
  return select(is_nan(x), x, select(magnitude < 1, near, far));
}

// e^(-t^2) times a function of t = |x| that varies little. From 10.06 on it rounds to 0. The parts
// that would err by a unit each are pairs: without a fused multiply-add they add up.
Value erfc(Value x) {
  const Value one = constant_of(x, 1), t = clamped(absolute(x), 0, 10.5f);
  // w = 1 / (1 + 0.425 t), with what its rounding and the division lose.
  const Pair product = two_product(t, constant_of(x, 0.425f)), below = two_sum(one, product.high);
  const Value w = one / below.high;
  const Pair back = two_product(w, below.high);
  const Value w_low = w * (((one - back.high) - back.low) - w * (below.low + product.low));
  const Value u = (one - (w + w)) - (w_low + w_low);
  // e^(t^2) erfc(t) / w, 0 <= t <= 10.2, is a constant of two f32 and u times the polynomial.
  const Pair varying = two_product(
      u, polynomial(u, {-0.32935905f, 0.17282246f, -0.055131286f, 0.0034224845f, 0.004872508f,
                        -0.0011121645f, -0.00056939485f, 0.00014964605f, 8.120432e-05f}));
  const Pair sum = quick_sum(constant_of(x, 0.44461155f), varying.high);
  const Value sum_low = sum.low + (varying.low - 4.0755683e-09f);
  const Pair g = two_product(w, sum.high);
  const Value g_low = g.low + (w * sum_low + w_low * sum.high);
  // t^2 = h^2 + (t - h) (t + h): of h, the first twelve bits of t, the square is exact.
  const Value h = bitcast(F32, bits_of(t) & 0xFFFFF000u);
  const Value high = h * h, low = (t - h) * (t + h);
  const Value n = round_even((high + low) * -inverse_ln2);
  const Pair rest = two_sum(-fma(n, constant_of(x, ln2_high), high), -low),
             r = two_sum(rest.high, n * -ln2_low);
  Pair e = quick_sum(one, expm1_near_zero(r.high));
  e.low = e.low + (rest.low + r.low) * e.high;
  const Pair scaled = two_product(g.high, e.high);
  const Value y =
      times_power_of_two(scaled.high + (scaled.low + (g.high * e.low + g_low * e.high)), n);
  return select(is_nan(x), x, select(x < 0, 2 - y, y));
}

// The instruction may be off by 4.5 units: r gives the first bits, h, and the root is
// h + (m - h^2) / (h + root). m in [1/2, 2) is x without an even power of two.
Value square_root(Value x) {
  const Value bits = bits_of(x);
  const Value m = bitcast(F32, (bits & 0x00FFFFFFu) + 0x3F000000u);
  const Value r = instruction_square_root(m), h = upper(r);
  const Value root = h + (m - h * h) / (h + r);
  const Value scale = bitcast(F32, ((bits >> 24) << 23) + 0x20000000u);
  return select(is_positive_normal(x), root * scale, instruction_square_root(x));
}

// (The instruction is good to 2 units, and defined for positive numbers only.)
Value reciprocal_square_root(Value x) {
  const Value y = x.module().extended(GLSLstd450InverseSqrt, F32, {x.id()}, true);
  return select(is_positive_normal(x), y, 1 / instruction_square_root(x));
}

Value divide(Value a, Value b) {
  // A reciprocal below 2^-126 might be flushed to zero.
  const Value scale = select(absolute(b) > 0x1p125f, constant_of(b, 0x1p-32f), constant_of(b, 1));
  return (a * scale) / (b * scale);
}

Value pow(Value x, Value y) {
  Module& m = x.module();
  const Value base = absolute(x), subnormal = base < std::numeric_limits<float>::min();
  const Pair logarithm = log2_pair(select(subnormal, base * 33554432.0f, base),
                                   select(subnormal, m.f32(-25), m.f32(0)));
  // Beyond 2^40 every base but 1 gives 0 or infinity.
  const Value exponent = clamped(y, -0x1p40f, 0x1p40f);
  const Pair product = two_product(exponent, logarithm.high);
  const Pair power = quick_sum(product.high, product.low + exponent * logarithm.low);
  const Value high = clamped(power.high, -160, 160), n = round_even(high);
  const Value f = (high - n) + clamped(power.low, -1, 1);
  Value result = times_power_of_two(expm1_near_zero(f * 0.693147182f) + 1, n);

  const Value zero = x == 0, endless = has_bits_of(base, infinity), y_negative = y < 0;
  result = select(zero | endless, select(zero == y_negative, m.f32(infinity), m.f32(0)), result);
  const Value whole = (absolute(y) >= 8388608.0f) | (floor(y) == y);
  const Value odd = whole & (absolute(y) < 16777216.0f) &
                    ((convert(I32, clamped(y, -16777216, 16777216)) & 1) != 0);
  const Value negative = bitcast(I32, x) < 0;
  result = select(negative & odd, -result, result);
  result = select((x < 0) & !endless & !whole, m.f32(not_a_number), result);
  result = select(is_nan(x), x, select(is_nan(y), y, result));
  return select((y == 0) | (x == 1), m.f32(1), result);
}

Value atan2(Value y, Value x) {
  Module& m = x.module();
  const Value rise = absolute(y), run = absolute(x), steep = rise > run;
  const Value longer = select(steep, rise, run), shorter = select(steep, run, rise);
  // Both times the power of two that takes the longer one to [2, 4); the shorter one times 2^24
  // too, so that what its parts lack is not flushed to zero.
  const Value unit =
      bitcast(F32, min(m.u32(0x7F800000u) - (bits_of(longer) & 0x7F800000u), 0x7F000000u));
  const Value divisor = longer * unit, dividend = shorter * unit * 0x1p24f;
  const Pair per = reciprocal({divisor, m.f32(0)});
  const Value first = upper(dividend);
  const Value quotient =
      (first * per.high + ((dividend - first) * per.high + dividend * per.low)) * 0x1p-24f;
  const Value endless = has_bits_of(longer, infinity);
  const Value of_endless = select(has_bits_of(shorter, infinity), m.f32(1), m.f32(0));
  const Value ratio = select(endless, of_endless, select(divisor == 0, m.f32(0), quotient));
  const Value s = ratio * ratio;
  // (atan(t) / t - 1) / t^2, 0 <= t <= 1
  const Value g = polynomial(s, {-0.3333333224f, 0.199999322f, -0.1428425087f, 0.1109520247f,
                                 -0.08988792132f, 0.07269384387f, -0.0547044892f, 0.03470466098f,
                                 -0.01647145985f, 0.004999318363f, -0.0007113051384f});
  const Value near = fma(ratio * s, g, ratio);
  const Value backward = bitcast(I32, x) < 0;
  // Quarter turns less or plus the angle from the nearest axis.
  const Value turned = select(steep == backward, near, -near);
  const Value angle = select(steep, m.f32(1.57079637f) + (turned - 4.37113883e-8f),
                             select(backward, m.f32(3.14159274f) - (near + 8.74227766e-8f), near));
  return select(is_nan(x), x, with_sign_of(select(is_nan(y), y, angle), y));
}

// Powers of two scale both sides where the square of the longer one would leave the normal numbers;
// squares of the shorter one that do are too small to count. Infinity wins over NaN, as in C.
Value hypot(Value x, Value y) {
  Module& m = x.module();
  const Value a = absolute(x), b = absolute(y), longer = select(a < b, b, a);
  const Value large = longer > 0x1p48f, small = longer < 0x1p-48f;
  const auto choose = [&](float of_large, float of_small) {
    return select(large, m.f32(of_large), select(small, m.f32(of_small), m.f32(1)));
  };
  const Value scale = choose(0x1p-96f, 0x1p96f);
  const Value p = a * scale, q = b * scale;
  const Value length = square_root(p * p + q * q) * choose(0x1p96f, 0x1p-96f);
  return select(has_bits_of(a, infinity) | has_bits_of(b, infinity), m.f32(infinity), length);
}

// Comparisons with NaN are false: a stays if it is NaN, b must be asked.
Value maximum(Value a, Value b) {
  if (!a.type().is_float()) return max(a, b);
  return select((a < b) | is_nan(b), b, a);
}
Value minimum(Value a, Value b) {
  if (!a.type().is_float()) return min(a, b);
  return select((b < a) | is_nan(b), b, a);
}

Value strong_product(Value a, Value b) {
  return select((a == 0) | (b == 0), constant_of(a, 0), a * b);
}
Value strong_quotient(Value a, Value b) {
  const Value zero = (a == 0) | has_bits_of(absolute(b), infinity);
  return select(zero, constant_of(a, 0), divide(a, b));
}

}  // namespace fluxion::vulkan_backend::spirv
