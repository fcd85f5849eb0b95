// The graph itself: when things run, what errors say, how long chains live, and what compile()
// promises.
#include <array>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "autograd/transforms.h"
#include "autograd/vmap.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "engine/graph/philox.h"
#include "tests/backend/passing_backend.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

Tensor ramp(const Shape& shape, const Device& device) {
  std::vector<float> values(static_cast<std::size_t>(shape.elements()));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = 0.25f * static_cast<float>(i % 17) - 1;
  return Tensor::from(values, shape, device);
}

// A backend that counts what is asked of it and passes it on, to the reference backend by default.
struct CallCounts {
  int compiled = 0, ran = 0, uploaded = 0;
};
class CountingExecutable : public Executable {
 public:
  CountingExecutable(const Program& program, const Backend& owner,
                     std::unique_ptr<Executable> inner, CallCounts& counts)
      : Executable(program, owner), inner_(std::move(inner)), counts_(counts) {}
  std::size_t workspace_bytes() const override { return inner_->workspace_bytes(); }

 private:
  Event start(const Bindings& bindings, const RunOptions& options) override {
    ++counts_.ran;
    return inner_->submit(bindings, options);
  }

  std::unique_ptr<Executable> inner_;
  CallCounts& counts_;
};
class CountingBackend : public PassingBackend {
 public:
  explicit CountingBackend(CallCounts& counts, const Device& inner = reference())
      : PassingBackend(inner), counts_(counts) {}
  Event write(Buffer& to, std::span<const std::byte> from) override {
    ++counts_.uploaded;
    return PassingBackend::write(to, from);
  }
  std::unique_ptr<Executable> make_executable(const Program& program) override {
    ++counts_.compiled;
    return std::make_unique<CountingExecutable>(program, inner(),
                                                PassingBackend::make_executable(program), counts_);
  }

 private:
  CallCounts& counts_;
};

struct Layer {
  std::map<std::string, Tensor> weights;
  std::array<Tensor, 2> moments;
  int steps = 0;
  static auto members(auto& self) { return std::tie(self.weights, self.moments, self.steps); }
};

// Two types of the same tensors, which a function tells apart.
struct Added {
  Tensor x, y;
  static auto members(auto& self) { return std::tie(self.x, self.y); }
};
struct Subtracted {
  Tensor x, y;
  static auto members(auto& self) { return std::tie(self.x, self.y); }
};
struct ByType {
  Tensor operator()(const Added& both) const { return both.x + both.y; }
  Tensor operator()(const Subtracted& both) const { return both.x - both.y; }
};

}  // namespace

// ---- errors

TEST_CASE("a shape error names the op, the shapes and the line of the call", "[engine][graph]") {
  const Device device = reference();
  const Tensor a = zeros({2, 3}, DType::f32, device), b = zeros({4}, DType::f32, device);
  const std::string here = "test_graph.cpp:" + std::to_string(__LINE__ + 1);
  const std::string text = message_of<ShapeError>([&] { a + b; });
  CHECK_THAT(text,
             has_text("add") && has_text("f32[2, 3]") && has_text("f32[4]") && has_text(here));
  const std::string there = "test_graph.cpp:" + std::to_string(__LINE__ + 1);
  CHECK_THAT(message_of<ShapeError>([&] { matmul(a, a); }),
             has_text("matmul") && has_text("f32[2, 3]") && has_text(there));
  CHECK_THAT(message_of<ShapeError>([&] { reshape(a, {7}); }),
             has_text("reshape") && has_text("[7]"));
  CHECK_THAT(message_of<ShapeError>([&] { sum(a, {2}); }), has_text("sum") && has_text("axis 2"));
  CHECK_THAT(message_of<ShapeError>([&] {
               concat({a, zeros({2, 3, 1}, DType::f32, device)}, 0);
             }),
             has_text("concat"));
  CHECK_THAT(message_of<ShapeError>([&] {
               Tensor::from(std::vector<float>{1, 2}, {3}, device);
             }),
             has_text("f32[3]"));
  CHECK_THAT(message_of<ShapeError>([&] { a.item<float>(); }), has_text("f32[2, 3]"));
}

TEST_CASE("dtypes are never promoted silently", "[engine][graph]") {
  const Device device = reference();
  const Tensor a = zeros({2}, DType::f32, device), b = zeros({2}, DType::f64, device),
               n = zeros({2}, DType::i32, device);
  CHECK_THAT(message_of<DTypeError>([&] { a* b; }),
             has_text("mul") && has_text("f32[2]") && has_text("f64[2]"));
  CHECK_THAT(message_of<DTypeError>([&] { exp(n); }), has_text("exp") && has_text("i32[2]"));
  CHECK_THROWS_AS(a.to_host<double>(), DTypeError);
  CHECK((n + 1.0).dtype() == DType::i32);
}

