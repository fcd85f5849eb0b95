// What checkpoints are for: less memory, by computing again, late. And what orders that: Op::after.
#include <algorithm>
#include <map>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/custom.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "models/networks/network.h"
#include "tests/catch.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

using Parameters = std::map<std::string, Tensor>;

constexpr int depth = 12;
constexpr std::int64_t rows = 128, width = 32, hidden = 4 * width;
constexpr std::size_t row_bytes = rows * width * sizeof(float),
                      hidden_bytes = rows * hidden * sizeof(float);

const Device& host() {
  static const Device device = cpu();
  return device;
}

std::string name(const char* which, int k) { return which + std::to_string(10 + k); }

Parameters make_parameters() {
  Parameters parameters;
  const Tensor key = random_key(1, host());
  for (int k = 0; k < depth; ++k) {
    parameters[name("wide", k)] =
        0.2 * normal(fold_in(key, static_cast<std::uint32_t>(2 * k)), {width, hidden});
    parameters[name("narrow", k)] =
        0.1 * normal(fold_in(key, static_cast<std::uint32_t>(2 * k + 1)), {hidden, width});
  }
  eval_tree(parameters);
  return parameters;
}
Tensor make_input() { return normal(random_key(2, host()), {rows, width}); }

Tensor layer(const Parameters& p, const Tensor& h, int k) {
  return h + matmul(gelu_tanh(matmul(layer_norm(h, 1e-5), p.at(name("wide", k)))),
                    p.at(name("narrow", k)));
}

enum class How { plain, layers, groups, both };

// The mean square of a residual network's output; `groups` holds the layers by fours.
Tensor loss(How how, const Parameters& p, const Tensor& x) {
  const auto one = [&](const Tensor& h, int k) {
    return how == How::layers || how == How::both
               ? checkpoint([&](const Tensor& z) { return layer(p, z, k); }, "layer")(h)
               : layer(p, h, k);
  };
  Tensor h = x;
  for (int k = 0; k < depth; k += 4) {
    const auto group = [&](const Tensor& z) {
      return one(one(one(one(z, k), k + 1), k + 2), k + 3);
    };
    h = how == How::groups || how == How::both ? checkpoint(group, "group")(h) : group(h);
  }
  return mean(square(h));
}

auto step(How how) {
  return compile([how](const Parameters& p, const Tensor& x) {
    return value_and_grad([how, &x](const Parameters& q) { return loss(how, q, x); })(p);
  });
}

std::size_t products(const Program& program) {
  std::size_t count = 0;
  for (const Kernel& kernel : program.kernels)
    if (const auto* contract = std::get_if<ContractKernel>(&kernel))
      count += contract->terms.size();
  return count;
}
std::size_t barriers(const Program& program) {
  return static_cast<std::size_t>(
      std::count_if(program.kernels.begin(), program.kernels.end(), [](const Kernel& kernel) {
        const auto* op = std::get_if<OpKernel>(&kernel);
        return op && op->op == Op::after;
      }));
}

}  // namespace

TEST_CASE("checkpoints trade memory for products, and nothing for accuracy",
          "[autograd][checkpoint]") {
  const Parameters parameters = make_parameters();
  const Tensor x = make_input();
  const auto plain = step(How::plain);
  const auto [value, gradients] = plain(parameters, x);
  const std::size_t all = plain.memory_report(parameters, x).arena_bytes;
  // Without checkpoints each layer keeps at least its input and its hidden values.
  CHECK(all >= depth * (row_bytes + hidden_bytes));
  std::map<How, std::size_t> arena;
  for (const How how : {How::layers, How::groups, How::both}) {
    INFO("how " << static_cast<int>(how));
    const auto held = step(how);
    const auto [same, got] = held(parameters, x);
    CHECK(difference(same, value, 0, 0) == "");
    for (const auto& [key, gradient] : gradients)
      CHECK(difference(got.at(key), gradient, 0, 0) == "");
    arena[how] = held.memory_report(parameters, x).arena_bytes;
    // One product of each layer is computed again (the other's result is needed by the next layer
    // alone), and once more inside of a group, where the layers between need their inputs. Had
    // common subexpressions been merged, there would be none.
    const std::size_t again =
        products(held.program(parameters, x)) - products(plain.program(parameters, x));
    CHECK(again >= depth);
    CHECK(again <= 3 * depth);
    CHECK(barriers(held.program(parameters, x)) == 0);
  }
  // One layer's worth, and the inputs of all.
  CHECK(arena[How::layers] <= (depth + 2) * row_bytes + 4 * hidden_bytes);
  // Four layers' worth, and the inputs of three groups.
  CHECK(arena[How::groups] <= all / 2);
  // One layer's worth, the inputs of four, the inputs of three groups.
  CHECK(arena[How::both] < arena[How::layers]);
  CHECK(arena[How::both] <= 9 * row_bytes + 4 * hidden_bytes);
}

