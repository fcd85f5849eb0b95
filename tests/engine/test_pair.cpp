// A dual op takes the place of its lone primal.
#include <algorithm>

#include "autograd/transforms.h"
#include "backends/reference/reference.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/plan/plan.h"
#include "tests/catch.h"

using namespace fluxion;

namespace {

const Device& pairing_device() {
  static const Device one = reference();
  return one;
}

struct Operands {
  std::vector<Tensor> parameters;  // q, k, v, dq, dk, dv: [2, 3, 5, 16]
  Operands() {
    for (std::int64_t i = 0; i < 6; ++i)
      parameters.push_back(make_leaf(Op::parameter, IndexAttributes{i}, {{2, 3, 5, 16}, DType::f32},
                                     pairing_device()));
  }
};

// Ops of the graph that a backend with attention kernels gets for these outputs; its program passes
// the verifier.
struct AttentionCounts {
  std::int64_t attention = 0, dual = 0, backward = 0, kernels = 0;
  AttentionCounts(const std::vector<Tensor>& parameters, const std::vector<Tensor>& outputs) {
    Capabilities capabilities{.name = "test"};
    capabilities.limits.max_attention_head = 64;
    const plan::Graph graph = plan::canonicalise(parameters, outputs).graph;
    std::vector<double> scalars;
    const plan::Graph paired = plan::pair_duals(plan::simplify(graph, capabilities, scalars));
    plan::verify(paired);
    const auto count = [&](Op op) {
      return std::count_if(paired.nodes.begin(), paired.nodes.end(),
                           [&](const plan::GraphNode& node) { return node.op == op; });
    };
    attention = count(Op::attention);
    dual = count(Op::attention_dual);
    backward = count(Op::attention_backward);
    const Program program = plan::make_plan(graph, capabilities).program;
    verify(program);
    CHECK(parse_program(serialise(program)) == program);
    kernels = static_cast<std::int64_t>(program.kernels.size());
  }
};

Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v) {
  return attention(q, k, v, {.causal = true});
}

}  // namespace

TEST_CASE("attention with its tangent is one dual op", "[engine][plan][pair]") {
  const Operands o;
  const auto& p = o.parameters;
  const auto [y, dy] = jvp(attend, std::tuple{p[0], p[1], p[2]}, std::tuple{p[3], p[4], p[5]});
  const AttentionCounts counts(p, {y, dy});
  CHECK(counts.attention == 0);
  CHECK(counts.dual == 1);
  CHECK(counts.kernels == 1);
}

TEST_CASE("users of attention that stand before the dual read from it", "[engine][plan][pair]") {
  const Operands o;
  const auto& p = o.parameters;
  const Tensor early = exp(attend(p[0], p[1], p[2]));
  const auto [y, dy] = jvp(attend, std::tuple{p[0], p[1], p[2]}, std::tuple{exp(p[3]), p[4], p[5]});
  const AttentionCounts counts(p, {early, dy});
  CHECK(counts.attention == 0);
  CHECK(counts.dual == 1);
}

TEST_CASE("a tangent computed from the output keeps the primal", "[engine][plan][pair]") {
  const Operands o;
  const auto& p = o.parameters;
  const Tensor first = attend(p[0], p[1], p[2]);
  const auto [y, dy] = jvp(attend, std::tuple{p[0], p[1], p[2]}, std::tuple{first, p[4], p[5]});
  const AttentionCounts counts(p, {y, dy});
  CHECK(counts.attention == 1);
  CHECK(counts.dual == 1);
}

TEST_CASE("other operands, another mask or scale: no pair", "[engine][plan][pair]") {
  const Operands o;
  const auto& p = o.parameters;
  const auto [y, dy] = jvp(attend, std::tuple{p[0], p[1], p[2]}, std::tuple{p[3], p[4], p[5]});
  CHECK(AttentionCounts(p, {attend(p[1], p[0], p[2]), dy}).attention == 1);
  CHECK(AttentionCounts(p, {attention(p[0], p[1], p[2]), dy}).attention == 1);
  CHECK(AttentionCounts(
            p, {attention(p[0], p[1], p[2],
                          {.causal = true, .mask = zeros({5, 5}, DType::f32, pairing_device())}),
                dy})
            .attention == 1);
}

TEST_CASE(
    "the gradient of attention is one forward and one backward op, also where a tangent is cut off",
    "[engine][plan][pair]") {
  const Operands o;
  const auto& p = o.parameters;
  const auto loss = [&](const Tensor& q, const Tensor& k, const Tensor& v) {
    const auto [y, dy] = jvp(attend, std::tuple{q, k, v}, std::tuple{p[3], p[4], p[5]});
    return sum(square(y - stop_gradient(dy)));
  };
  const auto gradients = grad(loss)(p[0], p[1], p[2]);
  const AttentionCounts counts(p, {gradients});
  CHECK(counts.attention == 0);
  CHECK(counts.dual == 1);
  CHECK(counts.backward == 1);
}

TEST_CASE("the linear maps of attention and of its transpose have kernels too",
          "[engine][plan][pair]") {
  const Operands o;
  const auto& p = o.parameters;
  const auto [y, map] = linearize(attend, p[0], p[1], p[2]);
  const Tensor once = map(std::tuple{p[3], p[4], p[5]});
  const AttentionCounts forward(p, {y, once});
  CHECK(forward.dual == 1);
  CHECK(forward.kernels == 1);

  // The pull-back is linear in the cotangent: its derivative along one is itself.
  const auto pull = vjp(attend, p[0], p[1], p[2]).second;
  const auto back = jvp([&](const Tensor& u) { return std::get<0>(pull(u)); }, std::tuple{p[3]},
                        std::tuple{p[4]});
  const AttentionCounts backward(p, {back.first, back.second});
  CHECK(backward.attention == 0);
  CHECK(backward.backward == 2);
}

TEST_CASE("a backend without kernels gets the expansion, of heads without features too",
          "[engine][plan][pair]") {
  const Tensor q = zeros({3, 0}, DType::f64, pairing_device()),
               v = zeros({3, 0}, DType::f64, pairing_device());
  CHECK(attention(q, q, v, {.scale = 1}).to_host<double>().empty());
}
