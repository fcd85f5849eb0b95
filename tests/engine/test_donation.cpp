// What a compiled function may do to donated arguments, and what a call that fails leaves behind.
#include <cmath>
#include <new>
#include <string>
#include <thread>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/custom.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/engine/failing_backend.h"
#include "tests/error_message.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

using Floats = std::vector<float>;

Tensor filled(float value, const Device& device, std::int64_t size = 64) {
  return Tensor::from(Floats(static_cast<std::size_t>(size), value), {size}, device);
}

// Several elements that differ.
Tensor counting(const Shape& shape, const Device& device, float start = 0) {
  Floats values;
  for (std::int64_t i = 0; i < shape.elements(); ++i)
    values.push_back(start + static_cast<float>(i));
  return Tensor::from(values, shape, device);
}

bool is_all(const Tensor& tensor, float value) {
  return tensor.to_host<float>() == Floats(static_cast<std::size_t>(tensor.elements()), value);
}

template <class F>
Aftermath aftermath_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    CHECK(error.states_aftermath());
    return error.aftermath();
  }
  FAIL("nothing was thrown");
  return {};
}

}  // namespace

// ---- what is returned is not overwritten

TEST_CASE("a donated argument that is returned keeps its value", "[engine][donation]") {
  for (const Device& device : {cpu(), reference()}) {
    INFO(device.name());
    const auto f = compile([](const Tensor& a) { return std::pair(a, a + 1.0); }, {.donate = {0}});
    for (int repeat = 0; repeat < 2; ++repeat) {
      const auto [old, now] = f(filled(3, device));
      CHECK(is_all(old, 3));
      CHECK(is_all(now, 4));
    }
    for (const std::int32_t donor : f.program(filled(3, device)).donations) CHECK(donor == -1);
    // The teacher is the parameters of the step before.
    const auto step = compile(
        [](const std::vector<Tensor>& state) {
          return std::vector<Tensor>{state[0] * 2.0, state[0]};
        },
        {.donate = {0}});
    std::vector<Tensor> state{filled(1, device), filled(1, device)};
    for (int i = 0; i < 5; ++i) {
      state = step(state);
      CHECK(is_all(state[0], std::ldexp(1.0f, i + 1)));
      CHECK(is_all(state[1], std::ldexp(1.0f, i)));
    }
  }
}

TEST_CASE("a view of a donated argument that is returned keeps its value", "[engine][donation]") {
  for (const Device& device : {cpu(), reference()}) {
    INFO(device.name());
    const auto f = compile(
        [](const Tensor& a) {
          return std::vector<Tensor>{reshape(a, {3, 4}),
                                     reshape(reshape(a, {4, 3}), {12}),
                                     slice_axis(a, 0, 2, 9),
                                     flip(a, {0}),
                                     broadcast_to(expand_dims(a, 0), {2, 12}),
                                     stop_gradient(a),
                                     convert(a, DType::f32),
                                     a + 1.0,
                                     a * 2.0};
        },
        {.donate = {0}});
    const std::vector<Tensor> got = f(counting({12}, device));
    const Tensor a = counting({12}, device);
    const std::vector<Tensor> expected{a,
                                       a,
                                       slice_axis(a, 0, 2, 9),
                                       flip(a, {0}),
                                       broadcast_to(expand_dims(a, 0), {2, 12}),
                                       a,
                                       a,
                                       a + 1.0,
                                       a * 2.0};
    for (std::size_t i = 0; i < got.size(); ++i)
      CHECK(got[i].to_host<float>() == expected[i].to_host<float>());
  }
}

TEST_CASE("one result asked for twice may take over a donated argument", "[engine][donation]") {
  for (const Device& device : {cpu(), reference()}) {
    INFO(device.name());
    const auto f = compile(
        [](const Tensor& a) {
          const Tensor next = a + 1.0;
          return std::vector<Tensor>{next, next, a * 0.0 + 7.0};
        },
        {.donate = {0}});
    const std::vector<Tensor> got = f(filled(3, device));
    CHECK(is_all(got[0], 4));
    CHECK(is_all(got[1], 4));
    CHECK(is_all(got[2], 7));
    // The two share memory: donating one leaves the other.
    const auto g = compile([](const Tensor& a) { return a * 10.0; }, {.donate = {0}});
    CHECK(is_all(g(got[0]), 40));
    CHECK(is_all(got[1], 4));
    CHECK(is_all(g(got[1]), 40));
  }
}

