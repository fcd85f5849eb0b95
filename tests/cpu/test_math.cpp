// The elementary functions of the CPU backend against the standard library in f64: errors in units
// of the last place over their whole range, and the values at the corners, on every instruction set
// of this processor.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#include "backends/cpu/tape/tape_lanes.h"
#include "engine/graph/op_names.h"
#include "tests/catch.h"
#include "tests/cpu/targets.h"

namespace {

using namespace fluxion;
using namespace fluxion::cpu_backend;
using fluxion::testing::for_each_target;

template <class T>
std::vector<T> evaluate(Op op, const std::vector<T>& x, const std::vector<T>& y = {}) {
  constexpr DType dtype = sizeof(T) == 4 ? DType::f32 : DType::f64;
  const std::size_t padded = (x.size() + 15) / 16 * 16;
  std::vector<T> a = x, b = y, out(padded);
  a.resize(padded, T(1));
  b.resize(padded, T(1));
  const Lanes in[2] = {{reinterpret_cast<const std::byte*>(a.data()), 0, false},
                       {reinterpret_cast<const std::byte*>(b.data()), 0, false}};
  const ApplyKernel kernel = find_apply_kernel(op, dtype, dtype);
  REQUIRE(kernel);
  kernel(reinterpret_cast<std::byte*>(out.data()), 0, in, 1, static_cast<std::int64_t>(padded));
  out.resize(x.size());
  return out;
}

double sigmoid(double x) {
  return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
}

double sigmoid_slope(double x) { return sigmoid(x) * sigmoid(-x); }

// Distance in units of the last place of the f32 nearest to `want`.
double ulps(float got, double want) {
  const float nearest = static_cast<float>(want);
  if (std::isnan(want)) return std::isnan(got) ? 0 : INFINITY;
  if (std::isinf(nearest)) return got == nearest ? 0 : INFINITY;
  const int exponent = std::max(nearest == 0 ? -126 : std::ilogb(nearest), -126);
  return std::abs(got - want) / std::ldexp(1.0, exponent - 23);
}

struct Function {
  const char* name;
  Op op;
  double (*exact)(double);
  double low, high;
  bool logarithmic;  // sample |x| evenly in log x, with both signs where low is negative
  double limit;      // ulps
};

constexpr Function functions[] = {
    {"exp", Op::exp, std::exp, -110, 90, false, 1.5},
    {"exp", Op::exp, std::exp, -1e-30, 1, true, 1.5},
    {"expm1", Op::expm1, std::expm1, -30, 90, false, 2},
    {"expm1", Op::expm1, std::expm1, -1e-38, 20, true, 2},
    {"log", Op::log, std::log, 1e-45, 3.4e38, true, 1.5},
    {"log", Op::log, std::log, 0.4, 2.5, false, 1.5},
    {"log1p", Op::log1p, std::log1p, 1e-38, 3.4e38, true, 1.5},
    {"log1p", Op::log1p, std::log1p, -0.99999, 3, false, 1.5},
    {"sin", Op::sin, std::sin, -100, 100, false, 2},
    {"sin", Op::sin, std::sin, -1e5, 1e5, false, 2},
    {"sin", Op::sin, std::sin, -1e9, 1e9, false, 2},
    {"sin", Op::sin, std::sin, -1e-38, 1, true, 2},
    {"cos", Op::cos, std::cos, -100, 100, false, 2},
    {"cos", Op::cos, std::cos, -1e5, 1e5, false, 2},
    {"cos", Op::cos, std::cos, -1e9, 1e9, false, 2},
    {"tanh", Op::tanh, std::tanh, -12, 12, false, 2},
    {"tanh", Op::tanh, std::tanh, -1e-38, 12, true, 2},
    {"sigmoid", Op::sigmoid, sigmoid, -110, 110, false, 3},
    {"sigmoid", Op::sigmoid, sigmoid, -6, 6, false, 3},
    {"sigmoid_slope", Op::sigmoid_slope, sigmoid_slope, -110, 110, false, 5},
    {"sigmoid_slope", Op::sigmoid_slope, sigmoid_slope, -6, 6, false, 5},
    {"erfc", Op::erfc, std::erfc, -5, 11, false, 6},
    {"erfc", Op::erfc, std::erfc, -1e-37, 5, true, 6},
    {"erf", Op::erf, std::erf, -5, 5, false, 2},
    {"erf", Op::erf, std::erf, -1e-37, 5, true, 2},
    {"sqrt", Op::sqrt, std::sqrt, 1e-45, 3e38, true, 0.5001},
    {"rsqrt", Op::rsqrt, [](double x) { return 1 / std::sqrt(x); }, 1e-38, 3e38, true, 1.5},
};

}  // namespace

