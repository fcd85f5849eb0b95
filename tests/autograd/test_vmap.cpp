// vmap against a loop over the examples: for every op of the table with every subset of its
// operands mapped, under and over the other transforms.
#include <cmath>

#include "autograd/batching.h"
#include "autograd/divergence.h"
#include "autograd/transforms.h"
#include "autograd/vmap.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/custom.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// One device for all tensors of a test.
const Device& device() {
  static const Device one = cpu();
  return one;
}
Tensor tensor(const std::vector<double>& values, const Shape& shape) {
  return Tensor::from(values, shape, device());
}
Tensor random(const Shape& shape, std::uint64_t seed) {
  return to_tensor(random_value(shape, -1, 1, seed), device());
}

Tensor example(const Tensor& x, std::int64_t i, std::int64_t axis = 0) {
  Dims sizes = x.shape().dims();
  sizes.erase(sizes.begin() + axis);
  return reshape(slice_axis(x, axis, i, i + 1), Shape(sizes));
}
Tensor stack(const Tensors& examples) {
  Tensors rows;
  for (const Tensor& each : examples) rows.push_back(expand_dims(each, 0));
  return concat(rows, 0);
}

// `count` variants of an operand, in its own domain: its values moved around, and floating ones
// made a little smaller.
HostValue variants(const HostValue& value, std::int64_t count) {
  HostValue all{with_leading_axis(count, value.shape), value.dtype, {}};
  const std::size_t elements = value.values.size();
  for (std::int64_t i = 0; i < count; ++i)
    for (std::size_t k = 0; k < elements; ++k) {
      const double moved = value.values[(k + 3 * static_cast<std::size_t>(i)) % elements];
      all.values.push_back(value.dtype == DType::f64 ? moved * (1 - static_cast<double>(i) / 16)
                                                     : moved);
    }
  return all;
}

// The attributes of a product with its dtypes those of a product of `dtype`.
Attributes summed_as(Attributes attributes, DType dtype) {
  const ContractAttributes dtypes = contraction_of(dtype, dtype);
  if (auto* product = std::get_if<ContractAttributes>(&attributes)) *product = dtypes;
  if (auto* convolution = std::get_if<ConvAttributes>(&attributes)) {
    convolution->accumulate = dtypes.accumulate;
    convolution->result = dtypes.result;
  }
  return attributes;
}

// Ops whose own tests bring no example with them to this suite, and operands that matter to
// batching: groups, masks, broadcast batches.
std::vector<OpExample> further_examples() {
  std::vector<OpExample> list;
  const auto add = [&](Op op, const std::string& label, const std::vector<Shape>& shapes,
                       const Attributes& attributes) {
    std::vector<HostValue> inputs;
    for (const Shape& shape : shapes)
      inputs.push_back(random_value(shape, -1, 1, 300 + list.size() + inputs.size()));
    list.push_back({op, std::string(to_string(op)) + " " + label, inputs, [=](const Tensors& x) {
                      return make_nodes(op, summed_as(attributes, x[0].dtype()), x);
                    }});
  };
  add(Op::windows, "of an image", {{2, 5, 4, 3}}, WindowAttributes{{2, 3}, {2, 1}, {1, 1}});
  add(Op::conv2d, "plain", {{2, 5, 4, 3}, {3, 2, 3, 4}},
      ConvAttributes{{1, 2}, {1, 1}, {1, 1}, {1, 0}, {1, 1}, 1, DType::f64, DType::f64});
  add(Op::conv2d, "in groups", {{1, 4, 4, 6}, {2, 2, 3, 4}},
      ConvAttributes{{1, 1}, {1, 2}, {1, 1}, {0, 1}, {0, 1}, 2, DType::f64, DType::f64});
  add(Op::conv2d, "spread and cropped", {{2, 3, 3, 2}, {2, 2, 2, 3}},
      ConvAttributes{{1, 1}, {1, 1}, {2, 3}, {-1, 2}, {1, -1}, 1, DType::f64, DType::f64});
  const Shape q{2, 5, 4}, k{2, 3, 4}, rows{2, 5};
  for (const bool causal : {false, true}) {
    const AttentionAttributes a{0.5, causal};
    const std::string label = causal ? "causal" : "plain";
    add(Op::attention, label, {q, k, k}, a);
    add(Op::attention, label + " with mask", {q, k, k, {2, 5, 3}}, a);
    add(Op::attention_dual, label, {q, k, k, q, k, k}, a);
    add(Op::attention_backward, label, {q, k, k, q, rows}, a);
    add(Op::attention_backward, label + " by delta", {q, k, k, rows, rows, q}, a);
  }
  add(Op::attention, "without batch", {{5, 4}, {3, 4}, {3, 4}}, AttentionAttributes{0.5, false});
  const ContractAttributes in_f64{DType::f64, DType::f64};
  add(Op::matmul, "with a column", {{3, 5}, {5, 1}}, in_f64);
  add(Op::matmul, "with batches of one", {{1, 1, 3, 5}, {1, 1, 5, 4}}, in_f64);
  add(Op::matmul, "with batches and a column", {{2, 3, 5}, {2, 5, 1}}, in_f64);
  list.push_back({Op::random_bits,
                  "random_bits of key and stream",
                  {{{2}, DType::u32, {123456789, 4000000000.0}}, {{}, DType::u32, {7}}},
                  [](const Tensors& x) {
                    return make_nodes(Op::random_bits, RandomAttributes{{3, 2}, 1}, x);
                  }});
  return list;
}

