// The elementary functions of shaders: f32 against the standard library in f64, in units of the
// last place, over random bits and over the range where each function bends; then special values.
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "backends/vulkan/backend.h"
#include "backends/vulkan/spirv/math.h"
#include "backends/vulkan/spirv/module.h"
#include "engine/graph/op_names.h"
#include "tests/catch.h"
#include "tests/vulkan/run_work.h"
#include "tests/vulkan/valid_spirv.h"

namespace {

using namespace fluxion;
using namespace fluxion::testing;
using namespace fluxion::vulkan_backend::spirv;
using fluxion::vulkan_backend::KernelWork;

constexpr std::uint32_t math_points = 1 << 16;
constexpr float math_infinity = std::numeric_limits<float>::infinity();
const std::vector<float> special_numbers{
    0,     -0.0f, 1,      -1,      math_infinity, -math_infinity, std::nanf(""),
    0.5f,  2,     1e-30f, -1e-30f, 3.4e38f,       -3.4e38f,       1e-10f,
    100,   -100,  88.7f,  89,      -87,           0.625f,         8192,
    -8192, 1e8f,  3,      -3};

float number_of(std::uint32_t bits) { return std::bit_cast<float>(bits); }
std::uint32_t bits_of_number(float number) { return std::bit_cast<std::uint32_t>(number); }

// The bits of op at each element of the operands.
Words computed(const Device& device, Op op, const std::vector<Words>& operands, Type from = F32,
               Type to = F32) {
  namespace vk = vulkan_backend;
  const auto points = static_cast<std::uint32_t>(operands[0].size());
  const vk::ShaderTarget target = vk::logical_device(device)->facts().shaders;
  Module m(target, std::string(to_string(op)), {64, 1, 1});
  const Value i = m.global_id(0);
  m.if_then(i < points, [&] {
    std::vector<Value> values;
    for (std::uint32_t k = 0; k < operands.size(); ++k) {
      const Value bits = m.buffer(k, U32).load(i);
      values.push_back(from == Bool ? bits != 0 : bitcast(from, bits));
    }
    const Value result = elementwise(op, to, values);
    m.buffer(static_cast<std::uint32_t>(operands.size()), U32)
        .store(i, result.type() == Bool ? convert(U32, result) : bitcast(U32, result));
  });
  KernelWork work;
  work.shaders.push_back(m.finish());
  require_valid(work, target);
  std::vector<Words> buffers = operands;
  buffers.push_back(Words(points));
  vk::Dispatch dispatch;
  dispatch.groups = {(points + 63) / 64, 1, 1};
  for (std::size_t k = 0; k < buffers.size(); ++k)
    dispatch.bindings.push_back({vk::BindingKind::buffer, static_cast<std::int32_t>(k), 0,
                                 4 * static_cast<std::int64_t>(points), k < operands.size(),
                                 k == operands.size()});
  work.dispatches.push_back(dispatch);
  return run_work(device, work, buffers).back();
}

bool is_subnormal(float x) { return x != 0 && std::abs(x) < std::numeric_limits<float>::min(); }

// How many units of the last place `got` is from `want`; a large number where infinities, NaN or
// the sign of a zero differ. Numbers below 2^-126 count as zero.
double units_off(float got, double want) {
  constexpr double wrong = 1e9;
  if (std::isnan(want)) return std::isnan(got) ? 0 : wrong;
  if (std::isnan(got)) return wrong;
  if (want == 0) return got == 0 && std::signbit(got) == std::signbit(want) ? 0 : wrong;
  if (std::abs(want) < 0x1p-126) return std::abs(got) <= 0x1p-126f ? 0 : wrong;
  const float rounded = static_cast<float>(want);
  if (std::isinf(rounded) || std::isinf(got)) {
    // Near the largest number, either is near.
    constexpr double largest = 0x1.fffff8p127;
    const bool near = std::abs(want) >= largest && std::abs(want) <= 0x1.000001p128 &&
                      std::abs(static_cast<double>(got)) >= largest &&
                      std::signbit(got) == std::signbit(want);
    return got == rounded || near ? 0 : wrong;
  }
  return std::abs(got - want) / std::ldexp(1.0, std::ilogb(want) - 23);
}

struct OneOperand {
  Op op;
  double (*want)(double);
  float low, high;  // where it bends
  double units;     // allowed
};

struct TwoOperands {
  Op op;
  double (*want)(double, double);
  double units;
};

double want_sigmoid(double x) {
  const double e = std::exp(-std::abs(x));
  return (x < 0 ? e : 1) / (1 + e);
}

TEST_CASE("f32 functions of one operand are good to a few units everywhere", "[vulkan][spirv]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) {
    WARN("skipped: no software device");
    return;
  }
  const std::vector<OneOperand> functions{
      {Op::exp, std::exp, -110, 95, 1.5},
      {Op::expm1, std::expm1, -30, 95, 2},
      {Op::log, std::log, 0, 4, 1.5},
      {Op::log1p, std::log1p, -1, 3, 1.5},
      {Op::sin, std::sin, -10000, 10000, 2},
      {Op::cos, std::cos, -10000, 10000, 2},
      {Op::tanh, std::tanh, -12, 12, 2},
      {Op::sigmoid, want_sigmoid, -100, 100, 2},
      {Op::sigmoid_slope, [](double x) { return want_sigmoid(x) * want_sigmoid(-x); }, -100, 100,
       2},
      {Op::erf, std::erf, -5, 5, 2},
      {Op::erfc, std::erfc, -5, 11, 2},
      {Op::sqrt, std::sqrt, 0, 100, 1},
      {Op::rsqrt, [](double x) { return 1 / std::sqrt(x); }, 0, 100, 2.5},
      {Op::floor, std::floor, -100, 100, 0},
      {Op::abs, std::abs, -100, 100, 0},
      {Op::neg, [](double x) { return -x; }, -100, 100, 0},
      {Op::sign, [](double x) { return x > 0   ? 1
                                       : x < 0 ? -1
                                               : x; }, -100, 100, 0},
  };
  std::mt19937 engine(7);
  for (const OneOperand& function : functions) {
    Words x(math_points);
    std::uniform_real_distribution<float> bend(function.low, function.high);
    for (std::uint32_t i = 0; i < math_points; ++i)
      x[i] = i % 2 ? static_cast<std::uint32_t>(engine()) : bits_of_number(bend(engine));
    for (std::size_t i = 0; i < special_numbers.size(); ++i)
      x[i] = bits_of_number(special_numbers[i]);
    const Words y = computed(*device, function.op, {x});
    double worst = 0;
    float at = 0;
    for (std::uint32_t i = 0; i < math_points; ++i) {
      if (is_subnormal(number_of(x[i]))) continue;
      const double off = units_off(number_of(y[i]), function.want(number_of(x[i])));
      if (off > worst) worst = off, at = number_of(x[i]);
    }
    INFO(to_string(function.op) << "(" << at << ") is off by " << worst << " units");
    CHECK(worst <= function.units);
  }
}

