// What the planner makes of graphs: how many kernels, how many bytes, and that every program passes
// the verifier.
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "autograd/linearize.h"
#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/custom.h"
#include "engine/graph/expansion.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/graph/shape_rules.h"
#include "engine/graph/walk.h"
#include "engine/plan/plan.h"
#include "engine/plan_cache.h"
#include "tests/catch.h"
#include "tests/compiled_program.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// A test that expects n kernels prints the program if there are others.
template <class F, class... Args>
void check_kernels(std::size_t expected, F f, const Args&... args) {
  const Program program = program_of(std::move(f), args...);
  INFO(to_string(program));
  CHECK(program.kernels.size() == expected);
}

// value and tangent of f along dx.
auto with_tangent(std::function<Tensor(const Tensor&)> f) {
  return [f = std::move(f)](const Tensor& x, const Tensor& dx) {
    return jvp(f, std::tuple{x}, std::tuple{dx});
  };
}

std::size_t count_ops(const Program& program, Op op) {
  std::size_t count = 0;
  for (const Kernel& kernel : program.kernels)
    if (const auto* tape = std::get_if<TapeKernel>(&kernel))
      count += static_cast<std::size_t>(
          std::count_if(tape->tape.instructions.begin(), tape->tape.instructions.end(),
                        [&](const TapeInstruction& instruction) {
                          return instruction.code == TapeCode::apply && instruction.op == op;
                        }));
  return count;
}

using Weights = std::map<std::string, Tensor>;

// A residual network of 16 steps, each a checkpoint if `held`, and its gradient. The steps share
// one set of weights, or each has its own.
constexpr int solver_steps = 16;
constexpr std::int64_t solver_width = 64;

Weights solver_weights(bool shared, const Device& device) {
  Weights weights;
  for (int k = 0; k < (shared ? 1 : solver_steps); ++k) {
    const auto seed = static_cast<std::uint64_t>(4 * k);
    const std::string number = std::to_string(k);
    weights["up" + number] = 0.1 * random_tensor({solver_width, solver_width}, device, seed);
    weights["down" + number] = 0.1 * random_tensor({solver_width, solver_width}, device, seed + 1);
    weights["bias" + number] = random_tensor({solver_width}, device, seed + 2);
    weights["shift" + number] = random_tensor({solver_width}, device, seed + 3);
  }
  eval_tree(weights);
  return weights;
}

auto solver_gradient(bool shared, bool held) {
  return compile([=](const Weights& given, const Tensor& x) {
    return grad([&](const Weights& w) {
      Tensor h = x;
      for (int k = 0; k < solver_steps; ++k) {
        const std::string number = std::to_string(shared ? 0 : k);
        const auto step = [&](const Tensor& z) {
          const Tensor hidden = tanh(matmul(z, w.at("up" + number)) + w.at("bias" + number));
          return z + 0.1 * (matmul(hidden, w.at("down" + number)) + w.at("shift" + number));
        };
        h = held ? checkpoint(step, "step")(h) : step(h);
      }
      return mean(square(h));
    })(given);
  });
}

std::size_t reducing_kernels(const Program& program) {
  return static_cast<std::size_t>(
      std::count_if(program.kernels.begin(), program.kernels.end(), [](const Kernel& kernel) {
        const auto* tape = std::get_if<TapeKernel>(&kernel);
        return tape && tape->tape.reduced_axes > 0;
      }));
}

}  // namespace

TEST_CASE("the plan of every op, and of its gradient, passes the verifier", "[engine][plan]") {
  for (const Device& device : {cpu(), reference()})
    for (const OpExample& example : op_examples()) {
      INFO(device.name() << ": " << example.label);
      try {
        const std::vector<Tensor> inputs = to_tensors(example.inputs, device);
        const Program program = program_of(example.f, inputs);
        CHECK(parse_program(serialise(program)) == program);
        if (!has_derivative(example.op)) continue;
        program_of(
            [&](const std::vector<Tensor>& x) {
              Leaves traced(x);
              const std::vector<Tensor> outputs = example.f(traced.tensors());
              std::vector<Tensor> cotangents;
              for (const Tensor& output : outputs)
                cotangents.push_back(cos(convert(output, DType::f64)));
              std::vector<Tensor> gradients = traced.linear_map(outputs).transpose(cotangents);
              std::erase_if(gradients, [](const Tensor& gradient) { return !gradient; });
              return gradients;
            },
            inputs);
      } catch (const std::exception& error) {
        FAIL_CHECK("threw: " << error.what());
      }
    }
}

