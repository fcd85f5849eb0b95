// The CPU backend against the reference backend: every op, on plain operands, on special values,
// and behind stacks of views.
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "autograd/linearize.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// A random view of x: one movement op.
Tensor random_view(const Tensor& x, std::mt19937& random) {
  const auto below = [&](std::int64_t end) {
    return end <= 0 ? 0 : static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(end));
  };
  const std::int64_t rank = x.rank();
  const auto axes = static_cast<std::size_t>(rank);
  switch (random() % 8) {
    case 0: {
      Dims order(axes);
      for (std::size_t i = 0; i < axes; ++i) order[i] = static_cast<std::int64_t>(i);
      std::shuffle(order.begin(), order.end(), random);
      return transpose(x, order);
    }
    case 1: {
      Dims start, stop, step;
      for (const std::int64_t size : x.shape()) {
        start.push_back(below(std::min<std::int64_t>(size, 3)));
        stop.push_back(size - below(std::min<std::int64_t>(size - start.back(), 2)));
        step.push_back(1 + below(2));
      }
      return slice(x, start, stop, step);
    }
    case 2: {
      Dims low, high;
      for (std::size_t i = 0; i < axes; ++i) {
        low.push_back(below(3));
        high.push_back(below(2));
      }
      return pad(x, low, high, below(2) == 0 ? 0.0 : 0.5);
    }
    case 3: {
      Dims flipped;
      for (std::int64_t axis = 0; axis < rank; ++axis)
        if (random() % 2) flipped.push_back(axis);
      return flip(x, flipped);
    }
    case 4: {
      if (rank == 0) return x;
      const std::int64_t axis = below(rank);
      const Tensor half = slice_axis(x, axis, 0, (x.size(axis) + 1) / 2);
      return concat({half, x, flip(half, {axis})}, axis);
    }
    case 5: {
      // Cut an axis in two where it divides, else merge the first two.
      for (std::int64_t axis = 0; axis < rank && rank < 5; ++axis)
        for (const std::int64_t factor : {2, 3})
          if (x.size(axis) > factor && x.size(axis) % factor == 0) {
            Dims sizes = x.shape().dims();
            sizes[static_cast<std::size_t>(axis)] /= factor;
            sizes.insert(sizes.begin() + axis + (random() % 2), factor);
            return reshape(x, Shape(sizes)).elements() == x.elements() ? reshape(x, Shape(sizes))
                                                                       : x;
          }
      if (rank < 2) return x;
      Dims sizes(x.shape().begin() + 1, x.shape().end());
      sizes[0] *= x.size(0);
      return reshape(x, Shape(sizes));
    }
    case 6: {
      if (rank >= 4 || x.elements() > 500) return x;
      Dims sizes = x.shape().dims();
      sizes.insert(sizes.begin(), 1 + below(3));
      return broadcast_to(x, Shape(sizes));
    }
    default: {
      if (rank == 0) return x;
      // A reduction to size 1, stretched again.
      const std::int64_t axis = below(rank);
      const Tensor one = slice_axis(x, axis, 0, std::min<std::int64_t>(1, x.size(axis)));
      return one.size(axis) == 1 ? broadcast_to(one, x.shape()) : x;
    }
  }
}

Tensor stack_of_views(const Tensor& x, std::uint32_t seed) {
  std::mt19937 random(seed);
  Tensor view = x;
  const auto depth = 1 + random() % 5;
  for (std::uint32_t i = 0; i < depth; ++i)
    if (view.elements() < 2000) view = random_view(view, random);
  return view;
}

}  // namespace

TEST_CASE("every elementwise op has a function of its name", "[engine][ops]") {
  // identity has none; where and convert take more than operands of one dtype.
  const std::set<Op> others = {Op::identity, Op::where, Op::convert};
  std::map<Op, Tensor> made;
#define FLUXION_OP(name, inputs, outputs, attributes, op_class, rule)          \
  made[Op::name] = [](const auto& x) -> Tensor {                               \
    constexpr bool elementwise = OpClass::op_class == OpClass::elementwise;    \
    if constexpr (elementwise && inputs == 1 && requires { name(x); })         \
      return name(x);                                                          \
    else if constexpr (elementwise && inputs == 2 && requires { name(x, x); }) \
      return name(x, x);                                                       \
    else                                                                       \
      return {};                                                               \
  }(full({2}, 1, Op::name == Op::shift_right ? DType::u32 : DType::f32, reference()));
#include "engine/graph/ops.def"
#undef FLUXION_OP
  for (const auto& [op, tensor] : made) {
    if (info(op).op_class != OpClass::elementwise || others.contains(op)) continue;
    INFO("engine/graph/ops.h lacks " << to_string(op));
    CHECK((tensor && tensor.node()->op == op));
  }
}