std::vector<OpExample> all_examples() {
  std::vector<OpExample> list = op_examples();
  for (OpExample& each : further_examples()) list.push_back(std::move(each));
  return list;
}

// f of every example, mapped and looped. `flags` says which inputs have the mapped axis in front.
Tensors mapped(const TensorFunction& f, const Tensors& inputs, const std::vector<bool>& flags) {
  std::vector<MappedAxis> axes;
  for (const bool flag : flags) axes.push_back(flag ? MappedAxis(0) : not_mapped);
  const MappedLeaves traced(inputs, axes);
  return traced.batch(f(traced.tensors()));
}
Tensors looped(const TensorFunction& f, const Tensors& inputs, const std::vector<bool>& flags,
               std::int64_t count) {
  std::vector<Tensors> outputs;
  for (std::int64_t i = 0; i < count; ++i) {
    Tensors one;
    for (std::size_t k = 0; k < inputs.size(); ++k)
      one.push_back(flags[k] ? example(inputs[k], i) : inputs[k]);
    const Tensors values = f(one);
    outputs.resize(values.size());
    for (std::size_t k = 0; k < values.size(); ++k) outputs[k].push_back(values[k]);
  }
  Tensors result;
  for (const Tensors& each : outputs) result.push_back(each.front() ? stack(each) : Tensor());
  return result;
}

void check_equal(const Tensors& got, const Tensors& expected, double tolerance) {
  REQUIRE(got.size() == expected.size());
  Tensors all;
  for (const Tensors* list : {&got, &expected})
    for (const Tensor& each : *list)
      if (each) all.push_back(each);
  eval(all);
  for (std::size_t k = 0; k < got.size(); ++k) {
    REQUIRE(static_cast<bool>(got[k]) == static_cast<bool>(expected[k]));
    if (got[k]) CHECK(difference(got[k], expected[k], tolerance, tolerance) == "");
  }
}

// Every non-empty subset of `operands` operands.
std::vector<std::vector<bool>> subsets(std::size_t operands) {
  std::vector<std::vector<bool>> result;
  for (std::size_t bits = 1; bits < std::size_t{1} << operands; ++bits) {
    result.emplace_back();
    for (std::size_t k = 0; k < operands; ++k) result.back().push_back((bits >> k & 1) != 0);
  }
  return result;
}

void check_ops(const Device& device, DType dtype, std::int64_t count, double tolerance) {
  for (const OpExample& each : all_examples()) {
    if (is_integer(dtype) && !takes_integers(each.op)) continue;
    for (const std::vector<bool>& flags : subsets(each.inputs.size())) {
      std::string which;
      for (const bool flag : flags) which += flag ? '1' : '0';
      INFO(device.name() << ", " << to_string(dtype) << ", " << count << " examples: " << each.label
                         << ", mapped " << which);
      try {
        Tensors inputs;
        for (std::size_t k = 0; k < flags.size(); ++k)
          inputs.push_back(to_tensor(flags[k] ? variants(each.inputs[k], count) : each.inputs[k],
                                     device, dtype));
        const Tensors got = mapped(each.f, inputs, flags);
        if (count > 0) {
          check_equal(got, looped(each.f, inputs, flags, count), tolerance);
        } else {
          Tensors one;
          for (const HostValue& value : each.inputs) one.push_back(to_tensor(value, device, dtype));
          const Tensors types = each.f(one);
          for (std::size_t k = 0; k < got.size(); ++k) {
            Dims sizes = types[k].shape().dims();
            sizes.insert(sizes.begin(), 0);
            CHECK(got[k].type() == TensorType{Shape(sizes), types[k].dtype()});
            CHECK(host_values(got[k]).empty());
          }
        }
      } catch (const std::exception& error) {
        FAIL_CHECK("threw: " << error.what());
      }
    }
  }
}

}  // namespace

TEST_CASE("every op that can depend on a mapped value has a batching rule", "[autograd][vmap]") {
  for (int number = 0; number < op_count; ++number) {
    const auto op = static_cast<Op>(number);
    INFO("op " << to_string(op));
    CHECK((batch_rule(op) != nullptr) == (info(op).op_class != OpClass::leaf));
  }
}

TEST_CASE(
    "every op mapped over any of its operands is a loop over the examples, on the reference "
    "backend",
    "[autograd][vmap]") {
  check_ops(reference(), DType::f64, 3, 1e-12);
}
TEST_CASE("every op mapped over any of its operands is a loop over the examples, on the CPU in f64",
          "[autograd][vmap]") {
  check_ops(cpu(), DType::f64, 3, 1e-12);
}
TEST_CASE("every op mapped over any of its operands is a loop over the examples, on the CPU in f32",
          "[autograd][vmap]") {
  // A few roundings of 6e-8, in sums of a few dozen terms of size 1.
  check_ops(cpu(), DType::f32, 3, 4e-6);
}
TEST_CASE("every op mapped over any of its operands is a loop over the examples, in i32",
          "[autograd][vmap]") {
  check_ops(cpu(), DType::i32, 2, 0);
}
TEST_CASE("every op mapped over one example, and over none", "[autograd][vmap]") {
  for (const std::int64_t count : {1, 0}) {
    check_ops(cpu(), DType::f64, count, 1e-12);
    check_ops(reference(), DType::f32, count, 4e-6);
  }
}

