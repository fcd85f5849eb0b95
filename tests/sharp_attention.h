// Attention whose softmax is nearly a choice, and its derivatives up to the second: where one key
// takes all weight they are tiny differences of large numbers, which must not be left to rounding.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "autograd/transforms.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"

namespace fluxion::testing {

inline constexpr std::size_t sharp_tokens = 4;
inline constexpr double sharp_scale = 20;

// One head of 4 tokens and 4 features.
template <class T>
struct SharpMatrix {
  std::array<T, sharp_tokens * sharp_tokens> values{};
  T& operator()(std::size_t i, std::size_t j) { return values[i * sharp_tokens + j]; }
  T operator()(std::size_t i, std::size_t j) const { return values[i * sharp_tokens + j]; }
  SharpMatrix transposed() const {
    SharpMatrix result;
    for (std::size_t i = 0; i < sharp_tokens; ++i)
      for (std::size_t j = 0; j < sharp_tokens; ++j) result(j, i) = (*this)(i, j);
    return result;
  }
};
template <class T>
SharpMatrix<T> operator*(const SharpMatrix<T>& a, const SharpMatrix<T>& b) {
  SharpMatrix<T> result;
  for (std::size_t i = 0; i < sharp_tokens; ++i)
    for (std::size_t j = 0; j < sharp_tokens; ++j)
      for (std::size_t k = 0; k < sharp_tokens; ++k) result(i, j) += a(i, k) * b(k, j);
  return result;
}
template <class T>
SharpMatrix<T> operator+(SharpMatrix<T> a, const SharpMatrix<T>& b) {
  for (std::size_t i = 0; i < a.values.size(); ++i) a.values[i] += b.values[i];
  return a;
}
template <class T>
SharpMatrix<T> operator*(T factor, SharpMatrix<T> a) {
  for (T& each : a.values) each *= factor;
  return a;
}
template <class T>
SharpMatrix<T> weighted(const SharpMatrix<T>& p, const SharpMatrix<T>& d) {  // p (d - sum p d)
  SharpMatrix<T> result;
  for (std::size_t i = 0; i < sharp_tokens; ++i) {
    T total = 0;
    for (std::size_t j = 0; j < sharp_tokens; ++j) total += p(i, j) * d(i, j);
    for (std::size_t j = 0; j < sharp_tokens; ++j) result(i, j) = p(i, j) * (d(i, j) - total);
  }
  return result;
}

inline constexpr const char* sharp_names[] = {"y",        "tangent",  "vjp of q", "vjp of k",
                                              "vjp of v", "hvp of q", "hvp of k", "hvp of v"};

// The results for q, k, v, their tangents and the cotangent of y, by the formulas as textbooks have
// them.
template <class T>
std::vector<SharpMatrix<T>> sharp_results(const std::vector<SharpMatrix<float>>& operands) {
  std::vector<SharpMatrix<T>> x(operands.size());
  for (std::size_t i = 0; i < x.size(); ++i)
    std::copy(operands[i].values.begin(), operands[i].values.end(), x[i].values.begin());
  const SharpMatrix<T>&q = x[0], &k = x[1], &v = x[2], &dq = x[3], &dk = x[4], &dv = x[5],
        &u = x[6];
  const T scale = sharp_scale;
  SharpMatrix<T> p = scale * (q * k.transposed());
  for (std::size_t i = 0; i < sharp_tokens; ++i) {
    T largest = p(i, 0), total = 0;
    for (std::size_t j = 0; j < sharp_tokens; ++j) largest = std::max(largest, p(i, j));
    for (std::size_t j = 0; j < sharp_tokens; ++j) total += p(i, j) = std::exp(p(i, j) - largest);
    for (std::size_t j = 0; j < sharp_tokens; ++j) p(i, j) /= total;
  }
  const SharpMatrix<T> dp = weighted(p, scale * (dq * k.transposed() + q * dk.transposed()));
  const SharpMatrix<T> g = u * v.transposed(), dg = u * dv.transposed(), s = weighted(p, g);
  SharpMatrix<T> ds;  // dp (g - sum p g) + p (dg - sum (dp g + p dg))
  for (std::size_t i = 0; i < sharp_tokens; ++i) {
    T total = 0, moved = 0;
    for (std::size_t j = 0; j < sharp_tokens; ++j) {
      total += p(i, j) * g(i, j);
      moved += dp(i, j) * g(i, j) + p(i, j) * dg(i, j);
    }
    for (std::size_t j = 0; j < sharp_tokens; ++j)
      ds(i, j) = dp(i, j) * (g(i, j) - total) + p(i, j) * (dg(i, j) - moved);
  }
  return {p * v,
          dp * v + p * dv,
          scale * (s * k),
          scale * (s.transposed() * q),
          p.transposed() * u,
          scale * (ds * k + s * dk),
          scale * (ds.transposed() * q + s.transposed() * dq),
          dp.transposed() * u};
}

// Runs many draws as one batch; "" if every result is within the tolerance of the textbook's in
// f64. Draws for which the textbook's formulas in f32 take more than a quarter of it don't count.
inline std::string sharp_attention_faults(const Device& device, std::size_t draws,
                                          std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<std::vector<SharpMatrix<float>>> drawn(draws);
  for (auto& operands : drawn) {
    operands.resize(7);
    for (auto& each : operands)
      for (float& value : each.values) value = normal(random);
  }
  std::vector<Tensor> x;
  for (std::size_t i = 0; i < 7; ++i) {
    std::vector<float> values;
    for (const auto& operands : drawn)
      values.insert(values.end(), operands[i].values.begin(), operands[i].values.end());
    x.push_back(Tensor::from(values, {static_cast<std::int64_t>(draws), 1, 4, 4}, device));
  }
  const auto attend = [](const Tensor& q, const Tensor& k, const Tensor& v) {
    AttentionOptions options;
    options.scale = sharp_scale;
    return attention(q, k, v, options);
  };
  const auto all = compile([&](const std::vector<Tensor>& in) {
    const std::tuple at(in[0], in[1], in[2]), along(in[3], in[4], in[5]);
    const auto [y, tangent] = jvp(attend, at, along);
    const auto pull = [&](const Tensor& q, const Tensor& k, const Tensor& v) {
      return vjp(attend, q, k, v).second(in[6]);
    };
    const auto [gradients, moved] = jvp(pull, at, along);
    std::vector<Tensor> results{y, tangent};
    for (const auto* three : {&gradients, &moved})
      std::apply([&](const auto&... each) { (results.push_back(each), ...); }, *three);
    return results;
  });
  const std::vector<Tensor> got = all(x);
  std::vector<std::vector<float>> values;
  for (const Tensor& each : got) values.push_back(each.to_host<float>());
  std::ostringstream faults;
  std::size_t counted = 0;
  for (std::size_t draw = 0; draw < draws; ++draw) {
    const auto exact = sharp_results<double>(drawn[draw]);
    const auto rounded = sharp_results<float>(drawn[draw]);
    double worst_of_textbook = 0;
    std::ostringstream wrong;
    for (std::size_t r = 0; r < exact.size(); ++r) {
      double largest = 0, error = 0, error_of_textbook = 0;
      for (std::size_t i = 0; i < exact[r].values.size(); ++i) {
        const double want = exact[r].values[i], have = values[r][draw * exact[r].values.size() + i];
        largest = std::max(largest, std::abs(want));
        error = std::isfinite(have) ? std::max(error, std::abs(have - want)) : INFINITY;
        error_of_textbook = std::max(error_of_textbook, std::abs(rounded[r].values[i] - want));
      }
      const double allowed = 3e-4 * largest + 2e-6;
      worst_of_textbook = std::max(worst_of_textbook, error_of_textbook / allowed);
      if (!(error <= allowed))
        wrong << "draw " << draw << ", " << sharp_names[r] << ": off by " << error << " of "
              << largest << "\n";
    }
    if (worst_of_textbook > 0.25) continue;
    ++counted;
    faults << wrong.str();
  }
  if (2 * counted < draws) faults << "only " << counted << " draws count\n";
  return faults.str();
}

}  // namespace fluxion::testing