TEST_CASE("every op has an example", "[engine][ops]") {
  std::set<Op> shown;
  for (const OpExample& example : op_examples()) shown.insert(example.op);
  for (int number = 0; number < op_count; ++number) {
    const auto op = static_cast<Op>(number);
    INFO("op " << to_string(op));
    CHECK((op == Op::data || op == Op::parameter || shown.contains(op)));
  }
}

TEST_CASE("every op gives on the CPU what it gives on the reference backend", "[engine][ops]") {
  const Device device = cpu(), expected = reference();
  for (const OpExample& example : op_examples()) {
    CHECK(difference(example, device, expected, DType::f32) == "");
    CHECK(difference(example, device, expected, DType::f64) == "");
    if (takes_integers(example.op)) CHECK(difference(example, device, expected, DType::i32) == "");
  }
}

TEST_CASE("elementwise ops agree on special values", "[engine][ops]") {
  const Device device = cpu(), expected_device = reference();
  const double specials[] = {0.0,   -0.0,   1,      -1,       0.5,       -0.5,        1e-6, -1e-6,
                             1e-30, -1e-30, 1e30,   -1e30,    20,        -20,         89,   -89,
                             104,   -104,   3.4e38, infinity, -infinity, std::nan("")};
  for (int number = 0; number < op_count; ++number) {
    const auto op = static_cast<Op>(number);
    if (info(op).op_class != OpClass::elementwise || op == Op::where || op == Op::shift_right ||
        op == Op::convert)
      continue;
    const int operands = info(op).inputs;
    HostValue a, b;
    for (const double x : specials)
      for (const double y : specials) {
        if (operands == 1 && &y != &specials[0]) continue;
        // Trigonometry of huge angles is beyond a polynomial in the same precision.
        if ((op == Op::sin || op == Op::cos) && std::abs(x) > 1e6 && std::isfinite(x)) continue;
        a.values.push_back(x);
        b.values.push_back(y);
      }
    a.shape = b.shape = {static_cast<std::int64_t>(a.values.size())};
    for (const DType dtype : {DType::f32, DType::f64}) {
      const auto run = [&](const Device& on) {
        std::vector<Tensor> inputs = {to_tensor(a, on, dtype)};
        if (operands == 2) inputs.push_back(to_tensor(b, on, dtype));
        return make_node(op, NoAttributes{}, inputs);
      };
      const Tensor got = run(device), expected = run(expected_device);
      const std::vector<double> x = host_values(got), y = host_values(expected);
      const double smallest = dtype == DType::f32 ? std::numeric_limits<float>::min()
                                                  : std::numeric_limits<double>::min();
      std::string wrong;
      for (std::size_t i = 0; i < x.size(); ++i) {
        if (x[i] == y[i] || (std::isnan(x[i]) && std::isnan(y[i])) ||
            std::abs(x[i] - y[i]) <= 4 * epsilon_of(dtype) * std::abs(y[i]) + smallest)
          continue;
        char line[160];
        std::snprintf(line, sizeof line, "%s(%g, %g) gives %.9g, expected %.9g\n",
                      std::string(to_string(op)).c_str(), a.values[i], b.values[i], x[i], y[i]);
        wrong += line;
      }
      INFO(to_string(op) << " in " << to_string(dtype)
                         << (operands == 1 ? " (of the first operand)" : ""));
      CHECK(wrong == "");
    }
  }
}