TEST_CASE("tensors of two devices don't mix", "[engine][graph]") {
  const Device one = reference(), other = reference();
  const Tensor a = zeros({2}, DType::f32, one), b = ones_like(zeros({2}, DType::f32, other));
  CHECK_THROWS_AS(a + b, DeviceError);
  CHECK((a + b.to(one)).to_host<float>() == std::vector<float>{1, 1});
}

TEST_CASE("a handle without tensor says so", "[engine][graph]") {
  const Tensor nothing;
  CHECK_FALSE(nothing);
  CHECK_THROWS_AS(nothing.shape(), Error);
  CHECK_THROWS_AS(exp(nothing), Error);
  CHECK_THROWS_AS(nothing + nothing, Error);
}

// ---- laziness

TEST_CASE("nothing runs before a value is asked for, and nothing runs twice", "[engine][graph]") {
  CallCounts counts;
  const Device device(std::make_unique<CountingBackend>(counts));
  const Tensor x = ramp({3, 4}, device);
  const Tensor y = exp(x) + 1.0, z = sum(y * y);
  CHECK(counts.compiled == 0);
  CHECK(counts.ran == 0);
  z.item<float>();
  CHECK(counts.ran == 1);
  z.item<float>();
  // y is held by us and was materialised by the same run.
  y.to_host<float>();
  CHECK(counts.ran == 1);
}

TEST_CASE("equal graphs share one plan", "[engine][graph]") {
  CallCounts counts;
  const Device device(std::make_unique<CountingBackend>(counts));
  for (int i = 0; i < 5; ++i) sum(exp(ramp({3, 4}, device))).item<float>();
  CHECK(counts.compiled == 1);
  CHECK(counts.ran == 5);
  sum(exp(ramp({4, 4}, device))).item<float>();
  CHECK(counts.compiled == 2);
}

TEST_CASE("an evaluated node lets its inputs go", "[engine][graph]") {
  const Device device = reference();
  std::weak_ptr<Node> inner;
  Tensor y;
  {
    const Tensor x = exp(ramp({3}, device));
    inner = x.node();
    y = x + 1.0;
  }
  CHECK_FALSE(inner.expired());
  eval(y);
  CHECK(inner.expired());
  CHECK(y.node()->inputs().empty());
}

TEST_CASE("several roots are computed together", "[engine][graph]") {
  CallCounts counts;
  const Device device(std::make_unique<CountingBackend>(counts));
  const Tensor x = ramp({5}, device), a = exp(x), b = sum(a), c = a * 2.0;
  const std::vector<Tensor> roots = {a, b, c};
  eval(roots);
  CHECK(counts.ran == 1);
  CHECK(difference(c, exp(x) * 2.0, 0, 0) == "");
}

TEST_CASE("chains of 100,000 nodes build, differentiate, run and die", "[engine][graph][long]") {
  for (const Device& device : {cpu(), reference()}) {
    INFO(device.name());
    // y <- 0.9999 y + 0.0001: two ops and two stretched constants a step.
    const auto chain = [](const Tensor& x) {
      Tensor y = x;
      for (int i = 0; i < 50000; ++i) y = y * 0.9999 + 0.0001;
      return sum(y);
    };
    const Tensor x = Tensor::from(std::vector<double>{2, 3}, {2}, device);
    double expected = 0, slope = 1;
    for (double y : {2.0, 3.0}) {
      for (int i = 0; i < 50000; ++i) y = y * 0.9999 + 0.0001;
      expected += y;
    }
    for (int i = 0; i < 50000; ++i) slope *= 0.9999;
    const auto [value, gradient] = value_and_grad(chain)(x);
    CHECK(value.item<double>() == Approx(expected).epsilon(1e-12));
    for (const double each : gradient.to_host<double>())
      CHECK(each == Approx(slope).epsilon(1e-12));
    // One that is never evaluated.
    chain(x);
  }
}

// ---- trees

