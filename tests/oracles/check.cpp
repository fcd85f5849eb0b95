#include "tests/oracles/check.h"

#include "autograd/transforms.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "models/networks/network.h"
#include "tests/oracles/compare.h"

namespace fluxion::oracles {
namespace {

using Results = std::map<std::string, Tensor>;

std::string numbered(const char* prefix, std::size_t k) {
  return prefix + ("." + std::to_string(k));
}

// Everything given, and the same as a tree without holes that a compiled function can take. An
// empty tensor is absent.
struct Given {
  Inputs inputs, tangents;
  std::vector<Tensor> cotangents;
  Parameters parameters;

  std::vector<std::vector<Tensor>*> lists() { return {&inputs, &tangents, &cotangents}; }

  std::vector<Tensor> present() {
    std::vector<Tensor> result;
    for (const auto* list : lists())
      for (const Tensor& tensor : *list)
        if (tensor) result.push_back(tensor);
    for (const auto& [name, tensor] : parameters) result.push_back(tensor);
    return result;
  }
  Given with(const std::vector<Tensor>& values) const {
    Given result = *this;
    auto next = values.begin();
    for (auto* list : result.lists())
      for (Tensor& tensor : *list)
        if (tensor) tensor = *next++;
    for (auto& [name, tensor] : result.parameters) tensor = *next++;
    return result;
  }
};

Given given_of(const Case& oracle, const Mode& mode) {
  Given given;
  const auto load = [&](const HostTensor* host) {
    return host ? to_tensor(*host, mode.floating, mode.device) : Tensor();
  };
  for (std::size_t k = 0; k < oracle.inputs.size(); ++k) {
    given.inputs.push_back(load(&oracle.inputs[k]));
    given.tangents.push_back(load(oracle.find(numbered("tan", k))));
  }
  for (std::size_t k = 0; oracle.find(numbered("out", k)); ++k)
    given.cotangents.push_back(load(oracle.find(numbered("cot", k))));
  for (const auto& [name, host] : oracle.parameters)
    given.parameters.emplace(name, to_tensor(host, mode.floating, mode.device));
  return given;
}

// The derivatives of one case as graphs.
class Derivatives {
 public:
  Derivatives(const Case& oracle, const Subject& subject, const Mode& mode, const Given& given)
      : oracle_(oracle), subject_(subject), placement_{mode.floating, mode.device}, given_(given) {
    for (std::size_t k = 0; k < given.inputs.size(); ++k)
      if (is_floating(given.inputs[k].dtype())) {
        floating_.push_back(k);
        floating_inputs_.push_back(given.inputs[k]);
        floating_tangents_.push_back(given.tangents[k]);
      }
    split_ = split_frozen(given.parameters, frozen_of(oracle));
  }

  // Integer outputs carry no derivative and would be holes in the trees of transforms.
  static Outputs floating_only(const Outputs& outputs) {
    Outputs result;
    for (const Tensor& output : outputs)
      if (is_floating(output.dtype())) result.push_back(output);
    return result;
  }

  Results all() const {
    Results results;
    const Outputs outputs = outputs_at(floating_inputs_, given_.parameters);
    for (std::size_t k = 0; k < outputs.size(); ++k) results[numbered("out", k)] = outputs[k];
    floating_outputs_.clear();
    for (std::size_t k = 0; k < outputs.size(); ++k)
      if (is_floating(outputs[k].dtype())) floating_outputs_.push_back(k);

    if (has("jvp.")) add_jvp(results);
    if (has("vjp.") || has("jvp.")) add_vjp(results);
    if (has("hvp.")) add_hvp(results);
    if (has("grad.")) add_parameter_gradient(results);
    return results;
  }

 private:
  bool has(const std::string& prefix) const {
    const auto found = oracle_.tensors.lower_bound(prefix);
    return found != oracle_.tensors.end() && found->first.starts_with(prefix);
  }

  Outputs outputs_at(const std::vector<Tensor>& floating, const Parameters& parameters) const {
    Inputs inputs = given_.inputs;
    for (std::size_t i = 0; i < floating_.size(); ++i) inputs[floating_[i]] = floating[i];
    return subject_(inputs, parameters, placement_);
  }
  Outputs floating_outputs_at(const std::vector<Tensor>& floating) const {
    return floating_only(outputs_at(floating, given_.parameters));
  }

