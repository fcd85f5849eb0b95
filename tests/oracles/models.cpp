// Sections 6 to 8 of the schema: networks, objectives and samplers.
#include <algorithm>

#include "autograd/transforms.h"
#include "engine/graph/ops.h"
#include "models/networks/network.h"
#include "models/objectives/consistency.h"
#include "models/objectives/flow.h"
#include "models/objectives/flow_map.h"
#include "models/objectives/likelihood.h"
#include "models/objectives/score.h"
#include "models/samplers/sampler.h"
#include "tests/oracles/subject.h"

namespace fluxion::oracles {
namespace {

using nlohmann::json;

// The network of a case; its parameters in the file must be exactly those that the configuration
// promises.
NetworkConfig network_of(const Case& oracle) {
  const json& description =
      oracle.kind == "model" ? oracle.attributes : oracle.attributes.at("model");
  const NetworkConfig config = network_from_json(description);
  const std::map<std::string, Shape> shapes = parameter_shapes(config);
  for (const auto& [name, shape] : shapes) {
    const auto found = oracle.parameters.find(name);
    if (found == oracle.parameters.end())
      throw FormatError("the case has no parameter '" + name + "' of its network");
    if (found->second.shape != shape)
      throw FormatError("parameter '" + name + "' is " + to_string(found->second.shape) +
                        " in the case, " + to_string(shape) + " in the network");
  }
  for (const auto& [name, tensor] : oracle.parameters)
    if (!shapes.contains(name))
      throw FormatError("parameter '" + name + "' of the case is not one of the network");
  return config;
}

// Inputs by role; empty where the case has none of that name.
struct Draws {
  const std::vector<std::string>& roles;
  const Inputs& inputs;

  Tensor operator[](const std::string& role) const {
    const auto found = std::find(roles.begin(), roles.end(), role);
    return found == roles.end() ? Tensor()
                                : inputs[static_cast<std::size_t>(found - roles.begin())];
  }
  FlowDraws flow(std::int64_t classes) const {
    const Draws& self = *this;
    return {
        .x = self["x"],
        .e = self["e"],
        .t = self["t"],
        .r = self["r"],
        .equal_mask = self["equal_mask"],
        .labels = {.label = self["label"], .drop_mask = self["drop_mask"], .null_class = classes}};
  }
};

// What an objective sees of its case.
struct ObjectiveCall {
  const Velocity& network;
  Draws draws;
  std::int64_t classes;
  const json& attributes;