TEST_CASE("ops that name axes move them behind the mapped one", "[autograd][vmap]") {
  const Tensor x = random({3, 4, 5}, 1);
  const auto sorted = vmap([](const Tensor& one) {
    return make_node(Op::argsort, SortAttributes{1, true}, {one});
  })(x);
  CHECK(std::get<SortAttributes>(sorted.node()->attributes) == SortAttributes{2, true});
  // What waits for a mapped token is not repeated for every example.
  const Tensor y = random({2}, 2);
  const auto waiting = vmap([&](const Tensor& one) {
    return sin(make_node(Op::after, NoAttributes{}, {y, one}));
  })(x);
  CHECK(waiting.node()->op == Op::broadcast_to);
  const Tensor late = vmap([&](const Tensor& one) {
    return make_node(Op::after, NoAttributes{}, {one, y});
  })(x);
  CHECK(late.node()->op == Op::after);
  CHECK(late.shape() == x.shape());
}

TEST_CASE("vmap over jvp and over vjp is a loop, for every op", "[autograd][vmap]") {
  constexpr std::int64_t count = 2;
  for (const OpExample& each : all_examples()) {
    if (!has_derivative(each.op)) continue;
    INFO(each.label);
    try {
      const std::size_t operands = each.inputs.size();
      const Tensors one = to_tensors(each.inputs, device());
      const Tensors types = each.f(one);
      // Inputs, then tangents or cotangents; those of tensors that are not floating are unused
      // scalars.
      const auto vectors_like = [&](const Tensors& like, bool many) {
        Tensors result;
        for (std::size_t k = 0; k < like.size(); ++k) {
          Dims sizes = is_floating(like[k].dtype()) ? like[k].shape().dims() : Dims{};
          if (many) sizes.insert(sizes.begin(), count);
          result.push_back(random(Shape(sizes), 900 + k));
        }
        return result;
      };
      const auto split = [&](const Tensors& all) {
        std::pair<Tensors, Tensors> parts;
        for (std::size_t k = 0; k < all.size(); ++k)
          (k < operands ? parts.first : parts.second).push_back(all[k]);
        return parts;
      };
      const TensorFunction forward = [&](const Tensors& all) {
        auto [inputs, tangents] = split(all);
        for (std::size_t k = 0; k < operands; ++k)
          if (!is_floating(inputs[k].dtype())) tangents[k] = Tensor();
        const Leaves traced(inputs, tangents);
        return traced.push_forward(each.f(traced.tensors()));
      };
      const TensorFunction reverse = [&](const Tensors& all) {
        auto [inputs, cotangents] = split(all);
        const Leaves traced(inputs);
        const Tensors outputs = each.f(traced.tensors());
        for (std::size_t k = 0; k < outputs.size(); ++k)
          if (!is_floating(outputs[k].dtype())) cotangents[k] = Tensor();
        return traced.linear_map(outputs).transpose(cotangents);
      };
      for (const bool map_inputs : {false, true})
        for (const bool map_vectors : {false, true})
          for (const bool backward : {false, true}) {
            if (!map_inputs && !map_vectors) continue;
            Tensors all;
            std::vector<bool> flags;
            for (const HostValue& value : each.inputs) {
              all.push_back(to_tensor(map_inputs ? variants(value, count) : value, device()));
              flags.push_back(map_inputs);
            }
            for (const Tensor& vector : vectors_like(backward ? types : one, map_vectors)) {
              all.push_back(vector);
              flags.push_back(map_vectors);
            }
            INFO((backward ? "vjp" : "jvp")
                 << ", inputs mapped: " << map_inputs << ", vectors mapped: " << map_vectors);
            const TensorFunction& f = backward ? reverse : forward;
            check_equal(mapped(f, all, flags), looped(f, all, flags, count), 1e-10);
          }
    } catch (const std::exception& error) {
      FAIL_CHECK("threw: " << error.what());
    }
  }
}

namespace {

// A small network of one example: x [4] -> [3], weights of two layers.
using Weights = std::map<std::string, Tensor>;
Weights weights(std::uint64_t seed) {
  return {{"first", random({4, 6}, seed)},
          {"second", random({6, 3}, seed + 1)},
          {"bias", random({6}, seed + 2)}};
}
Tensor network(const Weights& w, const Tensor& x) {
  const Tensor h = tanh(matmul(reshape(x, {1, 4}), w.at("first")) + w.at("bias"));
  return reshape(matmul(h, w.at("second")), {3});
}
Tensor example_loss(const Weights& w, const Tensor& x) { return sum(square(network(w, x))); }

}  // namespace