TEST_CASE("f32 functions of two operands are good to a few units everywhere", "[vulkan][spirv]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) {
    WARN("skipped: no software device");
    return;
  }
  const std::vector<TwoOperands> functions{
      {Op::pow, std::pow, 1.5},
      {Op::atan2, std::atan2, 2},
      {Op::hypot, std::hypot, 1.5},
      {Op::add, [](double a, double b) { return a + b; }, 0.51},
      {Op::sub, [](double a, double b) { return a - b; }, 0.51},
      {Op::mul, [](double a, double b) { return a * b; }, 0.51},
      {Op::div, [](double a, double b) { return a / b; }, 2.5},
      {Op::strong_mul, [](double a, double b) { return a == 0 || b == 0 ? 0 : a * b; }, 0.51},
      {Op::strong_div, [](double a, double b) { return a == 0 || std::isinf(b) ? 0 : a / b; }, 2.5},
      {Op::maximum,
       [](double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN : std::max(a, b); }, 0},
      {Op::minimum,
       [](double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN : std::min(a, b); }, 0},
  };
  std::mt19937 engine(11);
  std::uniform_real_distribution<float> small(0, 3), wide(-40, 40), near_one(0.9f, 1.1f);
  for (const TwoOperands& function : functions) {
    Words x(math_points), y(math_points);
    for (std::uint32_t i = 0; i < math_points; ++i) {
      const std::uint32_t random_x = static_cast<std::uint32_t>(engine()),
                          random_y = static_cast<std::uint32_t>(engine());
      x[i] = i % 4 == 0   ? random_x
             : i % 4 == 1 ? bits_of_number(small(engine))
             : i % 4 == 2 ? bits_of_number(near_one(engine))
                          : bits_of_number(wide(engine));
      y[i] = i % 4 == 0   ? random_y
             : i % 4 == 3 ? bits_of_number(std::round(small(engine) * 3 - 4))
                          : bits_of_number(wide(engine) * (i % 4 == 2 ? 20 : 1));
    }
    const std::size_t count = special_numbers.size();
    for (std::size_t i = 0; i < count * count; ++i) {
      x[i] = bits_of_number(special_numbers[i / count]);
      y[i] = bits_of_number(special_numbers[i % count]);
    }
    const Words z = computed(*device, function.op, {x, y});
    double worst = 0;
    float at_x = 0, at_y = 0;
    for (std::uint32_t i = 0; i < math_points; ++i) {
      const float a = number_of(x[i]), b = number_of(y[i]);
      if (is_subnormal(a) || is_subnormal(b)) continue;
      // (Either zero may be the larger one.)
      if (a == 0 && b == 0 && (function.op == Op::maximum || function.op == Op::minimum)) continue;
      const double off = units_off(number_of(z[i]), function.want(a, b));
      if (off > worst) worst = off, at_x = a, at_y = b;
    }
    INFO(to_string(function.op) << "(" << at_x << ", " << at_y << ") is off by " << worst);
    CHECK(worst <= function.units);
  }
}

