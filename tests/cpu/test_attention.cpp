// Attention, its dual and its backward on the CPU against their expansion on the reference backend
// in f64: shapes, views, masks, special values, on every instruction set that this processor has
// and on any number of threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <set>

#include "backends/cpu/attention/attention.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/expansion.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/cpu/targets.h"
#include "tests/op_examples.h"
#include "tests/sharp_attention.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// How the operands lie in memory.
enum class Layout { plain, joined, transposed, windows, split_features, broadcast };

enum class Mask { none, random, holes };

struct AttentionCase {
  Dims batch;
  std::int64_t queries, keys, features;
  Layout layout = Layout::plain;
  Mask mask = Mask::none;
  bool causal = false;
  double size = 1;  // of the operands: scores grow with its square
};

std::ostream& operator<<(std::ostream& out, const AttentionCase& c) {
  return out << to_string(c.batch) << " x " << c.queries << " by " << c.keys << " x " << c.features
             << ", layout " << static_cast<int>(c.layout) << ", mask " << static_cast<int>(c.mask)
             << (c.causal ? ", causal" : "") << ", size " << c.size;
}

Dims shape_of(const AttentionCase& c, std::int64_t rows, std::int64_t columns) {
  Dims sizes = c.batch;
  sizes.insert(sizes.end(), {rows, columns});
  return sizes;
}

// The operand [batch.., tokens, features], number `seed`, as a view of other memory.
HostValue stored_operand(const AttentionCase& c, std::int64_t tokens, std::uint64_t seed) {
  const auto random = [&](const Dims& sizes) {
    return random_value(Shape(sizes), -c.size, c.size, seed);
  };
  switch (c.layout) {
    case Layout::plain:
      return random(shape_of(c, tokens, c.features));
    case Layout::joined:  // [batch, tokens, 3, heads, features], q, k and v in one
      return random({c.batch[0], tokens, 3, c.batch[1], c.features});
    case Layout::transposed:
      return random(shape_of(c, c.features, tokens));
    case Layout::windows:  // tokens of two digits; the other half of each is another batch entry's
      return random({c.batch[0], tokens / 2, 2, 2, c.features});
    case Layout::split_features:  // [batch.., 2, tokens, features / 2]
      return random({c.batch[0], 2, tokens, c.features / 2});
    case Layout::broadcast:
      return random({c.batch[0], 1, tokens, c.features});
  }
  throw Error("no such layout");
}
Tensor view_of(const AttentionCase& c, const Tensor& stored, std::int64_t tokens,
               std::int64_t which) {
  switch (c.layout) {
    case Layout::plain:
      return stored;
    case Layout::joined:
      return transpose(reshape(slice_axis(stored, 2, which, which + 1),
                               {c.batch[0], tokens, c.batch[1], c.features}),
                       {0, 2, 1, 3});
    case Layout::transposed:
      return swap_axes(stored, -1, -2);
    case Layout::windows:
      return reshape(transpose(stored, {0, 3, 1, 2, 4}), {c.batch[0], 2, tokens, c.features});
    case Layout::split_features:
      return reshape(transpose(stored, {0, 2, 1, 3}), {c.batch[0], tokens, c.features});
    case Layout::broadcast:
      return broadcast_to(stored, Shape(shape_of(c, tokens, c.features)));
  }
  throw Error("no such layout");
}

HostValue mask_of(const AttentionCase& c, std::uint64_t seed) {
  HostValue mask = random_value(Shape(shape_of(c, c.queries, c.keys)), -2, 2, seed);
  if (c.mask == Mask::holes)
    for (std::size_t i = 0; i < mask.values.size(); ++i)
      if (mask.values[i] > 0 && i % static_cast<std::size_t>(c.keys) != 0)
        mask.values[i] = -infinity;
  return mask;
}

// Operands as they are stored: q, k, v, dq, dk, dv, u, the cotangent of lse[, mask].
std::vector<HostValue> stored_operands(const AttentionCase& c, std::uint64_t seed) {
  std::vector<HostValue> all;
  for (const std::int64_t tokens :
       {c.queries, c.keys, c.keys, c.queries, c.keys, c.keys, c.queries})
    all.push_back(stored_operand(c, tokens, seed++));
  Dims rows = c.batch;
  rows.push_back(c.queries);
  all.push_back(random_value(Shape(rows), -1, 1, seed++));
  if (c.mask != Mask::none) all.push_back(mask_of(c, seed));
  return all;
}