TEST_CASE("vmap maps trees along chosen axes", "[autograd][vmap]") {
  const Tensor xs = random({5, 2, 4}, 3), ys = random({2, 4}, 4), scale = random({4}, 5);
  const auto f = [](const std::vector<Tensor>& pair, const Tensor& s, const Tensor& y) {
    return std::pair(pair[0] * s + y, pair[1]);
  };
  const auto [sums, seconds] =
      vmap(f, {1, not_mapped, 0}, -1)(std::vector<Tensor>{xs, swap_axes(xs, 0, 2)}, scale, ys);
  CHECK(sums.shape() == Shape{5, 4, 2});
  CHECK(seconds.shape() == Shape{4, 5, 2});
  for (std::int64_t i = 0; i < 2; ++i) {
    CHECK(difference(example(sums, i, 2), example(xs, i, 1) * scale + example(ys, i), 0, 0) == "");
    CHECK(difference(example(seconds, i, 2), example(swap_axes(xs, 0, 2), i, 1), 0, 0) == "");
  }
  // Results that do not depend on the example are repeated.
  const Tensor same = vmap([&](const Tensor&) { return scale; })(xs);
  CHECK(difference(same, broadcast_to(scale, {5, 4}), 0, 0) == "");
  // Members that are no tensors, and handles that hold none, pass through.
  const auto sized = [](const std::vector<Tensor>& list) {
    return std::pair(list[0] * static_cast<double>(list.size()), list[1]);
  };
  const auto [doubled, none] = vmap(sized)(std::vector<Tensor>{xs, Tensor()});
  CHECK(difference(doubled, 2.0 * xs, 0, 0) == "");
  CHECK_FALSE(none);
  // The last axis of each tensor, whatever its rank.
  const Tensor last =
      vmap([](const Tensor& a, const Tensor& b) { return sum(a) * b; }, {-1, -1})(xs, scale);
  CHECK(difference(last, sum(xs, {0, 1}) * scale, 1e-14, 1e-14) == "");
}

TEST_CASE("per-example gradients", "[autograd][vmap]") {
  const Weights w = weights(10);
  const Tensor batch = random({7, 4}, 13);
  const Weights all = vmap(grad(example_loss), {not_mapped, 0})(w, batch);
  for (std::int64_t i = 0; i < 7; ++i) {
    const Weights one = grad(example_loss)(w, example(batch, i));
    for (const auto& [name, gradient] : one)
      CHECK(difference(example(all.at(name), i), gradient, 1e-13, 1e-14) == "");
  }
  // Their mean is the gradient of the mean.
  const auto mean_loss = [](const Weights& v, const Tensor& x) {
    return mean(vmap(example_loss, {not_mapped, 0})(v, x));
  };
  const Weights together = grad(mean_loss)(w, batch);
  for (const auto& [name, gradient] : together)
    CHECK(difference(gradient, mean(all.at(name), {0}), 1e-13, 1e-14) == "");
}

TEST_CASE("vmap nests with itself and with the other transforms, in any order",
          "[autograd][vmap]") {
  const Weights w = weights(20);
  const Tensor xs = random({3, 4}, 23), vs = random({5, 4}, 24), v = example(vs, 0);
  const auto f = [&](const Tensor& x) { return network(w, x); };
  const auto along = [&](const Tensor& x, const Tensor& d) { return jvp(f, x, d).second; };

  SECTION("inside itself: all pairs") {
    const auto over_directions = [&](const Tensor& x) {
      return vmap(along, {not_mapped, 0})(x, vs);
    };
    const Tensor pairs = vmap(over_directions)(xs);
    CHECK(pairs.shape() == Shape{3, 5, 3});
    for (std::int64_t i = 0; i < 3; ++i)
      for (std::int64_t k = 0; k < 5; ++k)
        CHECK(difference(example(example(pairs, i), k), along(example(xs, i), example(vs, k)),
                         1e-13, 1e-14) == "");
    // An inner vmap whose function uses an outer example without being handed it.
    const auto captured = [&](const Tensor& x) {
      return vmap([&](const Tensor& d) { return sum(d * x); })(vs);
    };
    CHECK(difference(vmap(captured)(xs), matmul(xs, swap_axes(vs, 0, 1)), 1e-14, 1e-14) == "");
  }
  SECTION("over the gradient of a jvp") {
    const auto speed = [&](const Tensor& x, const Tensor& d) { return sum(square(along(x, d))); };
    const Tensor gradients = vmap(grad(speed), {0, not_mapped})(xs, v);
    for (std::int64_t i = 0; i < 3; ++i)
      CHECK(difference(example(gradients, i), grad(speed)(example(xs, i), v), 1e-13, 1e-14) == "");
  }
  SECTION("under jvp and vjp") {
    const auto many = [&](const Tensor& x) { return vmap(f)(x); };
    const Tensor dx = random({3, 4}, 25), u = random({3, 3}, 26);
    const Tensor dy = jvp(many, xs, dx).second;
    const auto [y, pull] = vjp(many, xs);
    const auto [back] = pull(u);
    for (std::int64_t i = 0; i < 3; ++i) {
      CHECK(difference(example(dy, i), along(example(xs, i), example(dx, i)), 1e-13, 1e-14) == "");
      const auto [one, pull_one] = vjp(f, example(xs, i));
      CHECK(difference(example(back, i), std::get<0>(pull_one(example(u, i))), 1e-13, 1e-14) == "");
    }
    // The gradient passes to what the mapped function captured from an outer transform.
    const auto through = [&](const Weights& p) {
      return sum(vmap([&](const Tensor& x) { return example_loss(p, x); })(xs));
    };
    const Weights gradient = grad(through)(w);
    Tensor expected;
    for (std::int64_t i = 0; i < 3; ++i) {
      const Tensor part = grad(example_loss)(w, example(xs, i)).at("first");
      expected = expected ? expected + part : part;
    }
    CHECK(difference(gradient.at("first"), expected, 1e-13, 1e-14) == "");
  }
  SECTION("a pull-back made outside is mapped over cotangents") {
    const auto [y, pull] = vjp(f, v);
    const auto rows = vmap([&pull = pull](const Tensor& u) { return std::get<0>(pull(u)); })(
        tensor({1, 0, 0, 0, 1, 0, 0, 0, 1}, {3, 3}));
    for (std::int64_t i = 0; i < 3; ++i) {
      const auto component = [&](const Tensor& x) {
        return reshape(slice_axis(f(x), 0, i, i + 1), {});
      };
      CHECK(difference(example(rows, i), grad(component)(v), 1e-13, 1e-14) == "");
    }
  }
  SECTION("a linear map made outside is mapped over tangents") {
    const auto [y, map] = linearize(f, v);
    const Tensor columns = vmap([&map = map](const Tensor& d) { return map(std::tuple(d)); })(xs);
    for (std::int64_t i = 0; i < 3; ++i)
      CHECK(difference(example(columns, i), along(v, example(xs, i)), 1e-13, 1e-14) == "");
  }
  SECTION("inside compile, and over a compiled function") {
    const auto gradients = [](const Weights& p, const Tensor& x) {
      return vmap(grad(example_loss), {not_mapped, 0})(p, x);
    };
    const Weights plain = gradients(w, xs), compiled = compile(gradients)(w, xs);
    for (const auto& [name, gradient] : plain)
      CHECK(difference(compiled.at(name), gradient, 1e-13, 1e-14) == "");
    const auto inner = compile([](const Weights& p, const Tensor& x) { return network(p, x); });
    CHECK(difference(vmap(inner, {not_mapped, 0})(w, xs), vmap(network, {not_mapped, 0})(w, xs),
                     1e-13, 1e-14) == "");
  }
}

