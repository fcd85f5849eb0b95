// The machinery under autograd/transforms.h, on flat lists of tensors.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "autograd/live_scope.h"
#include "engine/error.h"
#include "engine/graph/tensor.h"

namespace fluxion {

// How an error ends that knows the user's call: " (file.cpp:12)".
std::string place(const std::optional<Location>& where);

// Forward mode: the tangents of `outputs` from the tangents of `inputs`. The walk stops at the
// inputs. An empty tensor is a zero tangent; nothing is allocated for it.
std::vector<Tensor> push(const std::vector<Tensor>& outputs, const std::vector<Tensor>& inputs,
                         const std::vector<Tensor>& tangents);

// Reverse mode: the cotangents of `placeholders` from the cotangents of `outputs`, which must
// depend on the placeholders linearly. An empty tensor is a zero. The walk stops at `known` values.
// Throws NotLinear (autograd/rules.h) where the dependence is not linear.
std::vector<Tensor> pull(const std::vector<Tensor>& outputs, const std::vector<Tensor>& cotangents,
                         const std::vector<Tensor>& placeholders,
                         const std::vector<Tensor>& known = {});

// A linear map, held as a graph whose outputs depend linearly on placeholders.
class LinearMap {
 public:
  // Tangents of the inputs (empty = zero) -> tangents of the outputs, full-shaped.
  std::vector<Tensor> apply(const std::vector<Tensor>& tangents) const;
  // Cotangents of the outputs (empty = zero) -> cotangents of the inputs; empty for inputs that are
  // not floating.
  std::vector<Tensor> transpose(const std::vector<Tensor>& cotangents) const;

 private:
  friend class Leaves;
  std::vector<Tensor> placeholders_;  // empty where the input is not floating
  std::vector<TensorType> input_types_;
  std::vector<Tensor> outputs_;  // empty where zero
  std::vector<TensorType> output_types_;
  Device device_;
  std::optional<Location> where_;
};

// Fresh identity leaves for one call of a transform. Every call has leaves of its own, so nested
// transforms can't confuse their perturbations. The leaves are live until this object dies. Errors
// name the place `where`, the user's call, if it is known.
class Leaves {
 public:
  enum Linear { linear };
  // Leaves for vjp and linearize: every floating value gets a tangent placeholder.
  explicit Leaves(std::vector<Tensor> values, std::optional<Location> where = {});
  // Leaves for jvp: tangents given, empty = zero. Throws ShapeError or DTypeError where a tangent
  // does not fit its value.
  Leaves(std::vector<Tensor> values, std::vector<Tensor> tangents,
         std::optional<Location> where = {});
  // Leaves for linear_transpose: the placeholders themselves are the traced tensors, and values
  // that are not floating stand for themselves.
  Leaves(std::vector<Tensor> values, Linear, std::optional<Location> where = {});

  const std::vector<Tensor>& tensors() const { return leaves_; }
  std::vector<Tensor> push_forward(const std::vector<Tensor>& outputs) const;
  LinearMap linear_map(const std::vector<Tensor>& outputs) const;
  LinearMap placeholder_map(const std::vector<Tensor>& outputs) const;
  // The gradient of a floating scalar with respect to every leaf. Throws DTypeError if a leaf is
  // not floating, ShapeError if `scalar` does not have exactly one element.
  std::vector<Tensor> gradient(const Tensor& scalar) const;

 private:
  std::vector<Tensor> values_, leaves_, tangents_;
  std::optional<Location> where_;
  LiveScope scope_;
};

}  // namespace fluxion
