#include "autograd/linearize.h"

#include <unordered_map>
#include <unordered_set>

#include "autograd/rules.h"
#include "autograd/transforms.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/graph/region.h"
#include "engine/graph/walk.h"

namespace fluxion {

namespace {

// The tangents of a node's outputs; an empty tensor is zero.
using TangentMap = std::unordered_map<const Node*, std::vector<Tensor>>;

Tensor tangent_of(const TangentMap& tangents, const Tensor& tensor) {
  const auto found = tangents.find(tensor.node().get());
  return found == tangents.end() ? Tensor()
                                 : found->second[static_cast<std::size_t>(tensor.output())];
}

// Throws Error unless a rule of `node` returned one tensor for each of `count` values, empty or of
// the type type_of(i): what uses them relies on it.
template <class TypeOf>
void check_returned(const Node& node, const char* what, const std::vector<Tensor>& returned,
                    std::size_t count, TypeOf type_of) {
  const auto fail = [&](const std::string& how) {
    throw Error(std::string(to_string(node.op)) + ": its rule returned " + how +
                "; this is an engine error");
  };
  if (returned.size() != count)
    fail(std::to_string(returned.size()) + " " + what + "s for " + std::to_string(count) +
         " values");
  for (std::size_t i = 0; i < count; ++i)
    if (returned[i] && returned[i].type() != type_of(i))
      fail(to_string(returned[i].type()) + " as the " + what + " number " + std::to_string(i) +
           ", of " + to_string(type_of(i)));
}

// Forward mode: extends `tangents` from the nodes that have some to every node of `order` that
// depends on them.
void push(const std::vector<WalkedNode>& order, TangentMap& tangents) {
  for (const WalkedNode& walked : order) {
    if (walked.inputs.empty() || tangents.contains(walked.node.get())) continue;
    std::vector<Tensor> input_tangents;
    bool any = false;
    for (const Tensor& input : walked.inputs) {
      input_tangents.push_back(tangent_of(tangents, input));
      any = any || input_tangents.back();
    }
    if (!any) continue;
    const Node& node = *walked.node;
    std::vector<Tensor> made = jvp_rule(node.op)({walked.node, walked.inputs, input_tangents});
    check_returned(node, "tangent", made, node.outputs.size(),
                   [&](std::size_t i) -> const TensorType& { return node.outputs[i]; });
    tangents.emplace(&node, std::move(made));
  }
}

// The same, from traced leaves to all nodes between them and the outputs on differentiable paths.
void push_from_leaves(const std::vector<Tensor>& outputs, TangentMap& tangents) {
  // Nodes without a live leaf among their ancestors can't depend on ours.
  push(walk(outputs,
            [&](const Node& node) {
              return node.op != Op::stop_gradient && !tangents.contains(&node) &&
                     node.live_scope() != nullptr;
            }),
       tangents);
}

using DependenceMap = std::unordered_map<const Node*, std::vector<bool>>;  // per output

bool depends_on(const DependenceMap& map, const Tensor& tensor) {
  const auto found = map.find(tensor.node().get());
  return found != map.end() && found->second[static_cast<std::size_t>(tensor.output())];
}

// What depends: a value, or its derivative, which ends at a stop_gradient.
enum class Dependence { of_values, of_derivatives };

void spread(const std::vector<WalkedNode>& order, Dependence dependence, DependenceMap& map);

// Which outputs of a node depend on the marked inputs. At least one input is marked.
std::vector<bool> dependent_outputs(const Node& node, Dependence dependence,
                                    const std::vector<bool>& marked) {
  std::vector<bool> result(node.outputs.size(), true);
  if (node.op == Op::stop_gradient) {
    result[0] = dependence == Dependence::of_values;
  } else if (node.op == Op::attention_dual) {
    // y and lse don't read the tangents.
    result[0] = result[1] = marked[0] || marked[1] || marked[2] || (marked.size() > 6 && marked[6]);
  } else if (node.op == Op::region) {
    const Region& region = *std::get<RegionAttributes>(node.attributes).region;
    if (region.kind == Region::Kind::opaque) return result;
    DependenceMap map;
    for (std::size_t i = 0; i < marked.size(); ++i)
      if (marked[i]) map[region.parameters[i].node().get()] = {true};
    spread(walk(region.outputs, [](const Node& inner) { return !inner.evaluated(); }), dependence,
           map);
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = depends_on(map, region.outputs[i]);
  }
  return result;
}

void spread(const std::vector<WalkedNode>& order, Dependence dependence, DependenceMap& map) {
  for (const WalkedNode& walked : order) {
    std::vector<bool> marked;
    bool any = false;
    for (const Tensor& input : walked.inputs) {
      marked.push_back(depends_on(map, input));
      any = any || marked.back();
    }
    if (any) map[walked.node.get()] = dependent_outputs(*walked.node, dependence, marked);
  }
}

// `what` of tensor `number` must be like that tensor.
void check_like(const char* what, std::size_t number, const Tensor& given, const TensorType& wanted,
                const Device& device, const std::optional<Location>& where) {
  const std::string name = what + (" " + std::to_string(number));
  const auto message = [&] {
    return name + " is " + to_string(given.type()) + " for a value of " + to_string(wanted) +
           place(where);
  };
  if (given.dtype() != wanted.dtype) throw DTypeError(message());
  if (given.shape() != wanted.shape) throw ShapeError(message());
  if (given.device() != device)
    throw DeviceError(name + " is on another device than its value, " + given.device().name() +
                      " and " + device.name() + place(where));
}

}  // namespace

std::string place(const std::optional<Location>& where) {
  return where ? " (" + to_string(*where) + ")" : "";
}

std::vector<Tensor> push(const std::vector<Tensor>& outputs, const std::vector<Tensor>& inputs,
                         const std::vector<Tensor>& tangents) {
  TangentMap map;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    auto& slots = map[inputs[i].node().get()];
    slots.resize(inputs[i].node()->outputs.size());
    slots[static_cast<std::size_t>(inputs[i].output())] = tangents[i];
  }
  push(walk(outputs,
            [&](const Node& node) {
              return !node.evaluated() && node.op != Op::stop_gradient && !map.contains(&node);
            }),
       map);
  std::vector<Tensor> result;
  for (const Tensor& output : outputs)
    result.push_back(output ? tangent_of(map, output) : Tensor());
  return result;
}

