// Limits of kernels: what `fits` says, and that the planner splits whatever does not fit. Graphs
// run on the CPU and on the tiny device, and must give what the reference backend gives.
#include <numeric>

#include "autograd/linearize.h"
#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/plan/plan.h"
#include "tests/backend/tiny_backend.h"
#include "tests/catch.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// f of random operands of these shapes, on the CPU and on the tiny device as on the reference.
void check_everywhere(const TensorFunction& f, const std::vector<Shape>& shapes,
                      double tolerance = 1e-5) {
  const auto on = [&](const Device& device) {
    Tensors inputs;
    for (std::size_t i = 0; i < shapes.size(); ++i)
      inputs.push_back(random_tensor(shapes[i], device, i + 1));
    Tensors outputs = f(inputs);
    eval(outputs);
    return outputs;
  };
  const Tensors expected = on(reference());
  for (const Device& device : {cpu({.threads = 1}), tiny()}) {
    INFO(device.name());
    const Tensors got = on(device);
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i)
      CHECK(difference(got[i], expected[i], tolerance, tolerance) == "");
  }
}

template <class F>
void check_one(const F& f, const Shape& shape) {
  check_everywhere([&](const Tensors& x) { return Tensors{f(x[0])}; }, {shape});
}

Program planned(const Tensors& parameters, const Tensors& outputs, const Device& device) {
  const plan::Canonical canonical = plan::canonicalise(parameters, outputs);
  return plan::make_plan(canonical.graph, device.backend().capabilities()).program;
}

Tensor parameter(std::int64_t number, const TensorType& type, const Device& device) {
  return make_leaf(Op::parameter, IndexAttributes{number}, type, device);
}

// Two axes of size 2 and fifteen of size 1 or 2, so that 17 axes stay small.
const Shape rank_17{2, 1, 2, 2, 1, 2, 2, 2, 1, 2, 2, 2, 1, 2, 2, 3, 2};
const Shape twos_17{2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2};

Dims all_axes(const Shape& shape) {
  Dims axes(static_cast<std::size_t>(shape.rank()));
  std::iota(axes.begin(), axes.end(), 0);
  return axes;
}
Dims every_second_axis(const Shape& shape) {
  Dims axes;
  for (std::int64_t axis = 0; axis < shape.rank(); axis += 2) axes.push_back(axis);
  return axes;
}

Tensor reversed(const Tensor& x) {
  Dims axes = all_axes(x.shape());
  std::reverse(axes.begin(), axes.end());
  return transpose(x, axes);
}

Tensor padded_often(Tensor x, int times) {
  for (int i = 0; i < times; ++i) x = tanh(pad(x, {i % 2, 1}, {1, i % 3}));
  return x;
}

}  // namespace

// ---- fits

TEST_CASE("fits names the limit that a kernel breaks", "[engine][limits]") {
  Tape tape;
  tape.extents = {3, 1, 5};
  tape.loads = {
      {0, DType::f32, {0, {5, 0, 1}}, {{{{0, {1, 0, 0}}, 0, 3}, 5}, {{{0, {0, 0, 1}}, 0, 5}, 1}}}};
  tape.instructions = {{TapeCode::load, Op::identity, DType::f32, false, 0, {-1, -1, -1}}};
  tape.stores = {{0, 1, DType::f32, {0, {5, 0, 1}}}};
  const std::vector<BufferSlot> buffers(2, {BufferKind::temporary, {{3, 5}, DType::f32}, 0, 128});
  const auto broken = [&](auto&& tighten) {
    KernelLimits limits = no_limits();
    tighten(limits);
    return fits(TapeKernel{tape}, buffers, limits).broken;
  };
  CHECK(broken([](KernelLimits&) {}) == Limit::none);
  CHECK(broken([](KernelLimits& limits) { limits.max_axes = 2; }) == Limit::none);
  CHECK(broken([](KernelLimits& limits) { limits.max_axes = 1; }) == Limit::axes);
  CHECK(broken([](KernelLimits& limits) { limits.max_guards = 1; }) == Limit::guards);
  CHECK(broken([](KernelLimits& limits) { limits.max_buffers = 1; }) == Limit::buffers);
  CHECK(broken([](KernelLimits& limits) { limits.max_loads = 0; }) == Limit::loads);
  CHECK(broken([](KernelLimits& limits) { limits.max_stores = 0; }) == Limit::stores);
  CHECK(broken([](KernelLimits& limits) { limits.max_instructions = 0; }) == Limit::instructions);
  CHECK(broken([](KernelLimits& limits) { limits.max_binding_bytes = 59; }) == Limit::binding);
  CHECK(broken([](KernelLimits& limits) { limits.max_binding_bytes = 60; }) == Limit::none);
  CHECK(broken([](KernelLimits& limits) { limits.alignment = 256; }) == Limit::alignment);

  tape.reduced_axes = 1;  // a resident row of five elements
  CHECK(broken([](KernelLimits& limits) { limits.max_row_elements = 4; }) == Limit::row_elements);
  CHECK(broken([](KernelLimits& limits) { limits.max_row_bytes = 19; }) == Limit::row_bytes);
  CHECK(broken([](KernelLimits& limits) { limits.max_row_bytes = 20; }) == Limit::none);
  tape.streaming = true;
  CHECK(broken([](KernelLimits& limits) { limits.max_row_elements = 4; }) == Limit::none);

  tape.loads[0].address.coefficients[0] = std::int64_t{1} << 31;
  CHECK(broken([](KernelLimits&) {}) == Limit::none);
  CHECK(broken([](KernelLimits& limits) { limits.index_bits = 32; }) == Limit::index);

  KernelLimits limits = no_limits();
  limits.max_buffers = 1;
  CHECK(to_string(fits(TapeKernel{tape}, buffers, limits)) ==
        "2 distinct buffers, at most 1 (max_buffers)");
}