TEST_CASE("regions stay what they are under vmap, and their rules serve each example",
          "[autograd][vmap][regions]") {
  const Tensor xs = random({3, 4}, 60), ys = random({3, 4}, 61), w = random({4, 4}, 62);
  const auto times = [](const Tensor& x, const Tensor& matrix) {
    return reshape(matmul(reshape(x, {1, 4}), matrix), {4});
  };
  // Rules that are not the derivative, so that it shows which was used.
  using One = std::tuple<Tensor>;
  using Two = std::tuple<Tensor, Tensor>;
  const auto twice_the_slope = custom_jvp(
      [](const Tensor& x) { return sin(x); },
      [](const One& x, const One& dx) { return 2.0 * std::get<0>(dx) * cos(std::get<0>(x)); },
      "twice");
  const auto clipped =
      custom_vjp([=](const Tensor& x, const Tensor& m) { return tanh(times(x, m)); },
                 [=](const Two& in, const Tensor& y, const Tensor& u) {
                   const Tensor v = minimum(maximum(u, -0.5), 0.5) * (1.0 - square(y));
                   const Tensor& x = std::get<0>(in);
                   return Two{times(v, swap_axes(std::get<1>(in), 0, 1)),
                              matmul(reshape(x, {4, 1}), reshape(v, {1, 4}))};
                 },
                 "clipped");
  const auto shifted = custom_linear(
      [](const Tensor& x) {
        return concat({slice_axis(x, 0, 1, 4), slice_axis(x, 0, 0, 1)}, 0);
      },
      [](const Tensor& u) {
        return 3.0 * concat({slice_axis(u, 0, 3, 4), slice_axis(u, 0, 0, 3)}, 0);
      },
      "shifted");
  const auto block = checkpoint(
      [=](const Tensor& x, const Tensor& m) { return sin(times(tanh(times(x, m)), m)); }, "block");

  // Scalars of an example x, a partner y and what all share, w: each with captured and nested
  // regions among them.
  const std::vector<
      std::pair<const char*, std::function<Tensor(const Tensor&, const Tensor&, const Tensor&)>>>
      functions = {
          {"checkpoint",
           [=](const Tensor& x, const Tensor& y, const Tensor& m) { return sum(block(x, m) * y); }},
          {"checkpoint that captures",
           [=](const Tensor& x, const Tensor& y, const Tensor& m) {
             return sum(checkpoint([=](const Tensor& z) { return exp(z * y) * times(z, m); })(x));
           }},
          {"custom_jvp", [=](const Tensor& x, const Tensor& y,
                             const Tensor& m) { return sum(twice_the_slope(times(x, m)) * y); }},
          {"custom_jvp whose rule captures",
           [=](const Tensor& x, const Tensor& y, const Tensor& m) {
             const auto scaled = custom_jvp([=](const Tensor& z) { return z * stop_gradient(y); },
                                            [=](const One&, const One& dz) {
                                              return std::get<0>(dz) * square(stop_gradient(y));
                                            },
                                            "scaled");
             return sum(scaled(times(x, m)));
           }},
          {"custom_vjp", [=](const Tensor& x, const Tensor& y,
                             const Tensor& m) { return sum(clipped(x, m) * 2.0 * y); }},
          {"custom_linear", [=](const Tensor& x, const Tensor& y,
                                const Tensor& m) { return sum(shifted(x * y) * times(x, m)); }},
          {"custom_jvp in a checkpoint",
           [=](const Tensor& x, const Tensor& y, const Tensor& m) {
             return sum(checkpoint(
                 [=](const Tensor& z) { return twice_the_slope(times(z, m)) * y; }, "outer")(x));
           }},
      };
  for (const auto& [what, f] : functions) {
    INFO(what);
    const auto with_partner = vmap(f, {0, 0, not_mapped});
    const auto gradients = [&f = f](const Tensor& x, const Tensor& y, const Tensor& m) {
      const auto pulled = vjp(f, x, y, m);
      return pulled.second(ones_like(pulled.first));
    };
    // Each example's gradients, and the gradient of the sum.
    const auto [gx, gy, gw] = vmap(gradients, {0, 0, not_mapped})(xs, ys, w);
    const auto [values, pull] = vjp(with_partner, xs, ys, w);
    const auto [px, py, pw] = pull(ones_like(values));
    const auto compiled = compile([&](const Tensor& x, const Tensor& y, const Tensor& m) {
      const auto pulled = vjp(with_partner, x, y, m);
      return pulled.second(ones_like(pulled.first));
    });
    const auto [cx, cy, cw] = compiled(xs, ys, w);
    for (std::int64_t i = 0; i < 3; ++i) {
      const Tensor x = example(xs, i), y = example(ys, i);
      CHECK(difference(example(values, i), f(x, y, w), 1e-13, 1e-14) == "");
      const auto [ex, ey, ew] = gradients(x, y, w);
      CHECK(difference(example(gx, i), ex, 1e-12, 1e-13) == "");
      CHECK(difference(example(gy, i), ey, 1e-12, 1e-13) == "");
      CHECK(difference(example(gw, i), ew, 1e-12, 1e-13) == "");
      CHECK(difference(example(px, i), ex, 1e-12, 1e-13) == "");
      CHECK(difference(example(py, i), ey, 1e-12, 1e-13) == "");
    }
    CHECK(difference(pw, sum(gw, {0}), 1e-12, 1e-13) == "");
    CHECK(difference(cx, px, 1e-12, 1e-13) == "");
    CHECK(difference(cy, py, 1e-12, 1e-13) == "");
    CHECK(difference(cw, pw, 1e-12, 1e-13) == "");
    // The gradient of a function of the gradients, all of it mapped.
    const auto length = [&](const Tensor& x, const Tensor& y, const Tensor& m) {
      return sum(square(std::get<0>(gradients(x, y, m))));
    };
    const auto all_lengths = [&](const Tensor& x) {
      return sum(vmap(length, {0, 0, not_mapped})(x, ys, w));
    };
    const Tensor second = grad(all_lengths)(xs),
                 mapped_second = vmap(grad(length), {0, 0, not_mapped})(xs, ys, w);
    const auto of_mapped = [&](const Tensor& x) {
      const auto pulled = vjp(with_partner, x, ys, w);
      return sum(square(std::get<0>(pulled.second(ones_like(pulled.first)))));
    };
    const Tensor pulled_twice = grad(of_mapped)(xs);
    for (std::int64_t i = 0; i < 3; ++i) {
      const Tensor expected = grad(length)(example(xs, i), example(ys, i), w);
      CHECK(difference(example(second, i), expected, 1e-12, 1e-13) == "");
      CHECK(difference(example(mapped_second, i), expected, 1e-12, 1e-13) == "");
      CHECK(difference(example(pulled_twice, i), expected, 1e-12, 1e-13) == "");
    }
  }
}

