#include "tests/op_examples.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "engine/graph/custom.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"

namespace fluxion::testing {

Tensor to_tensor(const HostValue& value, const Device& device, DType floating) {
  const DType dtype = value.dtype == DType::f64 ? floating : value.dtype;
  const auto stored = [&]<class T>(T) {
    std::vector<T> values;
    for (const double each : value.values)
      values.push_back(static_cast<T>(
          value.dtype == DType::f64 && is_integer(dtype) ? std::trunc(10 * each) : each));
    return Tensor::from(values, value.shape, device);
  };
  // Rounded to nearest.
  const auto rounded = [&](auto round) {
    std::vector<decltype(round(0.0f))> values;
    for (const double each : value.values) values.push_back(round(static_cast<float>(each)));
    return Tensor::from(values, value.shape, device);
  };
  switch (dtype) {
    case DType::bf16:
      return rounded(to_bf16);
    case DType::f16:
      return rounded([](float each) { return to_f16(each); });
    case DType::f64:
      return stored(double{});
    case DType::f32:
      return stored(float{});
    case DType::i32:
      return stored(std::int32_t{});
    case DType::u32:
      return stored(std::uint32_t{});
    case DType::u8:
      return stored(std::uint8_t{});
    case DType::i64:
      return stored(std::int64_t{});
    case DType::boolean: {
      std::vector<std::byte> bytes;
      for (const double each : value.values)
        bytes.push_back(each != 0 ? std::byte{1} : std::byte{0});
      return Tensor::from_bytes(bytes, {value.shape, dtype}, device);
    }
    default:
      throw Error("to_tensor: no such test data");
  }
}

std::vector<Tensor> to_tensors(const std::vector<HostValue>& values, const Device& device,
                               DType floating) {
  std::vector<Tensor> tensors;
  for (const HostValue& value : values) tensors.push_back(to_tensor(value, device, floating));
  return tensors;
}

HostValue random_value(const Shape& shape, double low, double high, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  HostValue value{shape, DType::f64, {}};
  // Multiples of 2^-20, so that f32 holds them exactly.
  for (std::int64_t i = 0; i < shape.elements(); ++i)
    value.values.push_back(std::ldexp(
        std::floor(std::ldexp(
            low + (high - low) * std::ldexp(static_cast<double>(random() >> 11), -53), 20)),
        -20));
  return value;
}

Tensor random_tensor(const Shape& shape, const Device& device, std::uint64_t seed, DType dtype) {
  return to_tensor(random_value(shape, -1, 1, seed), device, dtype);
}

bool has_derivative(Op op) {
  switch (op) {
    case Op::data:
    case Op::parameter:
    case Op::constant:
    case Op::iota:
    case Op::stop_gradient:
    case Op::shift_right:
    case Op::lt:
    case Op::le:
    case Op::gt:
    case Op::ge:
    case Op::eq:
    case Op::ne:
    case Op::argmax:
    case Op::argsort:
    case Op::random_bits:
      return false;
    default:
      return true;
  }
}

bool takes_integers(Op op) {
  switch (op) {
    case Op::identity:
    case Op::stop_gradient:
    case Op::neg:
    case Op::abs:
    case Op::sign:
    case Op::add:
    case Op::sub:
    case Op::mul:
    case Op::maximum:
    case Op::minimum:
    case Op::lt:
    case Op::le:
    case Op::gt:
    case Op::ge:
    case Op::eq:
    case Op::ne:
    case Op::where:
    case Op::sum:
    case Op::max:
    case Op::min:
    case Op::argmax:
    case Op::argsort:
    case Op::cumsum:
    case Op::take:
    case Op::index_add:
    case Op::take_along_axis:
    case Op::scatter_add:
    case Op::after:
      return true;
    default:
      return info(op).op_class == OpClass::movement;
  }
}

namespace {

const Shape shapes[] = {{}, {1}, {7}, {67}, {3, 5}, {2, 1, 3}, {1, 9}, {0}, {4, 0, 2}};

HostValue integers(const Shape& shape, DType dtype, std::vector<double> values) {
  return {shape, dtype, std::move(values)};
}

// Magnitudes in [least, 2) with either sign: away from the kink or pole at 0.
auto away_from_zero(double least) {
  return [least](const Shape& shape, std::uint64_t seed) {
    HostValue value = random_value(shape, least, 2, seed);
    const HostValue signs = random_value(shape, -1, 1, seed + 1);
    for (std::size_t i = 0; i < value.values.size(); ++i)
      if (signs.values[i] < 0) value.values[i] = -value.values[i];
    return value;
  };
}

// All different, at least 0.05 apart: no ties for max, min and argmax.
HostValue distinct(const Shape& shape, std::uint64_t seed) {
  HostValue value = random_value(shape, 0, 0.02, seed);
  std::vector<std::size_t> order(value.values.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  // (std::shuffle gives another order with each standard library.)
  std::mt19937_64 random(seed);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  for (std::size_t i = 0; i < order.size(); ++i)
    value.values[i] +=
        0.125 * (static_cast<double>(order[i]) - static_cast<double>(order.size()) / 2);
  return value;
}

class Examples {
 public:
  std::vector<OpExample> list;

  void add(Op op, const std::string& label, std::vector<HostValue> inputs, TensorFunction f) {
    list.push_back({op, std::string(to_string(op)) + " " + label, std::move(inputs), std::move(f)});
  }
  // One example per shape; values(shape, seed) makes an operand.
  template <class Values>
  void elementwise(
      Op op, int operands, Values values,
      const std::function<Attributes(const Tensor&)>& attributes = [](const Tensor&) {
        return NoAttributes{};
      }) {
    for (const Shape& shape : shapes) {
      std::vector<HostValue> inputs;
      for (int i = 0; i < operands; ++i)
        inputs.push_back(values(shape, static_cast<std::uint64_t>(100 * static_cast<int>(op) + i)));
      add(op, to_string(shape), std::move(inputs), [op, attributes](const std::vector<Tensor>& x) {
        return make_nodes(op, attributes(x[0]), x);
      });
    }
  }
};

std::function<HostValue(const Shape&, std::uint64_t)> between(double low, double high) {
  return [low, high](const Shape& shape, std::uint64_t seed) {
    return random_value(shape, low, high, seed);
  };
}

void add_leaves(Examples& all) {
  // Leaves have no operands; an unused one says on which device.
  const HostValue anywhere{{}, DType::f64, {0}};
  all.add(Op::constant, "[3, 4]", {anywhere},
          [](const std::vector<Tensor>& x) -> std::vector<Tensor> {
            return {full({3, 4}, 0.75, x[0].dtype(), x[0].device()) + x[0]};
          });
  for (std::int64_t axis = 0; axis < 3; ++axis)
    all.add(Op::iota, "axis " + std::to_string(axis), {anywhere},
            [axis](const std::vector<Tensor>& x) -> std::vector<Tensor> {
              return {iota({3, 1, 5}, axis, x[0].dtype(), x[0].device())};
            });
}

void add_elementwise(Examples& all) {
  for (const Op op : {Op::log, Op::sqrt, Op::rsqrt}) all.elementwise(op, 1, between(0.2, 3));
  all.elementwise(Op::log1p, 1, between(-0.6, 2));
  all.elementwise(Op::floor, 1, [](const Shape& shape, std::uint64_t seed) {
    HostValue value = random_value(shape, 0.1, 0.9, seed);
    const HostValue whole = random_value(shape, -3, 3, seed + 1);
    for (std::size_t i = 0; i < value.values.size(); ++i)
      value.values[i] += std::floor(whole.values[i]);
    return value;
  });
  // Differences are taken in f64. Other numbers become what every device has.
  all.elementwise(Op::convert, 1, between(-2, 2), [](const Tensor& x) {
    return DTypeAttributes{x.dtype() == DType::f64   ? DType::f64
                           : x.dtype() == DType::f32 ? DType::f16
                                                     : DType::f32};
  });
  all.elementwise(Op::pow, 2, between(0.3, 2));
  all.elementwise(Op::div, 2, away_from_zero(0.5));
  all.elementwise(Op::strong_div, 2, between(0.6, 2));
  const auto on_grid = [](const Shape& shape, std::uint64_t seed) {
    HostValue value = random_value(shape, -2, 2, seed);
    for (double& each : value.values) each = std::floor(each * 4) / 4;
    return value;
  };
  // Operands differ everywhere: one on the grid, one between.
  for (const Op op : {Op::maximum, Op::minimum})
    all.elementwise(op, 2, [&](const Shape& shape, std::uint64_t seed) {
      HostValue value = on_grid(shape, seed);
      for (double& each : value.values) each += seed % 100 == 0 ? 0 : 0.125;
      return value;
    });
  // Some are equal.
  for (const Op op : {Op::lt, Op::le, Op::gt, Op::ge, Op::eq, Op::ne}) {
    all.elementwise(op, 2, on_grid);
    const HostValue x{{2, 2}, DType::boolean, {0, 0, 1, 1}},
        y{{2, 2}, DType::boolean, {0, 1, 0, 1}};
    all.add(op, "of booleans", {x, y},
            [op](const std::vector<Tensor>& in) { return make_nodes(op, NoAttributes{}, in); });
  }
  for (const Shape& shape : shapes) {
    HostValue condition = random_value(shape, -1, 1, 5);
    condition.dtype = DType::boolean;
    for (double& each : condition.values) each = each > 0;
    all.add(Op::where, to_string(shape),
            {condition, random_value(shape, -2, 2, 6), random_value(shape, -2, 2, 7)},
            [](const std::vector<Tensor>& x) -> std::vector<Tensor> {
              return {where(x[0], x[1], x[2])};
            });
    HostValue bits = random_value(shape, 0, 1, 8), counts = random_value(shape, 0, 32, 9);
    bits.dtype = counts.dtype = DType::u32;
    for (double& each : bits.values) each = std::floor(each * 4294967295.0);
    for (double& each : counts.values) each = std::floor(each);
    all.add(Op::shift_right, to_string(shape), {bits, counts},
            [](const std::vector<Tensor>& x) -> std::vector<Tensor> {
              return {shift_right(x[0], x[1])};
            });
  }
  // All others are smooth away from zero.
  const auto is_listed = [&](Op op) {
    return std::any_of(all.list.begin(), all.list.end(),
                       [op](const OpExample& example) { return example.op == op; });
  };
  for (int i = 0; i < op_count; ++i) {
    const auto op = static_cast<Op>(i);
    if (info(op).op_class == OpClass::elementwise && !is_listed(op))
      all.elementwise(op, info(op).inputs, away_from_zero(0.1));
  }
}

void add_movement(Examples& all) {
  const auto one = [&](Op op, const std::string& label, const Shape& shape,
                       std::function<Tensor(const Tensor&)> f) {
    all.add(op, label, {random_value(shape, -2, 2, 11)},
            [f = std::move(f)](const std::vector<Tensor>& x) -> std::vector<Tensor> {
              return {f(x[0])};
            });
  };
  one(Op::reshape, "[4, 6] to [3, 8]", {4, 6}, [](const Tensor& x) { return reshape(x, {3, 8}); });
  one(Op::reshape, "[5, 1, 3] to [15]", {5, 1, 3},
      [](const Tensor& x) { return reshape(x, {15}); });
  one(Op::reshape, "[] to [1, 1]", {}, [](const Tensor& x) { return reshape(x, {1, 1}); });
  one(Op::reshape, "[0, 3] to [2, 0]", {0, 3}, [](const Tensor& x) { return reshape(x, {2, 0}); });
  one(Op::transpose, "[3, 5]", {3, 5}, [](const Tensor& x) { return transpose(x, {1, 0}); });
  one(Op::transpose, "[2, 3, 1, 5] by [2, 0, 3, 1]", {2, 3, 1, 5}, [](const Tensor& x) {
    return transpose(x, {2, 0, 3, 1});
  });
  one(Op::transpose, "[33, 65]", {33, 65}, [](const Tensor& x) { return transpose(x, {1, 0}); });
  one(Op::transpose, "[0, 3]", {0, 3}, [](const Tensor& x) { return transpose(x, {1, 0}); });
  one(Op::broadcast_to, "[] to [3, 2]", {}, [](const Tensor& x) {
    return broadcast_to(x, {3, 2});
  });
  one(Op::broadcast_to, "[3, 1] to [2, 3, 4]", {3, 1}, [](const Tensor& x) {
    return broadcast_to(x, {2, 3, 4});
  });
  one(Op::broadcast_to, "[1, 5] to [7, 5]", {1, 5}, [](const Tensor& x) {
    return broadcast_to(x, {7, 5});
  });
  one(Op::broadcast_to, "[1] to [0]", {1}, [](const Tensor& x) { return broadcast_to(x, {0}); });
  one(Op::slice, "with steps", {7, 10}, [](const Tensor& x) {
    return slice(x, {1, 0}, {6, 9}, {2, 3});
  });
  one(Op::slice, "of one", {5, 3}, [](const Tensor& x) {
    return slice(x, {4, 1}, {5, 2}, {1, 1});
  });
  one(Op::slice, "of nothing", {5, 3}, [](const Tensor& x) {
    return slice(x, {2, 0}, {2, 3}, {1, 1});
  });
  one(Op::pad, "all round", {3, 4}, [](const Tensor& x) { return pad(x, {1, 0}, {2, 3}, 2); });
  one(Op::pad, "of nothing", {0, 2}, [](const Tensor& x) { return pad(x, {2, 1}, {0, 0}, -1); });
  one(Op::pad, "by nothing", {3}, [](const Tensor& x) { return pad(x, {0}, {0}); });
  one(Op::flip, "both axes", {3, 5}, [](const Tensor& x) { return flip(x, {0, 1}); });
  one(Op::flip, "last axis", {2, 1, 7}, [](const Tensor& x) { return flip(x, {-1}); });
  const auto seen = [&](const std::string& label, const Shape& shape,
                        const WindowAttributes& attributes) {
    one(Op::windows, label, shape,
        [attributes](const Tensor& x) { return make_node(Op::windows, attributes, {x}); });
  };
  seen("overlapping", {2, 4, 5, 3}, {{3, 2}, {1, 1}, {1, 1}});
  seen("with strides and dilation", {1, 7, 6, 2}, {{2, 3}, {3, 2}, {2, 1}});
  seen("of one pixel, skipping some", {2, 5, 3, 1}, {{1, 1}, {2, 2}, {1, 1}});
  seen("of the whole image", {1, 3, 2, 2}, {{3, 2}, {1, 1}, {1, 1}});
  seen("of nothing", {0, 3, 3, 2}, {{2, 2}, {1, 1}, {1, 1}});
  const auto parts = [&](const std::string& label, std::int64_t axis,
                         const std::vector<Shape>& part_shapes) {
    std::vector<HostValue> inputs;
    for (const Shape& shape : part_shapes)
      inputs.push_back(random_value(shape, -2, 2, 20 + inputs.size()));
    all.add(
        Op::concat, label, std::move(inputs),
        [axis](const std::vector<Tensor>& x) -> std::vector<Tensor> { return {concat(x, axis)}; });
  };
  parts("rows", 0, {{2, 3}, {1, 3}, {4, 3}});
  parts("columns", -1, {{2, 3}, {2, 0}, {2, 1}, {2, 6}});
  parts("middle axis", 1, {{2, 1, 3}, {2, 4, 3}});
}

void add_reductions(Examples& all) {
  const std::pair<Shape, Dims> cases[] = {{{7}, {0}},
                                          {{3, 5}, {0}},
                                          {{3, 5}, {1}},
                                          {{3, 5}, {0, 1}},
                                          {{2, 3, 5}, {1}},
                                          {{2, 3, 5}, {0, 2}},
                                          {{4, 1, 3}, {1}},
                                          {{1}, {0}},
                                          {{67, 2}, {0}},
                                          {{2, 131}, {1}},
                                          {{0, 3}, {1}},
                                          {{3, 4}, {}},
                                          {{2, 3, 2, 3}, {1, 3}}};
  for (const Op op : {Op::sum, Op::max, Op::min})
    for (const auto& [shape, axes] : cases)
      all.add(op, to_string(shape) + " over " + to_string(axes), {distinct(shape, 31)},
              [op, axes = axes](const std::vector<Tensor>& x) {
                return make_nodes(op, AxesAttributes{axes}, x);
              });
  all.add(Op::sum, "of nothing", {random_value({0, 3}, 0, 1, 1)},
          [](const std::vector<Tensor>& x) -> std::vector<Tensor> { return {sum(x[0], {0})}; });
  const std::pair<Shape, std::int64_t> lines[] = {
      {{7}, 0}, {{3, 5}, 0}, {{3, 5}, 1}, {{2, 4, 3}, 1}, {{1, 1}, 1}, {{2, 67}, 1}, {{40, 3}, 0}};
  for (const auto& [shape, axis] : lines)
    for (const Op op : {Op::argmax, Op::cumsum})
      all.add(op, to_string(shape) + " along " + std::to_string(axis), {distinct(shape, 37)},
              [op, axis = axis](const std::vector<Tensor>& x) {
                return make_nodes(op, AxisAttributes{axis}, x);
              });
}

void add_sorting(Examples& all) {
  const std::pair<Shape, std::int64_t> lines[] = {{{7}, 0},       {{3, 5}, 0}, {{3, 5}, 1},
                                                  {{2, 4, 3}, 1}, {{1, 1}, 1}, {{2, 67}, 1},
                                                  {{0, 3}, 0},    {{2, 0}, 0}};
  for (const auto& [shape, axis] : lines)
    for (const bool descending : {false, true})
      all.add(
          Op::argsort,
          to_string(shape) + " along " + std::to_string(axis) + (descending ? ", descending" : ""),
          {distinct(shape, 39)}, [axis = axis, descending](const std::vector<Tensor>& x) {
            return make_nodes(Op::argsort, SortAttributes{axis, descending}, x);
          });
}

void add_contractions(Examples& all) {
  const std::pair<Shape, Shape> cases[] = {{{3, 5}, {5, 4}},       {{1, 1}, {1, 1}},
                                           {{1, 7}, {7, 1}},       {{9, 1}, {1, 6}},
                                           {{2, 3, 4}, {2, 4, 5}}, {{2, 1, 3, 4}, {1, 5, 4, 2}},
                                           {{17, 33}, {33, 19}},   {{4, 0}, {0, 3}},
                                           {{0, 4}, {4, 3}},       {{70, 3}, {3, 66}}};
  for (const auto& [a, b] : cases)
    all.add(
        Op::matmul, to_string(a) + " by " + to_string(b),
        {random_value(a, -1, 1, 41), random_value(b, -1, 1, 42)},
        [](const std::vector<Tensor>& x) -> std::vector<Tensor> { return {matmul(x[0], x[1])}; });
}

void add_index(Examples& all) {
  const auto i32 = [](const Shape& shape, std::vector<double> values) {
    return integers(shape, DType::i32, std::move(values));
  };
  const auto node = [](Op op, std::int64_t axis) {
    return [op, axis](const std::vector<Tensor>& x) {
      return make_nodes(op, AxisAttributes{axis}, x);
    };
  };
  all.add(Op::take, "rows, repeated", {random_value({5, 3}, -1, 1, 51), i32({4}, {4, 0, 4, 2})},
          node(Op::take, 0));
  all.add(Op::take, "by a table", {random_value({2, 5, 3}, -1, 1, 52), i32({2, 2}, {1, 1, 0, 4})},
          node(Op::take, 1));
  all.add(Op::take, "one", {random_value({5}, -1, 1, 53), i32({}, {3})}, node(Op::take, 0));
  all.add(Op::take, "none", {random_value({5, 2}, -1, 1, 53), i32({0}, {})}, node(Op::take, 0));
  all.add(
      Op::index_add, "rows, repeated",
      {random_value({5, 3}, -1, 1, 54), i32({4}, {4, 0, 4, 4}), random_value({4, 3}, -1, 1, 55)},
      node(Op::index_add, 0));
  all.add(Op::index_add, "columns",
          {random_value({3, 4}, -1, 1, 56), i32({3}, {1, 1, 0}), random_value({3, 3}, -1, 1, 57)},
          node(Op::index_add, 1));
  all.add(Op::index_add, "nothing",
          {random_value({3, 4}, -1, 1, 56), i32({0}, {}), random_value({3, 0}, -1, 1, 57)},
          node(Op::index_add, 1));
  all.add(Op::take_along_axis, "columns",
          {random_value({2, 5}, -1, 1, 58), i32({2, 3}, {4, 4, 0, 2, 1, 2})},
          node(Op::take_along_axis, 1));
  all.add(Op::take_along_axis, "rows",
          {random_value({4, 2}, -1, 1, 59), i32({3, 2}, {3, 0, 3, 1, 0, 2})},
          node(Op::take_along_axis, 0));
  all.add(Op::scatter_add, "columns, repeated",
          {random_value({2, 5}, -1, 1, 60), i32({2, 3}, {4, 4, 0, 2, 2, 2}),
           random_value({2, 3}, -1, 1, 61)},
          node(Op::scatter_add, 1));
  all.add(Op::scatter_add, "rows",
          {random_value({4, 2}, -1, 1, 62), i32({3, 2}, {3, 0, 3, 1, 0, 2}),
           random_value({3, 2}, -1, 1, 63)},
          node(Op::scatter_add, 0));
}

void add_random(Examples& all) {
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{7}, Shape{3, 5}, Shape{1001}, Shape{0}})
    all.add(Op::random_bits, to_string(shape),
            {integers({2}, DType::u32, {123456789, 4000000000.0})},
            [shape](const std::vector<Tensor>& x) -> std::vector<Tensor> {
              return {random_bits(x[0], shape), random_bits(fold_in(x[0], 3), shape)};
            });
}

void add_order(Examples& all) {
  for (const Shape& shape : shapes)
    all.add(Op::after, to_string(shape),
            {random_value(shape, -2, 2, 68), random_value({3}, -2, 2, 69)},
            [](const std::vector<Tensor>& x) { return make_nodes(Op::after, NoAttributes{}, x); });
  all.add(Op::after, "computed again",
          {random_value({3, 5}, -2, 2, 68), random_value({3, 5}, -2, 2, 69)},
          [](const std::vector<Tensor>& x) -> std::vector<Tensor> {
            const Tensor once = x[0] * x[0];
            return {once, transpose(make_node(Op::after, NoAttributes{},
                                              {transpose(x[0], {1, 0}), x[1] * once}),
                                    {1, 0}) *
                              x[0]};
          });
}

void add_regions(Examples& all) {
  all.add(Op::region, "of two outputs",
          {random_value({3, 5}, -2, 2, 70), random_value({5, 2}, -2, 2, 71)},
          [](const std::vector<Tensor>& x) {
            return checkpoint([](const std::vector<Tensor>& y) {
              return std::vector<Tensor>{matmul(sin(y[0]), y[1]), y[0] * y[0]};
            })(x);
          });
  all.add(Op::region, "capturing", {random_value({7}, -2, 2, 72), random_value({}, -2, 2, 73)},
          [](const std::vector<Tensor>& x) -> std::vector<Tensor> {
            return {checkpoint([captured = square(x[1])](const Tensor& y) {
              return exp(0.3 * y) * captured;
            })(x[0])};
          });
}

void add_fused(Examples& all) {
  const std::pair<Shape, std::int64_t> cases[] = {{{7}, 0},       {{3, 5}, 1},  {{3, 5}, 0},
                                                  {{2, 1, 3}, 1}, {{2, 67}, 1}, {{0, 4}, 1},
                                                  {{2, 3, 4}, 1}};
  for (const Op op : {Op::softmax, Op::log_softmax})
    for (const auto& [shape, axis] : cases)
      all.add(op, to_string(shape) + " along " + std::to_string(axis),
              {random_value(shape, -3, 3, 71)}, [op, axis = axis](const std::vector<Tensor>& x) {
                return make_nodes(op, AxisAttributes{axis}, x);
              });
  for (const Op op : {Op::layer_norm, Op::rms_norm})
    for (const Shape& shape :
         {Shape{5}, Shape{3, 7}, Shape{2, 3, 4}, Shape{2, 67}, Shape{3, 1}, Shape{0, 4}})
      all.add(op, to_string(shape), {random_value(shape, -2, 2, 73)},
              [op](const std::vector<Tensor>& x) {
                return make_nodes(op, EpsilonAttributes{1e-2}, x);
              });
}

void add_convolutions(Examples& all) {
  const auto one = [&](const std::string& label, const Shape& x, const Shape& w,
                       const ConvAttributes& attributes) {
    all.add(Op::conv2d, label, {random_value(x, -1, 1, 81), random_value(w, -1, 1, 82)},
            [attributes](const std::vector<Tensor>& in) {
              ConvAttributes typed = attributes;
              typed.contract_as(contraction_of(in[0].dtype(), in[1].dtype()));
              return make_nodes(Op::conv2d, typed, in);
            });
  };
  one("3 x 3, padded", {2, 4, 5, 3}, {3, 3, 3, 2}, {.low = {1, 1}, .high = {1, 1}});
  one("2 x 3, strides, uneven padding", {1, 5, 6, 2}, {2, 3, 2, 3},
      {.stride = {2, 3}, .low = {1, 0}, .high = {0, 2}});
  one("dilation, in groups", {1, 6, 5, 4}, {3, 2, 2, 6}, {.dilation = {2, 3}, .groups = 2});
  one("each channel for itself", {2, 3, 3, 3}, {2, 2, 1, 3},
      {.stride = {2, 1}, .low = {1, 1}, .groups = 3});
  one("spread, with strides", {1, 3, 4, 2}, {3, 3, 2, 2},
      {.stride = {2, 1}, .spread = {2, 3}, .low = {2, 1}, .high = {1, 2}});
  one("spread, cropped", {1, 4, 3, 1}, {2, 2, 1, 2},
      {.spread = {3, 2}, .low = {-1, -2}, .high = {-2, 1}});
  one("spread more than it sees", {1, 3, 3, 1}, {1, 1, 1, 1}, {.stride = {2, 3}, .spread = {3, 2}});
  one("cropped", {2, 5, 6, 2}, {2, 2, 2, 1}, {.low = {-1, -1}, .high = {-1, 0}});
  one("mostly padding", {1, 1, 2, 1}, {2, 1, 1, 2},
      {.stride = {3, 2}, .low = {7, 6}, .high = {5, 4}});
  one("1 x 1", {2, 3, 2, 4}, {1, 1, 4, 3}, {});
  one("1 x 1, strides, groups", {1, 5, 4, 4}, {1, 1, 2, 2}, {.stride = {2, 2}, .groups = 2});
  one("kernel as large as the image", {2, 3, 4, 2}, {3, 4, 2, 5}, {});
  one("no image", {0, 4, 4, 2}, {3, 3, 2, 3}, {.low = {1, 1}, .high = {1, 1}});
  one("no channels", {1, 3, 3, 0}, {2, 2, 0, 2}, {});
  one("no result", {1, 3, 3, 2}, {2, 2, 2, 0}, {});
}

void add_attention(Examples& all) {
  struct Case {
    Dims batch;
    std::int64_t queries, keys, features;
    bool masked, causal;
  };
  const Case cases[] = {{{}, 1, 1, 1, false, false},    {{2}, 5, 3, 4, false, false},
                        {{2, 1}, 3, 7, 5, true, false}, {{1}, 6, 6, 3, false, true},
                        {{1, 2}, 5, 7, 2, true, true},  {{0}, 2, 3, 4, false, false}};
  for (const Case& c : cases) {
    const auto shape = [&](std::int64_t rows, std::int64_t columns) {
      Dims sizes = c.batch;
      sizes.insert(sizes.end(), {rows, columns});
      return Shape(sizes);
    };
    const Shape q = shape(c.queries, c.features), k = shape(c.keys, c.features);
    Dims rows = c.batch;
    rows.push_back(c.queries);
    const auto random = [](const Shape& each, std::uint64_t seed) {
      return random_value(each, -1, 1, seed);
    };
    // The mask is not differentiated, so it is no input; it hides every third key.
    HostValue mask = random(shape(c.queries, c.keys), 80);
    for (std::size_t i = 0; i < mask.values.size(); ++i)
      if (i % 3 == 2 && c.keys > 1 && i % static_cast<std::size_t>(c.keys) != 0)
        mask.values[i] = -std::numeric_limits<double>::infinity();
    const auto apply = [c, mask](Op op, std::vector<Tensor> operands) {
      if (c.masked) operands.push_back(to_tensor(mask, operands[0].device(), operands[0].dtype()));
      return make_nodes(op, AttentionAttributes{0.75, c.causal}, operands);
    };
    const std::string label = to_string(q) + " by " + to_string(k) + (c.masked ? ", masked" : "") +
                              (c.causal ? ", causal" : "");
    const std::vector<HostValue> primals{random(q, 81), random(k, 82), random(k, 83)};
    std::vector<HostValue> dual = primals, back = primals, by_delta = primals;
    dual.insert(dual.end(), {random(q, 84), random(k, 85), random(k, 86)});
    back.insert(back.end(), {random(q, 88), random(Shape(rows), 87)});
    by_delta.insert(by_delta.end(), {random(Shape(rows), 87), random(q, 88)});
    all.add(Op::attention, label, primals,
            [apply](const std::vector<Tensor>& x) { return apply(Op::attention, x); });
    all.add(Op::attention_dual, label, dual,
            [apply](const std::vector<Tensor>& x) { return apply(Op::attention_dual, x); });
    all.add(Op::attention_backward, label, back,
            [apply](const std::vector<Tensor>& x) { return apply(Op::attention_backward, x); });
    // The derivative holds where lse is that of q and k.
    all.add(Op::attention_backward, label + ", by delta", by_delta,
            [apply](const std::vector<Tensor>& x) {
              const Tensor lse = apply(Op::attention, {x[0], x[1], x[2]})[1];
              return apply(Op::attention_backward, {x[0], x[1], x[2], lse, x[3], x[4]});
            });
  }
}

}  // namespace

