#include "tests/vulkan/attention/attention_case.h"

#include <cmath>
#include <limits>
#include <ostream>
#include <sstream>

namespace fluxion::testing {

namespace {

constexpr double infinite = std::numeric_limits<double>::infinity();
using Values = std::vector<double>;

// Operand i, gathered: [batch, rows, columns].
Values gathered(const AttentionCall& call, std::size_t i) {
  const ContractOperand& view = call.kernel().views[i];
  const Values& stored = call.memory.values(view.buffer);
  Values all;
  for (const std::int64_t address : addresses(view))
    all.push_back(stored[static_cast<std::size_t>(address)]);
  return all;
}

double scale_of(const AttentionCall& call) {
  return std::get<AttentionAttributes>(call.kernel().attributes).scale;
}

// What all three ops compute, row by row.
struct Expected {
  std::vector<Values> outputs;
  std::vector<double> allowed;  // of each output, absolute
};

class Host {
 public:
  explicit Host(const AttentionCall& call)
      : call_(call),
        shape_(call.shape),
        batch_(static_cast<std::size_t>(shape_.batch)),
        queries_(static_cast<std::size_t>(shape_.queries)),
        keys_(static_cast<std::size_t>(shape_.keys)),
        features_(static_cast<std::size_t>(shape_.features)) {
    for (std::size_t i = 0; i < call.kernel().views.size(); ++i)
      operands_.push_back(gathered(call, i));
  }

  Values scores(std::size_t b, std::size_t i) const {
    Values row(keys_);
    const std::size_t plain = shape_.op == Op::attention        ? 3
                              : shape_.op == Op::attention_dual ? 6
                                                                : 5;
    for (std::size_t j = 0; j < keys_; ++j) {
      row[j] = dot(0, b * queries_ + i, 1, b * keys_ + j) * scale_of(call_);
      if (operands_.size() > plain) row[j] += operands_[plain][(b * queries_ + i) * keys_ + j];
      if (shape_.causal && j > i) row[j] = -infinite;
    }
    return row;
  }
  double dot(std::size_t x, std::size_t row, std::size_t y, std::size_t other) const {
    double sum = 0;
    for (std::size_t f = 0; f < features_; ++f)
      sum += operands_[x][row * features_ + f] * operands_[y][other * features_ + f];
    return sum;
  }

  // p of a row, and its log-sum-exp.
  double softmax(Values& row) const {
    double largest = -infinite, total = 0;
    for (const double score : row) largest = std::isnan(score) ? score : std::max(largest, score);
    if (std::isnan(largest) || largest == -infinite) largest = std::isnan(largest) ? largest : 0;
    for (double& score : row) score = std::exp(score - largest), total += score;
    for (double& p : row) p = total == 0 ? p : p / total;
    return largest + std::log(total);
  }

  std::vector<Values> forward() const {
    const bool dual = shape_.op == Op::attention_dual;
    std::vector<Values> out(dual ? 4 : 2);
    for (std::size_t b = 0; b < batch_; ++b)
      for (std::size_t i = 0; i < queries_; ++i) {
        Values p = scores(b, i);
        out[1].push_back(softmax(p));
        Values t(keys_);
        double lse_tangent = 0;
        for (std::size_t j = 0; dual && j < keys_; ++j) {
          t[j] = p[j] * scale_of(call_) *
                 (dot(3, b * queries_ + i, 1, b * keys_ + j) +
                  dot(0, b * queries_ + i, 4, b * keys_ + j));
          lse_tangent += t[j];
        }
        for (std::size_t f = 0; f < features_; ++f) {
          double y = 0, dy = 0;
          for (std::size_t j = 0; j < keys_; ++j) {
            const std::size_t at = (b * keys_ + j) * features_ + f;
            y += p[j] * operands_[2][at];
            if (dual) dy += t[j] * operands_[2][at] + p[j] * operands_[5][at];
          }
          out[0].push_back(y);
          if (dual) out[2].push_back(dy - lse_tangent * y);
        }
        if (dual) out[3].push_back(lse_tangent);
      }
    return out;
  }

  std::vector<Values> backward() const {
    std::vector<Values> out{Values(batch_ * queries_ * features_),
                            Values(batch_ * keys_ * features_), Values(batch_ * keys_ * features_)};
    for (std::size_t b = 0; b < batch_; ++b)
      for (std::size_t i = 0; i < queries_; ++i) {
        const std::size_t row = b * queries_ + i;
        Values p = scores(b, i);
        softmax(p);
        double delta = -operands_[4][row];
        for (std::size_t j = 0; j < keys_; ++j) delta += p[j] * dot(3, row, 2, b * keys_ + j);
        for (std::size_t j = 0; j < keys_; ++j) {
          const std::size_t key = b * keys_ + j;
          const double ds = p[j] * (dot(3, row, 2, key) - delta) * scale_of(call_);
          for (std::size_t f = 0; f < features_; ++f) {
            out[0][row * features_ + f] += ds * operands_[1][key * features_ + f];
            out[1][key * features_ + f] += ds * operands_[0][row * features_ + f];
            out[2][key * features_ + f] += p[j] * operands_[3][row * features_ + f];
          }
        }
      }
    return out;
  }

