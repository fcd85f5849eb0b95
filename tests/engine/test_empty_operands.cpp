// An operand that holds no tensor is an error of every function, which names itself, the operand
// and the caller's place; it never counts as the number 0.
#include <functional>

#include "backends/reference/reference.h"
#include "engine/graph/ops.h"
#include "models/layers/einsum.h"
#include "models/layers/image.h"
#include "models/layers/layers.h"
#include "models/layers/losses.h"
#include "models/layers/order.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// A call in which exactly one operand, named `operand` in the message, is empty.
struct Call {
  std::string function, operand;
  std::function<void()> call;
};

std::vector<Call> calls_with_an_empty_operand() {
  const Device device = reference();
  const Tensor e;
  const Tensor a = full({2, 3}, 1, DType::f32, device), row = full({3}, 1, DType::f32, device);
  const Tensor yes = eq(a, a), bits = full({2, 3}, 1, DType::u32, device);
  const Tensor index = full({2}, 1, DType::i32, device);
  const Tensor key = random_key(1, device);
  const Tensor image = full({1, 4, 4, 2}, 1, DType::f32, device);
  const Tensor kernel = full({3, 3, 2, 2}, 1, DType::f32, device);
  const Tensor tokens = full({1, 4, 8}, 1, DType::f32, device);
  const SelfAttentionWeights weights{
      full({24, 8}, 1, DType::f32, device), full({24}, 1, DType::f32, device),
      full({8, 8}, 1, DType::f32, device), full({8}, 1, DType::f32, device)};
  const auto without = [&](Tensor SelfAttentionWeights::*member) {
    SelfAttentionWeights some = weights;
    some.*member = {};
    return some;
  };
  std::vector<Call> calls;
  const auto add_call = [&](const std::string& function, const std::string& operand, auto call) {
    calls.push_back({function, operand, [=] { (void)call(); }});
  };

  add_call("zeros_like", "x", [=] { return zeros_like(e); });
  add_call("ones_like", "x", [=] { return ones_like(e); });
  add_call("full_like", "x", [=] { return full_like(e, 2); });

  // Of one operand.
#define ONE(function) add_call(#function, "", [=] { return function(e); })
  ONE(neg), ONE(exp), ONE(expm1), ONE(log), ONE(log1p), ONE(sin), ONE(cos), ONE(tanh), ONE(sigmoid),
      ONE(erf), ONE(sqrt), ONE(rsqrt), ONE(abs), ONE(sign), ONE(floor), ONE(ceil), ONE(round),
      ONE(reciprocal), ONE(square), ONE(relu), ONE(silu), ONE(softplus), ONE(gelu_tanh),
      ONE(gelu_erf), ONE(stop_gradient), ONE(sum), ONE(mean), ONE(max), ONE(min), ONE(centred),
      ONE(var), ONE(logsumexp), ONE(softmax), ONE(log_softmax), ONE(squared_norm), ONE(prod);
#undef ONE
  add_call("neg", "", [=] { return -e; });
  add_call("convert", "", [=] { return convert(e, DType::f64); });
  add_call("convert", "", [=] { return e.to(DType::f64); });

  // Of two operands: either of them, beside a tensor and beside a number.
#define TWO(function, x)                                                           \
  add_call(#function, "the first operand", [=] { return function(e, x); }),        \
      add_call(#function, "the second operand", [=] { return function(x, e); }),   \
      add_call(#function, "the first operand", [=] { return function(e, 1.0); }),  \
      add_call(#function, "the second operand", [=] { return function(1.0, e); }), \
      add_call(#function, "the first operand", [=] { return function(e, e); })
  TWO(add, a), TWO(sub, a), TWO(mul, a), TWO(div, a), TWO(pow, a), TWO(atan2, a), TWO(hypot, a),
      TWO(maximum, a), TWO(minimum, a), TWO(shift_right, bits), TWO(lt, a), TWO(le, a), TWO(gt, a),
      TWO(ge, a), TWO(eq, a), TWO(ne, a);
#undef TWO
  add_call("add", "the first operand", [=] { return e + a; });
  add_call("sub", "the second operand", [=] { return a - e; });
  add_call("mul", "the second operand", [=] { return 2.0 * e; });
  add_call("div", "the first operand", [=] { return e / 2.0; });
  add_call("mul", "the first operand", [=] { return mean(square(a - e * a)); });
  add_call("clip", "x", [=] { return clip(e, 0.0, 1.0); });
  add_call("clip", "low", [=] { return clip(a, e, 1.0); });
  add_call("clip", "high", [=] { return clip(a, 0.0, e); });
  add_call("where", "the condition", [=] { return where(e, a, a); });
  add_call("where", "the first operand", [=] { return where(yes, e, 1.0); });
  add_call("where", "the second operand", [=] { return where(yes, a, e); });

  // Movement, reductions, indices.
  add_call("reshape", "", [=] { return reshape(e, {6}); });
  add_call("transpose", "", [=] { return transpose(e, {1, 0}); });
  add_call("transpose", "", [=] { return transpose(e, {}); });
  add_call("swap_axes", "x", [=] { return swap_axes(e, 0, 1); });
  add_call("broadcast_to", "", [=] { return broadcast_to(e, {2, 3}); });
  add_call("slice", "", [=] { return slice(e, {0}, {1}, {1}); });
  add_call("slice_axis", "x", [=] { return slice_axis(e, 0, 0, 1); });
  add_call("pad", "", [=] { return pad(e, {0}, {1}); });
  add_call("concat", "tensor 0", [=] { return concat({e, a}, 0); });
  add_call("concat", "tensor 1", [=] { return concat({a, e}, 0); });
  add_call("concat", "tensor 0", [=] { return concat({e}, 0); });
  add_call("split", "x", [=] { return split(e, 1, 0); });
  add_call("flip", "", [=] { return flip(e, {0}); });
  add_call("flip", "", [=] { return flip(e, {}); });
  add_call("expand_dims", "x", [=] { return expand_dims(e, 0); });
  add_call("argmax", "", [=] { return argmax(e, 0); });
  add_call("cumsum", "", [=] { return cumsum(e, 0); });
  add_call("matmul", "a", [=] { return matmul(e, a); });
  add_call("matmul", "b", [=] { return matmul(a, e); });
  add_call("take", "x", [=] { return take(e, index, 0); });
  add_call("take", "indices", [=] { return take(a, e, 0); });
  add_call("take_along_axis", "x", [=] { return take_along_axis(e, index, 0); });
  add_call("take_along_axis", "indices", [=] { return take_along_axis(a, e, 0); });
  add_call("index_add", "base", [=] { return index_add(e, index, a, 0); });
  add_call("index_add", "indices", [=] { return index_add(a, e, a, 0); });
  add_call("index_add", "updates", [=] { return index_add(a, index, e, 0); });
  add_call("scatter_add", "base", [=] { return scatter_add(e, index, a, 0); });
  add_call("scatter_add", "indices", [=] { return scatter_add(a, e, a, 0); });
  add_call("scatter_add", "updates", [=] { return scatter_add(a, index, e, 0); });
  add_call("one_hot", "indices", [=] { return one_hot(e, 3); });

  // Fused.
  add_call("layer_norm", "", [=] { return layer_norm(e, 1e-5); });
  add_call("layer_norm", "gamma", [=] { return layer_norm(a, 1e-5, e); });
  add_call("layer_norm", "beta", [=] { return layer_norm(a, 1e-5, row, e); });
  add_call("rms_norm", "", [=] { return rms_norm(e, 1e-5); });
  add_call("rms_norm", "gamma", [=] { return rms_norm(a, 1e-5, e); });
  add_call("attention", "q", [=] { return attention(e, a, a); });
  add_call("attention", "k", [=] { return attention(a, e, a); });
  add_call("attention", "v", [=] { return attention(a, a, e); });
  add_call("attention", "the mask", [=] { return attention(a, a, a, {.mask = e}); });

  // Random.
  add_call("fold_in", "the key", [=] { return fold_in(e, 1); });
  add_call("fold_in", "the key", [=] { return fold_in(e, index); });
  add_call("fold_in", "the number", [=] { return fold_in(key, e); });
  add_call("split_key", "the key", [=] { return split_key(e, 2); });
  add_call("random_bits", "the key", [=] { return random_bits(e, {2}); });
  add_call("uniform", "the key", [=] { return uniform(e, {2}); });
  add_call("normal", "the key", [=] { return normal(e, {2}); });

  // Layers.
  add_call("einsum", "operand 1", [=] { return einsum("ij,jk->ik", {a, e}); });
  add_call("conv2d", "x", [=] { return conv2d(e, kernel); });
  add_call("conv2d", "weight", [=] { return conv2d(image, e); });
  add_call("conv2d_transpose", "x", [=] { return conv2d_transpose(e, kernel); });
  add_call("conv2d_transpose", "weight", [=] { return conv2d_transpose(image, e); });
  add_call("avg_pool2d", "x", [=] { return avg_pool2d(e, {2, 2}, {2, 2}); });
  add_call("upsample_nearest2d", "x", [=] { return upsample_nearest2d(e, {2, 2}); });
  add_call("group_norm", "x", [=] { return group_norm(e, 1, 1e-5); });
  add_call("group_norm", "gamma", [=] { return group_norm(image, 1, 1e-5, e); });
  add_call("group_norm", "beta", [=] { return group_norm(image, 1, 1e-5, {}, e); });
  add_call("linear", "x", [=] { return linear(e, a, row); });
  add_call("linear", "weight", [=] { return linear(a, e, row); });
  add_call("linear", "bias", [=] { return linear(a, a, e); });
  add_call("per_sample", "values", [=] { return per_sample(e, 2); });
  add_call("timestep_embedding", "t", [=] { return timestep_embedding(e, 4); });
  add_call("patchify", "x", [=] { return patchify(e, 2); });
  add_call("unpatchify", "tokens", [=] { return unpatchify(e, 2, 4, 4); });
  add_call("modulate", "x", [=] { return modulate(e, a, a); });
  add_call("modulate", "shift", [=] { return modulate(tokens, e, a); });
  add_call("modulate", "scale", [=] { return modulate(tokens, a, e); });
  const auto attend = [=](const Tensor& x, const SelfAttentionWeights& some) {
    return multihead_self_attention(x, 2, some);
  };
  add_call("multihead_self_attention", "x", [=] { return attend(e, weights); });
  add_call("multihead_self_attention", "qkv_weight",
           [=, w = without(&SelfAttentionWeights::qkv_weight)] { return attend(tokens, w); });
  add_call("multihead_self_attention", "qkv_bias",
           [=, w = without(&SelfAttentionWeights::qkv_bias)] { return attend(tokens, w); });
  add_call("multihead_self_attention", "proj_weight",
           [=, w = without(&SelfAttentionWeights::proj_weight)] { return attend(tokens, w); });
  add_call("multihead_self_attention", "proj_bias",
           [=, w = without(&SelfAttentionWeights::proj_bias)] { return attend(tokens, w); });
  add_call("pseudo_huber", "x", [=] { return pseudo_huber(e, a, 1); });
  add_call("pseudo_huber", "y", [=] { return pseudo_huber(a, e, 1); });
  add_call("huber", "x", [=] { return huber(e, a, 1); });
  add_call("huber", "y", [=] { return huber(a, e, 1); });
  add_call("argsort", "x", [=] { return argsort(e, 0); });
  add_call("sort", "x", [=] { return sort(e, 0); });
  add_call("topk", "x", [=] { return topk(e, 1, 0); });
  add_call("cumprod", "x", [=] { return cumprod(e, 0); });
  return calls;
}

}  // namespace

TEST_CASE("an operand that holds no tensor is an error, which says where", "[engine][empty]") {
  for (const Call& each : calls_with_an_empty_operand()) {
    INFO(each.function << " with " << each.operand << " empty");
    const std::string message = message_of(each.call);
    INFO(message);
    const std::string start = each.function + ": " + each.operand;
    CHECK(message.compare(0, start.size(), start) == 0);
    CHECK(message.find(" holds no tensor (") != std::string::npos);
    CHECK(message.find("test_empty_operands.cpp:") != std::string::npos);
  }
}

TEST_CASE("two numbers are no operands of a tensor function", "[engine][empty]") {
  CHECK_THROWS_AS(add(1.0, 2.0), Error);
  CHECK_THROWS_AS(-Operand(1.0), Error);
  const Tensor yes = eq(full({2}, 1, DType::f32, reference()), 1.0);
  CHECK_THROWS_AS(where(yes, 1.0, 2.0), Error);
}
