// The rules of regions: how each transform passes through checkpoint, custom_jvp, custom_linear and
// custom_vjp.
#include <set>

#include "autograd/linearize.h"
#include "autograd/rules.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/graph/region.h"
#include "engine/graph/tree.h"
#include "engine/graph/walk.h"

namespace fluxion {

namespace {

using Tensors = std::vector<Tensor>;

const std::shared_ptr<const Region>& region_of(const Node& node) {
  return std::get<RegionAttributes>(node.attributes).region;
}

// The derivative of a checkpoint is a checkpoint that maps (inputs, tangents) to the tangents of
// the outputs.
Tensors checkpoint_jvp(const JvpCall& call, const Region& region) {
  Region derivative;
  derivative.kind = Region::Kind::checkpoint;
  derivative.name = region.name;
  Tensors placeholders(call.tangents.size()), arguments;
  for (std::size_t i = 0; i < call.tangents.size(); ++i)
    if (call.tangents[i])
      placeholders[i] = region_parameter(call.tangents[i].type(), call.tangents[i].device());
  const Tensors tangents = push(region.outputs, region.parameters, placeholders);
  std::vector<bool> moves;
  for (const Tensor& tangent : tangents) {
    moves.push_back(static_cast<bool>(tangent));
    if (tangent) derivative.outputs.push_back(tangent);
  }
  std::set<const Node*> used;
  for (const WalkedNode& walked :
       walk(derivative.outputs, [](const Node& node) { return !node.evaluated(); }))
    used.insert(walked.node.get());
  const auto add = [&](const Tensor& parameter, const Tensor& argument, bool linear) {
    // The derivative of a linear map does not read its argument, so the argument need not be kept.
    if (linear && !used.contains(parameter.node().get())) return;
    derivative.parameters.push_back(parameter);
    derivative.linear.push_back(linear);
    arguments.push_back(argument);
  };
  for (std::size_t i = 0; i < call.inputs.size(); ++i)
    add(region.parameters[i], call.inputs[i], region.linear[i]);
  for (std::size_t i = 0; i < call.inputs.size(); ++i)
    if (placeholders[i]) add(placeholders[i], call.tangents[i], true);
  return in_places(apply_region(std::move(derivative), std::move(arguments)), moves);
}

// The map is its own derivative in its arguments. In the tensors that it captured, its graph is
// differentiated.
Tensors linear_jvp(const JvpCall& call, const Region& region) {
  Tensors along = call.inputs, beside = call.tangents, result(call.node->outputs.size());
  bool moves = false, bends = false;
  for (std::size_t i = 0; i < call.inputs.size(); ++i) {
    if (!region.linear[i]) {
      bends = bends || beside[i];
      continue;
    }
    moves = moves || beside[i];
    along[i] = beside[i] ? beside[i] : zeros_like(call.inputs[i]);
    beside[i] = Tensor();
  }
  if (moves) {
    result = make_nodes(Op::region, call.node->attributes, along);
    for (Tensor& tangent : result)
      if (!is_floating(tangent.dtype())) tangent = Tensor();
  }
  if (bends) {
    Tensors known = call.inputs;
    known.insert(known.end(), beside.begin(), beside.end());
    const Tensors more = substitute(push(region.outputs, region.parameters, beside),
                                    region.parameters, call.inputs, known);
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = add_tangents(result[i], more[i]);
  }
  return result;
}

[[noreturn]] void throw_captured(const Region& region) {
  throw Error(to_string(region) +
              ": the function uses a tensor that is being differentiated and is not among its "
              "arguments, so its rule can't know of it; make the tensor an "
              "argument, or apply stop_gradient to it");
}

bool moves_captured(const JvpCall& call, const Region& region) {
  for (std::size_t i = region.arguments; i < call.tangents.size(); ++i)
    if (call.tangents[i]) return true;
  return false;
}

// The tangents of a custom_vjp as an opaque node of (inputs, outputs, tangents). It has a transpose
// and nothing else.
Tensors opaque_jvp(const JvpCall& call, const Region& region) {
  Region derivative;
  derivative.kind = Region::Kind::opaque;
  derivative.name = region.name;
  Tensors arguments = call.inputs;
  std::vector<bool> floating;
  std::vector<std::size_t> moving;
  for (std::size_t i = 0; i < call.node->outputs.size(); ++i) {
    arguments.push_back(call.output(static_cast<int>(i)));
    floating.push_back(is_floating(call.node->outputs[i].dtype));
    if (floating.back()) derivative.types.push_back(call.node->outputs[i]);
  }
  const std::size_t known = arguments.size();
  for (std::size_t i = 0; i < call.tangents.size(); ++i) {
    if (!call.tangents[i]) continue;
    arguments.push_back(call.tangents[i]);
    moving.push_back(i);
  }
  for (const Tensor& argument : arguments)
    derivative.parameters.push_back(region_parameter(argument.type(), argument.device()));
  derivative.linear.assign(known, false);
  derivative.linear.resize(arguments.size(), true);
  derivative.transpose = [rule = region.transpose, known, moving, floating](
                             const Tensors& inputs, const Tensors& cotangents) {
    const Tensors back =
        rule(Tensors(inputs.begin(), inputs.begin() + static_cast<std::ptrdiff_t>(known)),
             in_places(cotangents, floating));
    Tensors result(inputs.size());
    for (std::size_t k = 0; k < moving.size(); ++k) result[known + k] = back[moving[k]];
    return result;
  };
  return in_places(apply_region(std::move(derivative), std::move(arguments)), floating);
}

// An opaque node is linear, so its derivative is the node itself, applied to the tangents.
Tensors derivative_of_opaque(const JvpCall& call, const Region& region) {
  Tensors along = call.inputs;
  for (std::size_t i = 0; i < along.size(); ++i) {
    if (call.tangents[i] && !region.linear[i])
      throw Error("forward mode through custom_vjp " + region.name +
                  ": its derivative is not stated, only how cotangents flow back; differentiate "
                  "with grad or vjp alone, or use custom_jvp");
    if (region.linear[i]) along[i] = call.tangents[i] ? call.tangents[i] : zeros_like(along[i]);
  }
  return make_nodes(Op::region, call.node->attributes, along);
}

// The transpose of the region's graph in its linear inputs. A checkpoint's other inputs wait for
// the cotangents (Op::after), so that everything computed from them is computed again.
Tensors transpose_graph(const TransposeCall& call, const Region& region) {
  Tensors values = call.inputs, placeholders(call.inputs.size()), known;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (call.linear[i]) {
      values[i] = placeholders[i] = region_parameter(values[i].type(), values[i].device());
    } else if (region.kind == Region::Kind::checkpoint) {
      for (const Tensor& cotangent : call.cotangents)
        if (cotangent) values[i] = make_node(Op::after, NoAttributes{}, {values[i], cotangent});
    }
    if (!call.linear[i]) known.push_back(values[i]);
  }
  return pull(substitute(region.outputs, region.parameters, values), call.cotangents, placeholders,
              known);
}

bool linear_as_stated(const TransposeCall& call, const Region& region) {
  for (std::size_t i = 0; i < call.linear.size(); ++i)
    if (call.linear[i] && !region.linear[i]) return false;
  return true;
}

}  // namespace

std::vector<Tensor> region_jvp(const JvpCall& call) {
  const Region& region = *region_of(*call.node);
  switch (region.kind) {
    case Region::Kind::checkpoint:
      return checkpoint_jvp(call, region);
    case Region::Kind::custom_jvp:
      if (moves_captured(call, region)) throw_captured(region);
      return region.jvp(call.inputs, call.tangents);
    case Region::Kind::custom_linear:
      return linear_jvp(call, region);
    case Region::Kind::custom_vjp:
      if (moves_captured(call, region)) throw_captured(region);
      return opaque_jvp(call, region);
    case Region::Kind::opaque:
      return derivative_of_opaque(call, region);
  }
  throw Error("jvp: a region of no kind; this is an engine error");
}

std::vector<Tensor> region_transpose(const TransposeCall& call) {
  const Region& region = *region_of(*call.node);
  const bool stated =
      region.kind == Region::Kind::custom_linear || region.kind == Region::Kind::opaque;
  if (stated && linear_as_stated(call, region))
    return region.transpose(call.inputs, call.cotangents);
  if (region.kind == Region::Kind::opaque)
    throw NotLinear("the " + to_string(region) + " is linear in the tangents only");
  return transpose_graph(call, region);
}

}  // namespace fluxion
