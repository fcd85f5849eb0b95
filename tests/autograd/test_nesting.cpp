// Derivatives of derivatives: perturbations that must not be confused, and every order of nesting
// up to the third derivative.
#include <cmath>

#include "autograd/check.h"
#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/custom.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

using Function = std::function<Tensor(const Tensor&)>;

const Device& nesting_device() {
  static const Device device = cpu();
  return device;
}

Tensor scalar(double value) {
  return Tensor::from(std::vector<double>{value}, {}, nesting_device());
}
Tensor nested_values(const Shape& shape, std::uint64_t seed) {
  return to_tensor(random_value(shape, -1.5, 1.5, seed), nesting_device());
}

// The directional derivative of f along v, forward or reverse; f may return any shape if forward, a
// scalar if reverse.
Tensor along(bool forward, const Function& f, const Tensor& x, const Tensor& v) {
  return forward ? jvp(f, x, v).second : sum(grad(f)(x) * v);
}
// d/dx of a function of a scalar.
Tensor slope(bool forward, const Function& f, const Tensor& x) {
  return along(forward, f, x, ones_like(x));
}

// The scalar f's third derivative D^3 f[a, b, c] at x; bit k of `modes` says whether direction k is
// taken forward.
Tensor third(int modes, const Function& f, const Tensor& x, const Tensor& a, const Tensor& b,
             const Tensor& c) {
  const Function first = [=](const Tensor& y) { return along(modes & 1, f, y, a); };
  const Function second = [=](const Tensor& y) { return along(modes & 2, first, y, b); };
  return along(modes & 4, second, x, c);
}

}  // namespace

TEST_CASE("perturbations are not confused, in whatever modes the derivatives are taken",
          "[autograd][nesting]") {
  for (const bool outer : {false, true})
    for (const bool inner : {false, true}) {
      INFO((outer ? "forward" : "reverse") << " over " << (inner ? "forward" : "reverse"));
      const auto d = [&](const Function& f, const Tensor& x) {
        return slope(outer, f, x).item<double>();
      };
      const auto e = [&](const Function& f, const Tensor& x) { return slope(inner, f, x); };
      // d/dx [x d/dy (x + y)] at x = y = 1 (Siskind and Pearlmutter 2005): 1, and 2 where the
      // perturbations are confused.
      CHECK(d(
                [&](const Tensor& x) {
                  return x * e([&](const Tensor& y) { return x + y; }, scalar(1));
                },
                scalar(1)) == 1);
      CHECK(d([&](const Tensor& x) { return x * e([&](const Tensor& y) { return x + y; }, x); },
              scalar(1)) == 1);
      // d/dx [x d/dy (x y)] at any y: d/dx x^2 = 2 x.
      CHECK(d(
                [&](const Tensor& x) {
                  return x * e([&](const Tensor& y) { return x * y; }, scalar(5));
                },
                scalar(3)) == 6);
      // d/dx [d/dy (x y^2) at y = x]: d/dx 2 x^2 = 4 x.
      CHECK(d([&](const Tensor& x) { return e([&](const Tensor& y) { return x * y * y; }, x); },
              scalar(3)) == 12);
      // The inner function does not depend on its own argument, only on the outer's.
      CHECK(d([&](const Tensor& x) { return x + e([&](const Tensor&) { return x * x; }, x); },
              scalar(3)) == 1);
      // Two inner derivatives of one function, one of them captured.
      CHECK(d(
                [&](const Tensor& x) {
                  const Tensor captured =
                      e([&](const Tensor& y) { return y * y * x; }, scalar(2));            // 4 x
                  return e([&](const Tensor& y) { return captured * y * x; }, scalar(7));  // 4 x^2
                },
                scalar(3)) == 24);
      // The same, compiled and inside regions.
      const auto compiled = compile([&](const Tensor& x) {
        return slope(
            outer,
            [&](const Tensor& z) { return z * e([&](const Tensor& y) { return z + y; }, z); }, x);
      });
      CHECK(compiled(scalar(1)).item<double>() == 1);
      CHECK(d(checkpoint([&](const Tensor& x) {
                return x * e(checkpoint([&](const Tensor& y) { return x + y * x; }), x);
              }),
              scalar(2)) == 4);
    }
}

TEST_CASE("three levels of captured variables stay apart", "[autograd][nesting]") {
  for (int modes = 0; modes < 8; ++modes) {
    INFO("modes " << modes);
    // d/dx d/dy d/dz (x y^2 z^3) at (2, 3, 5), each inner derivative capturing the outer variables:
    // 2 y 3 z^2 = 450.
    const Function by_x = [&](const Tensor& x) {
      return slope(
          modes & 2,
          [&](const Tensor& y) {
            return slope(
                modes & 4, [&](const Tensor& z) { return x * y * y * z * z * z; }, scalar(5));
          },
          scalar(3));
    };
    CHECK(slope(modes & 1, by_x, scalar(2)).item<double>() == Approx(450));
    // All of them at one point: d/dx [d/dy [d/dz x y z at z = y] at y = x] = d/dx x = 1, since the
    // innermost is x y.
    const Function nested = [&](const Tensor& x) {
      return slope(
          modes & 2,
          [&](const Tensor& y) {
            return slope(
                modes & 4, [&](const Tensor& z) { return x * y * z; }, y);
          },
          x);
    };
    CHECK(slope(modes & 1, nested, scalar(4)).item<double>() == 1);
  }
}