using NodeMaker =
    std::function<std::vector<Tensor>(Op, const Attributes&, const std::vector<Tensor>&)>;

// (y, lse), (y, lse, dy, dlse), (dq, dk, dv), made by `node`: the fused op or its expansion.
std::vector<Tensor> results(const AttentionCase& c, const std::vector<Tensor>& stored,
                            const NodeMaker& node) {
  const AttentionAttributes attributes{1 / std::sqrt(static_cast<double>(c.features)), c.causal};
  std::vector<Tensor> x;
  for (std::size_t i = 0; i < 7; ++i)
    x.push_back(view_of(c, stored[i], i == 0 || i == 3 || i == 6 ? c.queries : c.keys,
                        static_cast<std::int64_t>(i % 3)));
  const auto with_mask = [&](std::vector<Tensor> operands) {
    if (c.mask != Mask::none) operands.push_back(stored[8]);
    return operands;
  };
  std::vector<Tensor> all = node(Op::attention, attributes, with_mask({x[0], x[1], x[2]}));
  for (Tensor& each :
       node(Op::attention_dual, attributes, with_mask({x[0], x[1], x[2], x[3], x[4], x[5]})))
    all.push_back(each);
  for (Tensor& each :
       node(Op::attention_backward, attributes, with_mask({x[0], x[1], x[2], x[6], stored[7]})))
    all.push_back(each);
  return all;
}
std::vector<Tensor> fused(const AttentionCase& c, const std::vector<Tensor>& stored) {
  return results(c, stored,
                 [](Op op, const Attributes& attributes, const std::vector<Tensor>& inputs) {
                   return make_nodes(op, attributes, inputs);
                 });
}
std::vector<Tensor> expanded(const AttentionCase& c, const std::vector<Tensor>& stored) {
  return results(c, stored,
                 [](Op op, const Attributes& attributes, const std::vector<Tensor>& inputs) {
                   return expansion(op, attributes, inputs, CostModel{});
                 });
}

constexpr const char* names[] = {"y", "lse", "dual y", "dual lse", "dy", "dlse", "dq", "dk", "dv"};

// How far rounding may take each result. With e half the distance of 1 to the next number, a score
// of products whose magnitudes sum to S errs by (d + 2) e S at most, typically sqrt(d) e S; weights
// err by as much relatively, and so do sums of them times values.
std::vector<double> tolerances(const AttentionCase& c, DType dtype) {
  const double half_ulp = dtype == DType::f32 ? 0x1p-24 : 0x1p-53;
  const auto d = static_cast<double>(std::max<std::int64_t>(c.features, 1)),
             queries = static_cast<double>(c.queries);
  const double value = c.size, score = value * value * std::sqrt(d) + 4,
               tangent = 2 * value * value * std::sqrt(d);
  const double relative = half_ulp * (2 * score + std::sqrt(d) * score + 32);
  const double y = relative * value, dy = relative * ((2 * tangent + 2) * value + value) * 4;
  const double slope = value * value * d + 2, grad = relative * 4 * slope * value / std::sqrt(d);
  const double lse = half_ulp * (4 * score + std::sqrt(d) * score + 16);
  return {y,
          lse,
          y,
          lse,
          dy,
          relative * (tangent + 1) * 4,
          grad,
          grad * queries,
          4 * relative * queries * value};
}

// The root of the squares of all errors over that of all values: the bounds above, of single
// elements, allow a query to be left out of a sum over many. 0 where values are not finite.
double relative_error(const std::vector<double>& found, const std::vector<double>& wanted) {
  double off = 0, all = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (!std::isfinite(wanted[i])) return 0;
    off += std::pow(found[i] - wanted[i], 2);
    all += std::pow(wanted[i], 2);
  }
  return off == 0 ? 0 : std::sqrt(off / all);
}

std::vector<Tensor> run(const std::vector<Tensor>& outputs) {
  eval(outputs);
  return outputs;
}