TEST_CASE("gradients with checkpoints are bit-equal to those without in f64 too",
          "[autograd][checkpoint]") {
  Parameters parameters = make_parameters();
  for (auto& [key, value] : parameters) value = convert(value, DType::f64);
  const Tensor x = convert(make_input(), DType::f64);
  const auto [value, gradients] = step(How::plain)(parameters, x);
  const auto [same, got] = step(How::both)(parameters, x);
  for (const auto& [key, gradient] : gradients)
    CHECK(difference(got.at(key), gradient, 0, 0) == "");
}

TEST_CASE("forward mode computes nothing twice through checkpoints", "[autograd][checkpoint]") {
  const Parameters parameters = make_parameters();
  const Tensor x = make_input();
  const auto tangent = [&](How how) {
    return compile([how](const Parameters& p, const Tensor& z) {
      return jvp([&](const Tensor& y) { return loss(how, p, y); }, std::tuple(z), std::tuple(z));
    });
  };
  const auto plain = tangent(How::plain), held = tangent(How::both);
  CHECK(products(plain.program(parameters, x)) == products(held.program(parameters, x)));
  CHECK(plain.memory_report(parameters, x).arena_bytes ==
        held.memory_report(parameters, x).arena_bytes);
  const auto [a, da] = plain(parameters, x);
  const auto [b, db] = held(parameters, x);
  CHECK(difference(b, a, 0, 0) == "");
  CHECK(difference(db, da, 0, 0) == "");
}

TEST_CASE("a checkpoint without a derivative leaves the plan as it is", "[autograd][checkpoint]") {
  const Parameters parameters = make_parameters();
  const Tensor x = make_input();
  const auto value = [](How how) {
    return compile([how](const Parameters& p, const Tensor& z) { return loss(how, p, z); });
  };
  CHECK(value(How::plain).program(parameters, x) == value(How::both).program(parameters, x));
}