std::vector<Tensor> pull(const std::vector<Tensor>& outputs, const std::vector<Tensor>& cotangents,
                         const std::vector<Tensor>& placeholders,
                         const std::vector<Tensor>& known) {
  std::unordered_set<const Node*> ends;
  for (const Tensor& value : known)
    if (value) ends.insert(value.node().get());
  const auto order = walk(outputs, [&](const Node& node) {
    return !node.evaluated() && node.op != Op::stop_gradient && !ends.contains(&node);
  });
  DependenceMap depends;
  for (const Tensor& placeholder : placeholders)
    if (placeholder) depends[placeholder.node().get()] = {true};
  DependenceMap reads = depends;
  spread(order, Dependence::of_derivatives, depends);

  TangentMap accumulated;
  const auto accumulate = [&](const Tensor& tensor, const Tensor& cotangent) {
    if (!cotangent || !depends_on(depends, tensor)) return;
    auto& slots = accumulated[tensor.node().get()];
    slots.resize(tensor.node()->outputs.size());
    auto& slot = slots[static_cast<std::size_t>(tensor.output())];
    slot = add_tangents(slot, cotangent);
  };
  for (std::size_t i = 0; i < outputs.size(); ++i)
    if (outputs[i]) accumulate(outputs[i], cotangents[i]);

  for (auto walked = order.rbegin(); walked != order.rend(); ++walked) {
    const auto found = accumulated.find(walked->node.get());
    if (found == accumulated.end() || walked->inputs.empty()) continue;
    std::vector<bool> linear;
    for (const Tensor& input : walked->inputs) linear.push_back(depends_on(depends, input));
    const TransposeRule rule = transpose_rule(walked->node->op);
    if (!rule) throw NotLinear(std::string(to_string(walked->node->op)) + " is not linear");
    const std::vector<Tensor> cotangents_of_node = std::move(found->second);
    const std::vector<Tensor> result =
        rule({walked->node, walked->inputs, cotangents_of_node, linear});
    check_returned(*walked->node, "cotangent", result, walked->inputs.size(),
                   [&](std::size_t i) -> const TensorType& { return walked->inputs[i].type(); });
    for (std::size_t i = 0; i < result.size(); ++i) accumulate(walked->inputs[i], result[i]);
  }
  std::vector<Tensor> result;
  for (const Tensor& placeholder : placeholders)
    result.push_back(placeholder ? tangent_of(accumulated, placeholder) : Tensor());

  // The rules read what does not depend on the placeholders, so nor do their results, unless the
  // dependence was behind a stop_gradient or a rule of the user's read its argument.
  for (const Tensor& cotangent : cotangents)
    if (cotangent) ends.insert(cotangent.node().get());
  spread(walk(result, [&](const Node& node) { return !node.evaluated() && !ends.contains(&node); }),
         Dependence::of_values, reads);
  for (const Tensor& cotangent : result)
    if (cotangent && depends_on(reads, cotangent))
      throw NotLinear(
          "the function is not linear: it uses the value of its argument behind a stop_gradient, "
          "or in a rule of its own");
  return result;
}