TEST_CASE("trees are walked in one order", "[engine][tree]") {
  const Device device = reference();
  const auto scalar = [&](double value) { return full({}, value, DType::f64, device); };
  const Layer layer{{{"b", scalar(2)}, {"a", scalar(1)}}, {scalar(3), scalar(4)}, 7};
  const auto nested = std::tuple(layer, std::vector<Tensor>{scalar(5)}, std::pair(scalar(6), 3));
  std::vector<double> seen;
  for (const Tensor& leaf : leaves(nested)) seen.push_back(leaf.item<double>());
  CHECK(seen == std::vector<double>{1, 2, 3, 4, 5, 6});

  const Layer doubled = map_tree(layer, [](const Tensor& t) { return t * 2.0; });
  CHECK(doubled.weights.at("b").item<double>() == 4);
  CHECK(doubled.steps == 7);
  const Layer sum =
      zip_tree(layer, doubled, [](const Tensor& a, const Tensor& b) { return a + b; });
  CHECK(sum.moments[1].item<double>() == 12);
  CHECK_THROWS_AS(with_leaves(layer, std::vector<Tensor>{scalar(0)}), Error);
  CHECK_THROWS_AS(zip_tree(std::vector<Tensor>{scalar(0)}, std::vector<Tensor>{},
                           [](const Tensor& a, const Tensor&) { return a; }),
                  Error);

  TreeStatics a, b, c;
  a.add(layer);
  b.add(doubled);
  Layer later = layer;
  later.steps = 8;
  c.add(later);
  CHECK(a == b);
  CHECK_FALSE(a == c);
}

TEST_CASE("gradients have the structure of what they differentiate", "[engine][tree]") {
  const Device device = cpu();
  const std::map<std::string, Tensor> parameters = {{"w", full({2}, 3, DType::f64, device)},
                                                    {"b", full({2}, 1, DType::f64, device)}};
  const auto loss = [](const std::map<std::string, Tensor>& p, const Tensor& x) {
    return sum(square(p.at("w") * x + p.at("b")));
  };
  const auto [value, gradient] = value_and_grad(loss)(parameters, full({2}, 2, DType::f64, device));
  CHECK(value.item<double>() == 98);
  CHECK(gradient.at("w").to_host<double>() == std::vector<double>{28, 28});
  CHECK(gradient.at("b").to_host<double>() == std::vector<double>{14, 14});
}

// ---- compile

TEST_CASE("compile traces once per signature and says why", "[engine][compile]") {
  const Device device = cpu();
  int traced = 0;
  const auto f = compile([&traced](const Tensor& a, const Tensor& b) {
    ++traced;
    return a * 2.0 + b;
  });
  const Tensor x = ramp({4, 2}, device);
  CHECK(difference(f(x, x), x * 3.0, 1e-6, 0) == "");
  CHECK(f.last_trace_reason() == "first call");
  f(x + 1.0, x);
  CHECK(traced == 1);
  f(ramp({8, 2}, device), ramp({8, 2}, device));
  CHECK(traced == 2);
  CHECK(f.traces() == 2);
  CHECK_THAT(f.last_trace_reason(), has_text("f32[8, 2]") && has_text("f32[4, 2]"));
  f(x, x);
  CHECK(traced == 2);
}

TEST_CASE("a compiled function keeps a bounded number of signatures", "[engine][compile]") {
  const Device device = cpu();
  const auto f =
      compile([](const Tensor& a) { return a * 2.0; }, {.donate = {}, .max_signatures = 2});
  for (const std::int64_t rows : {1, 2, 3})
    CHECK(difference(f(ramp({rows}, device)), ramp({rows}, device) * 2.0, 1e-6, 0) == "");
  CHECK(f.traces() == 3);
  f(ramp({3}, device));
  CHECK(f.traces() == 3);
  f(ramp({1}, device));  // had been forgotten
  CHECK(f.traces() == 4);
}

TEST_CASE("static members join the signature of a compiled function", "[engine][compile]") {
  const Device device = cpu();
  const auto f = compile(
      [](const Layer& layer) { return layer.moments[0] * static_cast<double>(layer.steps); });
  Layer layer{{}, {ramp({2}, device), ramp({2}, device)}, 3};
  CHECK(f(layer).to_host<float>()[0] == -3);
  layer.steps = 5;
  CHECK(f(layer).to_host<float>()[0] == -5);
  CHECK(f.traces() == 2);
}

TEST_CASE("the C++ types of arguments are part of a compiled function's signature",
          "[engine][compile]") {
  const Tensor x = ramp({3}, cpu()), y = exp(x);
  const auto f = compile(ByType{});
  CHECK(difference(f(Added{x, y}), x + y, 1e-6, 0) == "");
  CHECK(difference(f(Subtracted{x, y}), x - y, 1e-6, 0) == "");
  CHECK(f.traces() == 2);
  CHECK_THAT(f.last_trace_reason(), has_text("C++ type"));
  const auto same = compile([](const auto& both) { return both; });
  CHECK(difference(same(std::pair(x, y)).second, y, 0, 0) == "");
  CHECK(difference(same(std::array<Tensor, 2>{x, y})[1], y, 0, 0) == "");
}

