// The derivative table: every op has a JVP rule, every linear op also a transpose rule. Reverse
// mode is the transpose of forward mode, so the two can't disagree.
//
// An empty Tensor is a zero: nothing is allocated or computed for it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/graph/tensor.h"

namespace fluxion {

// A function that was to be transposed is not linear. Messages name no place; LinearMap::transpose
// adds it and throws an Error.
class NotLinear : public Error {
 public:
  explicit NotLinear(const std::string& why) : Error("linear_transpose: " + why) {}
};

// What a JVP rule sees: the node itself, so that exp or softmax can reuse their outputs, and the
// tangents of its inputs. At least one tangent is not zero.
struct JvpCall {
  const std::shared_ptr<Node>& node;
  const std::vector<Tensor>& inputs;
  const std::vector<Tensor>& tangents;

  Tensor output(int index = 0) const { return Tensor(node, index); }
  template <class T>
  const T& get() const {
    return std::get<T>(node->attributes);
  }
};
// Tangents of the outputs: one tensor for each, empty or of the output's type.
using JvpRule = std::vector<Tensor> (*)(const JvpCall&);

// What a transpose rule sees: the cotangents of the outputs, at least one not zero, and which
// inputs the outputs depend on linearly.
struct TransposeCall {
  const std::shared_ptr<Node>& node;
  const std::vector<Tensor>& inputs;
  const std::vector<Tensor>& cotangents;
  const std::vector<bool>& linear;

  template <class T>
  const T& get() const {
    return std::get<T>(node->attributes);
  }
};
// Cotangents of the inputs: one tensor for each, empty or of the input's type; those of inputs that
// are not linear are not read. Throws NotLinear if the op is not linear in the inputs marked.
using TransposeRule = std::vector<Tensor> (*)(const TransposeCall&);

// Never null: an op without a derivative (comparisons, integers, random bits) has a rule that
// returns zeros.
JvpRule jvp_rule(Op op);
// Null for ops that are not linear in any input.
TransposeRule transpose_rule(Op op);

// The rules of regions (autograd/regions.cpp).
std::vector<Tensor> region_jvp(const JvpCall& call);
std::vector<Tensor> region_transpose(const TransposeCall& call);

// a + b, where empty means zero. 16-bit floats are added in f32 and rounded back.
Tensor add_tangents(const Tensor& a, const Tensor& b);

// f(u), a sum of elements of u: 16-bit floats are added up in f32 and rounded once.
Tensor in_f32(const Tensor& u, const std::function<Tensor(const Tensor&)>& f);

// t f and t / f for a tangent or cotangent t, in which 0 wins (strong_mul, strong_div); empty where
// t is. Every product of the rules is one of these, so that 0 stays 0 on its way through an
// infinite derivative.
Tensor scaled(const Tensor& t, const Tensor& factor);
Tensor divided(const Tensor& t, const Tensor& divisor);

}  // namespace fluxion