TEST_CASE("comparisons with NaN are false in shaders, but ne", "[vulkan][spirv]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) {
    WARN("skipped: no software device");
    return;
  }
  Words x, y;
  for (const float a : special_numbers)
    for (const float b : special_numbers) {
      x.push_back(bits_of_number(a));
      y.push_back(bits_of_number(b));
    }
  const auto check = [&](Op op, bool (*want)(float, float)) {
    const Words z = computed(*device, op, {x, y}, F32, Bool);
    for (std::size_t i = 0; i < x.size(); ++i) {
      INFO(to_string(op) << "(" << number_of(x[i]) << ", " << number_of(y[i]) << ")");
      CHECK((z[i] != 0) == want(number_of(x[i]), number_of(y[i])));
    }
  };
  check(Op::lt, [](float a, float b) { return a < b; });
  check(Op::le, [](float a, float b) { return a <= b; });
  check(Op::gt, [](float a, float b) { return a > b; });
  check(Op::ge, [](float a, float b) { return a >= b; });
  check(Op::eq, [](float a, float b) { return a == b; });
  check(Op::ne, [](float a, float b) { return a != b; });
}

TEST_CASE("integers wrap, shift and compare as integers in shaders", "[vulkan][spirv]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) {
    WARN("skipped: no software device");
    return;
  }
  std::mt19937 engine(3);
  const Words corners{0, 1, 2, 3, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF, 0xFFFFFFFE, 17};
  Words x, y;
  for (const std::uint32_t a : corners)
    for (const std::uint32_t b : corners) x.push_back(a), y.push_back(b);
  for (int i = 0; i < 500; ++i)
    x.push_back(static_cast<std::uint32_t>(engine())),
        y.push_back(static_cast<std::uint32_t>(engine()) >> engine() % 32);
  const auto check = [&](Op op, Type type, bool to_boolean,
                         std::uint32_t (*want)(std::uint32_t, std::uint32_t)) {
    const bool one = info(op).inputs == 1;
    const Words z = computed(*device, op, one ? std::vector<Words>{x} : std::vector<Words>{x, y},
                             type, to_boolean ? Bool : type);
    for (std::size_t i = 0; i < x.size(); ++i) {
      INFO(to_string(op) << "(" << x[i] << ", " << y[i] << ")");
      CHECK(z[i] == want(x[i], y[i]));
    }
  };
  using U = std::uint32_t;
  using I = std::int32_t;
  for (const Type type : {U32, I32}) {
    check(Op::add, type, false, [](U a, U b) { return a + b; });
    check(Op::sub, type, false, [](U a, U b) { return a - b; });
    check(Op::mul, type, false, [](U a, U b) { return a * b; });
    check(Op::neg, type, false, [](U a, U) { return 0 - a; });
  }
  check(Op::abs, I32, false, [](U a, U) { return I(a) < 0 ? 0 - a : a; });
  check(Op::sign, I32, false, [](U a, U) { return U(I(a) > 0) - U(I(a) < 0); });
  check(Op::sign, U32, false, [](U a, U) { return U(a > 0); });
  check(Op::maximum, I32, false, [](U a, U b) { return I(a) < I(b) ? b : a; });
  check(Op::maximum, U32, false, [](U a, U b) { return a < b ? b : a; });
  check(Op::minimum, I32, false, [](U a, U b) { return I(a) < I(b) ? a : b; });
  check(Op::minimum, U32, false, [](U a, U b) { return a < b ? a : b; });
  check(Op::shift_right, U32, false, [](U a, U b) { return a >> (b & 31); });
  check(Op::lt, I32, true, [](U a, U b) { return U(I(a) < I(b)); });
  check(Op::lt, U32, true, [](U a, U b) { return U(a < b); });
  check(Op::ge, I32, true, [](U a, U b) { return U(I(a) >= I(b)); });
  check(Op::ge, U32, true, [](U a, U b) { return U(a >= b); });
  check(Op::eq, I32, true, [](U a, U b) { return U(a == b); });
}

TEST_CASE("false is below true in shaders", "[vulkan][spirv]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) {
    WARN("skipped: no software device");
    return;
  }
  const Words x{0, 0, 1, 1}, y{0, 1, 0, 1};
  const auto check = [&](Op op, const Words& want) {
    INFO(to_string(op));
    CHECK(computed(*device, op, {x, y}, Bool, Bool) == want);
  };
  check(Op::lt, {0, 1, 0, 0});
  check(Op::le, {1, 1, 0, 1});
  check(Op::gt, {0, 0, 1, 0});
  check(Op::ge, {1, 0, 1, 1});
  check(Op::eq, {1, 0, 0, 1});
  check(Op::ne, {0, 1, 1, 0});
}