// ---- LinearMap

std::vector<Tensor> LinearMap::apply(const std::vector<Tensor>& tangents) const {
  if (tangents.size() != input_types_.size())
    throw Error("linearize: wants " + std::to_string(input_types_.size()) + " tangents, got " +
                std::to_string(tangents.size()) + place(where_));
  // A linear map is its own JVP at any point: push the given tangents through it, as tangents of
  // the placeholders.
  TangentMap map;
  for (std::size_t i = 0; i < tangents.size(); ++i) {
    if (!placeholders_[i] || !tangents[i]) continue;
    check_like("linearize: tangent", i, tangents[i], input_types_[i], device_, where_);
    map[placeholders_[i].node().get()] = {tangents[i]};
  }
  push(walk(outputs_, [](const Node& node) { return !node.evaluated(); }), map);
  std::vector<Tensor> result;
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Tensor tangent = outputs_[i] ? tangent_of(map, outputs_[i]) : Tensor();
    const bool differentiable = is_floating(output_types_[i].dtype);
    result.push_back(tangent || !differentiable
                         ? tangent
                         : zeros(output_types_[i].shape, output_types_[i].dtype, device_));
  }
  return result;
}

std::vector<Tensor> LinearMap::transpose(const std::vector<Tensor>& cotangents) const {
  if (cotangents.size() != output_types_.size())
    throw Error("vjp: wants " + std::to_string(output_types_.size()) + " cotangents, got " +
                std::to_string(cotangents.size()) + place(where_));
  for (std::size_t i = 0; i < cotangents.size(); ++i)
    if (cotangents[i])
      check_like("vjp: cotangent", i, cotangents[i], output_types_[i], device_, where_);
  std::vector<Tensor> result;
  try {
    result = pull(outputs_, cotangents, placeholders_);
  } catch (const NotLinear& error) {
    if (!where_) throw;
    throw Error(error.what() + place(where_));
  }
  for (std::size_t i = 0; i < result.size(); ++i)
    if (!result[i] && placeholders_[i])
      result[i] = zeros(input_types_[i].shape, input_types_[i].dtype, device_);
  return result;
}

// ---- Leaves

namespace {
Tensor placeholder_for(const TensorType& type, const Device& device) {
  return make_leaf(Op::parameter, IndexAttributes{placeholder_leaf}, type, device);
}
}  // namespace

Leaves::Leaves(std::vector<Tensor> values, std::optional<Location> where)
    : Leaves(values, std::vector<Tensor>(values.size()), where) {
  for (std::size_t i = 0; i < values_.size(); ++i)
    if (values_[i] && is_floating(values_[i].dtype()))
      // (Of a scope that outlives this object, as the linear map does: rules may hand the tangents
      // to compiled functions, which inline what is traced.)
      tangents_[i] = region_parameter(values_[i].type(), values_[i].device());
}

