#include "tests/fuzz/program_seeds.h"

#include "engine/compile.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"

namespace fluxion::testing {

std::vector<std::pair<std::string, Program>> program_seeds(const Device& device) {
  const auto f32 = [&](const Shape& shape) { return zeros(shape, DType::f32, device); };
  const auto f64 = [&](const Shape& shape) { return zeros(shape, DType::f64, device); };
  const auto i32 = [&](const Shape& shape) { return zeros(shape, DType::i32, device); };
  std::vector<std::pair<std::string, Program>> seeds;
  const auto add = [&](const char* name, auto function, const auto&... arguments) {
    seeds.emplace_back(name, compile(function).program(arguments...));
  };
  add(
      "map", [](const Tensor& a, const Tensor& b) { return tanh(a * 0.5) + b; }, f32({5, 7}),
      f32({7}));
  add(
      "pads",
      [](const Tensor& a, const Tensor& b) {
        return exp(pad(concat({pad(a, {1, 0}, {0, 2}), flip(b, {0})}, 0), {2, 1}, {1, 0}));
      },
      f32({3, 4}), f32({2, 6}));
  add(
      "softmax", [](const Tensor& a) { return softmax(a); }, f32({4, 9}));
  add(
      "norm", [](const Tensor& a) { return layer_norm(a, 1e-6) * 2.0; }, f64({3, 40}));
  add(
      "streaming", [](const Tensor& a) { return sum(exp(a), {0}); }, f32({50, 20}));
  add(
      "whole sum", [](const Tensor& a) { return std::pair(sum(a), max(a)); }, f32({33, 5}));
  add(
      "integers", [](const Tensor& a) { return where(lt(a, 3.0), a * 2.0, -a); }, i32({4, 6}));
  add(
      "matmul", [](const Tensor& a, const Tensor& b) { return matmul(a, b); }, f32({4, 6}),
      f32({6, 5}));
  add(
      "layer",
      [](const Tensor& a, const Tensor& b, const Tensor& c) {
        return silu(matmul(transpose(a, {1, 0}), b) + c);
      },
      f32({6, 4}), f32({6, 5}), f32({5}));
  add(
      "batched",
      [](const Tensor& a, const Tensor& b) {
        return matmul(transpose(reshape(a, {2, 3, 2, 4}), {0, 2, 1, 3}),
                      transpose(reshape(b, {2, 5, 2, 4}), {0, 2, 3, 1}));
      },
      f64({2, 3, 8}), f64({2, 5, 8}));
  add(
      "image",
      [](const Tensor& x, const Tensor& w) {
        return make_node(Op::conv2d, ConvAttributes{{1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 1},
                         {x, w});
      },
      f32({2, 5, 4, 3}), f32({3, 3, 3, 2}));
  add(
      "attention",
      [](const Tensor& q, const Tensor& k, const Tensor& v) {
        return attention(q, k, v, {.causal = true});
      },
      f32({2, 5, 8}), f32({2, 6, 8}), f32({2, 6, 8}));
  add(
      "take", [](const Tensor& a, const Tensor& i) { return take(a, i, 0); }, f32({4, 3}),
      i32({5}));
  add(
      "scatter",
      [](const Tensor& a, const Tensor& i, const Tensor& u) { return index_add(a, i, u, 0); },
      f32({4, 3}), i32({2}), f32({2, 3}));
  add(
      "order",
      [](const Tensor& a) {
        return std::pair(cumsum(a, 0), make_node(Op::argsort, SortAttributes{1, true},
                                                 {argmax(a, 1, true).to(DType::f32) + a}));
      },
      f32({4, 6}));
  add(
      "random",
      [](const Tensor& key) {
        return normal(key, {7, 3});
      },
      random_key(1, device));
  const auto step =
      compile([](const Tensor& state, const Tensor& gradient) { return state - gradient * 0.1; },
              {.donate = {0}});
  seeds.emplace_back("donation", step.program(f32({6, 2}), f32({6, 2})));
  return seeds;
}

}  // namespace fluxion::testing