TEST_CASE("asking the value of an argument while it is traced throws", "[engine][compile]") {
  const Tensor x = ramp({1}, cpu());
  const auto direct =
      compile([](const Tensor& a) { return a * static_cast<double>(a.item<float>()); });
  CHECK_THROWS_AS(direct(x), Error);
  const auto derived = compile([](const Tensor& a) {
    const Tensor b = exp(a);
    eval(b);
    return b;
  });
  CHECK_THROWS_AS(derived(x), Error);
}

TEST_CASE("a compiled function that calls itself on the signature being traced says so",
          "[engine][compile]") {
  const Device device = reference();
  std::function<Tensor(const Tensor&)> self;
  const Tensor held = ramp({4}, device), longer = ramp({6}, device);
  const auto f = compile([&](const Tensor& x) { return x + self(held); });
  self = [&](const Tensor& x) { return f(x); };
  CHECK_THAT(message_of<Error>([&] { f(held); }), has_text("called itself") && has_text("f32[4]"));
  CHECK(f.traces() == 0);
  // Under another signature it is another trace.
  const auto g =
      compile([&](const Tensor& x) { return x.elements() == 4 ? x + sum(self(longer)) : x * 2.0; });
  self = [&](const Tensor& x) { return g(x); };
  CHECK(difference(g(held), held + sum(longer * 2.0), 1e-6, 0) == "");
  CHECK(g.traces() == 2);
  // Two functions that call each other.
  std::function<Tensor(const Tensor&)> there;
  const auto back = compile([&](const Tensor& x) { return x + there(held); });
  const auto forth = compile([&](const Tensor& x) { return x * back(held); });
  there = [&](const Tensor& x) { return forth(x); };
  CHECK_THROWS_AS(back(held), Error);
  there = [](const Tensor& x) { return x; };
  CHECK_NOTHROW(back(held));
}

TEST_CASE("known signatures don't wait for one that is being traced",
          "[engine][compile][threads]") {
  const Device device = reference();
  std::mutex mutex;
  std::condition_variable changed;
  bool tracing = false, go_on = false;
  const auto f = compile([&](const Tensor& x) {
    if (x.elements() == 5) {
      std::unique_lock lock(mutex);
      tracing = true;
      changed.notify_all();
      changed.wait(lock, [&] { return go_on; });
    }
    return x * 2.0;
  });
  const Tensor known = ramp({4}, device), fresh = ramp({5}, device);
  f(known);
  std::jthread slow([&] { f(fresh); });
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return tracing; });
  }
  CHECK(difference(f(known), known * 2.0, 1e-6, 0) == "");
  CHECK(f.traces() == 1);
  {
    std::lock_guard lock(mutex);
    go_on = true;
  }
  // Of two that trace one signature, one wins.
  CHECK(difference(f(fresh), fresh * 2.0, 1e-6, 0) == "");
  changed.notify_all();
  slow.join();
  CHECK(f.traces() == 2);
}

TEST_CASE("a function that throws while it is traced can be traced again", "[engine][compile]") {
  const Device device = reference();
  bool throws = true;
  const auto f = compile([&](const Tensor& x) {
    if (throws) throw 17;
    return x + 1.0;
  });
  const Tensor x = ramp({4}, device);
  CHECK_THROWS_AS(f(x), int);
  CHECK_THROWS_AS(f(x), int);
  throws = false;
  CHECK_NOTHROW(f(x));
  CHECK(f.traces() == 1);
}

TEST_CASE("compiled functions share plans and executables", "[engine][compile]") {
  CallCounts counts;
  const Device device(std::make_unique<CountingBackend>(counts, cpu()));
  const Tensor x = ramp({3, 4}, device);
  const auto make = [](double rate) {
    return compile([=](const Tensor& a) { return exp(a) * rate; });
  };
  const auto one = make(0.5), other = make(0.25);
  CHECK(difference(one(x), exp(x) * 0.5, 1e-6, 0) == "");
  CHECK(difference(other(x), exp(x) * 0.25, 1e-6, 0) == "");
  const int compiled = counts.compiled;
  CHECK(&one.program(x) == &other.program(x));
  // Another graph, which simplifies to the same program.
  const auto wordy = compile([](const Tensor& a) { return exp(reshape(a + 0.0, {3, 4})) * 0.125; });
  CHECK(difference(wordy(x), exp(x) * 0.125, 1e-6, 0) == "");
  CHECK(counts.compiled == compiled);
  CHECK(&wordy.program(x) == &one.program(x));
  // What may overwrite its argument is another program.
  const auto donating = compile([](const Tensor& a) { return exp(a) * 0.5; }, {.donate = {0}});
  donating(x);
  CHECK(counts.compiled == compiled + 1);
}