Leaves::Leaves(std::vector<Tensor> values, std::vector<Tensor> tangents,
               std::optional<Location> where)
    : values_(std::move(values)), tangents_(std::move(tangents)), where_(where) {
  if (tangents_.size() != values_.size())
    throw Error("jvp: " + std::to_string(values_.size()) + " primals but " +
                std::to_string(tangents_.size()) + " tangents" + place(where_));
  for (std::size_t i = 0; i < values_.size(); ++i) {
    if (!values_[i]) {
      if (tangents_[i])
        throw Error("jvp: tangent " + std::to_string(i) + " is " + to_string(tangents_[i].type()) +
                    " for a value that holds no tensor" + place(where_));
      leaves_.emplace_back();
      continue;
    }
    if (tangents_[i] && !is_floating(values_[i].dtype()))
      throw DTypeError("jvp: value " + std::to_string(i) + ", " + to_string(values_[i].type()) +
                       ", can't carry a tangent: only floating tensors can" + place(where_));
    if (tangents_[i])
      check_like("jvp: tangent", i, tangents_[i], values_[i].type(), values_[i].device(), where_);
    leaves_.push_back(make_node(Op::identity, NoAttributes{}, {values_[i]}));
    scope_.add(leaves_.back());
  }
}

Leaves::Leaves(std::vector<Tensor> values, Linear, std::optional<Location> where)
    : values_(std::move(values)), where_(where) {
  for (const Tensor& value : values_) {
    if (!value || !is_floating(value.dtype())) {
      tangents_.emplace_back();
      leaves_.push_back(value);
      continue;
    }
    tangents_.push_back(placeholder_for(value.type(), value.device()));
    scope_.add(tangents_.back());
    leaves_.push_back(tangents_.back());
  }
}

std::vector<Tensor> Leaves::push_forward(const std::vector<Tensor>& outputs) const {
  TangentMap tangents;
  for (std::size_t i = 0; i < leaves_.size(); ++i)
    if (leaves_[i]) tangents[leaves_[i].node().get()] = {tangents_[i]};
  push_from_leaves(outputs, tangents);
  std::vector<Tensor> result;
  for (const Tensor& output : outputs) {
    const Tensor tangent = output ? tangent_of(tangents, output) : Tensor();
    result.push_back(tangent || !output || !is_floating(output.dtype()) ? tangent
                                                                        : zeros_like(output));
  }
  return result;
}

LinearMap Leaves::linear_map(const std::vector<Tensor>& outputs) const {
  TangentMap tangents;
  for (std::size_t i = 0; i < leaves_.size(); ++i)
    if (leaves_[i]) tangents[leaves_[i].node().get()] = {tangents_[i]};
  push_from_leaves(outputs, tangents);
  LinearMap map = placeholder_map(outputs);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    map.outputs_[i] = outputs[i] ? tangent_of(tangents, outputs[i]) : Tensor();
  return map;
}

LinearMap Leaves::placeholder_map(const std::vector<Tensor>& outputs) const {
  LinearMap map;
  map.where_ = where_;
  map.placeholders_ = tangents_;
  map.outputs_ = outputs;
  // An empty place in a tree has no derivative, like a boolean tensor.
  const auto type_of = [](const Tensor& tensor) {
    return tensor ? tensor.type() : TensorType{{}, DType::boolean};
  };
  for (const Tensor& value : values_) map.input_types_.push_back(type_of(value));
  for (const Tensor& output : outputs) map.output_types_.push_back(type_of(output));
  for (const Tensor& value : values_)
    if (value) map.device_ = value.device();
  return map;
}

std::vector<Tensor> Leaves::gradient(const Tensor& scalar) const {
  if (!scalar)
    throw Error("grad: wants a floating scalar, and the function's value holds no tensor" +
                place(where_));
  if (!is_floating(scalar.dtype()))
    throw DTypeError("grad: wants a floating scalar, got " + to_string(scalar.type()) +
                     place(where_));
  if (scalar.elements() != 1)
    throw ShapeError("grad: wants a scalar, got " + to_string(scalar.type()) +
                     "; sum or average it first" + place(where_));
  for (std::size_t i = 0; i < values_.size(); ++i)
    if (values_[i] && !is_floating(values_[i].dtype()))
      throw DTypeError("grad: can't differentiate with respect to tensor " + std::to_string(i) +
                       " of the argument, " + to_string(values_[i].type()) +
                       ": only floating tensors" + place(where_));
  return linear_map({scalar}).transpose({ones_like(scalar)});
}

}  // namespace fluxion