  std::vector<Tensor> cotangents() const {
    std::vector<Tensor> result;
    for (const std::size_t k : floating_outputs_)
      result.push_back(k < given_.cotangents.size() ? given_.cotangents[k] : Tensor());
    return result;
  }
  std::vector<Tensor> pull_back(const std::vector<Tensor>& floating) const {
    const auto [outputs, pull] =
        vjp([this](const std::vector<Tensor>& x) { return floating_outputs_at(x); }, floating);
    return std::get<0>(pull(cotangents()));
  }

  void add_jvp(Results& results) const {
    const auto f = [this](const std::vector<Tensor>& x) { return floating_outputs_at(x); };
    const auto [outputs, tangents] = jvp(f, floating_inputs_, floating_tangents_);
    for (std::size_t i = 0; i < tangents.size(); ++i)
      results[numbered("jvp", floating_outputs_[i])] = tangents[i];
  }
  void add_vjp(Results& results) const {
    const std::vector<Tensor> cotangents = pull_back(floating_inputs_);
    for (std::size_t i = 0; i < cotangents.size(); ++i)
      results[numbered("vjp", floating_[i])] = cotangents[i];
  }
  void add_hvp(Results& results) const {
    const auto f = [this](const std::vector<Tensor>& x) { return pull_back(x); };
    const auto [cotangents, tangents] = jvp(f, floating_inputs_, floating_tangents_);
    for (std::size_t i = 0; i < tangents.size(); ++i)
      results[numbered("hvp", floating_[i])] = tangents[i];
  }
  // Of <cotangents, outputs> in a network, of the loss in an objective.
  void add_parameter_gradient(Results& results) const {
    const auto value = [this](const Parameters& trained) {
      const Outputs outputs = outputs_at(floating_inputs_, merge(trained, split_.frozen));
      if (oracle_.kind == "objective") return outputs.at(0);
      Tensor total;
      for (const std::size_t k : floating_outputs_) {
        const Tensor part = sum(outputs[k] * given_.cotangents[k]);
        total = total ? total + part : part;
      }
      return total;
    };
    for (const auto& [name, gradient] : grad(value)(split_.trained))
      results["grad." + name] = gradient;
  }

  const Case& oracle_;
  const Subject& subject_;
  Placement placement_;
  const Given& given_;
  std::vector<std::size_t> floating_;  // positions of the floating inputs
  std::vector<Tensor> floating_inputs_, floating_tangents_;
  mutable std::vector<std::size_t> floating_outputs_;
  SplitParameters split_;
};

Results compute(const Case& oracle, const Subject& subject, const Mode& mode) {
  Given given = given_of(oracle, mode);
  const std::function<Results(const std::vector<Tensor>&)> everything =
      [&](const std::vector<Tensor>& values) {
        const Given traced = given.with(values);
        return Derivatives(oracle, subject, mode, traced).all();
      };
  if (mode.compiled) return compile(everything)(given.present());
  const Results results = everything(given.present());
  eval_tree(results);
  return results;
}

}  // namespace

std::vector<std::string> check(const Case& oracle, const Subject& subject, const Mode& mode) {
  const Tolerance& tolerance =
      mode.floating == DType::f64 ? oracle.tolerance64 : oracle.tolerance32;
  std::map<std::string, HostTensor> got;
  for (const auto& [name, tensor] : compute(oracle, subject, mode))
    got.emplace(name, to_host(tensor));

  std::vector<std::string> failures;
  for (const auto& [name, reference] : oracle.tensors) {
    const bool is_output = name.starts_with("out."), is_gradient = name.starts_with("grad.");
    const bool is_derivative =
        name.starts_with("jvp.") || name.starts_with("vjp.") || name.starts_with("hvp.");
    if (!is_output && !is_gradient && !(is_derivative && !oracle.ties)) continue;
    const auto found = got.find(name);
    if (found == got.end())
      failures.push_back(name + ": was not computed");
    else if (const auto text = difference(found->second, reference, tolerance))
      failures.push_back(name + ": " + *text);
  }

  InnerProducts products(tolerance);
  bool differentiated = false;
  for (const auto& [name, host] : got) {
    if (name.starts_with("jvp.")) {
      if (const HostTensor* cotangent = oracle.find("cot." + name.substr(4)))
        products.add_left(*cotangent, host);
      differentiated = true;
    } else if (name.starts_with("vjp.")) {
      if (const HostTensor* tangent = oracle.find("tan." + name.substr(4)))
        products.add_right(host, *tangent);
    }
  }
  if (differentiated)
    if (const auto text = products.difference()) failures.push_back("inner product: " + *text);
  return failures;
}

}  // namespace fluxion::oracles