TEST_CASE("an elementwise chain is one kernel, and one with its tangent", "[engine][plan]") {
  const Device device = cpu();
  const auto chain = [](const Tensor& x) {
    Tensor y = x;
    for (int i = 0; i < 5; ++i) y = tanh(sin(y) * y + exp(-y));
    return y;
  };
  const Tensor x = random_tensor({8, 33}, device);
  check_kernels(1, chain, x);
  check_kernels(1, with_tangent(chain), x, x);
  CHECK(program_of(with_tangent(chain), x, x).arena_bytes == 0);
}

TEST_CASE("softmax and layer norm are one kernel each, tangent included", "[engine][plan]") {
  const Device device = cpu();
  const Tensor x = random_tensor({8, 33}, device);
  const auto normalise = [](const Tensor& y) { return softmax(y); };
  check_kernels(1, normalise, x);
  check_kernels(1, with_tangent(normalise), x, x);
  const Tensor scale = random_tensor({8, 33}, device, 2), shift = random_tensor({8, 33}, device, 3);
  const auto modulated = [=](const Tensor& y) {
    return layer_norm(y, 1e-6) * (1.0 + scale) + shift;
  };
  check_kernels(1, modulated, x);
  check_kernels(1, with_tangent(modulated), x, x);
}

TEST_CASE("views cost no kernel", "[engine][plan]") {
  const Device device = cpu();
  const Tensor x = random_tensor({6, 8}, device);
  check_kernels(
      1,
      [](const Tensor& y) {
        return exp(transpose(y, {1, 0}));
      },
      x);
  check_kernels(
      1,
      [](const Tensor& y) {
        return exp(flip(slice(y, {1, 0}, {5, 8}, {2, 3}), {0}));
      },
      x);
  check_kernels(
      1,
      [](const Tensor& y) {
        return exp(pad(y, {1, 2}, {0, 1}));
      },
      x);
  check_kernels(
      1,
      [](const Tensor& y) {
        return exp(concat({y, flip(y, {1})}, 0));
      },
      x);
  check_kernels(
      1,
      [](const Tensor& y) {
        return y +
               mean(broadcast_to(reshape(slice_axis(y, 0, 0, 1), {8}), {6, 8}), {1}, true) * 0.0;
      },
      x);
  check_kernels(
      1,
      [](const Tensor& y) {
        return reshape(transpose(reshape(y, {2, 3, 8}), {1, 0, 2}), {6, 8}) * 2.0;
      },
      x);
  check_kernels(
      1,
      [](const Tensor& y) {
        return matmul(y, transpose(y, {1, 0}));
      },
      x);
}

TEST_CASE("a layer is one kernel: product, bias, activation - and the tangent's",
          "[engine][plan]") {
  const Device device = cpu();
  const Tensor x = random_tensor({16, 8}, device), w = random_tensor({8, 12}, device, 2),
               b = random_tensor({12}, device, 3);
  const auto layer = [=](const Tensor& y) { return gelu_tanh(matmul(y, w) + b); };
  check_kernels(1, layer, x);
  check_kernels(1, with_tangent(layer), x, x);
}

TEST_CASE("equal work is done once and idle work not at all", "[engine][plan]") {
  const Device device = cpu();
  const Tensor x = random_tensor({6, 8}, device);
  CHECK(count_ops(program_of([](const Tensor& y) { return exp(y) + sin(exp(y)); }, x), Op::exp) ==
        1);
  check_kernels(
      1, [](const Tensor& y) { return (y * 1.0 + 0.0) * 2.0; }, x);
  check_kernels(
      0, [](const Tensor& y) { return y * 1.0 + 0.0; }, x);
  check_kernels(
      0,
      [](const Tensor& y) {
        return transpose(transpose(y, {1, 0}), {1, 0});
      },
      x);
  check_kernels(
      1,
      [](const Tensor& y) {
        matmul(y, transpose(y, {1, 0}));
        return exp(y);
      },
      x);
  // A product that is asked for is not computed once more for its transpose.
  const Program both = program_of(
      [](const Tensor& y) {
        const Tensor product = matmul(y, transpose(y, {1, 0}));
        return std::pair(product, transpose(product, {1, 0}));
      },
      x);
  std::size_t products = 0;
  for (const Kernel& kernel : both.kernels)
    if (const auto* contraction = std::get_if<ContractKernel>(&kernel))
      products += contraction->terms.size();
  INFO(to_string(both));
  CHECK(products == 1);
}