TEST_CASE("a limit on buffers counts the bytes of the device, not the host's", "[engine][limits]") {
  const std::vector<BufferSlot> buffers{{BufferKind::input, {{40}, DType::boolean}, 0, 0},
                                        {BufferKind::output, {{40}, DType::boolean}, 0, 0}};
  const OpKernel copy{Op::identity, NoAttributes{}, {0}, {1}, {buffers[0].type}, {buffers[1].type}};
  KernelLimits limits = no_limits();
  limits.max_binding_bytes = 64;
  CHECK(fits(copy, buffers, limits));
  const Storage words = Storage().keep(DType::boolean, DType::u32);
  CHECK(fits(copy, buffers, limits, words).broken == Limit::binding);
  limits.max_binding_bytes = 160;
  CHECK(fits(copy, buffers, limits, words));
}

TEST_CASE("a backend refuses a program that was planned for wider limits", "[engine][limits]") {
  const Device device = cpu({.threads = 1});
  const auto f = [](const Tensor& x) {
    Tensor y = x;
    for (int i = 0; i < 40; ++i) y = sin(y) * x;
    return y;
  };
  const Program program = compile(f).program(random_tensor({4}, device));
  CHECK_NOTHROW(device.backend().compile(program));
  CHECK_THROWS_WITH(tiny().backend().compile(program),
                    has_text("tiny: kernel 0 has") && has_text("(max_instructions)"));
}

TEST_CASE("limits below the least that splitting needs are named", "[engine][limits]") {
  KernelLimits limits = tiny_limits();
  limits.max_axes = 5;
  const Device device = tiny({.limits = limits});
  CHECK_THROWS_WITH(eval(Tensors{random_tensor({3}, device) * 2.0}),
                    has_text("tiny") && has_text("offers 5 as max_axes") && has_text("at least 6"));
}

// ---- what once failed on the CPU

TEST_CASE("any number of pads nests", "[engine][limits]") {
  check_one(
      [](const Tensor& x) {
        Tensor y = x;
        for (int i = 0; i < 40; ++i) y = pad(y, {i % 2, 1}, {1, i % 3});
        return y;
      },
      {2, 3});
  check_one([](const Tensor& x) { return padded_often(x, 35); }, {2, 3});
  check_one(
      [](const Tensor& x) {
        return grad([](const Tensor& x) { return sum(square(padded_often(x, 33))); })(x);
      },
      {2, 3});
}