TEST_CASE("exchanged donated arguments both keep their values", "[engine][donation]") {
  for (const Device& device : {cpu(), reference()}) {
    const auto f =
        compile([](const Tensor& a, const Tensor& b) { return std::tuple(b, a, a + b, a - b); },
                {.donate = {0, 1}});
    const auto [first, second, sum, difference] = f(filled(5, device), filled(3, device));
    CHECK(is_all(first, 3));
    CHECK(is_all(second, 5));
    CHECK(is_all(sum, 8));
    CHECK(is_all(difference, 2));
  }
}

TEST_CASE("an empty donated argument has nothing to take over", "[engine][donation]") {
  for (const Device& device : {cpu(), reference()}) {
    INFO(device.name());
    const auto f = compile(
        [](const Tensor& a) {
          return std::tuple(a * 0.5 + 1.0, concat({a, a + 1.0}, 0), matmul(swap_axes(a, 0, 1), a));
        },
        {.donate = {0}});
    const auto [half, both, product] = f(zeros({0, 5}, DType::f32, device) + 1.0);
    CHECK(half.elements() == 0);
    CHECK(both.elements() == 0);
    CHECK(is_all(product, 0));
  }
}

// ---- who else holds a value

TEST_CASE("a tensor may be several arguments, donated or not", "[engine][donation]") {
  for (const Device& device : {cpu(), reference()}) {
    INFO(device.name());
    const auto both =
        compile([](const Tensor& a, const Tensor& b) { return std::pair(a + 1.0, a + 2.0 * b); },
                {.donate = {0, 1}});
    const Tensor x = filled(3, device);
    const auto [first, second] = both(x, x);
    CHECK(is_all(first, 4));
    CHECK(is_all(second, 9));
    CHECK_THROWS_AS(x.to_host<float>(), Error);

    const auto one =
        compile([](const Tensor& a, const Tensor& b) { return std::pair(a + 1.0, a + 2.0 * b); },
                {.donate = {0}});
    const Tensor y = filled(3, device);
    const auto [third, fourth] = one(y, y);
    CHECK(is_all(third, 4));
    CHECK(is_all(fourth, 9));

    // Two tensors that share memory: what was returned as it is.
    const auto same = compile([](const Tensor& a) { return std::pair(a, a); });
    const auto [left, right] = same(filled(3, device));
    CHECK(is_all(one(left, right).first, 4));
    CHECK(is_all(right, 3));
  }
}

TEST_CASE("a donated tensor that the function holds is refused, and stays whole",
          "[engine][donation]") {
  for (const Device& device : {cpu(), reference()}) {
    INFO(device.name());
    const Tensor held = filled(3, device), other = filled(1, device);
    const auto f =
        compile([=](const Tensor& a, const Tensor& b) { return a + b * held; }, {.donate = {0, 1}});
    CHECK_THAT(message_of([&] { f(other, held); }),
               has_text("argument tensor 1") && has_text("f32[64]"));
    CHECK(is_all(held, 3));
    CHECK(is_all(other, 1));
    CHECK(is_all(f(other, filled(2, device)), 7));
  }
}

TEST_CASE("an unevaluated graph over a donated tensor says what was donated",
          "[engine][donation]") {
  for (const Device& device : {cpu(), reference()}) {
    INFO(device.name());
    const auto f = compile([](const Tensor& a) { return a + 1.0; }, {.donate = {0}});
    const Tensor x = filled(3, device), y = zeros({64}, DType::f32, device);
    const Tensor over_x = x * 2.0, over_y = y * 2.0;
    eval(y);
    CHECK(is_all(f(x), 4));
    CHECK(is_all(f(y), 1));
    for (const Tensor& graph : {over_x, over_y, x + 1.0, y + 1.0})
      CHECK_THAT(message_of([&] { eval(graph); }),
                 has_text("donated") && has_text("f32[64]") && has_text("argument tensor 0"));
    // A value that was computed before is its own.
    const Tensor z = filled(3, device), over_z = z * 2.0;
    eval(over_z);
    f(z);
    CHECK(is_all(over_z, 6));
  }
}

