// A derivative of your own where the general one fails or costs too much, and memory traded for
// arithmetic: custom_jvp, custom_vjp and checkpoint.
#include <cstdio>
#include <map>
#include <string>

#include "autograd/check.h"
#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/custom.h"
#include "engine/graph/ops.h"

using namespace fluxion;

namespace {

void print(const char* name, const Tensor& x) {
  std::printf("%-42s", name);
  for (const double value : x.to_host<double>()) std::printf(" %10.6f", value);
  std::printf("\n");
}

// The length of a vector. Its derivative x / |x| is 0 / 0 at the origin; a flow that starts at a
// data point meets the origin.
Tensor length(const Tensor& x) { return sqrt(sum(square(x), {-1}, true)); }

// The same with a rule: along dx the length changes by x dx / |x|, and by 0 at the origin. A rule
// is ordinary code on ordinary tensors, so it may use the function itself - the plan computes it
// once - and its result can be differentiated again. Reverse mode is its transpose: there is no
// second rule to write or to get wrong.
Tensor safe_length(const Tensor& x) {
  static const auto rule = [](const std::tuple<Tensor>& primals,
                              const std::tuple<Tensor>& tangents) {
    const Tensor& x = std::get<0>(primals);
    const Tensor size = safe_length(x), at_origin = eq(size, 0.0);
    return where(at_origin, 0.0,
                 sum(x * std::get<0>(tangents), {-1}, true) / where(at_origin, 1.0, size));
  };
  return custom_jvp(length, rule, "length")(x);
}

// A rule that only makes sense backwards: whatever flows back through here is clipped to [-1, 1].
Tensor clip_gradient(const Tensor& x) {
  const auto rule = [](const std::tuple<Tensor>&, const Tensor&, const Tensor& cotangent) {
    return maximum(minimum(cotangent, 1.0), -1.0);
  };
  return custom_vjp([](const Tensor& y) { return y; }, rule, "clip_gradient")(x);
}

// A deep residual network, each of its layers in a checkpoint or not.
using Parameters = std::map<std::string, Tensor>;
constexpr int depth = 16;
constexpr std::int64_t batch = 256, width = 64;

Tensor network(const Parameters& parameters, const Tensor& x, bool checkpoints) {
  Tensor h = x;
  for (int k = 0; k < depth; ++k) {
    const Tensor &wide = parameters.at("wide" + std::to_string(k)),
                 &narrow = parameters.at("narrow" + std::to_string(k));
    const auto layer = [&](const Tensor& y) {
      return y + matmul(gelu_tanh(matmul(layer_norm(y, 1e-5), wide)), narrow);
    };
    h = checkpoints ? checkpoint(layer, "layer " + std::to_string(k))(h) : layer(h);
  }
  return h;
}

}  // namespace

int main() {
  const Device device = cpu();
  bool right = true;

  // ---- custom_jvp
  const Tensor points = Tensor::from(std::vector<double>{3, 4, 0, 0}, {2, 2}, device);
  const auto total = [](auto f) { return [f](const Tensor& x) { return sum(f(x)); }; };
  print("gradient of |x| at (3, 4) and (0, 0)", grad(total(length))(points));
  print("the same by the rule", grad(total(safe_length))(points));
  // Forward mode, and forward over reverse, from the same rule.
  const Tensor direction = ones_like(points);
  print("change of |x| along (1, 1)", jvp(safe_length, points, direction).second);
  print("Hessian of |x| times (1, 1)", hvp(total(safe_length), points, direction));
  const Tensor away = slice_axis(points, 0, 0, 1);
  const DerivativeCheck check = check_derivatives(
      [](const std::vector<Tensor>& in) { return std::vector<Tensor>{safe_length(in[0])}; },
      {away});
  std::printf("%-42s %s (error %.1e)\n", "the rule against differences",
              check.passed ? "passed" : check.message.c_str(), check.jvp_error);
  right = right && check.passed;

  // ---- custom_vjp
  const auto steep = [](const Tensor& x) { return sum(100.0 * square(clip_gradient(x))); };
  print("clipped gradient", grad(steep)(points));
  try {
    jvp(steep, points, direction).second.item<double>();
    right = false;
  } catch (const Error& error) {
    std::printf("forward mode through it is refused:\n  %s\n", error.what());
  }

  // ---- checkpoint
  Parameters parameters;
  const Tensor key = random_key(0, device);
  for (int k = 0; k < depth; ++k) {
    parameters["wide" + std::to_string(k)] =
        0.1 * normal(fold_in(key, static_cast<std::uint32_t>(2 * k)), {width, 4 * width});
    parameters["narrow" + std::to_string(k)] =
        0.1 * normal(fold_in(key, static_cast<std::uint32_t>(2 * k + 1)), {4 * width, width});
  }
  eval_tree(parameters);
  const Tensor x = normal(fold_in(key, 1000), {batch, width});
  std::printf("\nvalue and gradient of %d residual layers of width %lld, a batch of %lld:\n", depth,
              static_cast<long long>(width), static_cast<long long>(batch));
  std::size_t arena[2];
  std::vector<float> gradient[2];
  for (const bool checkpoints : {false, true}) {
    const auto step = compile([checkpoints](const Parameters& given, const Tensor& x) {
      return value_and_grad(
          [&](const Parameters& p) { return mean(square(network(p, x, checkpoints))); })(given);
    });
    // Known before anything runs.
    const MemoryReport report = step.memory_report(parameters, x);
    std::printf("  %-20s %s\n",
                checkpoints ? "with checkpoints:" : "without:", to_string(report).c_str());
    arena[checkpoints] = report.arena_bytes;
    gradient[checkpoints] = step(parameters, x).second.at("wide0").to_host<float>();
  }
  std::printf("  temporaries: %.1f times less; gradients: %s\n",
              static_cast<double>(arena[0]) / static_cast<double>(arena[1]),
              gradient[0] == gradient[1] ? "the same to the last bit" : "different");
  right = right && 2 * arena[1] < arena[0] && gradient[0] == gradient[1];
  return right ? 0 : 1;
}