TEST_CASE("f32 functions are good to a few units in the last place over their range",
          "[cpu][math]") {
  for_each_target([](const char* target) {
    for (const Function& function : functions) {
      std::mt19937 engine(11);
      std::vector<float> x(100003);
      for (float& value : x) {
        const double u = engine() * 0x1p-32;
        if (!function.logarithmic) {
          value = static_cast<float>(function.low + (function.high - function.low) * u);
        } else {
          const double least = std::abs(function.low);
          value = static_cast<float>(least * std::pow(function.high / least, u));
          if (function.low < 0 && engine() % 2) value = -value;
        }
      }
      const std::vector<float> y = evaluate(function.op, x);
      double worst = 0;
      float at = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double error = ulps(y[i], function.exact(x[i]));
        if (!(error <= worst)) {
          worst = error;
          at = x[i];
        }
      }
      INFO(target << ": " << function.name << " is off by " << worst << " units at " << at);
      CHECK(worst <= function.limit);
    }
  });
}

TEST_CASE("f32 functions agree with the standard library at zeros, infinities, NaN and subnormals",
          "[cpu][math]") {
  for_each_target([](const char* target) {
    const float infinity = INFINITY;
    const std::vector<float> x{0.0f,   -0.0f,   infinity, -infinity, NAN,        1e-45f, -1e-45f,
                               1e-30f, -1e-30f, 1.0f,     -1.0f,     88.8f,      -88.8f, -103.9f,
                               200.0f, -200.0f, 3e38f,    -3e38f,    16777216.0f};
    for (const Function& function : functions) {
      const std::vector<float> y = evaluate(function.op, x);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const float want = static_cast<float>(function.exact(x[i]));
        INFO(target << ": " << function.name << "(" << x[i] << ") = " << y[i] << ", want " << want);
        if (std::isnan(want)) {
          CHECK(std::isnan(y[i]));
        } else {
          CHECK(ulps(y[i], function.exact(x[i])) <= function.limit);
          if (want == 0 && y[i] == 0) CHECK(std::signbit(want) == std::signbit(y[i]));
        }
      }
    }
  });
}

TEST_CASE("f64 functions are those of the standard library", "[cpu][math]") {
  for_each_target([](const char* target) {
    for (const Function& function : functions) {
      std::mt19937 engine(5);
      std::vector<double> x(1000);
      for (double& value : x)
        value = std::max(function.low, -700.0) +
                (std::min(function.high, 700.0) - std::max(function.low, -700.0)) *
                    (engine() * 0x1p-32);
      const std::vector<double> y = evaluate(function.op, x);
      for (std::size_t i = 0; i < x.size(); ++i) {
        INFO(target << ": " << function.name << "(" << x[i] << ")");
        CHECK(y[i] == Approx(function.exact(x[i])).epsilon(1e-15));
      }
    }
  });
}