 private:
  const AttentionCall& call_;
  const AttentionShape& shape_;
  std::size_t batch_, queries_, keys_, features_;
  std::vector<Values> operands_;
};

// How far rounding may take each output, as tests/cpu/test_attention.cpp derives it.
std::vector<double> allowed(const AttentionShape& c) {
  const double half_ulp = 0x1p-24;
  const auto d = static_cast<double>(std::max<std::int64_t>(c.features, 1)),
             queries = static_cast<double>(c.queries);
  const double value = c.size, score = value * value * std::sqrt(d) + 4,
               tangent = 2 * value * value * std::sqrt(d);
  const double relative = half_ulp * (2 * score + std::sqrt(d) * score + 32);
  const double y = relative * value, dy = relative * ((2 * tangent + 2) * value + value) * 4;
  const double lse = half_ulp * (4 * score + std::sqrt(d) * score + 16);
  const double slope = value * value * d + 2, grad = relative * 4 * slope * value / std::sqrt(d);
  if (c.op == Op::attention_backward) return {grad, grad * queries, 4 * relative * queries * value};
  return {y, lse, dy, relative * (tangent + 1) * 4};
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const AttentionShape& c) {
  return out << to_string(c.op) << " " << c.batch << " x " << c.queries << " by " << c.keys << " x "
             << c.features << (c.plain_views ? ", plain" : ", views") << ", mask "
             << static_cast<int>(c.mask) << (c.causal ? ", causal" : "") << ", size " << c.size;
}

AttentionCall random_attention(const AttentionShape& c, std::uint32_t seed) {
  RandomNumbers random(seed);
  AttentionCall call{c, {}};
  OpKernel kernel;
  kernel.op = c.op;
  kernel.attributes = AttentionAttributes{
      1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(c.features, 1))), c.causal};
  const auto add = [&](std::int64_t rows, std::int64_t columns, bool is_row_values = false) {
    kernel.views.push_back(random_operand(random, call.memory, DType::f32, c.batch, rows, columns,
                                          c.plain_views, c.size));
    kernel.inputs.push_back(kernel.views.back().buffer);
    kernel.input_types.emplace_back(
        is_row_values ? Shape{c.batch, rows} : Shape{c.batch, rows, columns}, DType::f32);
  };
  const bool dual = c.op == Op::attention_dual, back = c.op == Op::attention_backward;
  add(c.queries, c.features), add(c.keys, c.features), add(c.keys, c.features);
  if (dual) add(c.queries, c.features), add(c.keys, c.features), add(c.keys, c.features);
  if (back) add(c.queries, c.features), add(c.queries, 1, true);
  if (c.mask != MaskKind::none) {
    add(c.queries, c.keys);
    if (c.mask == MaskKind::holes)
      for (double& value : call.memory.values(kernel.inputs.back()))
        if (random.one_in(2)) value = -infinite;
  }
  const auto add_output = [&](Dims sizes) {
    sizes.insert(sizes.begin(), c.batch);
    const Shape shape(sizes);
    kernel.outputs.push_back(call.memory.add_output(DType::f32, shape));
    kernel.output_types.emplace_back(shape, DType::f32);
  };
  add_output({c.queries, c.features});
  if (back)
    add_output({c.keys, c.features}), add_output({c.keys, c.features});
  else
    add_output({c.queries});
  if (dual) add_output({c.queries, c.features}), add_output({c.queries});
  call.memory.program.kernels.push_back(std::move(kernel));
  return call;
}

std::string first_wrong(const AttentionCall& call, bool lenient) {
  const Host host(call);
  const std::vector<Values> expected =
      call.shape.op == Op::attention_backward ? host.backward() : host.forward();
  const std::vector<double> bounds = allowed(call.shape);
  for (std::size_t o = 0; o < expected.size(); ++o) {
    const Values& got = call.memory.values(call.kernel().outputs[o]);
    // The bounds of single elements allow a query to be left out of a sum over many.
    double off = 0, all = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      off += std::pow(got[i] - expected[o][i], 2);
      all += std::pow(expected[o][i], 2);
    }
    if (!lenient && call.shape.size == 1 && std::isfinite(all) && !(off <= 1e-9 * all))
      return "output " + std::to_string(o) + ": off by " + std::to_string(std::sqrt(off / all)) +
             " of its norm";
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double want = expected[o][i];
      if (std::isnan(want) ? std::isnan(got[i])
                           : (got[i] == want || std::abs(got[i] - want) <= bounds[o]))
        continue;
      if (lenient && !std::isfinite(got[i]) && !std::isfinite(want)) continue;
      std::ostringstream text;
      text << "output " << o << ", element " << i << ": " << got[i] << ", not " << want
           << " within " << bounds[o];
      return text.str();
    }
  }
  return "";
}

}  // namespace fluxion::testing