TEST_CASE("captured tensors are hidden inputs, bound by handle", "[engine][compile]") {
  for (const Device& device : {cpu(), reference()}) {
    const Tensor captured = ramp({3}, device), lazy = exp(captured);
    const auto f = compile([=](const Tensor& x) { return x * captured + lazy; });
    const Tensor x = full({3}, 2, DType::f32, device);
    CHECK(difference(f(x), x * captured + exp(captured), 1e-6, 1e-6) == "");
    CHECK(difference(f(captured), captured * captured + exp(captured), 1e-6, 1e-6) == "");
    CHECK(f.traces() == 1);
  }
}

TEST_CASE("an argument may come back as it is, twice, or not at all", "[engine][compile]") {
  for (const Device& device : {cpu(), reference()}) {
    const auto f = compile([](const Tensor& a, const Tensor& b) {
      return std::tuple(a, a, b + 0.0, reshape(a, {2, 1}));
    });
    const Tensor a = ramp({2}, device), b = ramp({5}, device);
    const auto [first, second, third, fourth] = f(a, b);
    CHECK(difference(first, a, 0, 0) == "");
    CHECK(difference(second, a, 0, 0) == "");
    CHECK(difference(third, b, 0, 0) == "");
    CHECK(difference(fourth, reshape(a, {2, 1}), 0, 0) == "");
    const auto constant =
        compile([](const Tensor& x) { return zeros({3}, DType::f32, x.device()); });
    CHECK(constant(a).to_host<float>() == std::vector<float>(3, 0.0f));
  }
}

TEST_CASE("a compiled function called inside of a trace is inlined", "[engine][compile]") {
  const Device device = cpu();
  const auto inner = compile([](const Tensor& x) { return tanh(x) * x; }, {.donate = {0}});
  const Tensor x = ramp({5}, device);
  // Under a transform: differentiable, and the donated argument stays whole.
  const Tensor slope = grad([&](const Tensor& y) { return sum(inner(y)); })(x);
  CHECK(difference(slope, tanh(x) + x * (1.0 - square(tanh(x))), 1e-5, 1e-6) == "");
  const auto [value, tangent] = jvp(inner, std::tuple{x}, std::tuple{ones_like(x)});
  CHECK(difference(tangent, slope, 1e-5, 1e-6) == "");
  // Inside of another compiled function: one program.
  const auto outer = compile([&](const Tensor& y) { return exp(inner(y)) + 1.0; });
  CHECK(difference(outer(x), exp(tanh(x) * x) + 1.0, 1e-5, 1e-6) == "");
  CHECK(outer.program(x).kernels.size() == 1);
  CHECK(inner.traces() == 0);
  CHECK_NOTHROW(x.to_host<float>());
}

TEST_CASE("a compiled function that captured a traced tensor is inlined", "[engine][compile]") {
  const Device device = cpu();
  const Tensor w0 = ramp({5}, device), data = exp(w0), rows = ramp({2, 5}, device);
  const auto weighted = [&](const Tensor& w) {
    const auto f = compile([w](const Tensor& x) { return sum(w * w * x); }, {.donate = {0}});
    const Tensor y = f(data);
    CHECK(f.traces() == 0);
    CHECK_THAT(message_of<Error>([&] { f.program(data); }), has_text("captured"));
    return y;
  };
  CHECK(difference(grad(weighted)(w0), 2.0 * w0 * data, 1e-5, 1e-6) == "");
  CHECK(difference(jvp(weighted, w0, data).second, sum(2.0 * w0 * data * data), 1e-5, 1e-6) == "");
  CHECK(difference(hvp(weighted, w0, w0), 2.0 * w0 * data, 1e-5, 1e-6) == "");
  CHECK(difference(vmap(weighted)(rows), sum(rows * rows * data, {1}), 1e-5, 1e-6) == "");
  CHECK(difference(compile(weighted)(w0), sum(w0 * w0 * data), 1e-5, 1e-6) == "");
  CHECK(difference(compile(grad(weighted))(w0), 2.0 * w0 * data, 1e-5, 1e-6) == "");
  // Beside a traced argument, through a value that was asked for, and without arguments.
  const auto beside = [&](const Tensor& w) {
    const Tensor half = 0.5 * w;
    eval(half);
    return compile([half] { return sum(half * half); })() +
           compile([w](const Tensor& x) { return sum(w * x); })(stop_gradient(w));
  };
  CHECK(difference(grad(beside)(w0), 1.5 * w0, 1e-5, 1e-6) == "");
  // Once the transform is over, what it traced is a value like any other.
  Tensor leaf;
  grad([&](const Tensor& w) { return sum(leaf = w); })(w0);
  const auto late = compile([leaf](const Tensor& x) { return leaf * x; });
  CHECK(difference(late(data), w0 * data, 1e-6, 0) == "");
  CHECK(late.traces() == 1);
}