void check(const AttentionCase& c, DType dtype, std::uint64_t seed, bool all_threads = true) {
  INFO(c << ", " << to_string(dtype) << ", seed " << seed);
  const std::vector<HostValue> operands = stored_operands(c, seed);
  const Device exact = reference();
  const std::vector<Tensor> expected = run(expanded(c, to_tensors(operands, exact, DType::f64)));
  const std::vector<double> allowed = tolerances(c, dtype);
  std::vector<std::vector<double>> single;
  for (const int threads : {1, 2, 3}) {
    if (threads > 1 && !all_threads) break;
    const Device device = cpu({.threads = threads});
    const std::vector<Tensor> got = run(fused(c, to_tensors(operands, device, dtype)));
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      INFO(names[i] << ", " << threads << " threads");
      const std::vector<double> values = host_values(got[i]);
      if (threads == 1) {
        CHECK(difference(convert(got[i], DType::f64),
                         Tensor::from(host_values(expected[i]), expected[i].shape(), device), 0,
                         allowed[i]) == "");
        CHECK(relative_error(values, host_values(expected[i])) <
              (dtype == DType::f32 ? 3e-5 : 1e-13) * std::max(1.0, c.size * c.size));
        single.push_back(values);
      } else {
        const bool same = std::equal(
            values.begin(), values.end(), single[i].begin(), single[i].end(),
            [](double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); });
        CHECK(same);
      }
    }
  }
}

const std::vector<AttentionCase>& cases() {
  static const std::vector<AttentionCase> list = {
      {{}, 1, 1, 1},
      {{}, 1, 1, 16},
      {{2}, 1, 70, 16},
      {{2}, 70, 1, 16},
      {{3}, 5, 3, 7},
      {{2, 3}, 49, 49, 32},
      {{1}, 131, 117, 24},
      {{2}, 64, 64, 64},
      {{1}, 33, 200, 128},
      {{1}, 200, 57, 33},
      {{1}, 17, 9, 255},
      {{2, 2}, 49, 49, 16, Layout::joined},
      {{1, 3}, 130, 130, 20, Layout::joined},
      {{2}, 37, 53, 19, Layout::transposed},
      {{1, 2}, 66, 66, 16, Layout::windows},
      {{1, 2}, 66, 120, 9, Layout::windows},
      {{2}, 40, 61, 32, Layout::split_features},
      {{2, 3}, 20, 70, 16, Layout::broadcast},
      {{2}, 37, 53, 16, Layout::plain, Mask::random},
      {{2}, 70, 65, 8, Layout::plain, Mask::holes},
      {{2, 2}, 49, 49, 16, Layout::joined, Mask::holes, true},
      {{2}, 130, 130, 16, Layout::plain, Mask::none, true},
      {{2}, 150, 40, 16, Layout::plain, Mask::none, true},
      {{2}, 40, 150, 17, Layout::plain, Mask::none, true},
      {{1}, 70, 70, 16, Layout::plain, Mask::none, false, 50},
      {{1}, 70, 70, 16, Layout::plain, Mask::random, true, 50},
  };
  return list;
}

}  // namespace

TEST_CASE("attention, its dual and its backward are their expansions", "[cpu][attention]") {
  std::uint64_t seed = 1;
  for (const AttentionCase& c : cases()) {
    check(c, DType::f32, seed);
    check(c, DType::f64, seed);
    seed += 100;
  }
}

TEST_CASE("attention is its expansion on every instruction set", "[cpu][attention]") {
  for_each_target([](const char* target) {
    INFO(target);
    std::uint64_t seed = 7;
    for (const AttentionCase& c : cases()) {
      check(c, DType::f32, seed, false);
      if (c.queries < 64) check(c, DType::f64, seed, false);
      seed += 100;
    }
  });
}

TEST_CASE("attention of random shapes and views is its expansion", "[cpu][attention]") {
  const auto seed = static_cast<std::uint32_t>(20240607);
  std::mt19937 random(seed);
  const auto below = [&](int end) {
    return static_cast<std::int64_t>(random() % static_cast<unsigned>(end));
  };
  for (std::uint64_t round = 0; round < 40; ++round) {
    AttentionCase c{};
    c.layout = static_cast<Layout>(below(6));
    c.batch = c.layout == Layout::windows          ? Dims{1 + below(2), 2}
              : c.layout == Layout::split_features ? Dims{1 + below(3)}
                                                   : Dims{1 + below(2), 1 + below(3)};
    c.queries = 2 * (1 + below(below(3) == 0 ? 90 : 20));
    c.keys = c.layout == Layout::joined ? c.queries : 2 * (1 + below(below(3) == 0 ? 90 : 20));
    c.features = 2 * (1 + below(40));
    c.mask = static_cast<Mask>(below(3));
    c.causal = below(3) == 0;
    check(c, below(3) == 0 ? DType::f64 : DType::f32, 1000 * round);
  }
}