TEST_CASE("a number for many kernels is a kernel of its own: none of them waits for another",
          "[engine][plan]") {
  // As an optimiser's rate, for parameters whose gradients are known one after the other.
  const auto update = [](const Tensor& rate, const Tensor& x) {
    const Tensor factor = expm1(rate * 0.5), late = cumsum(cumsum(x, 0), 1);
    // The sum makes one row of its kernel, where there is room for numbers.
    const Tensor first = tanh(late) * factor;
    return std::tuple(first, sum(square(first)), x * factor, sqrt(x) * factor);
  };
  const Device device = cpu();
  const Program program =
      program_of(update, random_tensor({}, device), random_tensor({8, 8}, device));
  INFO(to_string(program));
  const auto factor =
      std::find_if(program.kernels.begin(), program.kernels.end(), [&](const Kernel& kernel) {
        const auto* tape = std::get_if<TapeKernel>(&kernel);
        return tape && std::any_of(tape->tape.stores.begin(), tape->tape.stores.end(),
                                   [&](const TapeStore& store) {
                                     return program.buffers[store.buffer].type.shape.rank() == 0;
                                   });
      });
  REQUIRE(factor != program.kernels.end());
  CHECK(std::get<TapeKernel>(*factor).tape.stores.size() == 1);
}

TEST_CASE("stop_gradient leaves no second-order work behind", "[engine][plan]") {
  const Device device = cpu();
  const Tensor x = random_tensor({6, 8}, device);
  const auto loss = [](const Tensor& y) { return sum(y * stop_gradient(tanh(sin(y)))); };
  CHECK(count_ops(program_of(grad(loss), x), Op::cos) == 0);
}

TEST_CASE("temporaries share memory once they are dead", "[engine][plan]") {
  const Device device = cpu();
  const Tensor x = random_tensor({64, 64}, device);
  const auto powers = [](const Tensor& y) {
    Tensor z = y;
    for (int i = 0; i < 10; ++i) z = matmul(z, y);
    return z;
  };
  CHECK(program_of(powers, x).arena_bytes <= 2 * 64 * 64 * 4);
}

TEST_CASE("checkpoints save as much memory where they share weights", "[engine][plan]") {
  const Device device = cpu();
  constexpr std::size_t weight_bytes = solver_width * solver_width * sizeof(float);
  for (const std::int64_t rows : {std::int64_t{512}, std::int64_t{8}}) {
    INFO(rows << " rows");
    const Tensor x = random_tensor({rows, solver_width}, device, 99);
    const auto arena = [&](bool shared) {
      return solver_gradient(shared, true)
          .memory_report(solver_weights(shared, device), x)
          .arena_bytes;
    };
    // The sums of both gradients, and what is added to them.
    CHECK(arena(true) <= arena(false) + 4 * weight_bytes);
    const Weights weights = solver_weights(true, device);
    const Weights expected = solver_gradient(true, false)(weights, x),
                  got = solver_gradient(true, true)(weights, x);
    for (const auto& [name, gradient] : expected) {
      INFO(name);
      CHECK(difference(got.at(name), gradient, 1e-4, 1e-6) == "");
    }
  }
}

TEST_CASE("a sum of losses keeps only what the next one needs", "[engine][plan]") {
  const Device device = cpu();
  const Tensor x = 0.1 * random_tensor({64, 64}, device);
  eval(x);
  constexpr std::size_t value_bytes = 64 * 64 * sizeof(float);
  const auto of_layers = [](const Tensor& x) {
    Tensor z = x, total = zeros({}, DType::f32, x.device());
    for (int k = 0; k < 12; ++k) {
      z = matmul(z, x);
      total = total + sum(square(tanh(z) - 0.5));
    }
    return total;
  };
  CHECK(program_of(of_layers, x).arena_bytes <= 3 * static_cast<std::int64_t>(value_bytes));

  // Values that are needed after the sum are reduced at once: that keeps nothing longer.
  const auto normalised = [](const Tensor& x) {
    std::vector<Tensor> values;
    Tensor total = zeros({}, DType::f32, x.device());
    for (int k = 0; k < 12; ++k) {
      values.push_back(cumsum(x * (k + 0.5), 0));
      total = total + sum(square(values.back()));
    }
    for (Tensor& value : values) value = value / sqrt(total);
    return values;
  };
  CHECK(reducing_kernels(program_of(normalised, x)) == 1);
  // What is read by several reductions is read once.
  const auto moments = [](const Tensor& x) {
    const Tensor z = cumsum(x, 0);
    return sum(z) + sum(square(z)) + sum(tanh(z));
  };
  CHECK(reducing_kernels(program_of(moments, x)) == 1);
}

