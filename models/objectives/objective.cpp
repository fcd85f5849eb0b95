#include "models/objectives/objective.h"

#include <array>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "engine/error.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "engine/single_precision.h"

namespace fluxion {
namespace {

using nlohmann::json;

constexpr std::array<std::pair<ObjectiveKind, const char*>, 4> kind_names = {
    {{ObjectiveKind::flow_matching, "flow_matching"},
     {ObjectiveKind::meanflow, "meanflow"},
     {ObjectiveKind::meanflow_cfg, "meanflow_cfg"},
     {ObjectiveKind::split_meanflow, "split_meanflow"}}};

// Members of a configuration by name, listed once for both directions.
template <class Config, class F>
void visit_members(Config& config, F&& f) {
  f("c", config.c);
  f("p", config.p);
  f("omega", config.omega);
  f("kappa", config.kappa);
  f("time_mean", config.time_mean);
  f("time_std", config.time_std);
  f("equal_share", config.equal_share);
  f("subset_jvp", config.subset_jvp);
  f("own_direction", config.own_direction);
  f("label_dropout", config.label_dropout);
}

std::int64_t elements_per_sample(const Tensor& x) { return x.elements() / x.size(0); }

Tensor per_element(const Tensor& per_sample, const Tensor& x) {
  return mean(per_sample) / static_cast<double>(elements_per_sample(x));
}

// The relation between intervals alone has trivial solutions: the rows with r = t tie u to the
// data's velocity.
ObjectiveValue split_value(const Velocity& velocity, const FlowDraws& draws,
                           const DrawOptions& options, const Tensor& key) {
  const std::int64_t batch = draws.x.size(0), split_rows = unequal_rows(options, batch);
  Tensor total = zeros({}, draws.x.dtype(), draws.x.device());
  if (split_rows > 0) {
    const Tensor lambda = uniform(fold_in(key, 1), {split_rows}, draws.x.dtype());
    total = total + sum(split_meanflow(velocity, rows(draws, 0, split_rows), lambda).per_sample);
  }
  if (split_rows < batch)
    total = total + sum(flow_matching(velocity, rows(draws, split_rows, batch),
                                      {.mean_over_elements = false})
                            .per_sample);
  const Tensor loss = total / static_cast<double>(draws.x.elements());
  return {loss, loss};
}

}  // namespace

std::string to_string(ObjectiveKind kind) {
  for (const auto& [value, name] : kind_names)
    if (value == kind) return name;
  return "unknown";
}

ObjectiveKind objective_kind_from(const std::string& name) {
  std::string known;
  for (const auto& [value, candidate] : kind_names) {
    if (name == candidate) return value;
    known += (known.empty() ? "'" : ", '") + std::string(candidate) + "'";
  }
  throw FormatError("objective '" + name + "' is not one of " + known);
}

ObjectiveValue objective_value(const ObjectiveConfig& objective, const NetworkConfig& network,
                               const Parameters& parameters, const Tensor& x, const Tensor& labels,
                               const Tensor& key) {
  const bool plain = objective.kind == ObjectiveKind::flow_matching;
  const DrawOptions options{
      .time_mean = objective.time_mean,
      .time_std = objective.time_std,
      .equal_share = plain ? 1 : objective.equal_share,
      .fixed_share = objective.subset_jvp || objective.kind == ObjectiveKind::split_meanflow,
      .label_dropout = objective.label_dropout};
  const FlowDraws draws = draw(options, x, labels, num_classes(network), fold_in(key, 0));
  const Velocity velocity = bind_parameters(network, parameters);
  const MeanFlowOptions meanflow_options{
      .c = objective.c,
      .p = objective.p,
      .jvp_rows = objective.subset_jvp ? unequal_rows(options, x.size(0)) : -1,
      .own_direction = objective.own_direction};

  switch (objective.kind) {
    case ObjectiveKind::flow_matching: {
      const FlowMatchingResult result = flow_matching(velocity, draws);
      return {result.loss, result.loss};
    }
    case ObjectiveKind::meanflow: {
      const MeanFlowResult result = meanflow(velocity, draws, meanflow_options);
      return {result.loss, per_element(result.error, x)};
    }
    case ObjectiveKind::meanflow_cfg: {
      const GuidedMeanFlowOptions guided_options{
          .meanflow = meanflow_options, .omega = objective.omega, .kappa = objective.kappa};
      const MeanFlowResult result = meanflow_cfg(velocity, draws, guided_options).meanflow;
      return {result.loss, per_element(result.error, x)};
    }
    case ObjectiveKind::split_meanflow:
      return split_value(velocity, draws, options, key);
  }
  throw Error("objective: unknown kind");
}

void check(const ObjectiveConfig& objective) {
  visit_members(objective, [](const char* name, const auto& value) {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, double>) {
      if (!fits_single(value))
        throw Error(std::string("objective: ") + name +
                    " must be 0 or a number that single precision holds, got " +
                    number_text(value));
    }
  });
  for (const double share : {objective.equal_share, objective.label_dropout})
    if (!(share >= 0 && share <= 1))
      throw Error("objective: equal_share and label_dropout must be in [0, 1], got " +
                  number_text(share));
  if (!(objective.time_std >= 0))
    throw Error("objective: time_std must not be negative, got " + number_text(objective.time_std));
}

json objective_to_json(const ObjectiveConfig& objective) {
  json result = {{"kind", to_string(objective.kind)}};
  visit_members(objective, [&](const char* name, const auto& value) { result[name] = value; });
  return result;
}

ObjectiveConfig objective_from_json(const json& object) {
  if (!object.is_object() || !object.contains("kind") || !object["kind"].is_string())
    throw FormatError("objective: wants an object with the member 'kind', got " + object.dump());
  ObjectiveConfig result;
  result.kind = objective_kind_from(object["kind"].get<std::string>());
  visit_members(result, [&](const char* name, auto& value) {
    const auto found = object.find(name);
    if (found == object.end()) return;
    try {
      found->get_to(value);
    } catch (const json::exception&) {
      throw FormatError(std::string("objective: member '") + name +
                        "' has the wrong type: " + found->dump());
    }
  });
  return result;
}

}  // namespace fluxion