TEST_CASE("attention carries NaN and infinity as its expansion does", "[cpu][attention]") {
  for (const bool causal : {false, true}) {
    const AttentionCase c{{2}, 70, 131, 16, Layout::plain, Mask::random, causal};
    const std::vector<HostValue> plain = stored_operands(c, 3);
    for (const double special : {std::nan(""), infinity, -infinity}) {
      for (std::size_t operand = 0; operand < plain.size(); ++operand) {
        std::vector<HostValue> operands = plain;
        std::vector<double>& values = operands[operand].values;
        values[values.size() / 4 + 3] = special;  // in the middle of the first batch entry; of
                                                  // keys, beyond some queries and before others
        if (operand == 8) values[3] = -infinity;
        INFO((causal ? "causal, " : "") << special << " in operand " << operand);
        const std::vector<Tensor> expected =
            run(expanded(c, to_tensors(operands, reference(), DType::f64)));
        const std::vector<Tensor> got = run(fused(c, to_tensors(operands, cpu(), DType::f32)));
        const std::vector<double> allowed = tolerances(c, DType::f32);
        for (std::size_t i = 0; i < got.size(); ++i) {
          INFO(names[i]);
          const std::vector<double> a = host_values(got[i]), b = host_values(expected[i]);
          std::size_t wrong = 0;
          for (std::size_t j = 0; j < a.size(); ++j) {
            if (std::isnan(a[j]) && std::isnan(b[j])) continue;
            // Sums that hold an infinity may or may not meet its opposite.
            if (!std::isfinite(a[j]) && !std::isfinite(b[j]) && std::isinf(special)) continue;
            wrong += !(a[j] == b[j] || std::abs(a[j] - b[j]) <= allowed[i]);
          }
          CHECK(wrong == 0);
        }
      }
    }
  }
}