TEST_CASE("kernels that read one cheap value need not run at once", "[engine][plan]") {
  const Device device = cpu();
  const Tensor x = random_tensor({64, 64}, device);
  const auto heads = [](const Tensor& x) {
    const Tensor target = x * 0.3 + 1.0;
    Tensor total = zeros({}, DType::f32, x.device());
    for (int k = 0; k < 12; ++k) total = total + sum(square(cumsum(x * (k + 0.5), 0) - target));
    return total;
  };
  CHECK(program_of(heads, x).arena_bytes <= 3 * 64 * 64 * 4);
}

TEST_CASE("a product is written over what it is added to, not over what it reads",
          "[engine][plan]") {
  const auto added = [](const Tensor& x) {
    Tensor total = cumsum(x, 0);
    for (int k = 0; k < 6; ++k) total = total + matmul(x, cumsum(total, 1) * 0.01);
    return total * 2.0;
  };
  const auto read = [](const Tensor& x) {
    Tensor total = cumsum(x, 0);
    for (int k = 0; k < 3; ++k) total = total + 0.01 * matmul(total, x);
    return cumsum(total, 1);
  };
  // Few elements and many addends: the inner axis is split, and its parts are added at the end.
  const auto of_parts = [](const Tensor& x) {
    const Tensor narrow = reshape(x, {16, x.shape().elements() / 16});
    const Tensor corner = cumsum(slice(narrow, {0, 0}, {16, 16}, {1, 1}), 0);
    return cumsum(corner + matmul(narrow, transpose(narrow, {1, 0})), 1);
  };
  const auto on = [](const Device& device) {
    return to_tensor(random_value({200, 200}, -1, 1, 1), device, DType::f32);
  };
  const Device device = cpu({.threads = 2}), plain = reference();
  const Tensor x = on(device);
  CHECK(program_of(added, x).arena_bytes <= 2 * 200 * 200 * 4 + 256);
  for (const std::function<Tensor(const Tensor&)>& f :
       {std::function<Tensor(const Tensor&)>(added), std::function<Tensor(const Tensor&)>(read),
        std::function<Tensor(const Tensor&)>(of_parts)})
    CHECK(difference(compile(f)(x), f(on(plain)), 1e-3, 1e-3) == "");
}

TEST_CASE("donated state is updated in place", "[engine][plan]") {
  const Device device = cpu();
  const Tensor x = random_tensor({64, 64}, device), g = random_tensor({64, 64}, device, 2);
  const auto step = compile(
      [](const Tensor& p, const Tensor& gradient) { return p - gradient * 0.5; }, {.donate = {0}});
  const MemoryReport report = step.memory_report(x, g);
  CHECK(report.donated_bytes == 64 * 64 * 4);
  CHECK(report.arena_bytes == 0);
  CHECK(report.peak_bytes() == 2 * 64 * 64 * 4 + report.workspace_bytes);

  // Also where the update could have been the epilogue of the product that makes the gradient.
  const auto from_product = compile(
      [](const Tensor& p, const Tensor& a, const Tensor& b) { return p - matmul(a, b) * 0.5; },
      {.donate = {0}});
  CHECK(from_product.memory_report(x, g, g).donated_bytes == 64 * 64 * 4);
  CHECK(from_product.memory_report(x, g, g).kernels == 2);
}