TEST_CASE("outputs of one node are donated one by one", "[engine][donation]") {
  for (const Device& device : {cpu(), reference()}) {
    INFO(device.name());
    const auto pair = checkpoint([](const Tensor& x) { return std::pair(x + 1.0, x * 2.0); });
    const auto f = compile([](const Tensor& a, const Tensor& b) { return std::pair(a - b, a * b); },
                           {.donate = {0, 1}});
    {
      const auto [a, b] = pair(filled(3, device));
      REQUIRE(a.node() == b.node());
      const auto [difference, product] = f(a, b);
      CHECK(is_all(difference, -2));
      CHECK(is_all(product, 24));
      CHECK_THROWS_AS(a.to_host<float>(), Error);
      CHECK_THROWS_AS(b.to_host<float>(), Error);
    }
    const auto g = compile([](const Tensor& a) { return a * 10.0; }, {.donate = {0}});
    const auto [a, b] = pair(filled(3, device));
    eval(a);
    CHECK(is_all(g(a), 40));
    CHECK_THROWS_AS(a.to_host<float>(), Error);
    CHECK(is_all(b, 6));
    CHECK(is_all(b + 1.0, 7));
  }
}

// ---- a refused call

TEST_CASE("a refused call takes nothing", "[engine][donation]") {
  for (const Device& device : {cpu(), reference()}) {
    INFO(device.name());
    const auto f = compile(
        [](const std::vector<Tensor>& state, const Tensor& x) {
          return std::vector<Tensor>{state[0] + x, state[1] * x};
        },
        {.donate = {0, 1}});
    const Tensor gone = filled(1, device), a = filled(2, device), b = filled(3, device),
                 x = filled(4, device);
    compile([](const Tensor& t) { return t + 1.0; }, {.donate = {0}})(gone);
    for (const std::vector<Tensor>& state : {std::vector{a, gone}, std::vector{gone, a}})
      CHECK(aftermath_of([&] { f(state, x); }) == Aftermath::nothing_written);
    CHECK(is_all(a, 2));
    CHECK(is_all(x, 4));
    // An argument of another device, under a signature that is known.
    f(std::vector{filled(2, device), filled(3, device)}, filled(4, device));
    const Tensor elsewhere = filled(9, reference());
    CHECK_THROWS_AS(f(std::vector{a, elsewhere}, x), DeviceError);
    CHECK_THROWS_AS(f(std::vector{a, b}, elsewhere), DeviceError);
    CHECK(is_all(a, 2));
    CHECK(is_all(b, 3));
    CHECK(is_all(f(std::vector{a, b}, x)[1], 12));
  }
}

TEST_CASE("a donated argument that no call has is an error", "[engine][donation]") {
  const Device device = cpu();
  const auto f = compile([](const Tensor& a) { return a + 1.0; }, {.donate = {1}});
  CHECK_THAT(message_of([&] { f(filled(1, device)); }), has_text("argument 1"));
}

// ---- a call that fails