TEST_CASE("16-bit cotangents of what examples share are added in f32",
          "[autograd][vmap][regions]") {
  // In 16 bits 256 and 1 and 1 are still 256, and 2048 and 1 and 1 still 2048.
  for (const auto& [dtype, large] : {std::pair(DType::bf16, 256.0f), {DType::f16, 2048.0f}}) {
    INFO(to_string(dtype));
    const Tensor xs = Tensor::from(std::vector<float>{large, 1, 1, 1, 1}, {5}, device()),
                 m = full({2}, 2, dtype, device());
    const auto product = [](const Tensor& x, const Tensor& m) {
      return convert(m, DType::f32) * x;
    };
    const auto loss_by = [&](const auto& f) {
      return [&](const Tensor& m) { return sum(vmap(f, {0, not_mapped})(xs, m)); };
    };
    const auto by_rule = custom_vjp(
        product, [](const std::tuple<Tensor, Tensor>& in, const Tensor&, const Tensor& u) {
          const auto& [x, m] = in;
          return std::tuple(sum(u * convert(m, DType::f32)), convert(u * x, m.dtype()));
        });
    const auto linear = [&](const Tensor& x, const Tensor& m) {
      return custom_linear([=](const Tensor& m) { return product(x, m); },
                           [=](const Tensor& u) { return convert(u * x, m.dtype()); })(m);
    };
    const std::vector<double> expected(2, large + 4);
    for (const Tensor& gradient : {grad(loss_by(by_rule))(m), grad(loss_by(linear))(m)}) {
      CHECK(gradient.dtype() == dtype);
      CHECK(host_values(convert(gradient, DType::f32)) == expected);
    }
  }
}

