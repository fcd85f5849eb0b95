// checkpoint, custom_jvp, custom_linear and custom_vjp under every transform.
#include <cmath>

#include "autograd/check.h"
#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/custom.h"
#include "engine/graph/ops.h"
#include "engine/graph/region.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

using Function = std::function<Tensor(const Tensor&)>;

const Device& region_device() {
  static const Device device = cpu();
  return device;
}

Tensor values(const Shape& shape, std::uint64_t seed, const Device& device = region_device()) {
  return to_tensor(random_value(shape, -1.5, 1.5, seed), device);
}

// sin(x) x, plain.
Tensor plain(const Tensor& x) { return sin(x) * x; }
Tensor slope(const Tensor& x) { return cos(x) * x + sin(x); }

Function by_checkpoint() { return checkpoint(plain, "plain"); }
Function by_jvp_rule() {
  return custom_jvp(
      plain,
      [](const std::tuple<Tensor>& x, const std::tuple<Tensor>& dx) {
        return slope(std::get<0>(x)) * std::get<0>(dx);
      },
      "plain");
}
Function by_vjp_rule() {
  return custom_vjp(
      plain,
      [](const std::tuple<Tensor>& x, const Tensor&, const Tensor& u) {
        return slope(std::get<0>(x)) * u;
      },
      "plain");
}
// x -> 2 flip(x), its own transpose; around it the nonlinear part.
Function by_linear_rule() {
  const auto map =
      custom_linear([](const Tensor& x) { return 2.0 * flip(x, {0}); },
                    [](const Tensor& u) { return flip(u, {0}) * 2.0; }, "twice flipped");
  return [map](const Tensor& x) { return 0.5 * flip(map(plain(x)), {0}); };
}

struct Kind {
  const char* name;
  Function f;
  bool forward;  // has a forward mode
};
std::vector<Kind> kinds() {
  return {
      {"checkpoint", by_checkpoint(), true},
      {"custom_jvp", by_jvp_rule(), true},
      {"custom_linear", by_linear_rule(), true},
      {"custom_vjp", by_vjp_rule(), false},
      {"checkpoint of custom_jvp", checkpoint(by_jvp_rule()), true},
      {"checkpoint of custom_linear", checkpoint(by_linear_rule()), true},
      {"checkpoint of custom_vjp", checkpoint(by_vjp_rule()), false},
      {"checkpoint of checkpoint", checkpoint(checkpoint(by_checkpoint())), true},
      {"custom_jvp of checkpoint",
       custom_jvp(by_checkpoint(),
                  [f = by_checkpoint()](const std::tuple<Tensor>& x, const std::tuple<Tensor>& dx) {
                    return jvp(f, x, dx).second;
                  }),
       true}};
}

Tensor directional(const Function& f, const Tensor& x, const Tensor& dx) {
  return jvp(f, x, dx).second;
}
Tensor pulled(const Function& f, const Tensor& x, const Tensor& u) {
  return std::get<0>(vjp(f, x).second(u));
}

struct Derivative {
  const char* name;
  bool forward;
  std::function<Tensor(const Function&, const Tensor&)> of;
};
std::vector<Derivative> derivatives() {
  const auto direction = [](const Tensor& x) {
    return cos(2.0 * iota(x.shape(), 0, x.dtype(), x.device()));
  };
  const Function wave = [](const Tensor& y) { return sum(sin(y)); };
  const auto scalar = [=](const Function& f) -> Function {
    return [=](const Tensor& x) { return wave(f(x)); };
  };
  return {
      {"value", false, [](const Function& f, const Tensor& x) { return f(x); }},
      {"jvp", true,
       [=](const Function& f, const Tensor& x) { return directional(f, x, direction(x)); }},
      {"vjp", false,
       [=](const Function& f, const Tensor& x) { return pulled(f, x, direction(x)); }},
      {"grad", false, [=](const Function& f, const Tensor& x) { return grad(scalar(f))(x); }},
      {"jvp of jvp", true,
       [=](const Function& f, const Tensor& x) {
         return directional([=](const Tensor& y) { return directional(f, y, direction(y)); }, x,
                            sin(x));
       }},
      {"grad of jvp", true,
       [=](const Function& f, const Tensor& x) {
         return grad([=](const Tensor& y) { return wave(directional(f, y, direction(y))); })(x);
       }},
      {"jvp of grad", true,
       [=](const Function& f, const Tensor& x) {
         return directional(grad(scalar(f)), x, direction(x));
       }},
      {"grad of grad", false,
       [=](const Function& f, const Tensor& x) {
         return grad([=](const Tensor& y) { return wave(grad(scalar(f))(y)); })(x);
       }},
      {"linearize", true,
       [=](const Function& f, const Tensor& x) {
         return linearize(f, x).second(std::tuple(direction(x)));
       }},
      {"grad of jvp of jvp", true,
       [=](const Function& f, const Tensor& x) {
         const Function twice = [=](const Tensor& y) {
           return directional([=](const Tensor& z) { return directional(f, z, direction(z)); }, y,
                              sin(y));
         };
         return grad([=](const Tensor& y) { return wave(twice(y)); })(x);
       }},
  };
}