const std::vector<OpExample>& op_examples() {
  static const std::vector<OpExample> examples = [] {
    Examples all;
    add_leaves(all);
    add_elementwise(all);
    add_movement(all);
    add_reductions(all);
    add_sorting(all);
    add_contractions(all);
    add_convolutions(all);
    add_index(all);
    add_random(all);
    add_order(all);
    add_regions(all);
    add_fused(all);
    add_attention(all);
    return std::move(all.list);
  }();
  return examples;
}

std::vector<double> host_values(const Tensor& tensor) {
  const auto widened = [&]<class T>(T) {
    const auto values = tensor.to_host<T>();
    return std::vector<double>(values.begin(), values.end());
  };
  switch (tensor.dtype()) {
    case DType::boolean:
      return widened(bool{});
    case DType::u8:
      return widened(std::uint8_t{});
    case DType::i32:
      return widened(std::int32_t{});
    case DType::u32:
      return widened(std::uint32_t{});
    case DType::i64:
      return widened(std::int64_t{});
    case DType::f32:
      return widened(float{});
    case DType::f64:
      return widened(double{});
    case DType::bf16:
    case DType::f16: {
      std::vector<double> values;
      if (tensor.dtype() == DType::bf16)
        for (const BFloat16 each : tensor.to_host<BFloat16>()) values.push_back(to_f32(each));
      else
        for (const Float16 each : tensor.to_host<Float16>()) values.push_back(to_f32(each));
      return values;
    }
  }
  return {};
}

