// The elementary functions of shaders on devices that no test machine has: with the least exact
// division and square roots that Vulkan allows, without subnormals, with and without a fused
// multiply-add. The real math.cpp, on numbers in place of instructions.
#include <array>
#include <cmath>
#include <random>
#include <string>

#include "backends/vulkan/spirv/math.h"
#include "backends/vulkan/spirv/module.h"
#include "tests/catch.h"

namespace fluxion::vulkan_backend::spirv {

Module the_module;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float smallest = std::numeric_limits<float>::min();

// As in tests/vulkan/spirv/test_math.cpp: numbers below 2^-126 count as zero.
double units_between(float got, double want) {
  constexpr double wrong = 1e9;
  if (std::isnan(want) || std::isnan(got)) return std::isnan(want) && std::isnan(got) ? 0 : wrong;
  if (want == 0) return got == 0 && std::signbit(got) == std::signbit(want) ? 0 : wrong;
  if (std::abs(want) < smallest) return std::abs(got) <= 0x1.000004p-126f ? 0 : wrong;
  const auto rounded = static_cast<float>(want);
  if (std::isinf(rounded) || std::isinf(got)) {
    constexpr double largest = 0x1.fffff6p127;
    const bool near = std::abs(want) >= largest && std::abs(want) <= 0x1.000004p128 &&
                      std::abs(static_cast<double>(got)) >= largest &&
                      std::signbit(got) == std::signbit(want);
    return got == rounded || near ? 0 : wrong;
  }
  return std::abs(got - want) / std::ldexp(1.0, std::ilogb(want) - 23);
}

bool is_below_normal(float x) { return x != 0 && std::abs(x) < smallest; }

double exact_sigmoid(double x) {
  const double e = std::exp(-std::abs(x));
  return (x < 0 ? e : 1) / (1 + e);
}

struct Unary {
  std::string name;
  Value (*f)(Value);
  double (*exact)(double);
  float low, high;  // where it bends
  double units;     // allowed
};
struct Binary {
  std::string name;
  Value (*f)(Value, Value);
  double (*exact)(double, double);
  double units;
};

const std::vector<Unary> unary_functions{
    {"exp", exp, std::exp, -110, 95, 1.5},
    {"expm1", expm1, std::expm1, -30, 95, 2},
    {"log", log, std::log, 0, 4, 1.5},
    {"log1p", log1p, std::log1p, -1, 3, 2},
    {"sin", sin, std::sin, -10000, 10000, 2},
    {"cos", cos, std::cos, -10000, 10000, 2},
    {"tanh", tanh, std::tanh, -12, 12, 2},
    {"sigmoid", sigmoid, exact_sigmoid, -100, 100, 2},
    {"sigmoid_slope", sigmoid_slope, [](double x) { return exact_sigmoid(x) * exact_sigmoid(-x); },
     -100, 100, 2},
    {"erf", erf, std::erf, -5, 5, 2},
    {"erfc", erfc, std::erfc, -5, 11, 2},
    {"sqrt", square_root, std::sqrt, 0, 100, 1},
    {"rsqrt", reciprocal_square_root, [](double x) { return 1 / std::sqrt(x); }, 0, 100, 2.5},
};
const std::vector<Binary> binary_functions{
    {"pow", pow, std::pow, 2},
    {"atan2", atan2, std::atan2, 2},
    {"hypot", hypot, std::hypot, 2},
    {"div", divide, [](double a, double b) { return a / b; }, 2.5},
    {"strong_div", strong_quotient,
     [](double a, double b) { return a == 0 || std::isinf(b) ? 0 : a / b; }, 2.5},
};
const std::vector<float> corners{
    0,        -0.0f,     1,        -1,       infinity,  -infinity, std::nanf(""),
    0.5f,     2,         1e-30f,   -1e-30f,  3.4e38f,   -3.4e38f,  1e-10f,
    100,      -100,      88.7f,    89,       -87,       0.625f,    8192,
    -8192,    1e8f,      3,        -3,       1.2e-38f,  -1.2e-38f, 0x1p126f,
    0x1p127f, -0x1p127f, 1.5e-38f, 2.5e-38f, 0x1p-125f, smallest,  0x1.fffffep127f};

template <class F>
void on_all_machines(const F& check) {
  for (const bool fused : {true, false})
    for (const bool flushes : {false, true})
      for (const bool rough : {false, true}) {
        machine = {fused, flushes, rough};
        INFO("fused " << fused << ", flushes " << flushes << ", rough " << rough);
        check();
      }
  machine = {};
}

TEST_CASE("functions of one operand stay within their units on any device", "[vulkan][emulated]") {
  constexpr int points = 1 << 16;
  on_all_machines([&] {
    std::mt19937 engine(7);
    for (const Unary& function : unary_functions) {
      std::uniform_real_distribution<float> bend(function.low, function.high);
      double worst = 0;
      float at = 0;
      for (int i = 0; i < points; ++i) {
        const auto bits = static_cast<std::uint32_t>(engine());
        const float drawn = i % 2 ? std::bit_cast<float>(bits) : bend(engine);
        const auto number = static_cast<std::size_t>(i);
        const float x = number < corners.size() ? corners[number] : drawn;
        if (is_below_normal(x)) continue;
        const float got = std::bit_cast<float>(function.f(Value(x)).bits());
        const double off = units_between(got, function.exact(x));
        if (off > worst) worst = off, at = x;
      }
      INFO(function.name << "(" << at << ") is off by " << worst << " units");
      CHECK(worst <= function.units);
    }
  });
}

TEST_CASE("functions of two operands stay within their units on any device", "[vulkan][emulated]") {
  constexpr int points = 1 << 16;
  on_all_machines([&] {
    std::mt19937 engine(11);
    std::uniform_real_distribution<float> small(0, 3), wide(-40, 40), near_one(0.9f, 1.1f);
    for (const Binary& function : binary_functions) {
      double worst = 0;
      float at_x = 0, at_y = 0;
      for (int i = 0; i < points; ++i) {
        const auto bits_x = static_cast<std::uint32_t>(engine()),
                   bits_y = static_cast<std::uint32_t>(engine());
        const std::array xs{std::bit_cast<float>(bits_x), small(engine), near_one(engine),
                            wide(engine)};
        const std::array ys{std::bit_cast<float>(bits_y), wide(engine), wide(engine) * 20,
                            std::round(small(engine) * 3 - 4)};
        const auto number = static_cast<std::size_t>(i), count = corners.size();
        const bool corner = number < count * count;
        const float x = corner ? corners[number / count] : xs[number % 4],
                    y = corner ? corners[number % count] : ys[number % 4];
        if (is_below_normal(x) || is_below_normal(y)) continue;
        const float got = std::bit_cast<float>(function.f(Value(x), Value(y)).bits());
        const double off = units_between(got, function.exact(x, y));
        if (off > worst) worst = off, at_x = x, at_y = y;
      }
      INFO(function.name << "(" << at_x << ", " << at_y << ") is off by " << worst << " units");
      CHECK(worst <= function.units);
    }
  });
}

TEST_CASE("whole square roots are exact on any device", "[vulkan][emulated]") {
  on_all_machines([&] {
    for (int i = 0; i < 4096; ++i) {
      const auto root = static_cast<float>(i);
      CHECK(square_root(Value(root * root)).number() == root);
    }
  });
}

}  // namespace
}  // namespace fluxion::vulkan_backend::spirv
