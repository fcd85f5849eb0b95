// The derivative of every op of the table, forward and reverse, against finite differences. The
// walk is over the table, so an op without example fails.
#include <set>
#include <tuple>

#include "autograd/check.h"
#include "autograd/linearize.h"
#include "autograd/rules.h"
#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/graph/custom.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

std::vector<Tensor> floating_only(std::vector<Tensor> tensors) {
  std::erase_if(tensors, [](const Tensor& tensor) { return tensor.dtype() != DType::f64; });
  return tensors;
}

// The gradient of a smooth, uneven scalar of f's outputs: sum_k sum_i sin(y_i + i / 7 + k).
std::vector<Tensor> gradient_of_wave(const TensorFunction& f, const std::vector<Tensor>& inputs) {
  Leaves traced(inputs);
  const std::vector<Tensor> outputs = floating_only(f(traced.tensors()));
  Tensor wave;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    const Tensor flat = reshape(outputs[k], {outputs[k].elements()});
    const Tensor part =
        sum(sin(flat + iota(flat.shape(), 0, DType::f64, flat.device()) * (1.0 / 7) +
                static_cast<double>(k)));
    wave = wave ? wave + part : part;
  }
  std::vector<Tensor> gradients = traced.linear_map({wave}).transpose({ones_like(wave)});
  std::erase_if(gradients, [](const Tensor& gradient) { return !gradient; });
  return gradients;
}

void check_all(const Device& device, int order) {
  for (const OpExample& example : op_examples()) {
    if (!has_derivative(example.op)) continue;
    const TensorFunction f = order == 1 ? example.f : [&](const std::vector<Tensor>& x) {
      return gradient_of_wave(example.f, x);
    };
    INFO(device.name() << ": " << example.label);
    try {
      const DerivativeCheck check = check_derivatives(f, to_tensors(example.inputs, device),
                                                      {.tolerance = order == 1 ? 1e-6 : 1e-5});
      CHECK(check.message == "");
    } catch (const std::exception& error) {
      FAIL_CHECK("threw: " << error.what());
    }
  }
}

}  // namespace

TEST_CASE("every op with a derivative has an example", "[autograd][derivatives]") {
  std::set<Op> shown;
  for (const OpExample& example : op_examples()) shown.insert(example.op);
  for (int number = 0; number < op_count; ++number) {
    const auto op = static_cast<Op>(number);
    INFO("op " << to_string(op));
    CHECK((!has_derivative(op) || shown.contains(op)));
    CHECK(jvp_rule(op) != nullptr);
  }
}

TEST_CASE("first derivatives of every op agree with finite differences on the reference backend",
          "[autograd][derivatives]") {
  check_all(reference(), 1);
}

TEST_CASE("a check of derivatives passes over no NaN, and nothing passes unchecked",
          "[autograd][derivatives]") {
  const Device device = reference();
  // A false tangent, at a point whose neighbours are no numbers.
  const auto wrong = custom_jvp([](const Tensor& x) { return sqrt(x); },
                                [](const std::tuple<Tensor>&, const std::tuple<Tensor>& dx) {
                                  return 7.0 * std::get<0>(dx);
                                });
  const Tensor x = Tensor::from(std::vector<double>{1e-9, 0.5}, {2}, device);
  const auto both = [&](const std::vector<Tensor>& in) {
    return std::vector<Tensor>{wrong(in[0]), sin(in[0])};
  };
  CHECK_FALSE(check_derivatives(both, {x}).passed);
  const auto narrow = [&](const std::vector<Tensor>& in) {
    return std::vector<Tensor>{wrong(in[0]).to(DType::f32)};
  };
  CHECK_THROWS_AS(check_derivatives(narrow, {x}), DTypeError);
}

TEST_CASE("attention with a scale of 0 is the mean over keys", "[autograd][derivatives]") {
  const Shape q{2, 3, 4}, k{2, 5, 4};
  const std::vector<HostValue> inputs{random_value(q, -1, 1, 1), random_value(k, -1, 1, 2),
                                      random_value(k, -1, 1, 3)};
  const TensorFunction f = [](const std::vector<Tensor>& x) {
    return std::vector<Tensor>{attention(x[0], x[1], x[2], {.scale = 0})};
  };
  for (const Device& device : {cpu({.threads = 1}), reference()}) {
    const std::vector<Tensor> at = to_tensors(inputs, device);
    CHECK(max(abs(f(at)[0] - mean(at[2], {1}, true))).item<double>() < 1e-15);
    CHECK(check_derivatives(f, at, {.tolerance = 1e-6}).message == "");
    const auto wave = [&](const std::vector<Tensor>& x) { return gradient_of_wave(f, x); };
    CHECK(check_derivatives(wave, at, {.tolerance = 1e-5}).message == "");
  }
}

