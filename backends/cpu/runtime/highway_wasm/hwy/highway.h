// <hwy/highway.h> for WebAssembly, where Highway 1.0 has no vectors of doubles though the processor
// has: what the backend's kernels use of them. CMake puts this folder before Highway's own. The
// functions are declared and documented as Highway's for float.
#include_next <hwy/highway.h>

#if HWY_TARGET == HWY_WASM && !HWY_HAVE_FLOAT64 && !defined(FLUXION_HIGHWAY_WASM_F64)
#define FLUXION_HIGHWAY_WASM_F64

HWY_BEFORE_NAMESPACE();
namespace hwy {
namespace HWY_NAMESPACE {

template <size_t N>
using F64 = Vec128<double, N>;
template <size_t N>
using MaskF64 = Mask128<double, N>;

template <size_t N, HWY_IF_LE128(double, N)>
HWY_API F64<N> Set(Simd<double, N, 0>, const double t) {
  return {wasm_f64x2_splat(t)};
}

template <size_t N>
HWY_API F64<N> operator+(const F64<N> a, const F64<N> b) {
  return {wasm_f64x2_add(a.raw, b.raw)};
}
template <size_t N>
HWY_API F64<N> operator-(const F64<N> a, const F64<N> b) {
  return {wasm_f64x2_sub(a.raw, b.raw)};
}
template <size_t N>
HWY_API F64<N> operator*(const F64<N> a, const F64<N> b) {
  return {wasm_f64x2_mul(a.raw, b.raw)};
}
template <size_t N>
HWY_API F64<N> operator/(const F64<N> a, const F64<N> b) {
  return {wasm_f64x2_div(a.raw, b.raw)};
}

template <size_t N>
HWY_API MaskF64<N> operator==(const F64<N> a, const F64<N> b) {
  return {wasm_f64x2_eq(a.raw, b.raw)};
}
template <size_t N>
HWY_API MaskF64<N> operator!=(const F64<N> a, const F64<N> b) {
  return {wasm_f64x2_ne(a.raw, b.raw)};
}
template <size_t N>
HWY_API MaskF64<N> operator>(const F64<N> a, const F64<N> b) {
  return {wasm_f64x2_gt(a.raw, b.raw)};
}
template <size_t N>
HWY_API MaskF64<N> operator<=(const F64<N> a, const F64<N> b) {
  return {wasm_f64x2_le(a.raw, b.raw)};
}
template <size_t N>
HWY_API MaskF64<N> operator>=(const F64<N> a, const F64<N> b) {
  return {wasm_f64x2_ge(a.raw, b.raw)};
}

template <size_t N>
HWY_API F64<N> Abs(const F64<N> v) {
  return {wasm_f64x2_abs(v.raw)};
}
template <size_t N>
HWY_API F64<N> Sqrt(const F64<N> v) {
  return {wasm_f64x2_sqrt(v.raw)};
}
template <size_t N>
HWY_API F64<N> Round(const F64<N> v) {
  return {wasm_f64x2_nearest(v.raw)};
}
template <size_t N>
HWY_API F64<N> Trunc(const F64<N> v) {
  return {wasm_f64x2_trunc(v.raw)};
}
template <size_t N>
HWY_API F64<N> Ceil(const F64<N> v) {
  return {wasm_f64x2_ceil(v.raw)};
}
template <size_t N>
HWY_API F64<N> Floor(const F64<N> v) {
  return {wasm_f64x2_floor(v.raw)};
}

// a < b ? a : b and a > b ? a : b.
template <size_t N>
HWY_API F64<N> Min(const F64<N> a, const F64<N> b) {
  return {wasm_f64x2_pmin(b.raw, a.raw)};
}
template <size_t N>
HWY_API F64<N> Max(const F64<N> a, const F64<N> b) {
  return {wasm_f64x2_pmax(b.raw, a.raw)};
}

template <size_t N>
HWY_API F64<N> MulAdd(const F64<N> mul, const F64<N> x, const F64<N> add) {
  return mul * x + add;
}
template <size_t N>
HWY_API F64<N> NegMulAdd(const F64<N> mul, const F64<N> x, const F64<N> add) {
  return add - mul * x;
}

template <size_t N>
HWY_API double GetLane(const F64<N> v) {
  return wasm_f64x2_extract_lane(v.raw, 0);
}

template <size_t N, HWY_IF_LE128(double, N)>
HWY_API F64<N> PromoteTo(Simd<double, N, 0>, const Vec128<float, N> v) {
  return {wasm_f64x2_promote_low_f32x4(v.raw)};
}
template <size_t N>
HWY_API Vec128<float, N> DemoteTo(Simd<float, N, 0>, const F64<N> v) {
  return Vec128<float, N>{wasm_f32x4_demote_f64x2_zero(v.raw)};
}

}  // namespace HWY_NAMESPACE
}  // namespace hwy
HWY_AFTER_NAMESPACE();
#endif