TEST_CASE("conversions in shaders truncate, saturate and take NaN to zero", "[vulkan][spirv]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) {
    WARN("skipped: no software device");
    return;
  }
  Words floats;
  for (const float x : special_numbers) floats.push_back(bits_of_number(x));
  for (const float x : {2147483520.0f, 2147483648.0f, -2147483648.0f, -2147483904.0f, 4294967040.0f,
                        4294967296.0f, 0.99f, -0.99f, 1.5f, -1.5f, 255.5f, 16777217.0f})
    floats.push_back(bits_of_number(x));
  const Words as_i32 = computed(*device, Op::convert, {floats}, F32, I32);
  const Words as_u32 = computed(*device, Op::convert, {floats}, F32, U32);
  const Words as_bool = computed(*device, Op::convert, {floats}, F32, Bool);
  for (std::size_t i = 0; i < floats.size(); ++i) {
    const float x = number_of(floats[i]);
    INFO(x);
    const double whole = std::isnan(x) ? 0 : std::trunc(static_cast<double>(x));
    CHECK(static_cast<std::int32_t>(as_i32[i]) ==
          static_cast<std::int32_t>(std::clamp(whole, -2147483648.0, 2147483647.0)));
    CHECK(as_u32[i] == static_cast<std::uint32_t>(std::clamp(whole, 0.0, 4294967295.0)));
    CHECK((as_bool[i] != 0) == (x != 0));
  }
  const Words integers{0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 16777217, 16777219, 123456789};
  const Words signed_floats = computed(*device, Op::convert, {integers}, I32, F32);
  const Words unsigned_floats = computed(*device, Op::convert, {integers}, U32, F32);
  for (std::size_t i = 0; i < integers.size(); ++i) {
    CHECK(number_of(signed_floats[i]) ==
          static_cast<float>(static_cast<std::int32_t>(integers[i])));
    CHECK(number_of(unsigned_floats[i]) == static_cast<float>(integers[i]));
  }
}

TEST_CASE("shaders round to bf16 and f16 as the host does, for every exponent", "[vulkan][spirv]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) {
    WARN("skipped: no software device");
    return;
  }
  namespace vk = vulkan_backend;
  Words x;
  std::mt19937 engine(5);
  for (std::uint32_t upper = 0; upper < 65536; upper += 7)
    for (const std::uint32_t lower : {0u, 0x8000u, 0x7FFFu, 0x8001u, 0x1000u, 0x3000u})
      x.push_back(upper << 16 | lower);
  for (int i = 0; i < 20000; ++i) x.push_back(static_cast<std::uint32_t>(engine()));
  const auto points = static_cast<std::uint32_t>(x.size());
  Module m(vk::logical_device(*device)->facts().shaders, "halves", {64, 1, 1});
  const Value i = m.global_id(0);
  m.if_then(i < points, [&] {
    const Value bits = m.buffer(0, U32).load(i), number = bitcast(F32, bits);
    m.buffer(1, U32).store(i, to_bf16(number) | (to_f16(number) << 16));
    m.buffer(2, U32).store(i, bitcast(U32, from_f16(bits & 0xFFFF)));
  });
  KernelWork work;
  work.shaders.push_back(m.finish());
  require_valid(work, m.target());
  vk::Dispatch dispatch;
  dispatch.groups = {(points + 63) / 64, 1, 1};
  for (std::int32_t k = 0; k < 3; ++k)
    dispatch.bindings.push_back(
        {vk::BindingKind::buffer, k, 0, 4 * std::int64_t{points}, k == 0, k > 0});
  work.dispatches.push_back(dispatch);
  const std::vector<Words> got = run_work(*device, work, {x, Words(points), Words(points)});
  int bf16_wrong = 0, f16_wrong = 0, back_wrong = 0;
  for (std::size_t k = 0; k < x.size(); ++k) {
    const float number = number_of(x[k]);
    const bool subnormal = is_subnormal(number);
    bf16_wrong += !subnormal && (got[1][k] & 0xFFFF) != to_bf16(number).bits;
    f16_wrong += !subnormal && got[1][k] >> 16 != to_f16(number).bits;
    const float back = to_f32(Float16{static_cast<std::uint16_t>(x[k] & 0xFFFF)});
    back_wrong += got[2][k] != bits_of_number(back);
  }
  CHECK(bf16_wrong == 0);
  CHECK(f16_wrong == 0);
  CHECK(back_wrong == 0);
}

}  // namespace