TEST_CASE("first derivatives of every op agree with finite differences on the CPU",
          "[autograd][derivatives]") {
  check_all(cpu(), 1);
}
TEST_CASE("second derivatives of every op, forward over reverse and reverse over reverse",
          "[autograd][derivatives]") {
  check_all(cpu(), 2);
}

TEST_CASE("ops without derivative carry no tangent", "[autograd][derivatives]") {
  const Device device = reference();
  for (const OpExample& example : op_examples()) {
    if (has_derivative(example.op) || info(example.op).op_class == OpClass::leaf) continue;
    const std::vector<Tensor> inputs = to_tensors(example.inputs, device);
    std::vector<Tensor> tangents;
    for (const Tensor& input : inputs)
      tangents.push_back(is_floating(input.dtype()) ? ones_like(input) : Tensor());
    Leaves traced(inputs, tangents);
    for (const Tensor& tangent : traced.push_forward(floating_only(example.f(traced.tensors()))))
      for (const double each : host_values(tangent)) CHECK(each == 0);
  }
}

TEST_CASE("derivatives at kinks follow the stated conventions", "[autograd][derivatives]") {
  const Device device = cpu();
  const auto at = [&](std::vector<double> values) {
    const auto count = static_cast<std::int64_t>(values.size());
    return Tensor::from(values, {count}, device);
  };
  const auto slope = [](const std::function<Tensor(const Tensor&)>& f, const Tensor& x) {
    return host_values(grad([&](const Tensor& y) { return sum(f(y)); })(x));
  };
  using Values = std::vector<double>;
  CHECK(slope([](const Tensor& x) { return abs(x); }, at({-2, 0, 2})) == Values{-1, 0, 1});
  CHECK(slope([](const Tensor& x) { return relu(x); }, at({-2, 0, 2})) == Values{0, 0, 1});
  CHECK(std::isnan(host_values(relu(at({std::nan("")})))[0]));
  CHECK(slope([](const Tensor& x) { return maximum(x, 1.0); }, at({0, 1, 2})) == Values{0, 0.5, 1});
  CHECK(slope([](const Tensor& x) { return minimum(x, 1.0); }, at({0, 1, 2})) == Values{1, 0.5, 0});
  CHECK(slope([](const Tensor& x) { return max(x); }, at({3, 1, 3, 2})) == Values{0.5, 0, 0.5, 0});
  CHECK(slope([](const Tensor& x) { return pow(x, 0.0); }, at({0, 2})) == Values{0, 0});
  CHECK(slope([](const Tensor& x) { return pow(x, 1.0); }, at({0, 2})) == Values{1, 1});
  CHECK(slope([](const Tensor& x) { return pow(x, 2.0); }, at({-3, 0})) == Values{-6, 0});
  CHECK(slope([](const Tensor& x) { return x * stop_gradient(x); }, at({3})) == Values{3});
  // A length has the derivatives of abs along an axis, and none of any order at the origin.
  const auto along_axis = [](const Tensor& x) { return hypot(x, 0.0); };
  const auto oblique = [](const Tensor& x) { return hypot(3.0 * x, 4.0 * x); };
  CHECK(slope(along_axis, at({-2, 0, 2})) == Values{-1, 0, 1});
  CHECK(slope(oblique, at({0})) == Values{0});
  const auto gradient = [&](const Tensor& x) {
    return grad([&](const Tensor& y) { return sum(oblique(y)); })(x);
  };
  CHECK(slope(gradient, at({0})) == Values{0});
  CHECK(slope(
            [&](const Tensor& x) {
              return grad([&](const Tensor& y) { return sum(gradient(y)); })(x);
            },
            at({0})) == Values{0});
}

TEST_CASE("tangents keep the dtype of their value across conversions", "[autograd][derivatives]") {
  const Device device = cpu();
  const Tensor x = Tensor::from(std::vector<float>{1.5f, -2.0f}, {2}, device);
  const auto f = [](const Tensor& y) { return sum(square(convert(y, DType::f64))); };
  const Tensor gradient = grad(f)(x);
  CHECK(gradient.dtype() == DType::f32);
  CHECK(gradient.to_host<float>() == std::vector<float>{3.0f, -4.0f});
}

TEST_CASE("integers have no gradient and say so", "[autograd][derivatives]") {
  const Tensor n = Tensor::from(std::vector<std::int32_t>{1, 2}, {2}, cpu());
  CHECK_THROWS_AS(grad([](const Tensor& x) { return sum(convert(x, DType::f32)); })(n), DTypeError);
}