TEST_CASE("a convolution's parts do not grow with the numbers in its attributes",
          "[engine][plan]") {
  const Device device = cpu({.threads = 1}), plain = reference();
  const auto check_parts = [&](const ConvAttributes& a, const Shape& x, const Shape& w) {
    const auto on = [&](const Device& device) {
      return std::vector<Tensor>{to_tensor(random_value(x, -1, 1, 1), device, DType::f32),
                                 to_tensor(random_value(w, -1, 1, 2), device, DType::f32)};
    };
    const auto f = [&](const std::vector<Tensor>& in) { return make_node(Op::conv2d, a, in); };
    CHECK(difference(f(on(device)), f(on(plain)), 1e-4, 1e-4) == "");
    const std::vector<Tensor> parts = expansion(Op::conv2d, a, on(device), device.costs());
    CHECK(walk(parts, [](const Node& node) { return !node.evaluated(); }).size() < 40);
  };
  // Pixels far apart: as many parts as there are places between them.
  ConvAttributes apart;
  apart.spread = {40, 40};
  check_parts(apart, {1, 2, 2, 3}, {1, 1, 3, 2});
  apart.spread = {1000, 1}, apart.low = {1, 0};
  check_parts(apart, {1, 1, 4, 3}, {2, 1, 3, 2});
  // A large kernel for each channel: as many views as it has elements.
  ConvAttributes depthwise;
  depthwise.groups = 2;
  check_parts(depthwise, {1, 40, 41, 2}, {40, 40, 1, 2});
}

TEST_CASE("channels and groups of a convolution do not overflow", "[engine][graph]") {
  ConvAttributes a;
  a.groups = std::int64_t{1} << 32;
  const TensorType types[] = {{{1, 4, 4, 0}, DType::f32}, {{1, 1, a.groups, 0}, DType::f32}};
  CHECK_THROWS_AS(infer_types(Op::conv2d, a, types, Location::current()), ShapeError);
}

TEST_CASE("planning is deterministic", "[engine][plan]") {
  const Device one = cpu(), other = cpu();
  const auto f = [](const Tensor& y) {
    return std::pair(softmax(matmul(y, transpose(y, {1, 0}))),
                     grad([](const Tensor& z) { return sum(square(tanh(z))); })(y));
  };
  CHECK(to_string(program_of(f, random_tensor({6, 8}, one))) ==
        to_string(program_of(f, random_tensor({6, 8}, other))));
}

TEST_CASE("the plan cache is bounded and forgets what was used longest ago", "[engine][plan]") {
  const Device device = cpu({1});
  const auto graph = [&](std::int64_t size) {
    const std::vector<Tensor> outputs{exp(random_tensor({size}, device))};
    return plan::canonicalise({}, outputs).graph;
  };
  PlanCache cache(2);
  const auto one = cache.find_or_make(graph(1), device.backend()),
             two = cache.find_or_make(graph(2), device.backend());
  CHECK(cache.find_or_make(graph(1), device.backend()) == one);
  cache.find_or_make(graph(3), device.backend());  // two leaves
  CHECK(cache.size() == 2);
  CHECK(cache.find_or_make(graph(1), device.backend()) == one);
  CHECK(cache.find_or_make(graph(2), device.backend()) != two);
  cache.forget_latest();
  CHECK(cache.size() == 1);
  CHECK(cache.find_or_make(graph(1), device.backend()) == one);
  cache.forget_latest();
  cache.forget_latest();
  CHECK(cache.size() == 0);
}

TEST_CASE("graphs that differ in a captured literal share a plan, unless it is 0, 1 or -1",
          "[engine][plan]") {
  const Device device = cpu({1});
  const Tensor x = random_tensor({5}, device);
  const std::size_t before = device.plans().size();
  (x * 2.0).to_host<float>();
  (x * 3.0).to_host<float>();
  CHECK(device.plans().size() == before + 1);
  (x + 1.0).to_host<float>();
  (x + 5.0).to_host<float>();
  CHECK(device.plans().size() == before + 3);
}

TEST_CASE("a run tells the time of each kernel", "[engine][plan]") {
  for (const Device& device : {cpu(), reference()}) {
    const Tensor x = random_tensor({64, 64}, device);
    const auto f = compile([](const Tensor& x) { return sum(tanh(matmul(x, x)), {0}) * 2.0; });
    std::vector<double> seconds{-1};
    RunOptions options;
    options.kernel_seconds = &seconds;
    eval(f.run(options, x));
    REQUIRE(seconds.size() == f.program(x).kernels.size());
    for (const double s : seconds) CHECK(s > 0);
  }
}