struct ValueAndCount {
  Tensor y, count;
  std::vector<Tensor> more;
  static auto members(auto& self) { return std::tie(self.y, self.count, self.more); }
};

bool mentions(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("every kind of region has the derivatives of the function it holds, compiled or not",
          "[autograd][regions]") {
  for (const Device& device : {region_device(), reference()}) {
    const Tensor x = values({5}, 3, device);
    for (const Kind& kind : kinds())
      for (const Derivative& derivative : derivatives()) {
        if (derivative.forward && !kind.forward) continue;
        INFO(kind.name << ", " << derivative.name << ", " << device.name());
        const Tensor expected = derivative.of(plain, x);
        try {
          CHECK(difference(derivative.of(kind.f, x), expected, 1e-13, 1e-13) == "");
          const auto compiled = compile([&](const Tensor& y) { return derivative.of(kind.f, y); });
          CHECK(difference(compiled(x), expected, 1e-13, 1e-13) == "");
          // A compiled function inside a region inside a transform is inlined.
          const Function inner =
              checkpoint([f = compile(kind.f)](const Tensor& y) { return f(y); });
          CHECK(difference(derivative.of(inner, x), expected, 1e-13, 1e-13) == "");
        } catch (const std::exception& error) {
          FAIL_CHECK("threw: " << error.what());
        }
      }
  }
}

TEST_CASE("forward mode through custom_vjp names the function and what to do",
          "[autograd][regions]") {
  const Tensor x = values({5}, 3);
  const Function f = by_vjp_rule();
  const std::string direct = message_of([&] { directional(f, x, x).to_host<double>(); });
  CHECK(mentions(direct, "forward mode through custom_vjp plain"));
  CHECK(mentions(direct, "custom_jvp"));
  CHECK(mentions(message_of([&] { directional(checkpoint(f), x, x).to_host<double>(); }),
                 "forward mode through custom_vjp plain"));
  CHECK(mentions(
      message_of([&] { directional([&](const Tensor& y) { return directional(f, y, x); }, x, x); }),
      "forward mode through custom_vjp plain"));
  CHECK(mentions(
      message_of([&] { compile([&](const Tensor& y) { return directional(f, y, y); })(x); }),
      "forward mode through custom_vjp plain"));
  // Built and not asked for: no error.
  const auto [y, dy] = jvp(f, x, x);
  CHECK(difference(y, plain(x), 0, 0) == "");
}

TEST_CASE("weights that a checkpoint captures get gradients", "[autograd][regions]") {
  const Tensor w = values({4, 4}, 1), x = values({3, 4}, 2), b = values({4}, 5);
  const auto network = [](bool regions) {
    return [regions](const std::map<std::string, Tensor>& p, const Tensor& x) {
      const auto layer = [&](const Tensor& h) {
        return tanh(matmul(h, p.at("w")) + p.at("b")) + h * sum(square(p.at("b")));
      };
      Tensor h = x;
      for (int k = 0; k < 3; ++k) h = regions ? checkpoint(layer, "layer")(h) : layer(h);
      return sum(square(h));
    };
  };
  const std::map<std::string, Tensor> parameters{{"w", w}, {"b", b}};
  const auto [loss, expected] = value_and_grad(network(false))(parameters, x);
  const auto [same, got] = value_and_grad(network(true))(parameters, x);
  CHECK(difference(same, loss, 0, 0) == "");
  CHECK(difference(got.at("w"), expected.at("w"), 1e-13, 1e-14) == "");
  CHECK(difference(got.at("b"), expected.at("b"), 1e-13, 1e-14) == "");
  // The same as arguments, as a tree.
  const auto by_argument = checkpoint([&](const std::map<std::string, Tensor>& p, const Tensor& h) {
    return network(false)(p, h);
  });
  const auto whole =
      grad([&](const std::map<std::string, Tensor>& p) { return by_argument(p, x); })(parameters);
  CHECK(difference(whole.at("w"), expected.at("w"), 1e-13, 1e-14) == "");
}

TEST_CASE("regions take and return trees, integers, empty tensors and several results",
          "[autograd][regions]") {
  const Tensor x = values({4, 3}, 7),
               rows = Tensor::from(std::vector<std::int32_t>{3, 0}, {2}, region_device());
  const auto f = [](const Tensor& a, const Tensor& indices, const Tensor& nothing) {
    const Tensor picked = take(a, indices, 0);
    return ValueAndCount{
        sin(picked), argmax(a, 1), {nothing, exp(a), full({2}, 0.25, DType::f64, a.device())}};
  };
  const auto held = checkpoint(f);
  const ValueAndCount got = held(x, rows, Tensor()), expected = f(x, rows, Tensor());
  CHECK(difference(got.y, expected.y, 0, 0) == "");
  CHECK(difference(got.count, expected.count, 0, 0) == "");
  CHECK(!got.more[0]);
  CHECK(difference(got.more[1], expected.more[1], 0, 0) == "");
  CHECK(difference(got.more[2], expected.more[2], 0, 0) == "");
  const auto loss = [&](const auto& g) {
    return [&](const Tensor& a) {
      const ValueAndCount all = g(a, rows, Tensor());
      return sum(all.y) + sum(square(all.more[1])) + sum(all.more[2]);
    };
  };
  CHECK(difference(grad(loss(held))(x), grad(loss(f))(x), 1e-14, 0) == "");
  // Nothing floating at all, and nothing at all.
  CHECK(checkpoint([](const Tensor& n) { return n + n; })(rows).to_host<std::int32_t>() ==
        std::vector<std::int32_t>{6, 0});
  CHECK(checkpoint([] { return full({}, 3, DType::f64, region_device()); })().item<double>() == 3);
  CHECK(checkpoint([&] { return x * 2.0; })().same_as(x) == false);
  // A result that is an argument, or a captured tensor, unchanged.
  const auto passes = checkpoint([&](const Tensor& a) { return std::pair(a, x); });
  CHECK(
      difference(grad([&](const Tensor& a) { return sum(passes(a).first * passes(a).second); })(x),
                 x, 0, 0) == "");
}

TEST_CASE("random numbers are the same when computed again", "[autograd][regions]") {
  const Tensor key = random_key(4, region_device()), x = values({6, 5}, 8);
  const auto dropout = [](const Tensor& h, const Tensor& k) {
    return sin(h) * convert(lt(uniform(k, h.shape(), DType::f64), 0.5), DType::f64);
  };
  const auto loss = [&](const auto& f) {
    return compile([&f](const Tensor& h, const Tensor& k) {
      return grad(
          [&](const Tensor& g) { return sum(square(f(f(g, fold_in(k, 1)), fold_in(k, 2)))); })(h);
    });
  };
  const auto held = checkpoint(dropout);
  CHECK(difference(loss(held)(x, key), loss(dropout)(x, key), 1e-14, 0) == "");
}

TEST_CASE("the rule of custom_jvp is used, once for each derivative", "[autograd][regions]") {
  int calls = 0;
  // Not the derivative of sqrt, so that it shows.
  const auto f = custom_jvp([](const Tensor& x) { return sqrt(x); },
                            [&calls](const std::tuple<Tensor>& x, const std::tuple<Tensor>& dx) {
                              ++calls;
                              return stop_gradient(7.0 * std::get<0>(x)) * std::get<0>(dx);
                            });
  const Tensor x = exp(values({3}, 9));
  CHECK(difference(f(x), sqrt(x), 0, 0) == "");
  CHECK(calls == 0);
  CHECK(difference(directional(f, x, ones_like(x)), 7.0 * x, 1e-15, 0) == "");
  CHECK(calls == 1);
  CHECK(difference(grad([&](const Tensor& y) { return sum(f(y)); })(x), 7.0 * x, 1e-15, 0) == "");
  CHECK(calls == 2);
  // stop_gradient in the rule: the second derivative is zero.
  CHECK(difference(directional([&](const Tensor& y) { return directional(f, y, x); }, x, x),
                   zeros_like(x), 0, 0) == "");
  const auto step =
      compile([&](const Tensor& y) { return grad([&](const Tensor& z) { return sum(f(z)); })(y); });
  calls = 0;
  for (int k = 0; k < 3; ++k) step(x);
  CHECK(calls == 1);
}

TEST_CASE("rules may call compiled functions", "[autograd][regions][compile]") {
  // On values and tangents, and on tangents alone.
  const auto times_slope = compile([](const Tensor& x, const Tensor& dx) { return slope(x) * dx; });
  const auto halved = compile([](const Tensor& dx) { return 0.5 * dx; });
  const auto along = [=](const Tensor& x, const Tensor& dx) {
    return 0.5 * times_slope(x, dx) + slope(x) * halved(dx);
  };
  const Function f = custom_jvp(
      plain,
      [=](const std::tuple<Tensor>& x, const std::tuple<Tensor>& dx) {
        return along(std::get<0>(x), std::get<0>(dx));
      },
      "plain");
  const Function g = custom_vjp(
      plain,
      [=](const std::tuple<Tensor>& x, const Tensor&, const Tensor& u) {
        return along(std::get<0>(x), u);
      },
      "plain");
  const Tensor x = values({5}, 71), dx = values({5}, 72);
  const Tensor expected = slope(x) * dx;
  CHECK(difference(jvp(f, x, dx).second, expected, 1e-13, 1e-14) == "");
  const auto linear = linearize(f, x);
  CHECK(difference(linear.second(std::tuple(dx)), expected, 1e-13, 1e-14) == "");
  for (const Function& each : {f, g}) {
    const auto loss = [&](const Tensor& x) { return sum(each(x) * dx); };
    CHECK(difference(grad(loss)(x), expected, 1e-13, 1e-14) == "");
    CHECK(difference(compile(grad(loss))(x), expected, 1e-13, 1e-14) == "");
    const auto pulled = vjp(each, x);
    CHECK(difference(std::get<0>(pulled.second(dx)), expected, 1e-13, 1e-14) == "");
    CHECK(difference(grad([&](const Tensor& x) { return sum(grad(loss)(x)); })(x),
                     grad([&](const Tensor& x) { return sum(slope(x) * dx); })(x), 1e-13,
                     1e-14) == "");
  }
  // A rule that is applied to tangents after its transform is over.
  const auto tripled = compile([](const Tensor&, const Tensor& dt) { return 3.0 * dt; });
  const Function outer = custom_jvp(
      [](const Tensor& x) { return 2.0 * x; },
      [=](const std::tuple<Tensor>&, const std::tuple<Tensor>& dx) {
        return custom_jvp([](const Tensor& t) { return 2.0 * t; },
                          [=](const std::tuple<Tensor>& t, const std::tuple<Tensor>& dt) {
                            return tripled(std::get<0>(t), std::get<0>(dt));
                          })(std::get<0>(dx));
      });
  CHECK(difference(linearize(outer, x).second(std::tuple(dx)), 3.0 * dx, 1e-13, 1e-14) == "");
}

TEST_CASE("the rule of custom_jvp gets zeros for what does not move and nothing for integers",
          "[autograd][regions]") {
  const auto f = custom_jvp([](const Tensor& a, const Tensor& b,
                               const Tensor& n) { return a * b * convert(n, DType::f64); },
                            [](const std::tuple<Tensor, Tensor, Tensor>& x,
                               const std::tuple<Tensor, Tensor, Tensor>& dx) {
                              const auto& [a, b, n] = x;
                              const auto& [da, db, dn] = dx;
                              if (dn) throw Error("an integer moved");
                              return (da * b + a * db) * convert(n, DType::f64);
                            });
  const Tensor a = values({3}, 1), b = values({3}, 2),
               n = Tensor::from(std::vector<std::int32_t>{1, 2, 3}, {3}, region_device());
  CHECK(difference(grad([&](const Tensor& y) { return sum(f(a, y, n)); })(b),
                   a * convert(n, DType::f64), 1e-15, 0) == "");
}

TEST_CASE(
    "rules may use the function itself, and what they capture may be differentiated through "
    "regions around them",
    "[autograd][regions]") {
  // exp by a rule that calls itself.
  struct Exp {
    static Tensor of(const Tensor& x) {
      return custom_jvp([](const Tensor& y) { return exp(y); },
                        [](const std::tuple<Tensor>& y, const std::tuple<Tensor>& dy) {
                          return of(std::get<0>(y)) * std::get<0>(dy);
                        },
                        "exp")(x);
    }
  };
  const Tensor x = values({4}, 11), w = values({4}, 12);
  const auto third = [&](const Function& f) {
    return directional(
        [&](const Tensor& a) {
          return directional([&](const Tensor& b) { return directional(f, b, x); }, a, x);
        },
        x, x);
  };
  CHECK(difference(third(Exp::of), third([](const Tensor& y) { return exp(y); }), 1e-14, 0) == "");
  // A rule that captures an argument of the checkpoint around it, directly and computed on.
  const auto scaled = [](const Tensor& y, const Tensor& scale) {
    const Tensor twice = 2.0 * scale;
    return custom_vjp([](const Tensor& z) { return sin(z); },
                      [twice, scale](const std::tuple<Tensor>&, const Tensor&, const Tensor& u) {
                        return u * twice + scale;
                      },
                      "scaled")(y);
  };
  const auto gradient = [&](auto f) {
    return grad([&](const Tensor& y, const Tensor& v) { return sum(f(f(y, v), v)); })(x, w);
  };
  const Tensor expected = gradient(scaled);
  CHECK(difference(gradient(checkpoint(scaled)), expected, 1e-14, 0) == "");
  CHECK(difference(gradient(checkpoint(checkpoint(checkpoint(scaled)))), expected, 1e-14, 0) == "");
  CHECK(difference(
            compile([&](const Tensor&) { return gradient(checkpoint(checkpoint(scaled))); })(x),
            expected, 1e-14, 0) == "");
  // ... and in a derivative of that derivative.
  const auto second = [&](auto f) {
    return grad([&](const Tensor& v) {
      return sum(square(grad([&](const Tensor& y) { return sum(f(f(y, v), v)); })(x)));
    })(w);
  };
  CHECK(difference(second(checkpoint(checkpoint(scaled))), second(scaled), 1e-13, 0) == "");
}

TEST_CASE("custom_linear is transposed by its rule, and back again", "[autograd][regions]") {
  int forth = 0, back = 0;
  // Not each other's transpose, so that it shows.
  const auto map = custom_linear(
      [&](const Tensor& x) {
        ++forth;
        return 2.0 * x;
      },
      [&](const Tensor& u) {
        ++back;
        return 3.0 * u;
      },
      "map");
  const Tensor x = values({3}, 2);
  CHECK(difference(map(x), 2.0 * x, 0, 0) == "");
  CHECK(difference(directional(map, x, x), 2.0 * x, 0, 0) == "");
  const auto once = [&](const Tensor& u) { return linear_transpose(map, x)(u); };
  CHECK(difference(once(x), 3.0 * x, 0, 0) == "");
  CHECK(difference(pulled(map, x, x), 3.0 * x, 0, 0) == "");
  CHECK(difference(linear_transpose(once, x)(x), 2.0 * x, 0, 0) == "");
  const auto twice = [&](const Tensor& v) { return linear_transpose(once, x)(v); };
  CHECK(difference(linear_transpose(twice, x)(x), 3.0 * x, 0, 0) == "");
  CHECK(forth > 0);
  CHECK(back > 0);
}

TEST_CASE("custom_linear of several arguments, with a captured matrix that is differentiated",
          "[autograd][regions]") {
  const Tensor a = values({3, 3}, 1), x = values({3, 2}, 2), y = values({3, 2}, 3),
               n = Tensor::from(std::vector<std::int32_t>{0, 2}, {2}, region_device());
  const auto loss = [&](bool region) {
    return [&, region](const Tensor& m, const Tensor& p) {
      const auto f = [m](const Tensor& u, const Tensor& indices, const Tensor& v) {
        return take(matmul(m, u) + 2.0 * v, indices, 0);
      };
      const auto transpose = [m, n](const Tensor& u) {
        const Tensor whole = index_add(zeros(m.shape().dims().size() == 2 ? Shape{3, 2} : Shape{},
                                             DType::f64, region_device()),
                                       n, u, 0);
        return std::tuple(matmul(swap_axes(m, 0, 1), whole), Tensor(), 2.0 * whole);
      };
      const Tensor z = region ? custom_linear(f, transpose, "map")(sin(p), n, y) : f(sin(p), n, y);
      return sum(square(z));
    };
  };
  CHECK(difference(grad<0>(loss(true))(a, x), grad<0>(loss(false))(a, x), 1e-14, 0) == "");
  CHECK(difference(grad<1>(loss(true))(a, x), grad<1>(loss(false))(a, x), 1e-14, 0) == "");
  const auto both = [&](bool region) {
    return jvp([&](const Tensor& m, const Tensor& p) { return grad<1>(loss(region))(m, p); },
               std::tuple(a, x), std::tuple(sin(a), cos(x)))
        .second;
  };
  CHECK(difference(both(true), both(false), 1e-13, 0) == "");
  // The same tensor captured and given.
  const auto square_of = [](const Tensor& p) {
    return custom_linear([p](const Tensor& q) { return p * q; },
                         [p](const Tensor& u) { return p * u; })(p);
  };
  CHECK(difference(grad([&](const Tensor& p) { return sum(square_of(p)); })(x), 2.0 * x, 1e-15,
                   0) == "");
}

TEST_CASE("custom_vjp sees primals, outputs and cotangents", "[autograd][regions]") {
  const auto f = custom_vjp(
      [](const Tensor& x, const Tensor& n) { return std::pair(exp(x), n); },
      [](const std::tuple<Tensor, Tensor>& primals, const std::pair<Tensor, Tensor>& outputs,
         const std::pair<Tensor, Tensor>& u) {
        if (u.second) throw Error("an integer has a cotangent");
        return std::tuple(minimum(u.first, 0.5) * outputs.first + 0.0 * std::get<0>(primals),
                          Tensor());
      },
      "clipped");
  const Tensor x = values({3}, 4),
               n = Tensor::from(std::vector<std::int32_t>{1}, {1}, region_device());
  CHECK(difference(grad([&](const Tensor& y) { return sum(100.0 * f(y, n).first); })(x),
                   0.5 * exp(x), 1e-15, 0) == "");
  // A result that nobody used has the cotangent zero; a rule may return nothing for zero.
  const auto two =
      custom_vjp([](const Tensor& a, const Tensor& b) { return std::pair(a + b, a * b); },
                 [](const std::tuple<Tensor, Tensor>&, const std::pair<Tensor, Tensor>&,
                    const std::pair<Tensor, Tensor>& u) {
                   return std::tuple(u.first + 5.0 * u.second, Tensor());
                 });
  CHECK(difference(grad([&](const Tensor& a) { return sum(two(a, a).first); })(x), ones_like(x), 0,
                   0) == "");
}

TEST_CASE("a rule that returns the wrong thing is told so, by the region's name",
          "[autograd][regions]") {
  const Tensor x = values({3}, 4);
  const auto as_jvp = [&](auto rule) {
    return message_of([&] {
      directional(custom_jvp(
                      plain,
                      [rule](const std::tuple<Tensor>&, const std::tuple<Tensor>& dx) {
                        return rule(std::get<0>(dx));
                      },
                      "wave"),
                  x, x);
    });
  };
  const auto as_vjp = [&](auto rule) {
    return message_of([&] {
      pulled(
          custom_vjp(
              plain,
              [rule](const std::tuple<Tensor>&, const Tensor&, const Tensor& u) { return rule(u); },
              "wave"),
          x, x);
    });
  };
  const auto as_linear = [&](auto rule) {
    return message_of([&] {
      pulled(custom_linear([](const Tensor& y) { return y * 2.0; }, rule, "wave"), x, x);
    });
  };
  const auto wrong_shape = [](const Tensor& u) { return sum(u); };
  const auto wrong_dtype = [](const Tensor& u) { return convert(u, DType::f32); };
  const auto too_many = [](const Tensor& u) { return std::pair(u, u); };
  for (const auto& message : {as_jvp(wrong_shape), as_vjp(wrong_shape), as_linear(wrong_shape)}) {
    INFO(message);
    CHECK(mentions(message, "wave: its rule returned f64[]"));
    CHECK(mentions(message, "f64[3]"));
  }
  for (const auto& message : {as_jvp(wrong_dtype), as_vjp(wrong_dtype), as_linear(wrong_dtype)})
    CHECK(mentions(message, "wave: its rule returned f32[3]"));
  for (const auto& message : {as_jvp(too_many), as_vjp(too_many), as_linear(too_many)})
    CHECK(mentions(message, "wave: its rule returned 2 tensors"));
  CHECK_THROWS_AS(
      directional(
          custom_jvp(plain, [](const std::tuple<Tensor>&,
                               const std::tuple<Tensor>& dx) { return sum(std::get<0>(dx)); }),
          x, x),
      ShapeError);
  // A tensor that the function captured and the rule can't know of.
  const auto captured = [&](const Tensor& w) {
    return sum(custom_jvp([w](const Tensor& y) { return w * y; },
                          [w](const std::tuple<Tensor>&, const std::tuple<Tensor>& dy) {
                            return w * std::get<0>(dy);
                          },
                          "scaled")(x));
  };
  CHECK(mentions(message_of([&] { grad(captured)(x); }),
                 "custom_jvp scaled: the function uses a tensor that is being differentiated"));
  // Asking for a value in the function.
  CHECK_THROWS_AS(checkpoint([](const Tensor& y) { return y * sum(y).item<double>(); })(x), Error);
}

TEST_CASE("a checkpoint is transposed where it is linear itself", "[autograd][regions]") {
  const Tensor w = values({3, 4}, 1), u = values({2, 4}, 2), x = values({2, 3}, 3);
  const auto f = checkpoint([w](const Tensor& y) { return matmul(y, w); });
  CHECK(difference(linear_transpose(f, x)(u), matmul(u, swap_axes(w, 0, 1)), 1e-15, 0) == "");
  CHECK_THROWS_AS(linear_transpose(checkpoint([](const Tensor& y) { return y * y; }), x)(x), Error);
}

TEST_CASE("what chooses or rounds by the argument is not transposed", "[autograd][regions]") {
  const Tensor x = values({3}, 3), u = values({3}, 4);
  const auto refused = [&](const auto& f) {
    CHECK_THROWS_WITH(linear_transpose(f, x)(u), has_text("linear_transpose"));
  };
  refused([](const Tensor& x) { return x + convert(convert(x, DType::i32), DType::f64); });
  refused([](const Tensor& x) { return x + convert(convert(x, DType::boolean), DType::f64); });
  refused([](const Tensor& x) { return where(gt(x, 0.0), x, 0.0); });
  refused([](const Tensor& x) { return take(x, convert(x, DType::i32), 0); });
  const auto halves = [](const Tensor& x) {
    return convert(convert(x, DType::bf16), DType::f64) * 2.0;
  };
  CHECK(difference(linear_transpose(halves, x)(u),
                   convert(convert(2.0 * u, DType::bf16), DType::f64), 0, 0) == "");
}

TEST_CASE("a function that is linear only but for a stop_gradient is not transposed",
          "[autograd][regions]") {
  const Tensor x = values({3}, 3), u = values({3}, 4);
  const auto refused = [&](const auto& f) {
    CHECK_THROWS_WITH(linear_transpose(f, x)(u),
                      has_text("uses the value of its argument") && has_text("(test_regions.cpp:"));
  };
  const auto stopped = [](const Tensor& x) { return stop_gradient(x); };
  const auto product = [](const Tensor& x) { return x * stop_gradient(x); };
  refused(product);
  refused(checkpoint(product));
  refused([&](const Tensor& x) { return x * checkpoint(stopped)(x); });
  refused([](const Tensor& x) { return where(gt(stop_gradient(x), 0.0), x, 0.0); });
  refused([](const Tensor& x) {
    return custom_linear([](const Tensor& y) { return 2.0 * y; },
                         [x](const Tensor& u) { return x * u; })(x);
  });
  // What is only added has no part in the transpose.
  const auto shifted = [](const Tensor& x) { return 2.0 * x + stop_gradient(x); };
  CHECK(difference(linear_transpose(shifted, x)(u), 2.0 * u, 0, 0) == "");
  const auto centre = [](const Tensor& x) { return centred(x); };
  CHECK(difference(linear_transpose(centre, x)(u), std::get<0>(vjp(centre, x).second(u)), 0, 0) ==
        "");
  // The derivative at a point is linear: the stopped value is that of the point.
  CHECK(difference(std::get<0>(vjp(product, x).second(u)), u * x, 0, 0) == "");
}

TEST_CASE("linear_transpose leaves integers their values and gives them no cotangent",
          "[autograd][regions]") {
  using Pair = std::pair<Tensor, Tensor>;
  const Tensor x = values({4}, 1), u = values({2}, 2);
  const Tensor i = Tensor::from(std::vector<std::int32_t>{2, 0}, {2}, region_device());
  const auto chosen = [](const Pair& p) { return take(p.first, p.second, 0); };
  const Pair back = linear_transpose(chosen, Pair(x, i))(u);
  CHECK(!back.second);
  const auto [same, none] = std::get<0>(vjp(chosen, Pair(x, i)).second(u));
  CHECK(!none);
  CHECK(difference(back.first, same, 0, 0) == "");
}

TEST_CASE("derivatives of checkpoints agree with finite differences", "[autograd][regions]") {
  const auto f = [](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const auto block = checkpoint([w = in[1]](const Tensor& h) {
      return h + attention(layer_norm(h, 1e-3), matmul(h, w), tanh(h));
    });
    return {block(checkpoint(block)(in[0]))};
  };
  const std::vector<Tensor> inputs{values({2, 3, 4}, 1), values({4, 4}, 2)};
  CHECK(check_derivatives(f, inputs).message == "");
  const auto gradient = [&](const std::vector<Tensor>& in) {
    const auto [a, b] = grad([&](const std::pair<Tensor, Tensor>& p) {
      return sum(sin(f({p.first, p.second})[0]));
    })(std::pair(in[0], in[1]));
    return std::vector<Tensor>{a, b};
  };
  CHECK(check_derivatives(gradient, inputs, {.tolerance = 1e-5}).message == "");
}

TEST_CASE("a thousand checkpoints, in a row or one inside the other, do not overflow the stack",
          "[autograd][regions]") {
  const Tensor x = values({4}, 6);
  {
    const auto chain = [](const Tensor& y) {
      Tensor h = y;
      const auto layer = checkpoint([](const Tensor& z) { return sin(z) + z; });
      for (int k = 0; k < 1000; ++k) h = layer(h);
      return sum(h);
    };
    const auto straight = [](const Tensor& y) {
      Tensor h = y;
      for (int k = 0; k < 1000; ++k) h = sin(h) + h;
      return sum(h);
    };
    CHECK(difference(grad(chain)(x), grad(straight)(x), 1e-12, 1e-280) == "");
  }
  {
    // Rules that are wrapped at each recomputation.
    const auto layer =
        checkpoint(custom_jvp([](const Tensor& z) { return sin(z) + z; },
                              [](const std::tuple<Tensor>& z, const std::tuple<Tensor>& dz) {
                                return (cos(std::get<0>(z)) + 1.0) * std::get<0>(dz);
                              }));
    const auto chain = [&](const Tensor& y) {
      Tensor h = y;
      for (int k = 0; k < 1000; ++k) h = layer(h);
      return sum(h);
    };
    CHECK(std::isfinite(sum(grad(chain)(x)).item<double>()));
    CHECK(std::isfinite(
        sum(grad([&](const Tensor& y) { return sum(grad(chain)(y)); })(x)).item<double>()));
  }
  const auto nest = [](int depth) {
    Function f = [](const Tensor& z) { return sin(z); };
    for (int k = 0; k < depth; ++k) f = checkpoint([f](const Tensor& z) { return f(z) * 1.001; });
    return f;
  };
  CHECK(difference(nest(1000)(x), sin(x) * std::pow(1.001, 1000), 1e-12, 0) == "");
  CHECK(difference(directional(nest(1000), x, ones_like(x)), cos(x) * std::pow(1.001, 1000), 1e-12,
                   0) == "");
  CHECK(difference(grad([&](const Tensor& y) { return sum(nest(60)(y)); })(x),
                   cos(x) * std::pow(1.001, 60), 1e-12, 0) == "");
}

TEST_CASE("graphs with regions die with their last handle", "[autograd][regions]") {
  for (const Kind& kind : kinds())
    for (const Derivative& derivative : derivatives()) {
      if (derivative.forward && !kind.forward) continue;
      INFO(kind.name << ", " << derivative.name);
      std::weak_ptr<Node> leaf, result;
      {
        const Tensor x = values({5}, 3) * 1.0;
        const Function f = [g = kind.f, x](const Tensor& z) { return g(z) * x; };
        const Tensor y = derivative.of(checkpoint(f), x);
        leaf = x.node();
        result = y.node();
        y.to_host<double>();
      }
      CHECK(result.expired());
      CHECK(leaf.expired());
    }
}
