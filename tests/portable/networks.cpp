#include "tests/portable/networks.h"

#include <cmath>

#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "tests/op_examples.h"

namespace fluxion::testing {

namespace {

std::vector<Tensor> product(const Device& device, DType dtype) {
  const Tensor a = random_tensor({67, 129}, device, 1, dtype);
  const Tensor b = random_tensor({129, 35}, device, 2, dtype);
  // Batched, with one operand as a view; 16-bit operands.
  const Tensor batch = random_tensor({3, 17, 29}, device, 3, dtype);
  std::vector<Tensor> results = {matmul(a, b), matmul(batch, swap_axes(batch, 1, 2))};
  if (dtype == DType::f32) results.push_back(matmul(a.to(DType::bf16), b.to(DType::f16)));
  return results;
}

std::vector<Tensor> convolution(const Device& device, DType dtype) {
  const Tensor image = random_tensor({2, 13, 11, 5}, device, 4, dtype);
  const Tensor kernel = random_tensor({3, 3, 5, 7}, device, 5, dtype);
  ConvAttributes attributes{.stride = {2, 1}, .low = {1, 1}, .high = {1, 1}};
  attributes.contract_as(contraction_of(dtype, dtype));
  return make_nodes(Op::conv2d, attributes, {image, kernel});
}

std::vector<Tensor> block(const Device& device, DType dtype) {
  constexpr std::int64_t batch = 2, tokens = 19, heads = 3, width = 36;
  const auto weights = [&](std::int64_t from, std::int64_t to, std::uint64_t seed) {
    return random_tensor({from, to}, device, seed, dtype) *
           (1 / std::sqrt(static_cast<double>(from)));
  };
  const Tensor x = random_tensor({batch, tokens, width}, device, 6, dtype);
  const auto in_heads = [&](const Tensor& y) {
    return transpose(reshape(y, {batch, tokens, heads, width / heads}), {0, 2, 1, 3});
  };
  const Tensor normed = layer_norm(x, 1e-6);
  const Tensor q = in_heads(matmul(normed, weights(width, width, 7)));
  const Tensor k = in_heads(matmul(normed, weights(width, width, 8)));
  const Tensor v = in_heads(matmul(normed, weights(width, width, 9)));
  const Tensor seen = transpose(attention(q, k, v, {.causal = true}), {0, 2, 1, 3});
  const Tensor y = x + matmul(reshape(seen, {batch, tokens, width}), weights(width, width, 10));
  const Tensor hidden = gelu_tanh(matmul(rms_norm(y, 1e-6), weights(width, 4 * width, 11)));
  return {y + matmul(hidden, weights(4 * width, width, 12))};
}

std::vector<Tensor> functions(const Device& device, DType dtype) {
  const Tensor x = random_tensor({5, 67}, device, 13, dtype) * 4.0;
  const Tensor positive = abs(x) + 0.125;
  return {sin(exp(tanh(x)) * 1.5) + erf(x) * log(positive),
          pow(positive, x),
          atan2(x, positive),
          softplus(x) * sigmoid(x),
          rsqrt(positive) + expm1(x) - log1p(positive),
          cos(x) * erfc(x),
          logsumexp(x, {1}),
          softmax(x),
          log_softmax(x, 0)};
}

std::vector<Tensor> draws(const Device& device, DType dtype) {
  const Tensor key = random_key(2026, device);
  return {normal(fold_in(key, 1), {1001}, dtype), uniform(fold_in(key, 2), {3, 5, 7}, dtype),
          random_bits(fold_in(key, 3), {33})};
}

std::vector<Tensor> orders(const Device& device, DType dtype) {
  const Tensor x = random_tensor({7, 131}, device, 14, dtype);
  const Tensor order = make_node(Op::argsort, SortAttributes{.axis = 1}, {x});
  return {cumsum(x, 1), argmax(x, 0), take_along_axis(x, order, 1), var(x, {0, 1}), max(x, {1})};
}

}  // namespace

std::vector<PortableNetwork> portable_networks() {
  std::vector<PortableNetwork> all;
  for (const DType dtype : {DType::f32, DType::f64}) {
    all.push_back({"matrix products", dtype, 4 * std::sqrt(129.0), product});
    all.push_back({"convolution", dtype, 4 * std::sqrt(45.0), convolution});
    all.push_back({"transformer block", dtype, 16 * std::sqrt(144.0), block});
    all.push_back({"functions", dtype, 32, functions});
    all.push_back({"draws", dtype, 4, draws});
    all.push_back({"orders", dtype, 4 * std::sqrt(917.0), orders});
  }
  return all;
}

}  // namespace fluxion::testing