TEST_CASE("a leaf that outlives its transform is the value it had", "[autograd][nesting]") {
  Tensor kept, made;
  const Function f = [&](const Tensor& y) {
    kept = y;
    made = y * y;
    return made * y;
  };
  CHECK(slope(false, f, scalar(2)).item<double>() == 12);
  CHECK(kept.item<double>() == 2);
  CHECK(made.item<double>() == 4);
  // Its transform is over: no perturbation of it is left.
  CHECK(slope(
            true, [&](const Tensor& x) { return x * kept + made; }, scalar(3))
            .item<double>() == 2);
  CHECK(slope(
            false, [&](const Tensor& x) { return x * kept * made; }, scalar(3))
            .item<double>() == 8);
  // It escapes from an inner transform into the function of an outer one, on which it depends.
  const Function outer = [&](const Tensor& x) {
    const Tensor inner = slope(
        true,
        [&](const Tensor& y) {
          kept = y;
          return y * x;
        },
        x * x);  // x, and kept = x^2
    return inner * kept;
  };
  for (const bool forward : {false, true})
    CHECK(slope(forward, outer, scalar(2)).item<double>() == 12);
}

TEST_CASE("the third derivative of tanh is the closed form in all eight nestings",
          "[autograd][nesting]") {
  const Tensor x = nested_values({7}, 1), y = tanh(x),
               expected = -2.0 * (1.0 - square(y)) * (1.0 - 3.0 * square(y));
  const Tensor ones = ones_like(x);
  for (int modes = 0; modes < 8; ++modes) {
    INFO("modes " << modes);
    CHECK(difference(third(
                         modes, [](const Tensor& z) { return sum(tanh(z)); }, x, ones, ones, ones),
                     sum(expected), 1e-13, 1e-14) == "");
  }
  const Function twice = [&](const Tensor& z) {
    return along(
        true,
        [&](const Tensor& a) {
          return along(
              true, [](const Tensor& b) { return tanh(b); }, a, ones);
        },
        z, ones);
  };
  CHECK(difference(along(true, twice, x, ones), expected, 1e-13, 1e-14) == "");
}

TEST_CASE("the third derivative of softmax is the third cumulant", "[autograd][nesting]") {
  const Tensor x = nested_values({3, 5}, 2), v = nested_values({3, 5}, 3),
               weights = nested_values({3, 5}, 4);
  const auto expect = [](const Tensor& p, const Tensor& a) { return sum(p * a, {-1}, true); };
  // p(t) = softmax(x + t v): p''' = p ((v - m)^3 - 3 (v - m) c2 - c3), with mean and central
  // moments under p.
  const Tensor p = softmax(x), centred = v - expect(p, v), c2 = expect(p, square(centred)),
               c3 = expect(p, square(centred) * centred);
  const Tensor expected = p * (square(centred) * centred - 3.0 * centred * c2 - c3);
  const Function f = [&](const Tensor& z) { return sum(softmax(z) * weights); };
  for (int modes = 0; modes < 8; ++modes) {
    INFO("modes " << modes);
    CHECK(difference(third(modes, f, x, v, v, v), sum(expected * weights), 1e-12, 1e-13) == "");
  }
}

TEST_CASE(
    "third derivatives of fused ops agree with differences of second ones and with each other",
    "[autograd][nesting]") {
  const Tensor mask = nested_values({4, 4}, 9);
  const auto wave = [](const Tensor& y) {
    return sum(sin(y + reshape(iota({y.elements()}, 0, y.dtype(), y.device()), y.shape())));
  };
  const auto attend = [wave](AttentionOptions options) {
    return [wave, options](const Tensor& x) {
      return wave(attention(slice_axis(x, 1, 0, 3), slice_axis(x, 1, 3, 6), slice_axis(x, 1, 6, 9),
                            options));
    };
  };
  struct Case {
    const char* name;
    Shape shape;
    Function f;
  };
  const std::vector<Case> cases{
      {"softmax", {2, 4}, [=](const Tensor& x) { return wave(softmax(x)); }},
      {"log_softmax", {2, 4}, [=](const Tensor& x) { return wave(log_softmax(x)); }},
      {"layer_norm", {2, 5}, [=](const Tensor& x) { return wave(layer_norm(x, 1e-2)); }},
      {"rms_norm", {2, 5}, [=](const Tensor& x) { return wave(rms_norm(x, 1e-2)); }},
      {"attention", {4, 9}, attend({})},
      {"attention, masked", {4, 9}, attend({.causal = false, .mask = mask})},
      {"attention, causal", {4, 9}, attend({.causal = true, .mask = {}})},
      {"attention, causal and masked",
       {4, 9},
       attend({.scale = 0.7, .causal = true, .mask = mask})},
      {"attention in a checkpoint", {4, 9}, checkpoint(attend({.causal = true, .mask = {}}))},
  };
  for (const Case& each : cases) {
    const Tensor x = nested_values(each.shape, 5), a = nested_values(each.shape, 6),
                 b = nested_values(each.shape, 7), c = nested_values(each.shape, 8);
    const Tensor expected = third(7, each.f, x, a, b, c);
    for (int modes = 0; modes < 7; ++modes) {
      INFO(each.name << ", modes " << modes);
      CHECK(difference(third(modes, each.f, x, a, b, c), expected, 1e-10, 1e-11) == "");
    }
    // The second derivatives as functions, forward over forward, forward over reverse and reverse
    // over reverse: their derivatives, forward and reverse, against differences.
    for (int modes = 0; modes < 4; ++modes) {
      INFO(each.name << ", derivative of second derivative " << modes);
      const auto second = [&](const std::vector<Tensor>& in) -> std::vector<Tensor> {
        const Function first = [&](const Tensor& y) { return along(modes & 1, each.f, y, a); };
        return {modes & 2 ? along(true, first, in[0], b) : grad(first)(in[0])};
      };
      CHECK(check_derivatives(second, {x}, {.tolerance = 1e-5}).message == "");
    }
  }
}
