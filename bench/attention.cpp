// Attention, its dual (value and tangent in one pass) and its backward against their own
// expansions: the same mathematics as separate products and maps, with the matrix of tokens by
// tokens in memory.
#include <cmath>
#include <cstdint>
#include <memory>

#include "backends/cpu/cpu.h"
#include "bench/race.h"
#include "engine/compile.h"
#include "engine/graph/expansion.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "models/benchmark/bound_program.h"

namespace fluxion::bench {
namespace {

struct Heads {
  std::string name;
  std::int64_t batch, heads, tokens, features;
};

// Operations of a matrix product of a head are 2 tokens^2 features.
struct Pass {
  const char* name;
  Op op;
  double products;
};
constexpr Pass passes[] = {{"forward", Op::attention, 2},
                           {"dual", Op::attention_dual, 6},
                           {"backward", Op::attention_backward, 5}};

// [batch, tokens, 3, heads, features], as a layer's product leaves it, to q, k or v [batch, heads,
// tokens, features].
Tensor part(const Tensor& qkv, const Heads& h, std::int64_t which) {
  return transpose(
      reshape(slice_axis(qkv, 2, which, which + 1), {h.batch, h.tokens, h.heads, h.features}),
      {0, 2, 1, 3});
}

std::function<void()> prepare(const Heads& h, Op op, bool fused, int threads) {
  const Device device = cpu({.threads = threads});
  const auto f = compile([h, op, fused](const Tensor& qkv, const Tensor& tangents,
                                        const Tensor& lse_cotangent, const Tensor& u) {
    std::vector<Tensor> operands{part(qkv, h, 0), part(qkv, h, 1), part(qkv, h, 2)};
    if (op == Op::attention_dual)
      for (const std::int64_t i : {0, 1, 2}) operands.push_back(part(tangents, h, i));
    if (op == Op::attention_backward)
      operands.insert(operands.end(), {transpose(u, {0, 2, 1, 3}), lse_cotangent});
    const AttentionAttributes attributes{1 / std::sqrt(static_cast<double>(h.features)), false};
    return fused ? make_nodes(op, attributes, operands)
                 : expansion(op, attributes, operands, operands[0].device().costs());
  });
  const Tensor qkv = zeros({h.batch, h.tokens, 3, h.heads, h.features}, DType::f32, device),
               rows = zeros({h.batch, h.heads, h.tokens}, DType::f32, device);
  const Tensor u = zeros({h.batch, h.tokens, h.heads, h.features}, DType::f32, device);
  const auto bound = std::make_shared<BoundProgram>(f.program(qkv, qkv, rows, u), device);
  for (const std::size_t i : {0, 1, 3}) {
    const std::span<float> values = bound->input(i);
    for (std::size_t j = 0; j < values.size(); ++j)
      values[j] = static_cast<float>(j * 2654435761u % 1000) / 250.0f - 2.0f;
  }
  return [bound] { bound->run(); };
}

}  // namespace

std::vector<Event> attention_passes() {
  const Heads shapes[] = {{"1024 tokens, 4 heads of 64, batch 4", 4, 4, 1024, 64},
                          {"256 tokens, 4 heads of 64, batch 4", 4, 4, 256, 64},
                          {"256 tokens, 4 heads of 32, batch 4", 4, 4, 256, 32},
                          {"49 tokens, 4 heads of 32, batch 64", 64, 4, 49, 32}};
  std::vector<Event> events;
  for (const Heads& h : shapes)
    for (const int threads : {1, 2})
      for (const Pass& pass : passes) {
        const auto tokens = static_cast<double>(h.tokens);
        const double operations = 2 * pass.products * tokens * tokens *
                                  static_cast<double>(h.features * h.batch * h.heads);
        Event event{"attention", h.name + ": " + pass.name, threads, operations, {}, {}};
        event.contenders.push_back(
            {"fluxion", [h, pass, threads] { return prepare(h, pass.op, true, threads); }});
        event.contenders.push_back(
            {"expansion", [h, pass, threads] { return prepare(h, pass.op, false, threads); }});
        if (pass.op != Op::attention) event.compared_with = h.name + ": forward";
        events.push_back(std::move(event));
      }
  return events;
}

}  // namespace fluxion::bench