std::vector<std::byte> host_bytes(const Tensor& tensor) {
  std::vector<std::byte> bytes(tensor.type().bytes());
  tensor.copy_to(bytes, tensor.dtype());
  return bytes;
}

std::string difference(const Tensor& got, const Tensor& expected, double relative,
                       double absolute) {
  if (got.type() != expected.type())
    return "got " + to_string(got.type()) + ", expected " + to_string(expected.type());
  const std::vector<double> a = host_values(got), b = host_values(expected);
  for (std::size_t i = 0; i < a.size(); ++i) {
    const bool same = a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])) ||
                      std::abs(a[i] - b[i]) <= relative * std::abs(b[i]) + absolute;
    if (!same) {
      char line[160];
      std::snprintf(line, sizeof line, "element %zu of %s: got %.17g, expected %.17g", i,
                    to_string(got.type()).c_str(), a[i], b[i]);
      return line;
    }
  }
  return "";
}

double epsilon_of(DType dtype) {
  if (dtype == DType::f32) return std::numeric_limits<float>::epsilon();
  return dtype == DType::f64 ? std::numeric_limits<double>::epsilon() : 0;
}

Tolerance tolerance(const OpExample& example, DType dtype, const std::vector<Tensor>& expected) {
  const double unit = epsilon_of(dtype);
  const OpClass op_class = info(example.op).op_class;
  if (op_class == OpClass::elementwise) return {4 * unit, 0};
  if (op_class == OpClass::movement || op_class == OpClass::random || op_class == OpClass::leaf)
    return {};
  double terms = 1, largest = 1;
  for (const HostValue& input : example.inputs)
    terms = std::max(terms, static_cast<double>(input.values.size()));
  for (const Tensor& tensor : expected)
    for (const double value : host_values(tensor))
      if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  return {8 * unit, unit * terms * largest};
}

std::string difference(const OpExample& example, const Device& device, const Device& reference,
                       DType dtype) {
  const std::string where = example.label + " in " + std::string(to_string(dtype));
  try {
    const std::vector<Tensor> got = example.f(to_tensors(example.inputs, device, dtype)),
                              expected = example.f(to_tensors(example.inputs, reference, dtype));
    eval(got);
    eval(expected);
    const Tolerance allowed = tolerance(example, dtype, expected);
    if (got.size() != expected.size()) return where + ": another number of results";
    for (std::size_t i = 0; i < got.size(); ++i) {
      const std::string text = difference(got[i], expected[i], allowed.relative, allowed.absolute);
      if (!text.empty()) return where + ", result " + std::to_string(i) + ": " + text;
    }
  } catch (const std::exception& error) {
    return where + " threw: " + error.what();
  }
  return "";
}

}  // namespace fluxion::testing