TEST_CASE("a rule inside a checkpoint may hold what the examples share",
          "[autograd][vmap][regions]") {
  const Tensor a = random({3}, 66), w = random({3}, 67), x = random({3}, 68),
               xs = random({4, 3}, 69);
  const auto linear = [](const Tensor& a, const Tensor& t) {
    return custom_linear([a](const Tensor& t) { return a * t; },
                         [a](const Tensor& u) { return a * u; })(t);
  };
  const auto sloped = [](const Tensor& a, const Tensor& t) {
    return custom_jvp([a](const Tensor& t) { return a * t; },
                      [a](const std::tuple<Tensor>&, const std::tuple<Tensor>& dt) {
                        return a * std::get<0>(dt);
                      })(t);
  };
  const auto pulled = [](const Tensor& a, const Tensor& t) {
    return custom_vjp(
        [a](const Tensor& t) { return a * t; },
        [a](const std::tuple<Tensor>&, const Tensor&, const Tensor& u) { return a * u; })(t);
  };
  const auto checked = [&](const auto& times) {
    const auto as_argument = checkpoint(
        [&](const Tensor& a, const Tensor& w, const Tensor& x) { return times(a, w) * x; });
    const auto closed =
        checkpoint([&](const Tensor& w, const Tensor& x) { return times(a, w) * x; });
    const auto argument_loss = [&](const Tensor& w) {
      return sum(vmap([&](const Tensor& x) { return as_argument(a, w, x); })(xs));
    };
    const auto closed_loss = [&](const Tensor& w) {
      return sum(vmap([&](const Tensor& x) { return closed(w, x); })(xs));
    };
    const Tensor expected = a * sum(xs, {0});
    CHECK(difference(grad(argument_loss)(w), expected, 1e-14, 1e-14) == "");
    CHECK(difference(grad(closed_loss)(w), expected, 1e-14, 1e-14) == "");
  };
  checked(linear);
  checked(sloped);
  checked(pulled);
  // Jacobians and divergences map over directions.
  const auto bent = [&](const Tensor& x) { return linear(a, sin(x)) * x; };
  const auto plain = [&](const Tensor& x) { return a * sin(x) * x; };
  const auto by_columns = [&](const auto& f) {
    return grad([&](const Tensor& x) { return sum(square(jacfwd(checkpoint(f), x))); })(x);
  };
  const auto by_rows = [&](const auto& f) {
    return grad([&](const Tensor& x) { return sum(square(jacrev(checkpoint(f), x))); })(x);
  };
  CHECK(difference(by_rows(bent), by_rows(plain), 1e-13, 1e-13) == "");
  CHECK(difference(by_columns(bent), by_columns(plain), 1e-13, 1e-13) == "");
  const auto spread = [&](const auto& f) {
    return grad([&](const Tensor& xs) { return sum(divergence(checkpoint(f), xs).divergence); })(
        xs);
  };
  CHECK(difference(spread(bent), spread(plain), 1e-13, 1e-13) == "");
  // What is mapped, the rule of a function of what is not can't use.
  const auto held =
      checkpoint([&](const Tensor& x, const Tensor& w) { return linear(x, w) * 1.0; });
  const auto mapped_loss = [&](const Tensor& w) {
    return sum(vmap([&](const Tensor& x) { return held(x, w); })(xs));
  };
  CHECK(difference(grad(mapped_loss)(w), sum(xs, {0}), 1e-14, 1e-14) == "");
}

TEST_CASE("i64 is mapped along its first axis, and not repeated", "[autograd][vmap]") {
  const Tensor n = Tensor::from(std::vector<std::int64_t>{1, 2, 3, 4}, {2, 2}, device()),
               xs = random({2}, 70);
  const auto beside = [](const Tensor& x, const Tensor& n) { return std::pair(x, n); };
  CHECK(vmap(beside)(xs, n).second.to_host<std::int64_t>() ==
        std::vector<std::int64_t>{1, 2, 3, 4});
  CHECK_THROWS_WITH(vmap(beside, {0, not_mapped})(xs, n),
                    has_text("result 1, i64[2, 2], is the same for every example, and i64 can't be "
                             "repeated") &&
                        has_text("(test_vmap.cpp:"));
  CHECK_THROWS_WITH(vmap(beside, {0, 1})(xs, n), has_text("argument 1, i64[2, 2]: i64") &&
                                                     has_text("first axis only") &&
                                                     has_text("(test_vmap.cpp:"));
}

TEST_CASE("a checkpoint under vmap is still one, and many cotangents recompute it once",
          "[autograd][vmap][regions]") {
  const Tensor x = random({1, 4}, 63), w = random({4, 4}, 64), xs = random({5, 1, 4}, 65);
  const auto f = checkpoint(
      [](const Tensor& z, const Tensor& m) { return sin(matmul(tanh(matmul(z, m)), m)); });
  CHECK(vmap(f, {0, not_mapped})(xs, w).node()->op == Op::region);
  const auto jacobian = compile([&](const Tensor& z, const Tensor& m) {
    return jacrev([&](const Tensor& at) { return f(at, m); }, z);
  });
  const Program& program = jacobian.program(x, w);
  std::int64_t rows = 0;
  for (const Kernel& kernel : program.kernels)
    if (const auto* contract = std::get_if<ContractKernel>(&kernel))
      rows += contract->batch * contract->m * contract->results;
  INFO(to_string(program));
  CHECK(rows ==
        2 * 1 +
            2 * 4);  // the recomputation is of one row; four cotangents go back through two layers
}

TEST_CASE("random draws are one for all examples, or one for each key", "[autograd][vmap]") {
  const Tensor key = random_key(5, device()), xs = random({3, 4}, 30);
  const auto noisy = [](const Tensor& x, const Tensor& k) {
    return x + normal(k, {4}, DType::f64);
  };
  CHECK(difference(vmap(noisy, {0, not_mapped})(xs, key), xs + normal(key, {4}, DType::f64), 0,
                   0) == "");
  const Tensors keys = split_key(key, 3);
  const Tensor each = vmap(noisy)(xs, stack(keys));
  for (std::int64_t i = 0; i < 3; ++i)
    CHECK(difference(example(each, i), noisy(example(xs, i), keys[static_cast<std::size_t>(i)]), 0,
                     0) == "");
}

