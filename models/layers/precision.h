// Mixed precision: in which dtypes the factors of products are stored, while everything else -
// sums, parameters, optimiser, norms, softmax, losses - stays in f32 (docs/training.md, "Mixed
// precision"; Micikevicius et al. 2018, "Mixed Precision Training").
//
// A product with a weight y = m(a, b) + c, m bilinear, is computed as m(round a, round b) + c,
// summed in f32. Its derivative is that of m at the rounded factors, in which rounding counts as
// the identity:
//
//   tangent      dy = m(da, round b) + m(round a, db) + dc
//   cotangents   a' = m(., round b)' y'    b' = m(round a, .)' y'    c' = y'
//
// with da, db rounded to `tangents` and y' to `cotangents`. What is f32 is not rounded, and f32
// throughout adds nothing to a graph.
#pragma once

#include <functional>
#include <string>

#include "engine/graph/tensor.h"

namespace fluxion {

struct Precision {
  DType operands = DType::f32, tangents = DType::f32, cotangents = DType::f32;
  bool operator==(const Precision&) const = default;
};

// The policies by name: "f32", "bf16" and "f16", which round operands and cotangents and leave
// tangents in f32; any other as "OPERANDS/TANGENTS/COTANGENTS", say "bf16/bf16/f32".
// precision_from throws FormatError for another text.
std::string to_string(const Precision& precision);
Precision precision_from(const std::string& text);

// Cotangents in f16, whose smallest number is 6e-8, vanish unless the loss is multiplied by a large
// number.
inline bool needs_loss_scale(const Precision& precision) {
  return precision.cotangents == DType::f16;
}

// y = multiply(a, b) with this precision. What it adds to the product, c, it captures.
Tensor product(const Precision& precision, const Tensor& a, const Tensor& b,
               const std::function<Tensor(const Tensor&, const Tensor&)>& multiply);

}  // namespace fluxion
