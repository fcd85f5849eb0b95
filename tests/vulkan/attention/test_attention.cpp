// Attention, its dual and its backward on the software device against plain loops in f64: shapes,
// views, masks, special values, every tile.
#include <cmath>
#include <limits>
#include <optional>

#include "backends/vulkan/kernels/attention.h"
#include "engine/error.h"
#include "tests/catch.h"
#include "tests/sharp_attention.h"
#include "tests/vulkan/attention/attention_case.h"
#include "tests/vulkan/gemm/run_kernel.h"
#include "tests/vulkan/run_work.h"

using namespace fluxion;
using namespace fluxion::testing;
using namespace fluxion::vulkan_backend;

namespace {

constexpr Op attention_ops[] = {Op::attention, Op::attention_dual, Op::attention_backward};
constexpr double minus_infinity_score = -std::numeric_limits<double>::infinity();

void run(AttentionCall& call, const ShaderTarget& target, const AttentionTile* tile = nullptr) {
  const LoweringContext context{call.memory.program, {}, target};
  run_kernel(tile ? lower_attention(call.kernel(), context, *tile)
                  : lower_attention(call.kernel(), context),
             call.memory, {});
}

void check(const AttentionShape& shape, std::uint32_t seed, const ShaderTarget& target,
           const AttentionTile* tile = nullptr) {
  INFO(shape << ", seed " << seed << ", " << target.shared_bytes << " bytes of shared memory");
  AttentionCall call = random_attention(shape, seed);
  run(call, target, tile);
  CHECK(first_wrong(call) == "");
}

}  // namespace

TEST_CASE("attention of every tile is what it should be", "[vulkan][attention]") {
  if (!can_run_kernels()) return;
  const ShaderTarget target = usual_target();
  std::uint32_t seed = 1;
  for (const AttentionTile& tile : attention_tiles(AttentionPass::dual, 40, target))
    for (const Op op : attention_ops) {
      INFO(to_string(tile));
      check({.op = op,
             .batch = 2,
             .queries = 70,
             .keys = 75,
             .features = 40,
             .mask = MaskKind::finite},
            seed++, target, &tile);
    }
}

TEST_CASE("attention of random shapes, views and masks", "[vulkan][attention]") {
  if (!can_run_kernels()) return;
  RandomNumbers random(20261128);
  for (int round = 0; round < 15; ++round) {
    const auto size = [&] {
      return random.one_in(4) ? 1 + random.below(4)
                              : 4 * (1 + random.below(20)) + random.below(2) * random.below(4);
    };
    AttentionShape shape{.op = attention_ops[round % 3]};
    shape.batch = 1 + random.below(3), shape.queries = size(), shape.keys = size();
    shape.features = 1 + random.below(random.one_in(3) ? 128 : 32);
    shape.plain_views = random.one_in(2);
    shape.mask = static_cast<MaskKind>(random.below(3));
    shape.causal = random.one_in(3);
    shape.size = random.one_in(5) ? 20 : 1;
    check(shape, static_cast<std::uint32_t>(round),
          random.one_in(2) ? usual_target() : least_target());
  }
}

TEST_CASE("attention over nothing is 0", "[vulkan][attention]") {
  if (!can_run_kernels()) return;
  for (const Op op : attention_ops) {
    check({.op = op, .batch = 2, .queries = 5, .keys = 0, .features = 17}, 1, usual_target());
    check({.op = op, .batch = 2, .queries = 0, .keys = 3, .features = 4}, 1, usual_target());
    check({.op = op, .batch = 2, .queries = 5, .keys = 3, .features = 0}, 1, usual_target());
    check({.op = op, .batch = 0, .queries = 5, .keys = 3, .features = 4}, 1, usual_target());
  }
}