TEST_CASE("a compiled derivative is compiled once for all points", "[engine][compile]") {
  const Device device = cpu();
  const auto slope = compile(grad([](const Tensor& x) { return sum(sin(x) * x); }));
  for (int i = 0; i < 3; ++i) {
    const Tensor x = ramp({6}, device) * (0.5 + i);
    CHECK(difference(slope(x), sin(x) + x * cos(x), 1e-5, 1e-6) == "");
  }
  CHECK(slope.traces() == 1);
}

TEST_CASE("a donated argument is used up and the result is the same", "[engine][compile]") {
  for (const Device& device : {cpu(), reference()}) {
    INFO(device.name());
    const auto step = [](const std::vector<Tensor>& state, const Tensor& x) {
      return std::vector<Tensor>{state[0] + x, state[1] * 0.9 + square(state[0] - x),
                                 tanh(state[2]) - flip(state[2], {0})};
    };
    const auto plain = compile(step);
    const auto donating = compile(step, {.donate = {0}});
    const auto state = [&] {
      return std::vector<Tensor>{ramp({64}, device), ramp({64}, device) * 2.0,
                                 ramp({64}, device) - 1.0};
    };
    const Tensor x = ramp({64}, device) * 0.5;
    const std::vector<Tensor> expected = plain(state(), x), given = state();
    eval(given);
    const std::vector<Tensor> got = donating(given, x);
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(difference(got[i], expected[i], 0, 0) == "");
    for (const Tensor& tensor : given) {
      CHECK_THROWS_AS(tensor.to_host<float>(), Error);
      CHECK_THROWS_AS((tensor + 1.0).to_host<float>(), Error);
    }
    CHECK_NOTHROW(x.to_host<float>());
    // Round and round.
    std::vector<Tensor> a = state(), b = state();
    for (int i = 0; i < 5; ++i) {
      a = plain(a, x);
      b = donating(b, x);
    }
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(difference(b[i], a[i], 0, 0) == "");
  }
}

TEST_CASE("a buffer that somebody else owns too is copied, not overwritten", "[engine][compile]") {
  for (const Device& device : {cpu(), reference()}) {
    const std::vector<float> values(64, 3);
    const auto buffer = device.backend().allocate(256);
    device.backend().upload(*buffer, DType::f32, std::as_bytes(std::span(values)));
    const auto f = compile([](const Tensor& x) { return x * 2.0; }, {.donate = {0}});
    CHECK(f(Tensor::from_buffer(buffer, {{64}, DType::f32}, device)).to_host<float>() ==
          std::vector<float>(64, 6));
    std::vector<float> after(64);
    device.backend().download(*buffer, DType::f32, std::as_writable_bytes(std::span(after)));
    CHECK(after == values);
  }
}

TEST_CASE("the same tensor as two arguments, one of them donated", "[engine][compile]") {
  for (const Device& device : {cpu(), reference()}) {
    const auto f =
        compile([](const Tensor& a, const Tensor& b) { return a + flip(b, {0}); }, {.donate = {0}});
    const Tensor x = ramp({33}, device);
    const Tensor expected = x + flip(x, {0});
    eval(expected);
    try {
      CHECK(difference(f(x, x), expected, 0, 0) == "");
    } catch (const Error& error) {
      // Refusing is as good as copying; a wrong result is not.
      SUCCEED(error.what());
    }
  }
}

TEST_CASE("a compiled training step gives what the plain one gives", "[engine][compile]") {
  const Device device = cpu();
  const auto loss = [](const std::vector<Tensor>& w, const Tensor& x) {
    return mean(square(matmul(tanh(matmul(x, w[0])), w[1]) - 1.0));
  };
  const auto step = [loss](const std::vector<Tensor>& w, const Tensor& x, const Tensor& rate) {
    auto [value, gradient] = value_and_grad(loss)(w, x);
    return std::pair(
        zip_tree(w, gradient, [&](const Tensor& p, const Tensor& g) { return p - rate * g; }),
        value);
  };
  const auto compiled = compile(step, {.donate = {0}});
  const auto start = [&] {
    return std::vector<Tensor>{ramp({5, 9}, device) * 0.3, ramp({9, 2}, device) * 0.3};
  };
  const Tensor x = ramp({7, 5}, device), rate = full({}, 0.05, DType::f32, device);
  std::vector<Tensor> a = start(), b = start();
  float first = 0, last = 0;
  for (int i = 0; i < 10; ++i) {
    Tensor plain_loss, compiled_loss;
    std::tie(a, plain_loss) = step(a, x, rate);
    std::tie(b, compiled_loss) = compiled(b, x, rate);
    last = compiled_loss.item<float>();
    if (i == 0) first = last;
    CHECK(last == Approx(plain_loss.item<float>()).epsilon(1e-5));
  }
  CHECK(last < first);
  CHECK(compiled.traces() == 1);
}