TEST_CASE("conversions agree between all dtypes", "[engine][ops]") {
  const Device device = cpu(), expected_device = reference();
  const DType all[] = {DType::boolean, DType::u8,  DType::i32, DType::u32,
                       DType::bf16,    DType::f16, DType::f32, DType::f64};
  HostValue value;
  value.values = {0,    -0.0,  0.4,   0.5,  -0.5,     1,         1.5,         -1.9,
                  2.5,  77,    255,   256,  300,      -1,        2147483520,  4294967040.0,
                  1e20, -1e20, 65520, 1e-8, infinity, -infinity, std::nan("")};
  value.shape = {static_cast<std::int64_t>(value.values.size())};
  for (const DType through : all)
    for (const DType to : all) {
      INFO("f64 to " << to_string(through) << " to " << to_string(to));
      try {
        const auto run = [&](const Device& on) {
          const Tensor middle = convert(to_tensor(value, on), through);
          eval(middle);
          return convert(middle, to);
        };
        CHECK(difference(run(device), run(expected_device), 0, 0) == "");
        // The same within one kernel.
        CHECK(difference(convert(convert(to_tensor(value, device), through), to),
                         run(expected_device), 0, 0) == "");
      } catch (const std::exception& error) {
        FAIL_CHECK("threw: " << error.what());
      }
    }
}

TEST_CASE("64-bit integers convert at the boundary", "[engine][ops]") {
  for (const Device& device : {cpu(), reference()}) {
    const Tensor n = Tensor::from(std::vector<std::int64_t>{-3, 0, 2147483647}, {3}, device);
    CHECK(convert(n, DType::i32).to_host<std::int32_t>() ==
          std::vector<std::int32_t>{-3, 0, 2147483647});
    CHECK(convert(n, DType::f64).to_host<double>() == std::vector<double>{-3, 0, 2147483647});
    CHECK(convert(convert(n, DType::i32), DType::i64).to_host<std::int64_t>() ==
          std::vector<std::int64_t>{-3, 0, 2147483647});
    // Of what is the same everywhere, alone and compiled.
    const std::vector<std::int64_t> twice{2, 2};
    const Tensor two = full({2}, 2, DType::i32, device);
    CHECK(two.to(DType::i64).to_host<std::int64_t>() == twice);
    CHECK((full({2}, 1, DType::f32, device) * 2.0).to(DType::i64).to_host<std::int64_t>() == twice);
    CHECK(eq(two, two).to(DType::i64).to_host<std::int64_t>() == std::vector<std::int64_t>{1, 1});
    const auto f =
        compile([](const Tensor& x) { return convert(broadcast_to(x, {2}), DType::i64); });
    CHECK(f(full({}, 2, DType::i32, device)).to_host<std::int64_t>() == twice);
  }
}

TEST_CASE("operands without a meaning are refused at the call", "[engine][ops]") {
  const Device device = reference();
  const Tensor key = random_key(1, device);
  CHECK_THROWS_AS(fold_in(key, full({}, 0.5, DType::f32, device)), DTypeError);
  CHECK(fold_in(key, full({}, 7, DType::i32, device)).to_host<std::uint32_t>() ==
        fold_in(key, 7).to_host<std::uint32_t>());
  const Tensor none = zeros({0}, DType::f32, device), index = zeros({3}, DType::i32, device);
  CHECK_THROWS_AS(index_add(none, index, zeros({3}, DType::f32, device), 0), ShapeError);
  CHECK(index_add(none, zeros({0}, DType::i32, device), none, 0).elements() == 0);
}

TEST_CASE("only the last five bits of a shift count", "[engine][ops]") {
  for (const Device& device : {cpu(), reference()}) {
    const Tensor x = Tensor::from(std::vector<std::uint32_t>{0xF0000000u, 256}, {2}, device);
    CHECK(shift_right(x, 32.0).to_host<std::uint32_t>() == x.to_host<std::uint32_t>());
    CHECK(shift_right(x, 40.0).to_host<std::uint32_t>() == std::vector<std::uint32_t>{15728640, 1});
  }
}