TEST_CASE("a row whose every key is masked is 0 and leaves all gradients finite",
          "[cpu][attention]") {
  for (const bool causal : {false, true}) {
    const AttentionCase c{{1}, 40, 150, 16, Layout::plain, Mask::holes, causal};
    std::vector<HostValue> operands = stored_operands(c, 5);
    std::fill_n(operands[8].values.begin() + 7 * c.keys, c.keys, -infinity);
    std::fill_n(operands[8].values.begin() + 9 * c.keys, c.keys - 1,
                -infinity);  // only the last key, in the last block, is seen
    operands[8].values[static_cast<std::size_t>(10 * c.keys - 1)] = 0;
    const std::vector<Tensor> expected =
        run(expanded(c, to_tensors(operands, reference(), DType::f64)));
    const std::vector<double> lse = host_values(expected[1]), allowed = tolerances(c, DType::f32);
    REQUIRE(lse[7] == -infinity);
    REQUIRE((lse[9] == -infinity) == causal);
    for (const bool fuse : {true, false}) {
      const std::vector<Tensor> on_cpu = to_tensors(operands, cpu(), DType::f32);
      const std::vector<Tensor> got = run(fuse ? fused(c, on_cpu) : expanded(c, on_cpu));
      for (std::size_t i = 0; i < got.size(); ++i) {
        INFO(names[i] << (fuse ? "" : ", expanded") << (causal ? ", causal" : ""));
        const std::vector<double> values = host_values(got[i]), wanted = host_values(expected[i]);
        const bool of_queries = i < 7, is_lse = i == 1 || i == 3;
        const std::size_t row = values.size() / static_cast<std::size_t>(c.queries);
        std::size_t wrong = 0;
        for (std::size_t j = 0; j < values.size(); ++j) {
          if (of_queries && lse[j / row] == -infinity)
            wrong += values[j] != (is_lse ? -infinity : 0) || values[j] != wanted[j];
          else
            wrong += !(std::abs(values[j] - wanted[j]) <= allowed[i]);
        }
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("attention over no keys is 0", "[cpu][attention]") {
  for (const Device& device : {reference(), cpu()}) {
    const AttentionCase c{{2}, 70, 0, 5};
    const std::vector<Tensor> got =
        run(fused(c, to_tensors(stored_operands(c, 1), device, DType::f32)));
    for (std::size_t i = 0; i < got.size(); ++i) {
      INFO(names[i] << " on " << device.name());
      const double wanted = i == 1 || i == 3 ? -infinity : 0;
      for (const double each : host_values(got[i])) CHECK(each == wanted);
    }
  }
}

TEST_CASE("attention of extreme scores", "[cpu][attention]") {
  // Scores of 1e4 and more: one key takes all, and which is not a matter of rounding.
  const std::int64_t tokens = 130, features = 16;
  const Device device = cpu();
  std::vector<float> q(static_cast<std::size_t>(tokens * features)), k = q, v = q;
  for (std::int64_t i = 0; i < tokens; ++i) {
    const double angle =
        2 * 3.14159265358979 * static_cast<double>(i) / static_cast<double>(tokens);
    const auto at = static_cast<std::size_t>(i * features);
    q[at] = k[at] = static_cast<float>(5000 * std::cos(angle)),
    q[at + 1] = k[at + 1] = static_cast<float>(5000 * std::sin(angle));
    for (std::size_t f = 0; f < static_cast<std::size_t>(features); ++f)
      v[at + f] = static_cast<float>(i) + static_cast<float>(f) / 16;
  }
  const Shape shape{tokens, features};
  AttentionOptions options;
  options.scale = 1;
  const std::vector<float> y =
      attention(Tensor::from(q, shape, device), Tensor::from(k, shape, device),
                Tensor::from(v, shape, device), options)
          .to_host<float>();
  for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(y[i] == v[i]);
}

TEST_CASE("derivatives of sharp attention are not left to rounding", "[cpu][attention]") {
  for (const Device& device : {reference(), cpu({.threads = 1}), cpu({.threads = 3})}) {
    INFO(device.name());
    CHECK(sharp_attention_faults(device, 200, 20261130) == "");
  }
  for_each_target([](const char* target) {
    INFO(target);
    CHECK(sharp_attention_faults(cpu({.threads = 1}), 200, 1) == "");
  });
}

TEST_CASE("attention over no queries and no batch", "[cpu][attention]") {
  const Device device = cpu();
  for (const AttentionCase& c : {AttentionCase{{2}, 0, 5, 4}, AttentionCase{{0}, 3, 5, 4}}) {
    const std::vector<Tensor> got =
        run(fused(c, to_tensors(stored_operands(c, 1), device, DType::f32)));
    for (std::size_t i = 0; i < 7; ++i)
      CHECK(host_values(got[i]).size() == static_cast<std::size_t>(got[i].elements()));
    for (const std::size_t i : {7, 8})
      for (const double each : host_values(got[i])) CHECK(each == 0);
  }
}

TEST_CASE("the dual of attention over 1024 tokens takes no memory beyond its results",
          "[cpu][attention]") {
  const Device device = cpu({.threads = 2});
  const std::int64_t batch = 4, heads = 4, tokens = 1024, features = 64;
  const auto dual = compile([=](const Tensor& qkv, const Tensor& tangents) {
    std::vector<Tensor> operands;
    for (const Tensor* each : {&qkv, &tangents})
      for (const std::int64_t i : {0, 1, 2})
        operands.push_back(
            transpose(reshape(slice_axis(*each, 2, i, i + 1), {batch, tokens, heads, features}),
                      {0, 2, 1, 3}));
    return make_nodes(Op::attention_dual, AttentionAttributes{0.125, false}, operands);
  });
  const Tensor qkv = zeros({batch, tokens, 3, heads, features}, DType::f32, device);
  const MemoryReport report = dual.memory_report(qkv, qkv);
  const std::size_t rows = static_cast<std::size_t>(batch * heads * tokens) * sizeof(float),
                    results = 2 * rows * features + 2 * rows;
  CHECK(report.output_bytes == results);
  CHECK(report.arena_bytes == 0);
  CHECK(report.kernels == 1);
  CHECK(report.peak_bytes() - report.input_bytes <= results + results / 10);
}

TEST_CASE("attention reads its operands where they lie", "[cpu][attention]") {
  const Device device = cpu({.threads = 1});
  const auto f = compile([](const Tensor& qkv) {
    const auto part = [&](std::int64_t i) {
      return transpose(reshape(slice_axis(qkv, 2, i, i + 1), {2, 49, 4, 16}), {0, 2, 1, 3});
    };
    return attention(part(0), part(1), part(2));
  });
  const Program& program = f.program(zeros({2, 49, 3, 4, 16}, DType::f32, device));
  REQUIRE(program.kernels.size() == 1);
  const auto* kernel = std::get_if<OpKernel>(&program.kernels[0]);
  REQUIRE(kernel != nullptr);
  CHECK(kernel->op == Op::attention);
  // Beyond the largest head there is a kernel for, the expansion runs.
  const std::int64_t wide = cpu_backend::max_attention_head + 1;
  const auto g = compile([](const Tensor& x) { return attention(x, x, x); });
  const Program& expanded_program = g.program(zeros({3, wide}, DType::f32, device));
  for (const Kernel& each : expanded_program.kernels)
    CHECK(std::get_if<OpKernel>(&each) == nullptr);
}

TEST_CASE("attention of other dtypes and ops is refused", "[cpu][attention]") {
  OpKernel kernel;
  kernel.op = Op::softmax;
  CHECK_THROWS_AS(cpu_backend::AttentionRunner(kernel), Error);
  kernel.op = Op::attention;
  kernel.attributes = AttentionAttributes{};
  kernel.input_types.assign(3, {Shape{2, 3}, DType::i32});
  CHECK_THROWS_AS(cpu_backend::AttentionRunner(kernel), DTypeError);
  kernel.input_types.assign(3, {Shape{2, 3}, DType::f32});
  CHECK_THROWS_AS(cpu_backend::AttentionRunner(kernel), Error);
}

TEST_CASE("what later keys hold reaches a causal row on any number of threads",
          "[cpu][attention]") {
  const std::int64_t queries = 5, keys = 460, features = 2;
  const auto number = [](std::int64_t tokens, float value) {
    return std::vector<float>(static_cast<std::size_t>(tokens), value);
  };
  AttentionAttributes attributes;
  attributes.causal = true;
  for (const bool finite : {true, false}) {
    INFO((finite ? "a product" : "an operand") << " is infinite");
    std::vector<float> k = number(keys * features, 0.5f), v = number(keys * features, 1);
    if (!finite) k[450 * features] = std::numeric_limits<float>::infinity();
    v[100 * features] = 1e20f;
    const auto operands = [&](const Device& device) {
      const auto tensor = [&](const std::vector<float>& values, const Shape& shape) {
        return Tensor::from(values, shape, device);
      };
      return std::vector<Tensor>{tensor(number(queries * features, 1), {1, queries, features}),
                                 tensor(k, {1, keys, features}), tensor(v, {1, keys, features}),
                                 tensor(number(queries * features, 1e20f), {1, queries, features}),
                                 tensor(number(queries, 0), {1, queries})};
    };
    const std::vector<Tensor> expected =
        run(expansion(Op::attention_backward, attributes, operands(reference()), CostModel{}));
    std::vector<std::vector<float>> single;
    for (const int threads : {1, 3, 4}) {
      const std::vector<Tensor> got =
          run(make_nodes(Op::attention_backward, attributes, operands(cpu({.threads = threads}))));
      for (std::size_t i = 0; i < got.size(); ++i) {
        INFO(names[6 + i] << ", " << threads << " threads");
        const std::vector<float> values = got[i].to_host<float>(),
                                 wanted = expected[i].to_host<float>();
        if (threads == 1) single.push_back(values);
        CHECK(std::memcmp(values.data(), single[i].data(), values.size() * sizeof(float)) == 0);
        std::size_t wrong = 0;
        for (std::size_t j = 0; j < values.size(); ++j)
          wrong += std::isfinite(values[j]) != std::isfinite(wanted[j]);
        CHECK(wrong == 0);
      }
    }
    CHECK(std::isnan(single[1][100 * features]));
  }
}
