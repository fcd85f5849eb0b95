// Regions: functions that have a rule of their own for some transform, and so stay whole while
// transforms walk over a graph. engine/graph/custom.h makes them:
//
//   checkpoint(f)                reverse mode recomputes f instead of keeping intermediate values
//   custom_jvp(f, rule)          rule(primals, tangents) is the derivative of f
//   custom_linear(f, transpose)  f is linear; transpose(cotangents) is its transpose
//   custom_vjp(f, rule)          rule(primals, outputs, cotangents) is the transposed derivative
//                                of f; there is no forward mode
//
// A region holds the graph of f on parameter leaves. That graph reaches no other: tensors that f
// uses besides its arguments are inputs of the region too. A plan holds no regions: planning puts
// the region's graph in its place. The transforms of autograd/ read the rules.
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
    opaque,  // the derivative of a custom_vjp: linear; it has a transpose but no value
  };
  Kind kind = Kind::checkpoint;
  std::string name;  // of the function, for errors and printing
  // The graph of the function: outputs over Op::parameter leaves. `outputs` is empty for an opaque
  // region.
  std::vector<Tensor> parameters, outputs;
  // How many parameters are arguments of the function; the others stand for captured tensors.
  std::size_t arguments = 0;
  std::vector<TensorType> types;  // of the outputs
  // Inputs in which the region is linear (custom_linear, opaque, and derivatives of checkpoints).
  std::vector<bool> linear;
  // custom_jvp: (inputs, tangents - empty for zero) -> tangents of the outputs, empty for zero.
  std::function<std::vector<Tensor>(const std::vector<Tensor>& inputs,
                                    const std::vector<Tensor>& tangents)>
      jvp;
  // custom_linear, custom_vjp and opaque: (inputs, cotangents of the outputs - empty for zero) ->
  // cotangents of the inputs, empty for zero. For a custom_vjp, `inputs` are the inputs followed by
  // the outputs.
  std::function<std::vector<Tensor>(const std::vector<Tensor>& inputs,
                                    const std::vector<Tensor>& cotangents)>
      transpose;
  bool holds_rules = false;  // whether a region inside the graph has rules; set by apply_region
  mutable const Region* next_dying = nullptr;  // of those that a thread deletes, one by one
};

// Whether the region, or one inside its graph, has rules.
bool has_rules(const Region& region);

// The region, as nodes own it. A rule may hold tensors whose nodes hold regions, and so on: the
// last owner frees such a chain without recursion.
std::shared_ptr<const Region> shared(Region region);

// "checkpoint block": kind and name.
std::string to_string(const Region& region);

// The output types of `region` on inputs of these types. Throws ShapeError or
// DTypeError unless they are those of its parameters.
std::vector<TensorType> output_types(const Region& region, std::span<const TensorType> inputs,
                                     const Location& where);

// A leaf to trace a region with. Its scope stays live forever, since a region's graph never has
// values.
Tensor region_parameter(const TensorType& type, const Device& device);

// The outputs of `region`, whose parameters and outputs are filled in, applied to `arguments`, one
// for each parameter. Tensors that the outputs depend on besides the parameters are captured: they
// become further inputs, so that transforms see them. Values made of literals alone stay inside. An
// opaque region has no graph: its outputs have the types `types`.
std::vector<Tensor> apply_region(Region region, std::vector<Tensor> arguments,
                                 Location where = Location::current());

// The graph of `outputs` (empty tensors stay empty) with each tensor of `from` replaced by that of
// `to`: nodes that depend on them are rebuilt, the others shared. Rules of regions in the graph are
// adapted: they too use `to` instead of `from`. The search does not go beyond the tensors `known`.
std::vector<Tensor> substitute(const std::vector<Tensor>& outputs, const std::vector<Tensor>& from,
                               const std::vector<Tensor>& to,
                               const std::vector<Tensor>& known = {});

}  // namespace fluxion