TEST_CASE("integers wrap", "[engine][ops]") {
  for (const Device& device : {cpu(), reference()}) {
    const auto of = [&](std::vector<std::int32_t> values) {
      return Tensor::from(values, {static_cast<std::int64_t>(values.size())}, device);
    };
    const std::int32_t low = std::numeric_limits<std::int32_t>::min(),
                       high = std::numeric_limits<std::int32_t>::max();
    CHECK((of({high, low, 65536}) + of({1, -1, 3})).to_host<std::int32_t>() ==
          std::vector<std::int32_t>{low, high, 65539});
    CHECK((of({high, 65536, -7}) * of({2, 65536, 3})).to_host<std::int32_t>() ==
          std::vector<std::int32_t>{-2, 0, -21});
    CHECK(neg(of({low, 5})).to_host<std::int32_t>() == std::vector<std::int32_t>{low, -5});
    CHECK(abs(of({low, -5})).to_host<std::int32_t>() == std::vector<std::int32_t>{low, 5});
    const auto u32 = [&](std::vector<std::uint32_t> values) {
      return Tensor::from(values, {static_cast<std::int64_t>(values.size())}, device);
    };
    CHECK((u32({4294967295u, 1}) * u32({4294967295u, 7})).to_host<std::uint32_t>() ==
          std::vector<std::uint32_t>{1, 7});
    CHECK((u32({0, 4294967295u}) - u32({1, 4294967294u})).to_host<std::uint32_t>() ==
          std::vector<std::uint32_t>{4294967295u, 1});
    CHECK(lt(u32({1, 4294967295u}), u32({4294967295u, 1})).to_host<bool>() ==
          std::vector<bool>{true, false});
    CHECK(max(u32({1, 4294967295u})).item<std::uint32_t>() == 4294967295u);
    // A row longer than a kernel adds up in one piece.
    const Tensor rows = full({3, 5000}, 1'000'000'000, DType::i32, device);
    eval(rows);
    const auto total = static_cast<std::int32_t>(5000 * 1'000'000'000ull);
    CHECK(sum(rows, {1}).to_host<std::int32_t>() == std::vector<std::int32_t>(3, total));
  }
}

TEST_CASE("reductions of nothing and of NaN", "[engine][ops]") {
  for (const Device& device : {cpu(), reference()}) {
    INFO(device.name());
    const Tensor nothing = zeros({0, 2}, DType::f32, device);
    CHECK(host_values(sum(nothing, {0})) == std::vector<double>{0, 0});
    CHECK(host_values(max(nothing, {0})) == std::vector<double>{-infinity, -infinity});
    CHECK(host_values(min(nothing, {0})) == std::vector<double>{infinity, infinity});
    CHECK(host_values(matmul(zeros({2, 0}, DType::f32, device),
                             zeros({0, 2}, DType::f32, device))) == std::vector<double>(4, 0.0));
    for (std::size_t position = 0; position < 40; position += 13) {
      std::vector<float> values(40, 1.0f);
      values[position] = std::nanf("");
      values[(position + 20) % 40] = 5;
      const Tensor x = Tensor::from(values, {40}, device);
      CHECK(std::isnan(max(x).item<float>()));
      CHECK(std::isnan(min(x).item<float>()));
      CHECK(argmax(x, 0).item<std::int32_t>() == static_cast<std::int32_t>(position));
    }
    CHECK(
        argmax(Tensor::from(std::vector<float>{1, 3, 3, 2}, {4}, device), 0).item<std::int32_t>() ==
        1);
  }
}

TEST_CASE("indices outside of the axis are clamped", "[engine][ops]") {
  for (const Device& device : {cpu(), reference()}) {
    const Tensor x = Tensor::from(std::vector<float>{10, 20, 30}, {3}, device),
                 i = Tensor::from(std::vector<std::int32_t>{-5, 7, 1}, {3}, device);
    CHECK(take(x, i, 0).to_host<float>() == std::vector<float>{10, 30, 20});
    CHECK(take_along_axis(x, i, 0).to_host<float>() == std::vector<float>{10, 30, 20});
    CHECK(scatter_add(x, i, x, 0).to_host<float>() == std::vector<float>{20, 50, 50});
    CHECK(index_add(x, i, x, 0).to_host<float>() == std::vector<float>{20, 50, 50});
  }
}

TEST_CASE("stacks of views read the right elements", "[engine][ops][views]") {
  const Device device = cpu(), expected = reference();
  const Shape shapes[] = {{24}, {4, 6}, {3, 5}, {2, 3, 4}, {1, 7}, {2, 1, 6, 2}};
  for (std::uint32_t seed = 0; seed < 300; ++seed) {
    const HostValue value = random_value(shapes[seed % std::size(shapes)], -2, 2, seed);
    const auto run = [&](const Device& on) {
      return stack_of_views(to_tensor(value, on, DType::f32), seed);
    };
    INFO("seed " << seed);
    try {
      REQUIRE(difference(run(device), run(expected), 0, 0) == "");
    } catch (const Error& error) {
      FAIL("threw: " << error.what());
    }
  }
}

TEST_CASE("every op reads its operands through views", "[engine][ops][views]") {
  const Device device = cpu(), expected_device = reference();
  for (const OpExample& example : op_examples()) {
    if (info(example.op).op_class == OpClass::leaf || info(example.op).op_class == OpClass::random)
      continue;
    for (std::uint32_t seed = 0; seed < 4; ++seed) {
      // Each operand arrives as a view of a bigger tensor: padded, then cut; flipped twice;
      // transposed there and back; a part of a concatenation.
      const auto viewed = [&](const Tensor& x) {
        Dims ones(static_cast<std::size_t>(x.rank()), 1), sizes = x.shape().dims(), all(ones),
                                                          reversed(ones);
        for (std::size_t i = 0; i < ones.size(); ++i) {
          all[i] = static_cast<std::int64_t>(i);
          reversed[i] = static_cast<std::int64_t>(ones.size() - 1 - i);
        }
        const Tensor flipped = flip(flip(x, all), all);
        if (seed == 0 || x.rank() == 0) return flipped;
        if (seed == 1) {
          const Tensor turned = transpose(x, reversed);
          const Tensor copy = concat({turned, turned}, 0);
          return transpose(slice_axis(copy, 0, turned.size(0), 2 * turned.size(0)), reversed);
        }
        for (std::int64_t& size : sizes) ++size;
        const Tensor padded = pad(x, ones, ones, 1);
        if (seed == 2) return slice(padded, ones, sizes, ones);
        const Tensor doubled = reshape(broadcast_to(expand_dims(x, -1),
                                                    [&] {
                                                      Dims two = x.shape().dims();
                                                      two.push_back(2);
                                                      return Shape(two);
                                                    }()),
                                       [&] {
                                         Dims merged = x.shape().dims();
                                         merged.back() *= 2;
                                         return Shape(merged);
                                       }());
        Dims start(ones.size(), 0), step(ones.size(), 1), stop = doubled.shape().dims();
        step.back() = 2;
        return slice(doubled, start, stop, step);
      };
      for (const DType dtype : {DType::f32, DType::f64}) {
        INFO(example.label << " in " << to_string(dtype) << ", view " << seed);
        try {
          std::vector<Tensor> inputs;
          for (const HostValue& input : example.inputs)
            inputs.push_back(viewed(to_tensor(input, device, dtype)));
          const std::vector<Tensor> got = example.f(inputs),
                                    expected = example.f(
                                        to_tensors(example.inputs, expected_device, dtype));
          const Tolerance allowed = tolerance(example, dtype, expected);
          for (std::size_t i = 0; i < got.size(); ++i)
            CHECK(difference(got[i], expected[i], allowed.relative, allowed.absolute) == "");
        } catch (const std::exception& error) {
          FAIL_CHECK("threw: " << error.what());
        }
      }
    }
  }
}

namespace {

// A random graph: the same seed gives the same graph on any device. All ops are continuous, so that
// rounding can't be amplified without bound.
std::vector<Tensor> random_graph(const Device& device, std::uint32_t seed, DType dtype,
                                 const std::vector<Tensor>& leaves) {
  std::mt19937 random(seed);
  std::vector<Tensor> pool = leaves;
  const auto pick = [&]() -> Tensor { return pool[random() % pool.size()]; };
  for (int step = 0; step < 25; ++step) {
    const Tensor x = pick();
    Tensor y;
    switch (random() % 14) {
      case 0:
        y = tanh(x);
        break;
      case 1:
        y = sin(x) * 0.5;
        break;
      case 2:
        y = sigmoid(x) - x;
        break;
      case 3:
        y = exp(-square(x));
        break;
      case 4:
      case 5: {
        const Tensor other = pick();
        y = other.shape() == x.shape() ? x + other * 0.5 : x * 0.5 + mean(other);
        break;
      }
      case 6:
        y = maximum(x, pick().elements() ? 0.25 : 0.5) - minimum(x, -0.25);
        break;
      case 7: {
        if (x.rank() == 0) {
          y = cos(x);
          break;
        }
        const auto axis =
            static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(x.rank()));
        y = random() % 2 ? x - mean(x, {axis}, true) : mean(x, {axis}, random() % 2 == 0);
        break;
      }
      case 8: {
        if (x.rank() == 0) {
          y = erf(x);
          break;
        }
        y = random() % 2 ? softmax(x, -1) : layer_norm(x, 0.1);
        break;
      }
      case 9: {
        if (x.rank() < 2) {
          y = x * x;
          break;
        }
        // A Gram matrix, scaled to stay bounded.
        y = tanh(matmul(x, swap_axes(x, -1, -2)) *
                 (1.0 / static_cast<double>(std::max<std::int64_t>(1, x.size(-1)))));
        break;
      }
      case 10: {
        if (x.rank() == 0 || x.size(-1) == 0) {
          y = x;
          break;
        }
        y = max(x, {-1}, true) * 0.5 + x;
        break;
      }
      case 11: {
        const Tensor condition =
            lt(broadcast_to(leaves[0].elements() ? mean(leaves[0]) : zeros({}, dtype, device),
                            x.shape()),
               0.0);
        y = where(condition, x, x * 0.5);
        break;
      }
      default:
        y = x.elements() < 1000 ? random_view(x, random) : x;
        break;
    }
    if (y.elements() <= 4000) pool.push_back(y);
  }
  return {pool.end() - std::min<std::ptrdiff_t>(6, static_cast<std::ptrdiff_t>(pool.size())),
          pool.end()};
}

std::vector<HostValue> random_leaves(std::uint32_t seed) {
  const Shape shapes[] = {{4, 6}, {3, 5}, {2, 3, 4}, {7}, {6, 6}, {1, 9}};
  return {random_value(shapes[seed % 6], -1, 1, seed),
          random_value(shapes[(seed / 6) % 6], -1, 1, seed + 1000)};
}

// "" if all agree to `unit` times the graph's depth and breadth.
void compare_graphs(const std::vector<Tensor>& got, const std::vector<Tensor>& expected,
                    double unit) {
  eval(got);
  eval(expected);
  for (std::size_t i = 0; i < got.size(); ++i)
    REQUIRE(difference(got[i], expected[i], unit, unit) == "");
}

}  // namespace

TEST_CASE("random graphs agree between the CPU and the reference backend",
          "[engine][ops][random]") {
  const Device device = cpu(), expected_device = reference();
  for (const DType dtype : {DType::f64, DType::f32})
    for (std::uint32_t seed = 0; seed < 150; ++seed) {
      INFO("seed " << seed << " in " << to_string(dtype));
      try {
        const std::vector<HostValue> values = random_leaves(seed);
        const auto run = [&](const Device& on) {
          return random_graph(on, seed, dtype, to_tensors(values, on, dtype));
        };
        compare_graphs(run(device), run(expected_device), dtype == DType::f64 ? 1e-10 : 2e-3);
      } catch (const Error& error) {
        FAIL("threw: " << error.what());
      }
    }
}

TEST_CASE("gradients of random graphs agree between the CPU and the reference backend",
          "[engine][ops][random]") {
  const Device device = cpu(), expected_device = reference();
  for (std::uint32_t seed = 0; seed < 80; ++seed) {
    INFO("seed " << seed);
    try {
      const std::vector<HostValue> values = random_leaves(seed);
      const auto run = [&](const Device& on) {
        Leaves traced(to_tensors(values, on));
        Tensor total;
        for (const Tensor& output : random_graph(on, seed, DType::f64, traced.tensors())) {
          const Tensor part = mean(square(output));
          if (output.elements() > 0) total = total ? total + part : part;
        }
        if (!total) total = sum(traced.tensors()[0]);
        return traced.gradient(total);
      };
      compare_graphs(run(device), run(expected_device), 1e-9);
    } catch (const Error& error) {
      FAIL("threw: " << error.what());
    }
  }
}