TEST_CASE("eight threads share one compiled function and get the same bits",
          "[engine][compile][threads]") {
  const Device device = cpu();
  const auto f = compile(
      [](const Tensor& x, const Tensor& w) { return softmax(matmul(tanh(x), w)) + cumsum(x, 1); });
  std::vector<std::pair<Tensor, Tensor>> arguments;
  std::vector<std::vector<float>> expected;
  for (int i = 0; i < 8; ++i) {
    arguments.emplace_back(ramp({33, 20}, device) * (0.1 * i), ramp({20, 20}, device) + 0.01 * i);
    expected.push_back(f(arguments.back().first, arguments.back().second).to_host<float>());
  }
  std::vector<int> wrong(8, 0);
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < 8; ++i)
      threads.emplace_back([&, i] {
        for (int repeat = 0; repeat < 25; ++repeat)
          if (f(arguments[i].first, arguments[i].second).to_host<float>() != expected[i])
            ++wrong[i];
      });
  }
  CHECK(wrong == std::vector<int>(8, 0));
  CHECK(f.traces() == 1);
}

TEST_CASE("threads trace and plan at the same time", "[engine][compile][threads]") {
  const Device device = cpu();
  const auto f = compile([](const Tensor& x) { return sum(exp(x) * x); });
  std::vector<std::vector<float>> got(8);
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < 8; ++i)
      threads.emplace_back([&, i] {
        for (std::int64_t size = 1; size < 9; ++size)
          got[i].push_back(f(ramp({size}, device)).item<float>());
      });
  }
  for (const auto& each : got) CHECK(each == got[0]);
  CHECK(f.traces() == 8);
}

TEST_CASE("several threads may ask for values of one graph", "[engine][graph][threads]") {
  const Device device = cpu();
  for (int round = 0; round < 10; ++round) {
    const Tensor x = ramp({40, 30}, device), shared = tanh(matmul(x, swap_axes(x, 0, 1)));
    std::vector<Tensor> users;
    for (int i = 0; i < 8; ++i) users.push_back(sum(shared * (1.0 + i % 2), {1}));
    std::vector<std::vector<float>> got(8);
    {
      std::vector<std::jthread> threads;
      for (std::size_t i = 0; i < 8; ++i)
        threads.emplace_back([&, i] {
          got[i] = users[i].to_host<float>();
          if (i % 3 == 0) shared.to_host<float>();
          // And differentiate through shared nodes.
          grad([&](const Tensor& scale) { return sum(shared * scale); })(
              Tensor::from(std::vector<float>{1}, {}, device))
              .item<float>();
        });
    }
    for (std::size_t i = 0; i < 8; ++i) CHECK(got[i] == got[i % 2]);
  }
}

TEST_CASE("a program that was serialised and parsed gives equal bits", "[engine][compile]") {
  for (const Device& device : {cpu(), reference()}) {
    INFO(device.name());
    const auto f = compile([](const Tensor& x, const Tensor& w) {
      return std::pair(softmax(matmul(exp(x), w)), sum(x - 1.0, {0}));
    });
    const Tensor x = ramp({9, 7}, device), w = ramp({7, 5}, device);
    const auto [first, second] = f(x, w);
    const Program& program = f.program(x, w);
    const Program parsed = parse_program(serialise(program));
    REQUIRE(parsed == program);
    REQUIRE(program.scalars == 0);
    verify(parsed);
    const auto executable = device.backend().compile(parsed);
    const auto a = device.backend().allocate(first.type()),
               b = device.backend().allocate(second.type());
    Buffer* const inputs[] = {x.node()->value(0).get(), w.node()->value(0).get()};
    Buffer* const outputs[] = {a.get(), b.get()};
    executable->run({inputs, outputs, {}}, {});
    CHECK(Tensor::from_buffer(a, first.type(), device).to_host<float>() == first.to_host<float>());
    CHECK(Tensor::from_buffer(b, second.type(), device).to_host<float>() ==
          second.to_host<float>());
  }
}