TEST_CASE("errors of derivatives name the caller's line", "[autograd][derivatives]") {
  const Device device = cpu();
  const Tensor x = Tensor::from(std::vector<float>{1, 2}, {2}, device);
  const Tensor three = zeros({3}, DType::f32, device), n = convert(x, DType::i32);
  const auto f = [](const Tensor& y) { return y * y; };
  const auto names_a_line = [](const std::string& message, std::uint_least32_t line) {
    return message.ends_with("test_derivatives.cpp:" + std::to_string(line) + ")");
  };
  const auto line = Location::current().line();
  CHECK(names_a_line(message_of([&] { jvp(f, x, three); }), line + 1));
  CHECK(names_a_line(message_of([&] { jvp(f, std::tuple(x), std::tuple(three)); }), line + 2));
  CHECK(names_a_line(message_of([&] { vjp(f, x).second(three); }), line + 3));
  CHECK(names_a_line(message_of([&] { linearize(f, x).second({three}); }), line + 4));
  CHECK(names_a_line(message_of([&] { grad(f)(x); }), line + 5));
  CHECK(names_a_line(message_of([&] { value_and_grad(f)(n); }), line + 6));
  CHECK(names_a_line(message_of([&] { hvp(f, x, x); }), line + 7));
  CHECK(names_a_line(message_of([&] { x.item<float>(); }), line + 8));
  const Tensor elsewhere = ones_like(x).to(cpu());
  const auto from = Location::current().line();
  CHECK(names_a_line(message_of([&] { jvp(f, x, elsewhere); }), from + 1));
  CHECK(names_a_line(message_of([&] { vjp(f, x).second(elsewhere); }), from + 2));
  CHECK(names_a_line(message_of([&] { linearize(f, x).second({elsewhere}); }), from + 3));
  CHECK_THAT(message_of([&] { jvp(f, x, elsewhere); }),
             has_text("jvp: tangent 0 is on another device than its value"));
  // ... and which of several.
  CHECK_THAT(message_of([&] {
               jvp([](const Tensor& a, const Tensor& b) { return a * b; }, std::tuple(x, x),
                   std::tuple(x, three));
             }),
             has_text("jvp: tangent 1 is " + to_string(three.type()) + " for a value of " +
                      to_string(x.type())));
  CHECK_THAT(message_of([&] { grad([](const Tensor&) { return Tensor(); })(x); }),
             has_text("value holds no tensor (test_derivatives.cpp:"));
  CHECK_THAT(message_of([&] { x + elsewhere; }), has_text("each call that opens a device"));
}

TEST_CASE("nested transforms keep their perturbations apart", "[autograd][derivatives]") {
  const Device device = cpu();
  const Tensor x = Tensor::from(std::vector<double>{2}, {}, device);
  // d/dx [x d/dy (x + y)] = 1, the classical example where confused perturbations give 2.
  const auto inner = [&](const Tensor& a) {
    return a * grad([&](const Tensor& y) { return a + y; })(a);
  };
  CHECK(grad(inner)(x).item<double>() == 1.0);
  // Third derivative of x^4: 24 x.
  const auto fourth = [](const Tensor& a) { return square(square(a)); };
  CHECK(grad([&](const Tensor& a) {
          return grad([&](const Tensor& b) { return grad(fourth)(b); })(a);
        })(x)
            .item<double>() == Approx(48));
}

TEST_CASE("hvp, jacfwd and jacrev agree with the Jacobian written by hand",
          "[autograd][derivatives]") {
  const Device device = cpu();
  const Tensor x = Tensor::from(std::vector<double>{0.5, -1, 2}, {3}, device),
               v = Tensor::from(std::vector<double>{1, 2, -1}, {3}, device);
  // f = sum x^3: Hessian diag(6 x).
  const auto cubes = [](const Tensor& a) { return sum(a * a * a); };
  CHECK(difference(hvp(cubes, x, v), 6.0 * x * v, 1e-14, 0) == "");
  // g_i = x_i x_0: J = x_0 I + x e_0'.
  const auto g = [](const Tensor& a) { return a * broadcast_to(slice_axis(a, 0, 0, 1), {3}); };
  const Tensor expected =
      Tensor::from(std::vector<double>{1, 0, 0, -1, 0.5, 0, 2, 0, 0.5}, {3, 3}, device);
  CHECK(difference(jacfwd(g, x), expected, 1e-14, 0) == "");
  CHECK(difference(jacrev(g, x), expected, 1e-14, 0) == "");
}