TEST_CASE("axes of any number are reversed, cut, padded, repeated and reduced",
          "[engine][limits]") {
  check_one(reversed, twos_17);
  check_one(reversed, rank_17);
  check_one([](const Tensor& x) { return exp(reversed(x)) + x; }, twos_17);
  check_one([](const Tensor& x) { return flip(x, every_second_axis(x.shape())); }, twos_17);
  check_one(
      [](const Tensor& x) {
        Dims start(17, 0), stop(17, 2), step(17, 1);
        for (std::size_t k = 0; k < 17; k += 2) start[k] = 1;
        return slice(x, start, stop, step);
      },
      twos_17);
  check_one(
      [](const Tensor& x) {
        Dims low(17, 0), high(17, 0);
        for (std::size_t k = 0; k < 17; k += 4) low[k] = 1;
        return pad(x, low, high) * 2.0;
      },
      rank_17);
  check_one(
      [](const Tensor& x) {
        Dims shape;
        for (const std::int64_t size : x.shape()) shape.insert(shape.end(), {size, 2});
        Dims ones;
        for (const std::int64_t size : x.shape()) ones.insert(ones.end(), {size, 1});
        return broadcast_to(reshape(x, Shape(ones)), Shape(shape));
      },
      {3, 2, 3, 2, 3, 2, 3});
  check_one([](const Tensor& x) { return sum(x, every_second_axis(x.shape())); }, twos_17);
  check_one([](const Tensor& x) { return max(reversed(x), every_second_axis(x.shape())); },
            twos_17);
  check_one([](const Tensor& x) { return x - mean(x, every_second_axis(x.shape()), true); },
            twos_17);
}

TEST_CASE("ops on whole tensors run on any number of axes", "[engine][limits]") {
  check_one([](const Tensor& x) { return cumsum(x, 8); }, twos_17);
  check_one([](const Tensor& x) { return convert(argmax(reversed(x), 15), DType::f32); }, rank_17);
  check_everywhere(
      [](const Tensors& x) {
        const Tensor at = convert(gt(x[1], 0.0), DType::i32);
        const Tensor rows =
            convert(gt(slice_axis(reshape(x[1], {1 << 17}), 0, 0, 3), 0.0), DType::i32);
        return Tensors{take(x[0], rows, 3), take_along_axis(x[0], at, 5),
                       scatter_add(x[0], at, x[1], 16)};
      },
      {twos_17, twos_17});
  const Device device = reference();
  check_one([](const Tensor& x) { return x + uniform(random_key(7, x.device()), x.shape()); },
            twos_17);
}

// ---- the tiny device

TEST_CASE("every op, and its gradient, runs on the tiny device", "[engine][limits]") {
  const Device expected_device = reference(), device = tiny();
  for (const OpExample& example : op_examples()) {
    INFO(example.label);
    const auto on = [&](const Device& device) {
      const Tensors inputs = to_tensors(example.inputs, device, DType::f32);
      Tensors outputs = example.f(inputs);
      if (has_derivative(example.op)) {
        const Leaves traced(inputs);
        const Tensors made = example.f(traced.tensors());
        Tensors cotangents;
        for (std::size_t i = 0; i < made.size(); ++i)
          cotangents.push_back(is_floating(made[i].dtype())
                                   ? random_tensor(made[i].shape(), device, 50 + i, made[i].dtype())
                                   : Tensor());
        for (const Tensor& each : traced.linear_map(made).transpose(cotangents))
          if (each) outputs.push_back(each);
      }
      eval(outputs);
      return outputs;
    };
    const Tensors got = on(device), expected = on(expected_device);
    for (std::size_t i = 0; i < got.size(); ++i)
      CHECK(difference(got[i], expected[i], 1e-3, 1e-4) == "");
  }
}

TEST_CASE("long chains are cut into kernels that fit", "[engine][limits]") {
  const auto chain = [](const Tensor& x) {
    Tensor y = x;
    for (int i = 0; i < 100; ++i) y = sin(y) + x * 0.5;
    return y;
  };
  check_one(chain, {5, 7});
  const Device device = tiny();
  const Program program = compile(chain).program(random_tensor({5, 7}, device));
  CHECK(program.kernels.size() >= 10);  // 300 ops, at most 32 to a kernel
  CHECK(program.kernels.size() <= 40);
}

TEST_CASE("a kernel with many operands and results is done in parts", "[engine][limits]") {
  check_everywhere(
      [](const Tensors& x) {
        Tensor sum = x[0];
        for (std::size_t i = 1; i < x.size(); ++i) sum = sum + x[i] * x[i - 1];
        Tensors results{concat(x, 0), sum};
        for (const Tensor& each : x) results.push_back(sum * each);
        return results;
      },
      std::vector<Shape>(20, {3, 2}));
}

TEST_CASE("a kernel may have as many reductions as instructions", "[engine][limits]") {
  check_everywhere(
      [](const Tensors& x) {
        Tensors reduced, outputs;
        for (const Tensor& each : x)
          for (const Tensor& result : {sum(each, {1}), max(each, {1}), min(each, {1})})
            reduced.push_back(result);
        for (std::size_t i = 0; i + 3 < reduced.size(); i += 3)
          outputs.push_back(where(lt(reduced[i], reduced[i + 1]), reduced[i + 2], reduced[i + 3]));
        return outputs;
      },
      std::vector<Shape>(22, Shape{8, 100}));
}

