#include "engine/graph/region.h"

#include <map>
#include <unordered_map>

#include "engine/graph/op_names.h"
#include "engine/graph/walk.h"

namespace fluxion {

namespace {

// Deleting a region may release the last owner of another one: this thread chains that one to those
// that it is still to delete, which takes no memory.
void release(const Region* region) {
  thread_local const Region* dying = nullptr;
  thread_local bool deletes = false;
  region->next_dying = dying;
  dying = region;
  if (deletes) return;
  deletes = true;
  while (const Region* const next = dying) {
    dying = next->next_dying;
    delete next;
  }
  deletes = false;
}

}  // namespace

std::shared_ptr<const Region> shared(Region region) {
  return {new Region(std::move(region)), release};
}

std::string to_string(const Region& region) {
  constexpr const char* kinds[] = {"checkpoint", "custom_jvp", "custom_linear", "custom_vjp",
                                   "derivative of custom_vjp"};
  return std::string(kinds[static_cast<std::size_t>(region.kind)]) + " " +
         (region.name.empty() ? "(without name)" : region.name);
}

std::vector<TensorType> output_types(const Region& region, std::span<const TensorType> inputs,
                                     const Location& where) {
  if (inputs.size() != region.parameters.size())
    throw ShapeError(to_string(region) + ": wants " + std::to_string(region.parameters.size()) +
                     " operands, got " + std::to_string(inputs.size()) + " (" + to_string(where) +
                     ")");
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (const TensorType& wanted = region.parameters[i].type(); inputs[i] != wanted) {
      const std::string message = to_string(region) + ": operand " + std::to_string(i) + " is " +
                                  to_string(inputs[i]) + ", not " + to_string(wanted) + " (" +
                                  to_string(where) + ")";
      if (inputs[i].shape == wanted.shape) throw DTypeError(message);
      throw ShapeError(message);
    }
  return region.types;
}

Tensor region_parameter(const TensorType& type, const Device& device) {
  Tensor leaf = make_leaf(Op::parameter, IndexAttributes{placeholder_leaf}, type, device);
  leaf.node()->set_scope(std::make_shared<TraceScope>());
  return leaf;
}

bool has_rules(const Region& region) {
  return region.jvp || region.transpose || region.holds_rules;
}

namespace {

// Makes the region's graph a function of its parameters alone. A tensor gets a parameter if a node
// that depends on the parameters uses it, and it is neither such a node itself nor made of
// literals. Returns the tensors so captured.
std::vector<Tensor> capture(Region& region, const std::vector<Tensor>& arguments) {
  enum class Made : std::uint8_t { outside, of_literals, of_parameters };
  std::unordered_map<const Node*, Made> made;
  for (const Tensor& parameter : region.parameters)
    made[parameter.node().get()] = Made::of_parameters;
  // The arguments existed before the function was called, so they do not depend on its parameters.
  for (const Tensor& argument : arguments) made.try_emplace(argument.node().get(), Made::outside);

  const auto order = walk(
      region.outputs, [&](const Node& node) { return !node.evaluated() && !made.contains(&node); });
  for (const WalkedNode& walked : order) {
    const Node& node = *walked.node;
    if (made.contains(&node)) continue;
    if (walked.inputs.empty()) {
      made[&node] =
          node.op == Op::constant || node.op == Op::iota ? Made::of_literals : Made::outside;
      continue;
    }
    // A transform's leaf counts as outside, whatever it was made of.
    bool depends = false, literals = node.live_scope() == nullptr;
    for (const Tensor& input : walked.inputs) {
      const Made how = made.at(input.node().get());
      depends = depends || how == Made::of_parameters;
      literals = literals && how == Made::of_literals;
    }
    made[&node] = depends ? Made::of_parameters : literals ? Made::of_literals : Made::outside;
  }

  std::map<std::pair<const Node*, int>, std::size_t> known;
  std::vector<Tensor> captured, parameters;
  const auto look = [&](const Tensor& tensor) {
    if (made.at(tensor.node().get()) != Made::outside) return;
    if (!known.try_emplace({tensor.node().get(), tensor.output()}, captured.size()).second) return;
    captured.push_back(tensor);
    parameters.push_back(region_parameter(tensor.type(), tensor.device()));
  };
  for (const WalkedNode& walked : order)
    if (made.at(walked.node.get()) == Made::of_parameters)
      for (const Tensor& input : walked.inputs) look(input);
  for (const Tensor& output : region.outputs) look(output);
  if (captured.empty()) return captured;
  region.outputs = substitute(region.outputs, captured, parameters);
  region.parameters.insert(region.parameters.end(), parameters.begin(), parameters.end());
  return captured;
}

}  // namespace

std::vector<Tensor> apply_region(Region region, std::vector<Tensor> arguments, Location where) {
  region.arguments = region.parameters.size();
  if (region.kind != Region::Kind::opaque) {
    const std::vector<Tensor> captured = capture(region, arguments);
    region.types.clear();
    for (const Tensor& output : region.outputs) region.types.push_back(output.type());
    arguments.insert(arguments.end(), captured.begin(), captured.end());
    if (region.outputs.empty() || arguments.empty()) return region.outputs;
    for (const WalkedNode& walked :
         walk(region.outputs, [](const Node& node) { return !node.evaluated(); }))
      if (const auto* held = std::get_if<RegionAttributes>(&walked.node->attributes);
          held && has_rules(*held->region))
        region.holds_rules = true;
  }
  region.linear.resize(region.parameters.size(), false);
  return make_nodes(Op::region, RegionAttributes{shared(std::move(region))}, std::move(arguments),
                    where);
}

namespace {

// `rule` with `to` in the place of `from`, which it may have captured.
using CustomRule =
    std::function<std::vector<Tensor>(const std::vector<Tensor>&, const std::vector<Tensor>&)>;
CustomRule following(const CustomRule& rule, const std::vector<Tensor>& from,
                     const std::vector<Tensor>& to) {
  if (!rule) return rule;
  return [rule, from, to](const std::vector<Tensor>& inputs, const std::vector<Tensor>& moving) {
    std::vector<Tensor> known = inputs;
    known.insert(known.end(), moving.begin(), moving.end());
    return substitute(rule(inputs, moving), from, to, known);
  };
}

Attributes following(const Region& region, const std::vector<Tensor>& from,
                     const std::vector<Tensor>& to) {
  Region result = region;
  result.jvp = following(region.jvp, from, to);
  result.transpose = following(region.transpose, from, to);
  if (region.holds_rules) result.outputs = substitute(region.outputs, from, to);
  return RegionAttributes{shared(std::move(result))};
}

}  // namespace

std::vector<Tensor> substitute(const std::vector<Tensor>& outputs, const std::vector<Tensor>& from,
                               const std::vector<Tensor>& to, const std::vector<Tensor>& known) {
  std::unordered_map<const Node*, std::vector<Tensor>> built;  // per output; empty: unchanged
  for (const Tensor& tensor : known)
    if (tensor) built[tensor.node().get()].resize(tensor.node()->outputs.size());
  for (std::size_t i = 0; i < from.size(); ++i) {
    auto& slots = built[from[i].node().get()];
    slots.resize(from[i].node()->outputs.size());
    slots[static_cast<std::size_t>(from[i].output())] = to[i];
  }
  const auto replaced = [&](const Tensor& tensor) {
    const auto found = tensor ? built.find(tensor.node().get()) : built.end();
    if (found == built.end()) return tensor;
    const Tensor& other = found->second[static_cast<std::size_t>(tensor.output())];
    return other ? other : tensor;
  };
  for (const WalkedNode& walked : walk(outputs, [&](const Node& node) {
         return !node.evaluated() && !built.contains(&node);
       })) {
    if (walked.inputs.empty()) continue;
    bool changed = false;
    std::vector<Tensor> inputs;
    for (const Tensor& input : walked.inputs) {
      inputs.push_back(replaced(input));
      changed = changed || !inputs.back().same_as(input);
    }
    const auto* held = std::get_if<RegionAttributes>(&walked.node->attributes);
    const bool rules = held && has_rules(*held->region);
    if (!changed && !rules) continue;
    built[walked.node.get()] = make_nodes(
        walked.node->op, rules ? following(*held->region, from, to) : walked.node->attributes,
        std::move(inputs));
  }
  std::vector<Tensor> result;
  for (const Tensor& output : outputs) result.push_back(replaced(output));
  return result;
}

}  // namespace fluxion