TEST_CASE("a call that fails leaves what it says", "[engine][donation]") {
  // What a backend throws, and whether it says how far it came.
  const std::vector<std::function<void()>> failures = {
      [] { throw DeviceError("the fake device failed"); }, [] { throw std::bad_alloc(); },
      [] { throw std::runtime_error("not one of ours"); }, [] { throw 17; }};
  FailurePlan plan;
  const Device device(std::make_unique<FailingBackend>(cpu({.threads = 1}), plan));
  // Two matrix products, then the update of both tensors.
  const auto step = compile(
      [](const std::vector<Tensor>& state, const Tensor& x) {
        const Tensor g = matmul(matmul(x, state[0]), state[1]);
        return std::vector<Tensor>{state[0] - 0.5 * g, state[1] + g};
      },
      {.donate = {0}});
  const Tensor x = counting({4, 4}, device);
  const auto make = [&](float start) { return counting({4, 4}, device, start); };
  const Program& program = step.program(std::vector{make(1), make(2)}, x);
  const auto commit_point = static_cast<std::size_t>(program.commit_point);
  REQUIRE(commit_point > 0);
  REQUIRE(commit_point < program.kernels.size());

  for (std::size_t kernel = 0; kernel < program.kernels.size(); ++kernel)
    for (std::size_t failure = 0; failure < failures.size(); ++failure) {
      CAPTURE(kernel, failure);
      plan.kernel = kernel;
      plan.fail = failures[failure];
      const std::vector<Tensor> state{make(1), make(2)};
      const Aftermath aftermath = aftermath_of([&] { step(state, x); });
      plan.kernel.reset();
      CHECK(x.to_host<float>() == make(0).to_host<float>());
      if (kernel < commit_point) {
        CHECK(aftermath == Aftermath::nothing_written);
        CHECK(state[0].to_host<float>() == make(1).to_host<float>());
        CHECK(state[1].to_host<float>() == make(2).to_host<float>());
        CHECK_NOTHROW(step(state, x));  // once more, now with success
      } else {
        CHECK(aftermath == Aftermath::state_lost);
        for (const Tensor& lost : state) {
          CHECK_THAT(message_of([&] { lost.to_host<float>(); }),
                     has_text("lost") && has_text("f32[4, 4]") && has_text("argument tensor"));
          CHECK_THROWS_AS(step(std::vector{lost, make(2)}, x), Error);
        }
      }
    }
}

TEST_CASE("a backend that doesn't say how far it came counts as having written",
          "[engine][donation]") {
  FailurePlan plan;
  const Device device(std::make_unique<FailingBackend>(cpu({.threads = 1}), plan));
  const auto f = compile([](const Tensor& a) { return exp(a) + 1.0; }, {.donate = {0}});
  plan.states_aftermath = false;
  plan.kernel = 0;
  const Tensor a = filled(1, device);
  const std::string message = message_of([&] { f(a); });
  CHECK_THAT(message, has_text("the fake device failed") && has_text("values are lost"));
  CHECK_THROWS_AS(a.to_host<float>(), Error);
  // Where nothing could be overwritten, nothing is lost: the buffer has another owner here.
  const auto same = compile([](const Tensor& t) { return std::pair(t, t); });
  plan.kernel.reset();
  const auto [b, c] = same(filled(2, device));
  plan.kernel = 0;
  CHECK(aftermath_of([&] { f(b); }) == Aftermath::nothing_written);
  plan.kernel.reset();
  CHECK(is_all(b, 2));
  // An evaluation donates nothing.
  const Tensor graph = exp(c);
  plan.kernel = 0;
  CHECK(aftermath_of([&] { eval(graph); }) == Aftermath::nothing_written);
  plan.kernel.reset();
  CHECK_NOTHROW(eval(graph));
}

TEST_CASE("after the death of a device its donated tensors are lost", "[engine][donation]") {
  FailurePlan plan;
  const Device device(std::make_unique<FailingBackend>(cpu({.threads = 1}), plan));
  const auto f = compile([](const Tensor& a) { return exp(a) + 1.0; }, {.donate = {0}});
  plan.kernel = 0;
  plan.fail = [] {
    DeviceError error("the fake device is gone");
    error.state_aftermath(Aftermath::device_dead);
    throw error;
  };
  const Tensor a = filled(1, device);
  CHECK(aftermath_of([&] { f(a); }) == Aftermath::device_dead);
  CHECK_THROWS_AS(a.to_host<float>(), Error);
}