TEST_CASE("pow and atan2 agree with the standard library at every pair of corners", "[cpu][math]") {
  const std::vector<double> corners{0.0, -0.0, 1,    -1,    2,     -2,       0.5,       -0.5,
                                    3,   -3,   1e30, -1e30, 1e-30, INFINITY, -INFINITY, NAN};
  for_each_target([&](const char* target) {
    std::vector<float> a, b;
    std::vector<double> c, d;
    for (const double x : corners) {
      for (const double y : corners) {
        a.push_back(static_cast<float>(x));
        b.push_back(static_cast<float>(y));
        c.push_back(x);
        d.push_back(y);
      }
    }
    const auto same = [](double got, double want) {
      return (std::isnan(got) && std::isnan(want)) ||
             (got == want && std::signbit(got) == std::signbit(want));
    };
    const auto power = evaluate(Op::pow, a, b), angle = evaluate(Op::atan2, a, b);
    const auto power64 = evaluate(Op::pow, c, d), angle64 = evaluate(Op::atan2, c, d);
    for (std::size_t i = 0; i < a.size(); ++i) {
      INFO(target << ": " << a[i] << ", " << b[i]);
      CHECK(same(power[i], std::pow(a[i], b[i])));
      CHECK(same(angle[i], std::atan2(a[i], b[i])));
      CHECK(same(power64[i], std::pow(c[i], d[i])));
      CHECK(same(angle64[i], std::atan2(c[i], d[i])));
    }
  });
}

TEST_CASE("hypot is good to two units in the last place from the least number to the largest",
          "[cpu][math]") {
  for_each_target([](const char* target) {
    const auto check = [&]<class T>(T) {
      using Limits = std::numeric_limits<T>;
      using Wide = std::conditional_t<sizeof(T) == 4, double, long double>;
      std::vector<T> a, b;
      constexpr T least = Limits::denorm_min(), most = Limits::max();
      constexpr T infinity = Limits::infinity(), none = Limits::quiet_NaN();
      const T corners[] = {0, 1, 3, 4, Limits::min(), least, most, most / 2, infinity, none};
      for (const T x : corners)
        for (const T y : corners) a.push_back(-x), b.push_back(y);
      // Sides of every size, and beside each one up to 2^40 times as short.
      std::mt19937 engine(7);
      const auto side = [&](int exponent) {
        return static_cast<T>(std::ldexp(1 + engine() * 0x1p-32, exponent));
      };
      for (int exponent = Limits::min_exponent - Limits::digits;
           exponent < Limits::max_exponent - 1; ++exponent)
        for (int i = 0; i < 40; ++i) {
          a.push_back(side(exponent)), b.push_back(side(exponent - i));
          if (i % 2) std::swap(a.back(), b.back());
        }
      const std::vector<T> y = evaluate(Op::hypot, a, b);
      for (std::size_t i = 0; i < a.size(); ++i) {
        // Two squares, a sum and a root, each rounded: a relative error of twice half an epsilon.
        const Wide want = std::hypot(Wide(a[i]), Wide(b[i]));
        const Wide allowed = Limits::epsilon() * want + least;
        const bool good = std::isnan(want) ? std::isnan(y[i])
                          : want > most    ? y[i] == infinity
                                           : std::abs(y[i] - want) <= allowed;
        if (!good)
          FAIL_CHECK(target << ": hypot(" << a[i] << ", " << b[i] << ") = " << y[i] << ", not "
                            << static_cast<T>(want));
      }
    };
    check(float{});
    check(double{});
  });
}

TEST_CASE("floor, abs and sign keep signed zeros, infinities and NaN", "[cpu][math]") {
  for_each_target([](const char* target) {
    const std::vector<float> x{0.0f,  -0.0f, 0.5f,   -0.5f,    1.0f,      -1.0f, 2.5f,
                               -2.5f, 1e10f, -1e10f, INFINITY, -INFINITY, NAN};
    const auto down = evaluate(Op::floor, x), magnitude = evaluate(Op::abs, x),
               sign = evaluate(Op::sign, x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      INFO(target << ": " << x[i]);
      if (std::isnan(x[i])) {
        CHECK((std::isnan(down[i]) && std::isnan(magnitude[i]) && std::isnan(sign[i])));
        continue;
      }
      CHECK(down[i] == std::floor(x[i]));
      CHECK(magnitude[i] == std::abs(x[i]));
      CHECK(sign[i] == (x[i] > 0 ? 1.0f : x[i] < 0 ? -1.0f : 0.0f));
    }
  });
}