TEST_CASE("after keeps values apart and costs no memory", "[engine][checkpoint]") {
  const auto later = [](const Tensor& x, const Tensor& token) {
    return make_node(Op::after, NoAttributes{}, {x, token});
  };
  const Tensor x = make_input(), w = normal(random_key(3, host()), {width, width});
  eval(x), eval(w);
  // The same product before and after: not merged, and the second waits.
  const auto twice = compile([&](const Tensor& a, const Tensor& b) {
    const Tensor first = tanh(matmul(a, b)), total = sum(square(first));
    const Tensor second = tanh(matmul(later(a, total), later(b, total)));
    return std::tuple(total, second * total);
  });
  CHECK(products(twice.program(x, w)) == 2);
  CHECK(barriers(twice.program(x, w)) == 0);
  const auto [total, second] = twice(x, w);
  const Tensor expected = tanh(matmul(x, w));
  CHECK(difference(second, expected * sum(square(expected)), 1e-5, 1e-6) == "");
  // Through views, of views, by views and by constants; as an output.
  const auto views = compile([&](const Tensor& a) {
    const Tensor token = broadcast_to(sum(a), {3, 2}), turned = later(transpose(a, {1, 0}), token);
    const Tensor joined = later(concat({turned, turned}, 0), full({2}, 0.5, DType::f32, host()));
    return std::tuple(joined * 2.0, later(a, token), later(full({4}, 3, DType::f32, host()), token),
                      later(a, zeros_like(a)) + 1.0);
  });
  const auto [joined, copied, constant, shifted] = views(x);
  CHECK(difference(joined, 2.0 * transpose(concat({x, x}, 1), {1, 0}), 0, 0) == "");
  CHECK(difference(copied, x, 0, 0) == "");
  CHECK(difference(constant, full({4}, 3, DType::f32, host()), 0, 0) == "");
  CHECK(difference(shifted, x + 1.0, 0, 0) == "");
  CHECK(barriers(views.program(x)) == 1);
  // Of a donated argument: it is overwritten only when the last reader is done.
  const auto update = compile(
      [&](const Tensor& p, const Tensor& a) {
        const auto [value, gradient] = value_and_grad([&](const Tensor& q) {
          return sum(square(checkpoint(
              [&](const Tensor& v, const Tensor& h) { return tanh(matmul(h, v)); })(q, a)));
        })(p);
        return std::pair(p - 0.5 * gradient, value);
      },
      {.donate = {0}});
  const Tensor fresh = w * 1.0;
  eval(fresh);
  const Tensor slope = grad([&](const Tensor& q) { return sum(square(tanh(matmul(x, q)))); })(w);
  CHECK(difference(update(fresh, x).first, w - 0.5 * slope, 1e-5, 1e-5) == "");
  CHECK_THROWS_AS(fresh.to_host<float>(), Error);
}

TEST_CASE(
    "a transformer trained on a derivative of itself needs a fraction of the memory with its "
    "blocks in checkpoints",
    "[models][checkpoint]") {
  DitConfig config{
      .image_size = 16, .patch_size = 2, .hidden_size = 32, .depth = 6, .num_heads = 2};
  Parameters parameters;
  // No zeros, behind which gradients would vanish.
  for (const auto& [key, shape] : parameter_shapes(config))
    parameters[key] =
        0.1 * normal(fold_in(random_key(3, host()), static_cast<std::uint32_t>(parameters.size())),
                     shape);
  eval_tree(parameters);
  const Tensor z = normal(random_key(4, host()), {4, 16, 16, 1}),
               velocity = normal(random_key(5, host()), {4, 16, 16, 1});
  const Tensor t = uniform(random_key(6, host()), {4}), r = 0.5 * t;
  eval_tree(std::vector<Tensor>{z, velocity, t, r});
  // As in MeanFlow: the target has the change of the network along the flow; and, harder, the same
  // without stopping the gradient there.
  const auto step = [&](bool held, bool stop) {
    config.running.checkpoint_blocks = held;
    return compile([&, config = config, stop](const Parameters& given) {
      return value_and_grad([&](const Parameters& p) {
        const auto u = [&](const Tensor& x, const Tensor& now) {
          return apply(config, p, x, Times{now, r}, {});
        };
        const auto [value, change] = jvp(u, std::tuple(z, t), std::tuple(velocity, ones_like(t)));
        const Tensor target = velocity - reshape(t - r, {4, 1, 1, 1}) * change;
        return mean(square(value - (stop ? stop_gradient(target) : target)));
      })(given);
    });
  };
  for (const bool stop : {true, false}) {
    const auto plain = step(false, stop), held = step(true, stop);
    const auto [loss, expected] = plain(parameters);
    const auto [same, got] = held(parameters);
    CHECK(difference(same, loss, 1e-6, 0) == "");
    for (const auto& [key, gradient] : expected) {
      INFO(key << (stop ? ", stopped" : ""));
      const double size = sqrt(mean(square(gradient))).item<float>();
      CHECK(difference(got.at(key), gradient, 1e-3, 1e-4 * size) == "");
    }
    INFO(to_string(plain.memory_report(parameters))
         << "; " << to_string(held.memory_report(parameters)));
    CHECK(2 * held.memory_report(parameters).arena_bytes <
          plain.memory_report(parameters).arena_bytes);
  }
  CHECK(DitConfig{.running = {.checkpoint_blocks = true}} == DitConfig{});
}