TEST_CASE("a call without memory for its outputs takes nothing", "[engine][donation]") {
  FailurePlan plan;
  const Device device(std::make_unique<FailingBackend>(cpu({.threads = 1}), plan));
  const auto f =
      compile([](const Tensor& a) { return std::pair(exp(a), sum(a)); }, {.donate = {0}});
  const Tensor a = filled(1, device);
  f.program(a);
  plan.failed_allocations = 1;
  CHECK(aftermath_of([&] { f(a); }) == Aftermath::nothing_written);
  CHECK(is_all(a, 1));
  CHECK_NOTHROW(f(a));
}

TEST_CASE("a call that was prepared and never run gives its arguments back", "[engine][donation]") {
  const Device device = cpu();
  const TracedParameters parameters({filled(1, device)});
  const CompiledTrace trace(parameters.tensors(), {true}, {parameters.tensors()[0] + 1.0});
  const Tensor a = filled(3, device);
  {
    const CompiledCall call = trace.prepare({a});
    CHECK_THROWS_AS(a.to_host<float>(), Error);
  }
  CHECK(is_all(a, 3));
  CompiledCall call = trace.prepare({a});
  call.run({});
  CHECK(is_all(call.results()[0], 4));
  CHECK_THROWS_AS(a.to_host<float>(), Error);
}

TEST_CASE("two threads that donate one tensor: one of them gets it",
          "[engine][donation][threads]") {
  const Device device = cpu();
  const auto f =
      compile([](const std::vector<Tensor>& a) { return std::pair(a[0] + 1.0, a[1] + 1.0); },
              {.donate = {0}});
  f(std::vector{filled(1, device), filled(1, device)});
  for (int round = 0; round < 50; ++round) {
    const Tensor one = filled(1, device), shared = filled(2, device), other = filled(3, device);
    std::atomic<int> refused = 0;
    {
      std::vector<std::jthread> threads;
      for (const Tensor& own : {one, other})
        threads.emplace_back([&, own] {
          try {
            f(std::vector{own, shared});
          } catch (const Error&) {
            ++refused;
          }
        });
    }
    CHECK(refused == 1);
    int whole = 0;
    for (const Tensor& own : {one, other}) whole += message_of([&] { eval(own); }) == "";
    CHECK(whole == 1);
  }
}

// ---- bindings

TEST_CASE("a program refuses bindings that don't fit it", "[engine][backend]") {
  for (const Device& device : {cpu(), reference()}) {
    INFO(device.name());
    const auto f =
        compile([](const Tensor& a, const Tensor& b) { return std::pair(a * 0.3 + b, exp(b)); });
    const Program& program = f.program(filled(1, device), filled(1, device));
    const auto executable = device.backend().compile(program);
    const auto buffer = [&](std::size_t bytes) { return device.backend().allocate(bytes); };
    const auto a = buffer(256), b = buffer(256), c = buffer(256), d = buffer(256),
               small = buffer(255);
    const std::vector<double> scalars(static_cast<std::size_t>(program.scalars), 0.5);
    using Buffers = std::vector<Buffer*>;
    const auto run = [&](const Buffers& in, const Buffers& out, std::span<const double> numbers) {
      executable->run({in, out, numbers}, {});
    };
    const Buffers in{a.get(), b.get()}, out{c.get(), d.get()};
    CHECK_NOTHROW(run(in, out, scalars));
    for (const auto& wrong : std::initializer_list<std::function<void()>>{
             [&] { run({a.get()}, out, scalars); },
             [&] {
               run({a.get(), b.get(), b.get()}, out, scalars);
             },
             [&] { run(in, {c.get()}, scalars); },
             [&] {
               run({a.get(), nullptr}, out, scalars);
             },
             [&] {
               run({a.get(), small.get()}, out, scalars);
             },
             [&] {
               run(in, {c.get(), small.get()}, scalars);
             },
             [&] {
               run(in, {c.get(), nullptr}, scalars);
             },
             [&] {
               run(in, {c.get(), c.get()}, scalars);
             },
             [&] {
               run(in, {c.get(), a.get()}, scalars);
             },
             [&] { run(in, out, std::span(scalars).first(scalars.size() - 1)); }})
      CHECK(aftermath_of(wrong) == Aftermath::nothing_written);
    CHECK_NOTHROW(run({a.get(), a.get()}, out, scalars));
  }
}