TEST_CASE("indices outside an axis stay within their example", "[autograd][vmap]") {
  const Tensor xs = tensor({1, 2, 3, 4, 5, 6}, {2, 3});
  const Tensor indices = Tensor::from(std::vector<std::int32_t>{-4, 7, 1, 3}, {2, 2}, device());
  const auto f = [](const Tensor& x, const Tensor& i) { return take(x, i, 0); };
  CHECK(host_values(vmap(f)(xs, indices)) == std::vector<double>{1, 3, 5, 6});
}

TEST_CASE("many directions share one primal pass, and examples one product", "[autograd][vmap]") {
  const Tensor x = random({8, 4}, 40), probes = random({3, 8, 4}, 41);
  const Weights w = weights(42);
  const auto contractions = [](const Program& program) {
    std::vector<const ContractKernel*> found;
    for (const Kernel& kernel : program.kernels)
      if (const auto* contract = std::get_if<ContractKernel>(&kernel)) found.push_back(contract);
    return found;
  };
  const auto f = [](const Weights& p, const Tensor& z) {
    return matmul(tanh(matmul(z, p.at("first")) + p.at("bias")), p.at("second"));
  };
  const auto probed = compile([&](const Weights& p, const Tensor& z, const Tensor& vs) {
    Tensor y;
    const Tensor Jv = vmap([&](const Tensor& v) {
      const auto [value, tangent] =
          jvp([&](const Tensor& at) { return f(p, at); }, std::tuple(z), std::tuple(v));
      y = value;
      return tangent;
    })(vs);
    return std::pair(y, Jv);
  });
  // Two layers: two products of the primal, two of all tangents together.
  const Program& program = probed.program(w, x, probes);
  const auto found = contractions(program);
  INFO(to_string(program));
  REQUIRE(found.size() == 4);
  CHECK(program.kernels.size() == 4);
  std::int64_t rows = 0;
  for (const ContractKernel* contract : found)
    rows += contract->batch * contract->m * contract->results;
  CHECK(rows == 2 * 8 + 2 * 3 * 8);

  // One example is a row vector; all of them are the rows of one matrix.
  const auto batch = compile([](const Weights& p, const Tensor& xs) {
    return vmap(network, {not_mapped, 0})(p, xs);
  });
  for (const ContractKernel* contract : contractions(batch.program(w, x))) {
    CHECK(contract->batch == 1);
    CHECK(contract->m == 8);
  }
}

TEST_CASE("vmap walks a chain of 100,000 nodes without recursion", "[autograd][vmap]") {
  const Tensor xs = random({2, 3}, 70);
  const Tensor ys = vmap([](const Tensor& x) {
    Tensor y = x;
    for (int i = 0; i < 100'000; ++i) y = -y;
    return y;
  })(xs);
  CHECK(ys.node()->op == Op::neg);
  CHECK(difference(ys, xs, 0, 0) == "");
}

TEST_CASE("vmap says what is wrong", "[autograd][vmap]") {
  const Tensor xs = random({3, 4}, 50), ys = random({5, 4}, 51), scalar = tensor({1}, {});
  const auto add = [](const Tensor& a, const Tensor& b) { return a + b; };
  const auto message = [](const auto& call) -> std::string {
    try {
      call();
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing thrown";
  };
  const auto says = [&](const auto& call, const char* what) {
    INFO("wants: " << what << ", got: " << message(call));
    CHECK(message(call).find(what) != std::string::npos);
  };
  // ... and where.
  const auto says_place = [&](const auto& call, const char* what) {
    says(call, what);
    says(call, "(test_vmap.cpp:");
  };
  CHECK_THROWS_AS(vmap(add)(xs, ys), ShapeError);
  says_place([&] { vmap(add)(xs, ys); },
             "3 of argument 0, f64[3, 4], but 5 of argument 1, f64[5, 4]");
  CHECK_THROWS_AS(vmap(add)(xs, scalar), ShapeError);
  says_place(
      [&] {
        vmap(add, {0, -3})(xs, xs);
      },
      "axis -3 is out of range for argument 1, f64[3, 4]");
  says_place([&] { vmap(add, {not_mapped, not_mapped})(xs, xs); }, "nothing to map over");
  says_place([&] { vmap(add, {0})(xs, xs); }, "1 axes for 2 arguments");
  says_place([&] { vmap(add, {}, 2)(xs, xs); },
             "out_axis 2 is out of range for result 0, f64[4], which becomes f64[3, 4]");
  says([&] { vmap([](const Tensor& x) { return x * sum(x).item<double>(); })(xs); },
       "asked for inside the mapped function");
  // A mapped function may look at what is not mapped.
  const auto scaled = vmap([&](const Tensor& x) { return x * sum(ys).item<double>(); })(xs);
  CHECK(difference(scaled, xs * sum(ys), 1e-14, 1e-14) == "");
  // The error of an op inside is that op's own, with the shapes of one example.
  says([&] { vmap([](const Tensor& x) { return matmul(x, x); })(xs); }, "f64[4]");
}