TEST_CASE("rows too long to stay resident are reduced in stages", "[engine][limits]") {
  check_everywhere(
      [](const Tensors& x) {
        return Tensors{softmax(x[0], 1), log_softmax(x[0], 1), layer_norm(x[0], 1e-3)};
      },
      {{20, 1025}});
}

TEST_CASE("attention with more operands than buffers is expanded", "[engine][limits]") {
  check_everywhere(
      [](const Tensors& x) {
        const Tensor y = attention(x[0], x[1], x[2], {.mask = x[3]});
        const auto loss = [&](const Tensor& q) {
          return sum(square(attention(q, x[1], x[2], {.mask = x[3]})));
        };
        return Tensors{y, grad(loss)(x[0])};
      },
      {{2, 5, 4}, {2, 6, 4}, {2, 6, 4}, {2, 5, 6}});
}

TEST_CASE("temporaries lie where the device can bind them", "[engine][limits]") {
  const auto f = [](const Tensor& x) { return sum(cumsum(cumsum(x, 0) * 2.0, 0) + x); };
  for (const auto& [device, alignment] : {std::pair(tiny(), 256), std::pair(cpu(), 64)}) {
    const Program program = compile(f).program(random_tensor({33}, device));
    int temporaries = 0;
    for (const BufferSlot& slot : program.buffers) {
      if (slot.kind != BufferKind::temporary) continue;
      CHECK(slot.offset % alignment == 0);
      ++temporaries;
    }
    CHECK(temporaries >= 2);
  }
}

// ---- large tensors, planned only

TEST_CASE("a tensor larger than the largest binding is named with limit and device",
          "[engine][limits]") {
  KernelLimits limits = tiny_limits();
  limits.max_binding_bytes = 1 << 20;
  const Device device = tiny({.limits = limits});
  const Tensor fits = parameter(0, {{1 << 18}, DType::f32}, device),
               large = parameter(0, {{1 << 19}, DType::f32}, device);
  CHECK_NOTHROW(planned({fits}, {fits * 2.0}, device));
  CHECK_THROWS_AS(planned({large}, {large * 2.0}, device), DeviceError);
  CHECK_THROWS_WITH(planned({large}, {sum(large)}, device),
                    has_text("input 0, f32[524288]") && has_text("tiny") &&
                        has_text("2097152 bytes") && has_text("at most 1048576"));
  CHECK_THROWS_WITH(planned({fits}, {concat({fits, fits}, 0)}, device),
                    has_text("f32[524288]") && has_text("max_binding_bytes"));
}

TEST_CASE("indices of 32 bits reach 2^31 elements, and sums run over more", "[engine][limits]") {
  const Device device = tiny();
  const std::int64_t size = 100'000;
  const Tensor a = parameter(0, {{size, 1}, DType::f32}, device),
               b = parameter(1, {{1, size}, DType::f32}, device),
               bytes = parameter(2, {{std::int64_t{1} << 31}, DType::u8}, device);
  // 10^10 products, none of which is stored.
  CHECK_NOTHROW(planned({a, b}, {sum(a * b, {1})}, device));
  CHECK_NOTHROW(planned({a, b}, {sum(a * b)}, device));
  CHECK_THROWS_WITH(planned({a, b}, {a * b}, device), has_text("index_bits"));
  CHECK_THROWS_WITH(planned({a, b, bytes}, {sum(convert(bytes, DType::f32))}, device),
                    has_text("input 2, u8[2147483648]") && has_text("2147483647"));
  const Device wide = cpu({.threads = 1});
  const Tensor many = parameter(0, {{std::int64_t{1} << 33}, DType::u8}, wide);
  CHECK_NOTHROW(planned({many}, {sum(convert(many, DType::f32))}, wide));
}

// ---- what must go through memory

TEST_CASE("a value rounded to 16 bits is read back rounded", "[engine][limits]") {
  // The operand of both is computed in between: it brings the conversion and its reader together.
  check_everywhere(
      [](const Tensors& x) {
        const Tensor y = x[0] * x[1], rounded = convert(y, DType::bf16);
        return Tensors{rounded, convert(rounded, DType::f32) - y};
      },
      {{6, 7}, {6, 7}}, 1e-7);
}