  double number(const char* name) const { return attributes.at(name).get<double>(); }
  bool flag(const char* name) const { return attributes.at(name).get<bool>(); }
  FlowDraws flow() const { return draws.flow(classes); }
};
using ObjectiveMapping = std::function<Outputs(const ObjectiveCall&)>;

MeanFlowOptions meanflow_options(const ObjectiveCall& call) {
  return {.c = call.number("c"), .p = call.number("p"), .jvp_rows = -1};
}

// Also the gradient in the log-weights w.
Outputs trigflow(const ObjectiveCall& call) {
  const TrigFlowOptions options{
      .sigma_data = call.number("sigma_data"),
      .warmup = call.number("warmup"),
      .c = call.number("c"),
      .rms_norm = call.attributes.at("tangent_norm").get<std::string>() == "rms"};
  const auto at = [&](const Tensor& w) {
    return consistency_trigflow(call.network, call.draws["x"], call.draws["e"], call.draws["t"], w,
                                call.flow().labels, options);
  };
  const TrigFlowResult result = at(call.draws["w"]);
  Outputs outputs{result.loss, result.F, result.dFdt, result.tangent, result.square};
  outputs.push_back(grad([&](const Tensor& w) { return at(w).loss; })(call.draws["w"]));
  return outputs;
}

// Also the gradient of the mean divergence in x.
Outputs divergence(const ObjectiveCall& call) {
  const auto at = [&](const Tensor& x) {
    return divergence_exact(call.network, x, call.draws["t"], call.flow().labels.dropped())
        .divergence;
  };
  const Tensor value = at(call.draws["x"]);
  return {mean(value), value, grad([&](const Tensor& x) { return mean(at(x)); })(call.draws["x"])};
}

const std::map<std::string, ObjectiveMapping>& objective_mappings() {
  static const std::map<std::string, ObjectiveMapping> mappings = {
      {"flow_matching",
       [](const ObjectiveCall& call) {
         const bool mean = call.attributes.at("reduction").get<std::string>() == "mean";
         return leaves(flow_matching(call.network, call.flow(), {.mean_over_elements = mean}));
       }},
      {"meanflow",
       [](const ObjectiveCall& call) {
         return leaves(meanflow(call.network, call.flow(), meanflow_options(call)));
       }},
      {"meanflow_cfg",
       [](const ObjectiveCall& call) {
         const GuidedMeanFlowOptions options{.meanflow = meanflow_options(call),
                                             .omega = call.number("omega"),
                                             .kappa = call.number("kappa")};
         return leaves(meanflow_cfg(call.network, call.flow(), options));
       }},
      {"split_meanflow",
       [](const ObjectiveCall& call) {
         return leaves(split_meanflow(call.network, call.flow(), call.draws["lambda"]));
       }},
      {"consistency_training",
       [](const ObjectiveCall& call) {
         const ConsistencyOptions options{.sigma_data = call.number("sigma_data"),
                                          .sigma_min = call.number("sigma_min"),
                                          .c = call.number("c")};
         return leaves(consistency_training(call.network, call.draws["x"], call.draws["e"],
                                            call.draws["sigma_lo"], call.draws["sigma_hi"],
                                            call.flow().labels, options));
       }},
      {"consistency_trigflow", trigflow},
      {"denoising_score_matching",
       [](const ObjectiveCall& call) {
         return leaves(denoising_score_matching(call.network, call.draws["x"], call.draws["e"],
                                                call.draws["sigma"], call.flow().labels));
       }},
      {"sliced_score_matching",
       [](const ObjectiveCall& call) {
         return leaves(sliced_score_matching(call.network, call.draws["x"], call.draws["t"],
                                             call.draws["probes"], call.flow().labels));
       }},
      {"implicit_score_matching_hutchinson",
       [](const ObjectiveCall& call) {
         return leaves(implicit_score_matching_hutchinson(call.network, call.draws["x"],
                                                          call.draws["t"], call.draws["probes"],
                                                          call.flow().labels));
       }},
      {"implicit_score_matching_exact",
       [](const ObjectiveCall& call) {
         return leaves(implicit_score_matching_exact(call.network, call.draws["x"], call.draws["t"],
                                                     call.flow().labels));
       }},
      {"divergence_exact", divergence},
      {"lagrangian_self_distillation",
       [](const ObjectiveCall& call) {
         return leaves(
             lagrangian_self_distillation(call.network, call.flow(), call.flag("stop_gradient")));
       }},
      {"eulerian_self_distillation",
       [](const ObjectiveCall& call) {
         return leaves(eulerian_self_distillation(
             call.network, call.flow(),
             call.flag("stop_gradient") ? EulerianGradient::stopped : EulerianGradient::through));
       }},
  };
  return mappings;
}

SamplerKind sampler_kind(const std::string& name) {
  if (name == "meanflow_sampler") return SamplerKind::meanflow;
  if (name == "ode_euler") return SamplerKind::ode_euler;
  if (name == "ode_heun") return SamplerKind::ode_heun;
  if (name == "ode_rk4") return SamplerKind::ode_rk4;
  throw NotBuilt("sampler " + name);
}

}  // namespace

std::vector<std::string> frozen_of(const Case& oracle) {
  const json& description = oracle.kind == "model" || !oracle.attributes.contains("model")
                                ? oracle.attributes
                                : oracle.attributes.at("model");
  return description.value("frozen", std::vector<std::string>());
}

Subject model_subject(const Case& oracle) {
  const NetworkConfig config = network_of(oracle);
  return [config](const Inputs& inputs, const Parameters& parameters, const Placement&) {
    const Tensor labels = inputs.size() > 3 ? inputs[3] : Tensor();
    return Outputs{
        apply(config, parameters, inputs.at(0), {.t = inputs.at(1), .r = inputs.at(2)}, labels)};
  };
}

Subject objective_subject(const Case& oracle) {
  const auto found = objective_mappings().find(oracle.name);
  if (found == objective_mappings().end()) throw NotBuilt("objective " + oracle.name);
  const NetworkConfig config = network_of(oracle);
  return [config, mapping = found->second, roles = oracle.roles, attributes = oracle.attributes](
             const Inputs& inputs, const Parameters& parameters, const Placement&) {
    const Velocity network = bind_parameters(config, parameters);
    return mapping({network, {roles, inputs}, num_classes(config), attributes});
  };
}

Subject sampler_subject(const Case& oracle) {
  if (oracle.name == "log_likelihood_rk4")
    return [config = network_of(oracle), steps = oracle.attributes.at("steps").get<std::int64_t>()](
               const Inputs& inputs, const Parameters& parameters, const Placement&) {
      return leaves(log_likelihood_rk4(bind_parameters(config, parameters), inputs.at(0), steps,
                                       inputs.size() > 1 ? inputs[1] : Tensor()));
    };
  const SamplerKind kind = sampler_kind(oracle.name);
  const NetworkConfig config = network_of(oracle);
  const auto steps = oracle.attributes.at("steps").get<std::int64_t>();
  return [=](const Inputs& inputs, const Parameters& parameters, const Placement& placement) {
    const Velocity network = bind_parameters(config, parameters);
    const auto time = [&](std::int64_t i) {
      return full({}, 1 - static_cast<double>(i) / static_cast<double>(steps), placement.floating,
                  placement.device);
    };
    Tensor z = inputs.at(0);
    std::vector<Tensor> path = {expand_dims(z, 0)};
    for (std::int64_t i = 0; i < steps; ++i) {
      z = sampler_step(kind, network, z, time(i), time(i + 1),
                       inputs.size() > 1 ? inputs[1] : Tensor());
      path.push_back(expand_dims(z, 0));
    }
    return Outputs{concat(path, 0)};
  };
}

Subject subject_of(const Case& oracle) {
  if (oracle.kind == "op") return op_subject(oracle);
  if (oracle.kind == "composite") return composite_subject(oracle);
  if (oracle.kind == "model") return model_subject(oracle);
  if (oracle.kind == "objective") return objective_subject(oracle);
  if (oracle.kind == "sampler") return sampler_subject(oracle);
  if (oracle.kind == "metric") return metric_subject(oracle);
  throw NotBuilt(oracle.kind + " " + oracle.name);
}

}  // namespace fluxion::oracles
