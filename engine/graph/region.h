// Regions: functions that stay whole while transforms walk over a graph, because they have a rule
// of their own for one of them. engine/graph/custom.h makes them:
//
//   checkpoint(f)                reverse mode computes f again instead of keeping what f computed
//   on the way custom_jvp(f, rule)          rule(primals, tangents) is the derivative of f
//   custom_linear(f, transpose)  f is linear; transpose(cotangents) is its transpose
//   custom_vjp(f, rule)          rule(primals, outputs, cotangents) is the transposed derivative of
//   f; there is no forward mode
//
// A region holds the graph of f on parameter leaves, and nothing else reaches into that graph: what
// f uses beside its arguments is an input of the region too. A plan never sees one: where a value
// is computed, the graph takes the region's place. The transforms of autograd/ read the rules.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion {

class Region {
 public:
  enum class Kind : std::uint8_t {
    checkpoint,
    custom_jvp,
    custom_linear,
    custom_vjp,
    opaque,  // the derivative of a custom_vjp: linear, has only a transpose, and no value
  };
  Kind kind = Kind::checkpoint;
  std::string name;  // of the function, for errors and printing
  // The graph of the function: outputs over Op::parameter leaves. `outputs` is empty for an opaque
  // region.
  std::vector<Tensor> parameters, outputs;
  // How many parameters are arguments of the function; those behind them stand for tensors that it
  // captured.
  std::size_t arguments = 0;
  std::vector<TensorType> types;  // of the outputs
  // Inputs in which the region is linear (custom_linear, opaque, and derivatives of checkpoints).
  std::vector<bool> linear;
  // custom_jvp: (inputs, tangents - empty for zero) -> tangents of the outputs, empty for zero.
  std::function<std::vector<Tensor>(const std::vector<Tensor>& inputs,
                                    const std::vector<Tensor>& tangents)>
      jvp;
  // custom_linear, custom_vjp and opaque: (inputs, cotangents of the outputs - empty for zero) ->
  // cotangents of the inputs, empty for zero. A custom_vjp's takes the inputs followed by the
  // outputs.
  std::function<std::vector<Tensor>(const std::vector<Tensor>& inputs,
                                    const std::vector<Tensor>& cotangents)>
      transpose;
  bool holds_rules = false;  // whether some region in the graph has rules; apply_region fills it in
};

// The region in the hands of nodes. A rule may hold tensors whose nodes hold regions, and so on:
// the last owner frees such a chain without recursion.
std::shared_ptr<const Region> shared(Region region);

// A list with `some` tensors where `there` is true, in order, and empty ones elsewhere.
std::vector<Tensor> in_places(std::span<const Tensor> some, const std::vector<bool>& there);

// "checkpoint block": kind and name.
std::string to_string(const Region& region);

// The output types of `region` on inputs of these types. Throws ShapeError or DTypeError where they
// are not those of its parameters.
std::vector<TensorType> output_types(const Region& region, std::span<const TensorType> inputs,
                                     const Location& where);

// A leaf to trace a region with: it stays traced for good, as a region's graph has no value ever.
Tensor region_parameter(const TensorType& type, const Device& device);

// The outputs of `region` - parameters and outputs filled in - applied to `arguments`, one for each
// parameter. Whatever the outputs depend on beside the parameters is captured: it becomes a further
// input, so that transforms see it. What is made of literals alone stays inside. An opaque region,
// which has no outputs to look at, gives `types` as they are.
std::vector<Tensor> apply_region(Region region, std::vector<Tensor> arguments,
                                 Location where = Location::current());

// The graph of `outputs` (empty tensors stay empty) with `to` in the place of `from`, tensor by
// tensor: what depends on them is built again, the rest is shared. Rules of regions in the graph
// follow: what they made of `from`, they make of `to`. Nothing behind the tensors `known` is looked
// at.
std::vector<Tensor> substitute(const std::vector<Tensor>& outputs, const std::vector<Tensor>& from,
                               const std::vector<Tensor>& to,
                               const std::vector<Tensor>& known = {});

}  // namespace fluxion