TEST_CASE("memory is known before anything runs, and a limit refuses", "[engine][compile]") {
  for (const Device& device : {cpu(), reference()}) {
    INFO(device.name());
    const auto f =
        compile([](const Tensor& x) { return matmul(matmul(x, x), matmul(x, x) + 1.0); });
    const Tensor x = ramp({64, 64}, device);
    const MemoryReport report = f.memory_report(x);
    CHECK(report.input_bytes == 64 * 64 * 4);
    CHECK(report.output_bytes == 64 * 64 * 4);
    CHECK(report.arena_bytes >= 64 * 64 * 4);
    CHECK(report.workspace_bytes >= report.arena_bytes);
    CHECK(report.peak_bytes() >= 3 * 64 * 64 * 4);
    CHECK(report.kernels >= 2);
    CHECK_FALSE(to_string(report).empty());
    CHECK_THROWS_AS(f.run(RunOptions{{}, 1024}, x), OutOfMemory);
    CHECK_NOTHROW(f(x));
  }
}

TEST_CASE("a stopped call throws and leaves donated state whole", "[engine][compile]") {
  for (const Device& device : {cpu(), reference()}) {
    const auto f =
        compile([](const Tensor& x) { return matmul(matmul(x, x), x); }, {.donate = {0}});
    const Tensor x = ramp({8, 8}, device);
    const std::vector<float> before = x.to_host<float>();
    std::stop_source source;
    source.request_stop();
    RunOptions options;
    options.cancel = source.get_token();
    CHECK_THROWS_AS(f.run(options, x), Cancelled);
    CHECK(x.to_host<float>() == before);
  }
}

// ---- random

TEST_CASE("Philox gives the published known answers", "[engine][random]") {
  // kat_vectors of the Random123 distribution, philox4x32 with 10 rounds.
  using Words = std::array<std::uint32_t, 4>;
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const std::uint32_t ones = 0xffffffff;
  CHECK(philox4x32({ones, ones, ones, ones}, {ones, ones}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("random bits are Philox, the same on every backend", "[engine][random]") {
  for (const Device& device : {cpu(), reference()}) {
    const std::vector<std::uint32_t> bits =
        random_bits(random_key(0x123456789, device), {1003}).to_host<std::uint32_t>();
    bool equal = true;
    for (std::size_t i = 0; i < bits.size(); ++i)
      equal = equal && bits[i] == random_block(i / 4, 0, 0, {0x23456789, 1})[i % 4];
    CHECK(equal);
  }
}

TEST_CASE("keys that are split or folded draw different numbers", "[engine][random]") {
  const Device device = cpu();
  const Tensor key = random_key(1, device);
  std::vector<Tensor> keys = split_key(key, 3);
  keys.push_back(fold_in(key, 0u));
  keys.push_back(fold_in(key, 1u));
  keys.push_back(key);
  std::set<std::vector<std::uint32_t>> draws;
  for (const Tensor& each : keys) draws.insert(random_bits(each, {4}).to_host<std::uint32_t>());
  CHECK(draws.size() == keys.size());
  CHECK(random_bits(fold_in(key, 1u), {4}).to_host<std::uint32_t>() ==
        random_bits(fold_in(key, full({}, 1, DType::i32, device)), {4}).to_host<std::uint32_t>());
}

TEST_CASE("uniform and normal numbers have their moments", "[engine][random]") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Device device = cpu();
    const std::int64_t count = 200000;
    const Tensor u = convert(uniform(random_key(3, device), {count}, dtype), DType::f64),
                 n = convert(normal(random_key(4, device), {count}, dtype), DType::f64);
    // Five standard errors of each estimate.
    const double error = 5 / std::sqrt(static_cast<double>(count));
    CHECK(min(u).item<double>() >= 0);
    CHECK(max(u).item<double>() < 1);
    CHECK(mean(u).item<double>() == Approx(0.5).margin(error * 0.289));
    CHECK(mean(n).item<double>() == Approx(0).margin(error));
    CHECK(var(n).item<double>() == Approx(1).margin(error * std::sqrt(2.0)));
    CHECK(mean(square(square(n))).item<double>() == Approx(3).margin(error * std::sqrt(96.0)));
  }
}

TEST_CASE("a compiled random op wants its key as an argument", "[engine][random][compile]") {
  const Device device = cpu();
  const auto good = compile([](const Tensor& key) { return uniform(key, {4}); });
  CHECK(good(random_key(1, device)).to_host<float>() ==
        uniform(random_key(1, device), {4}).to_host<float>());
  CHECK(good(random_key(2, device)).to_host<float>() !=
        good(random_key(1, device)).to_host<float>());
  const auto bad =
      compile([](const Tensor& x) { return x + uniform(random_key(1, x.device()), {4}); });
  CHECK_THROWS_AS(bad(ramp({4}, device)), Error);
}