TEST_CASE("a query that sees no key gives 0, lse -inf and finite gradients",
          "[vulkan][attention]") {
  if (!can_run_kernels()) return;
  for (const Op op : attention_ops) {
    for (const bool causal : {false, true}) {
      AttentionCall call = random_attention({.op = op,
                                             .queries = 21,
                                             .keys = 90,
                                             .features = 16,
                                             .mask = MaskKind::holes,
                                             .causal = causal},
                                            5);
      std::vector<double>& mask = call.operand(call.kernel().inputs.size() - 1);
      std::fill_n(mask.begin() + 7 * 90, 90, minus_infinity_score);
      // Only the last key, in the last block, is seen.
      std::fill_n(mask.begin() + 9 * 90, 89, minus_infinity_score);
      mask[10 * 90 - 1] = 0;
      run(call, usual_target());
      INFO(call.shape);
      CHECK(first_wrong(call) == "");
      const std::vector<double>& first = call.memory.values(call.kernel().outputs[0]);
      for (std::size_t f = 0; f < 16; ++f) CHECK(first[7 * 16 + f] == 0);
      if (op != Op::attention_backward)
        CHECK(call.memory.values(call.kernel().outputs[1])[7] == minus_infinity_score);
      for (const std::int32_t output : call.kernel().outputs)
        for (const double value : call.memory.values(output)) CHECK(!std::isnan(value));
    }
  }
}

TEST_CASE("attention carries NaN and infinities as its definition does", "[vulkan][attention]") {
  if (!can_run_kernels()) return;
  const double infinity = std::numeric_limits<double>::infinity();
  for (const Op op : attention_ops) {
    const std::size_t operands = op == Op::attention ? 4 : op == Op::attention_dual ? 7 : 6;
    for (std::size_t operand = 0; operand < operands; ++operand) {
      const double special = operand % 3 == 0   ? std::nan("")
                             : operand % 3 == 1 ? infinity
                                                : -infinity;
      AttentionCall call = random_attention({.op = op,
                                             .batch = 2,
                                             .queries = 33,
                                             .keys = 70,
                                             .features = 12,
                                             .mask = MaskKind::finite,
                                             .causal = operand % 2 == 0},
                                            3);
      std::vector<double>& values = call.operand(operand);
      values[values.size() / 4 + 3] = special;
      run(call, usual_target());
      INFO(call.shape << ", " << special << " in operand " << operand);
      CHECK(first_wrong(call, true) == "");
    }
  }
}

TEST_CASE("scores of 10,000 leave one key for each query", "[vulkan][attention]") {
  if (!can_run_kernels()) return;
  AttentionCall call = random_attention({.queries = 40, .keys = 40, .features = 2}, 1);
  for (std::size_t i = 0; i < 40; ++i) {
    const double angle = 2 * 3.14159265358979 * static_cast<double>(i) / 40;
    for (const std::size_t operand : {0, 1}) {
      call.operand(operand)[2 * i] = static_cast<float>(5000 * std::cos(angle));
      call.operand(operand)[2 * i + 1] = static_cast<float>(5000 * std::sin(angle));
    }
  }
  run(call, usual_target());
  CHECK(call.memory.values(call.kernel().outputs[0]) == call.operand(2));
}

TEST_CASE("derivatives of sharp attention are not left to rounding on Vulkan",
          "[vulkan][attention]") {
  const std::optional<Device> device = software_vulkan();
  if (device) CHECK(sharp_attention_faults(*device, 50, 20261130) == "");
}

TEST_CASE("the largest head that a device can take", "[vulkan][attention]") {
  CHECK(max_attention_head(usual_target()) == 256);
  CHECK(max_attention_head(least_target()) >= 128);
  for (const ShaderTarget& target : {usual_target(), least_target()})
    for (const Op op : attention_ops) {
      const AttentionCall call = random_attention(
          {.op = op, .queries = 40, .keys = 40, .features = max_attention_head(target)}, 1);
      const KernelWork work = lower_attention(call.kernel(), {call.memory.program, {}, target});
      CHECK(work.dispatches.size() == (op == Op::attention_backward ? 2 : 1));
      CHECK(invalid(work, target) == "");
    }
}

TEST_CASE("attention of other dtypes and ops is refused on Vulkan", "[vulkan][attention]") {
  const ShaderTarget target = usual_target();
  AttentionCall call = random_attention({.queries = 4, .keys = 4, .features = 4}, 1);
  OpKernel kernel = call.kernel();
  kernel.op = Op::softmax;
  CHECK_THROWS_AS(lower_attention(kernel, {call.memory.program, {}, target}), Error);
  kernel = call.kernel();
  for (TensorType& type : kernel.input_types) type.dtype = DType::f64;
  CHECK_THROWS_AS(lower_attention(kernel, {call.memory.program, {}, target}), DTypeError);
}
