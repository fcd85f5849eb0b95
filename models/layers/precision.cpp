#include "models/layers/precision.h"

#include <algorithm>
#include <array>
#include <vector>

#include "engine/error.h"
#include "engine/graph/custom.h"
#include "engine/graph/ops.h"

namespace fluxion {
namespace {

constexpr std::array<DType, 3> storable = {DType::f32, DType::bf16, DType::f16};

constexpr Precision named(DType dtype) {
  return {.operands = dtype, .tangents = DType::f32, .cotangents = dtype};
}

// The nearest number of a smaller dtype, in the dtype of x: that of the copy that a plan keeps.
Tensor nearest(const Tensor& x, DType dtype) { return convert(convert(x, dtype), x.dtype()); }

Tensor itself(const Tensor& x) { return x; }

// Each is linear as far as derivatives are concerned: rounding counts as the identity.
Tensor rounded_forwards(const Tensor& x, DType dtype) {
  if (dtype == DType::f32) return x;
  return custom_linear([dtype](const Tensor& x) { return nearest(x, dtype); }, itself,
                       "rounded")(x);
}
Tensor rounded_backwards(const Tensor& x, DType dtype) {
  if (dtype == DType::f32) return x;
  return custom_linear(
      itself, [dtype](const Tensor& back) { return nearest(back, dtype); }, "rounded cotangent")(x);
}

Tensor operand(const Precision& precision, const Tensor& x) {
  if (precision.operands == precision.tangents) return rounded_forwards(x, precision.operands);
  using One = std::tuple<Tensor>;
  return custom_jvp([dtype = precision.operands](
                        const Tensor& x) { return dtype == DType::f32 ? x : nearest(x, dtype); },
                    [dtype = precision.tangents](const One&, const One& tangents) {
                      return rounded_forwards(std::get<0>(tangents), dtype);
                    },
                    "operand")(x);
}

}  // namespace

std::string to_string(const Precision& precision) {
  if (precision == named(precision.operands)) return std::string(to_string(precision.operands));
  std::string text;
  for (const DType dtype : {precision.operands, precision.tangents, precision.cotangents})
    text += (text.empty() ? "" : "/") + std::string(to_string(dtype));
  return text;
}

Precision precision_from(const std::string& text) {
  std::vector<DType> dtypes;
  bool known = true;
  for (std::size_t start = 0; start <= text.size();) {
    const std::size_t end = std::min(text.find('/', start), text.size());
    const auto found = std::ranges::find(storable, text.substr(start, end - start),
                                         [](DType dtype) { return to_string(dtype); });
    if (found == storable.end())
      known = false;
    else
      dtypes.push_back(*found);
    start = end + 1;
  }
  if (known && dtypes.size() == 1) return named(dtypes[0]);
  if (known && dtypes.size() == 3)
    return {.operands = dtypes[0], .tangents = dtypes[1], .cotangents = dtypes[2]};
  throw FormatError("precision '" + text.substr(0, 40) +
                    "' is not 'f32', 'bf16' or 'f16', nor three of them for operands, tangents and "
                    "cotangents, such as 'bf16/bf16/f32'");
}

Tensor product(const Precision& precision, const Tensor& a, const Tensor& b,
               const std::function<Tensor(const Tensor&, const Tensor&)>& multiply) {
  return rounded_backwards(multiply(operand(precision, a), operand(precision, b)),
                           precision.cotangents);
}

}  // namespace fluxion
