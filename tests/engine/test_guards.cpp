// Loads of padded and joined operands: one range per axis, and a proof that what is read lies
// inside the buffer, at any size.
#include <numeric>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "engine/program/program.h"
#include "tests/catch.h"

using namespace fluxion;

namespace {

const Device& planning_device() {
  static const Device one = cpu({.threads = 1});
  return one;
}

Tensor argument(const Shape& shape) { return zeros(shape, DType::f32, planning_device()); }

// The only kernel of a function's plan.
template <class F, class... Args>
Tape only_tape(F f, const Args&... args) {
  const Program program = compile(std::move(f)).program(args...);
  INFO(to_string(program));
  REQUIRE(program.kernels.size() == 1);
  return std::get<TapeKernel>(program.kernels[0]).tape;
}

// Values that stay exact, and are no zero where nothing is read.
Tensor twice(const Tensor& x) { return x * 2.0 + 1.0; }

template <class F>
void check_values(F f, const std::vector<Shape>& shapes) {
  const auto run = [&](const Device& on) {
    std::vector<Tensor> tensors;
    for (const Shape& shape : shapes) {
      std::vector<float> values(static_cast<std::size_t>(shape.elements()));
      std::iota(values.begin(), values.end(), 1.0f);
      tensors.push_back(Tensor::from(values, shape, on));
    }
    return f(tensors).template to_host<float>();
  };
  CHECK(run(planning_device()) == run(reference()));
}

}  // namespace

TEST_CASE("nested pads and concatenations plan at every size", "[engine][plan][guards]") {
  for (const std::int64_t n :
       {std::int64_t{60}, std::int64_t{60'000}, std::int64_t{600'000}, std::int64_t{900'000},
        (std::int64_t{1} << 31) + 7, (std::int64_t{1} << 32) + 5, std::int64_t{1} << 40}) {
    INFO("n = " << n);
    const Tensor a = argument({n}), b = argument({n}), c = argument({n});
    const Tape joined = only_tape(
        [](const Tensor& a, const Tensor& b, const Tensor& c) {
          return exp(concat({concat({a, b}, 0), c}, 0));
        },
        a, b, c);
    const Tape padded = only_tape(
        [](const Tensor& a, const Tensor& b) {
          return exp(pad(concat({a, b}, 0), {3}, {3}));
        },
        a, b);
    const Tape cut = only_tape(
        [n](const Tensor& a, const Tensor& b) {
          const Tensor y = pad(concat({pad(a, {2}, {1}), b}, 0), {3}, {5});
          return exp(slice(flip(y, {0}), {1}, {2 * n}, {3}));
        },
        a, b);
    for (const Tape* tape : {&joined, &padded, &cut})
      for (const TapeLoad& load : tape->loads) CHECK(load.guards.size() == 1);
  }
}

TEST_CASE("however many pads are nested, a load has a guard per axis", "[engine][plan][guards]") {
  const auto nested = [](const Tensor& x) {
    Tensor y = x;
    for (int i = 0; i < 20; ++i)
      y = slice(transpose(pad(y, {1, 2}, {2, 1}), {1, 0}), {0, 1}, {y.size(1) + 3, y.size(0) + 3},
                {1, 1});
    return twice(y);
  };
  for (const std::int64_t n : {std::int64_t{4}, std::int64_t{1} << 16}) {
    const Tape tape = only_tape(nested, argument({n, n + 1}));
    REQUIRE(tape.loads.size() == 1);
    CHECK(tape.loads[0].guards.size() == 2);
  }
  check_values([&](const std::vector<Tensor>& x) { return nested(x[0]); }, {{4, 5}});
}

TEST_CASE("guards are in their normal form", "[engine][plan][guards]") {
  SECTION("no constant, no common divisor, the first coefficient positive") {
    // Every other element, backwards: the index into x is 9 - 2 (i - 3).
    const Tape tape = only_tape(
        [](const Tensor& x) { return exp(pad(slice(flip(x, {0}), {0}, {10}, {2}), {3}, {2})); },
        argument({10}));
    REQUIRE(tape.loads.size() == 1);
    const TapeLoad& load = tape.loads[0];
    CHECK(load.address == Affine{15, {-2}});
    REQUIRE(load.guards.size() == 1);
    CHECK(load.guards[0] == LoadGuard{{{0, {1}}, 3, 8}, -2});
  }
  SECTION("a range that always holds is left out") {
    const Tape tape = only_tape(
        [](const Tensor& x) { return exp(slice(pad(x, {3}, {3}), {3}, {8}, {1})); }, argument({5}));
    REQUIRE(tape.loads.size() == 1);
    CHECK(tape.loads[0].guards.empty());
  }
  SECTION("a load that reads nowhere says so") {
    const Tape tape = only_tape(
        [](const Tensor& x, const Tensor& y) { return slice(pad(x, {3}, {3}), {0}, {2}, {1}) + y; },
        argument({5}), argument({2}));
    for (const TapeLoad& load : tape.loads)
      if (!load.guards.empty()) CHECK(load.guards == std::vector<LoadGuard>{{{{0, {0}}, 0, 0}, 0}});
  }
}

TEST_CASE("guards say the same as the padding that they stand for", "[engine][plan][guards]") {
  using Tensors = std::vector<Tensor>;
  check_values(
      [](const Tensors& x) {
        return twice(concat({concat({x[0], x[1]}, 0), x[2]}, 0));
      },
      {{5}, {4}, {3}});
  // Two axes made one, backwards: neither guard bounds the index by itself.
  check_values(
      [](const Tensors& x) {
        return twice(pad(reshape(flip(x[0], {0}), {2, 4}), {1, 2}, {2, 1}));
      },
      {{8}});
  check_values(
      [](const Tensors& x) {
        return twice(pad(reshape(pad(x[0], {1}, {1}), {2, 4}), {1, 2}, {2, 1}));
      },
      {{6}});
  check_values(
      [](const Tensors& x) {
        return twice(pad(broadcast_to(x[0], {3, 4}), {1, 0}, {2, 1}));
      },
      {{4}});
  check_values(
      [](const Tensors& x) {
        return sum(pad(transpose(x[0], {1, 0}), {1, 0}, {0, 2}), {1}) * 2.0;
      },
      {{3, 4}});
  check_values([](const Tensors& x) { return twice(pad(x[0], {2, 1}, {0, 0})); }, {{0, 3}});
  check_values(
      [](const Tensors& x) {
        return sum(twice(pad(x[0], {2, 1}, {0, 0}, 1.5)), {0});
      },
      {{3, 0}});
}

TEST_CASE("an index that would leave 64 bits is cut by memory on its way",
          "[engine][plan][guards]") {
  const std::int64_t step = std::int64_t{1} << 39, n = std::int64_t{1} << 40;
  const auto far = [&](const Tensor& x) {
    const Tensor two = slice(x, {0}, {n}, {step});
    return pad(slice(pad(two, {0}, {n - 2}), {0}, {n}, {step}), {0}, {n - 2}) + 1.0;
  };
  const Program program = compile(far).program(argument({n}));
  INFO(to_string(program));
  CHECK(program.kernels.size() == 3);
}
