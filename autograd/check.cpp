#include "autograd/check.h"

#include <algorithm>
#include <cmath>

#include "autograd/linearize.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"

namespace fluxion {

namespace {

double dot(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double total = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i] && b[i])
      total += sum(convert(a[i], DType::f64) * convert(b[i], DType::f64)).item<double>();
  return total;
}

}  // namespace

DerivativeCheck check_derivatives(
    const std::function<std::vector<Tensor>(const std::vector<Tensor>&)>& f,
    const std::vector<Tensor>& inputs, const DerivativeCheckOptions& options) {
  std::vector<Tensor> directions(inputs.size());
  bool any = false;
  const auto random = [&](const Tensor& like, std::uint32_t stream) {
    return normal(fold_in(random_key(options.seed, like.device()), stream), like.shape(),
                  DType::f64);
  };
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].dtype() != DType::f64) continue;
    directions[i] = random(inputs[i], static_cast<std::uint32_t>(i));
    any = true;
  }
  if (!any) throw DTypeError("check_derivatives: wants at least one f64 input");

  std::vector<Tensor> outputs, tangents, cotangents, pulled;
  {
    Leaves traced(inputs, directions);
    outputs = f(traced.tensors());
    tangents = traced.push_forward(outputs);
  }
  if (std::ranges::none_of(outputs,
                           [](const Tensor& output) { return output.dtype() == DType::f64; }))
    throw DTypeError("check_derivatives: wants at least one f64 output: no other is checked");
  for (std::size_t i = 0; i < outputs.size(); ++i)
    cotangents.push_back(outputs[i].dtype() == DType::f64
                             ? random(outputs[i], static_cast<std::uint32_t>(1000 + i))
                             : Tensor());
  {
    Leaves traced(inputs);
    pulled = traced.linear_map(f(traced.tensors())).transpose(cotangents);
  }

  // Fourth order: (8 (f(+h) - f(-h)) - (f(+2h) - f(-2h))) / 12 h.
  const auto shifted = [&](double step) {
    std::vector<Tensor> moved = inputs;
    for (std::size_t i = 0; i < moved.size(); ++i)
      if (directions[i]) moved[i] = moved[i] + step * directions[i];
    return f(moved);
  };
  const double h = options.step;
  const auto near_up = shifted(h), near_down = shifted(-h), far_up = shifted(2 * h),
             far_down = shifted(-2 * h);

  DerivativeCheck check;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].dtype() != DType::f64 || outputs[i].elements() == 0) continue;
    const Tensor difference =
        (8.0 * (near_up[i] - near_down[i]) - (far_up[i] - far_down[i])) / (12 * h);
    const double error =
        max(abs(tangents[i] - difference) / (1.0 + abs(difference))).item<double>();
    check.jvp_error = std::max(check.jvp_error, std::isnan(error) ? HUGE_VAL : error);
  }
  const double left = dot(cotangents, tangents), right = dot(pulled, directions);
  check.adjoint_error = std::abs(left - right) / (1 + std::abs(left));
  if (!(check.jvp_error <= options.tolerance))
    check.message += "jvp differs from finite differences by " + rounded_text(check.jvp_error, 3) +
                     " (allowed " + rounded_text(options.tolerance, 3) + ")";
  if (!(check.adjoint_error <= options.adjoint_tolerance))
    check.message += "; <u, Jv> = " + number_text(left) + " but <J'u, v> = " + number_text(right);
  check.passed = check.message.empty();
  return check;
}

}  // namespace fluxion
