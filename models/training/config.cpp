#include "models/training/config.h"

#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/number_text.h"
#include "engine/single_precision.h"
#include "models/json_text.h"

namespace fluxion {

namespace {

using nlohmann::json;

json optimiser_to_json(const OptimiserOptions& options) {
  return {{"kind", to_string(options.kind)},
          {"beta1", options.beta1},
          {"beta2", options.beta2},
          {"epsilon", options.epsilon},
          {"weight_decay", options.weight_decay},
          {"clip_norm", options.clip_norm},
          {"ema_decays", options.ema_decays}};
}

json schedule_to_json(const Schedule& schedule) {
  return {{"kind", to_string(schedule.kind)},
          {"learning_rate", schedule.learning_rate},
          {"warm_up_steps", schedule.warm_up_steps},
          {"final_learning_rate", schedule.final_learning_rate},
          {"steps", schedule.steps}};
}

OptimiserOptions optimiser_from_json(const json& object) {
  return {.kind = optimiser_kind_from(
              json_member_or<std::string>(object, "kind", "adamw")),  // older files have none
          .beta1 = json_member<double>(object, "beta1"),
          .beta2 = json_member<double>(object, "beta2"),
          .epsilon = json_member<double>(object, "epsilon"),
          .weight_decay = json_member<double>(object, "weight_decay"),
          .clip_norm = json_member<double>(object, "clip_norm"),
          .ema_decays = json_member<std::vector<double>>(object, "ema_decays")};
}

Schedule schedule_from_json(const json& object) {
  return {.kind = schedule_kind_from(json_member<std::string>(object, "kind")),
          .learning_rate = json_member<double>(object, "learning_rate"),
          .warm_up_steps = json_member<std::int64_t>(object, "warm_up_steps"),
          .final_learning_rate = json_member<double>(object, "final_learning_rate"),
          .steps = json_member<std::int64_t>(object, "steps")};
}

Coupling coupling_from_json(const json& object) {
  return {.kind = coupling_kind_from(json_member<std::string>(object, "kind")),
          .epsilon = json_member<double>(object, "epsilon"),
          .source = json_member_or<std::string>(object, "source", "")};
}

json loss_scale_to_json(const LossScaleOptions& options) {
  return {{"initial", options.initial},
          {"least", options.least},
          {"most", options.most},
          {"interval", options.interval}};
}

LossScaleOptions loss_scale_from_json(const json& object) {
  return {.initial = json_member<double>(object, "initial"),
          .least = json_member<double>(object, "least"),
          .most = json_member<double>(object, "most"),
          .interval = json_member<std::int64_t>(object, "interval")};
}

}  // namespace

MethodUse use_of(const TrainingConfig& config) {
  return {config.network, config.method.options, config.total_steps};
}

double learning_rate_at(const TrainingConfig& config, std::int64_t step) {
  const auto& share = config.method.method->rate;
  return learning_rate_at(config.schedule, step) * (share ? share(use_of(config), step) : 1.0);
}

void check_takes_pairs(const Method& method) {
  if (method.takes_pairs) return;
  throw Error(
      "train: method " + method.name +
      " takes no coupling, no source and no pairs: its noise is independent of the data, or "
      "it has none");
}

void check(const TrainingConfig& config) {
  check(config.network);
  if (config.recompute) with_checkpoints(config.network);
  with_dropout(config.network, config.dropout, {});
  check(config.schedule);
  check(config.method, config.network, config.total_steps);
  check(config.loss_scale);
  constexpr std::int64_t largest_batch = std::int64_t{1} << 30;
  if (config.batch < 1 || config.batch > largest_batch)
    throw Error("train: batch must be at least 1, got " + std::to_string(config.batch));
  check(config.coupling, config.batch);
  if (gives_noise(config.coupling)) check_takes_pairs(*config.method.method);
  const OptimiserOptions& optimiser = config.optimiser;
  if (optimiser.ema_decays.empty() || optimiser.ema_decays.size() > most_averages)
    throw Error("train: wants 1 to " + std::to_string(most_averages) +
                " decays of averaged weights, got " + std::to_string(optimiser.ema_decays.size()));
  for (const double decay : optimiser.ema_decays)
    if (!(decay >= 0 && decay <= 1))
      throw Error("train: the decay of averaged weights must be between 0 and 1, got " +
                  number_text(decay));
  for (const double beta : {optimiser.beta1, optimiser.beta2})
    if (!(beta >= 0 && beta < 1))
      throw Error("train: beta1 and beta2 of the optimiser must be in [0, 1), got " +
                  number_text(beta));
  for (const double value : {optimiser.epsilon, optimiser.weight_decay, optimiser.clip_norm})
    if (!(value >= 0) || !fits_single(value))
      throw Error(
          "train: epsilon, weight decay and clip norm must be 0, or positive and finite in single "
          "precision, got " +
          number_text(value));
}

json training_config_to_json(const TrainingConfig& config) {
  json result = {{"network", network_to_json(config.network)},
                 {"method", method_to_json(config.method)},
                 {"optimiser", optimiser_to_json(config.optimiser)},
                 {"schedule", schedule_to_json(config.schedule)},
                 {"batch", config.batch},
                 {"seed", config.seed},
                 {"recompute", config.recompute},
                 {"precision", to_string(config.precision)}};
  if (config.total_steps != 0) result["total_steps"] = config.total_steps;
  if (config.dropout != 0) result["dropout"] = config.dropout;
  if (config.coupling != Coupling{})
    result["coupling"] = {{"kind", to_string(config.coupling.kind)},
                          {"epsilon", config.coupling.epsilon}};
  if (!config.coupling.source.empty()) result["coupling"]["source"] = config.coupling.source;
  if (needs_loss_scale(config.precision) || config.loss_scale != LossScaleOptions{})
    result["loss_scale"] = loss_scale_to_json(config.loss_scale);
  return result;
}

TrainingConfig training_config_from_json(const json& object, const MethodTable& methods) {
  try {
    const TrainingConfig config{
        .network = network_from_json(json_member(object, "network")),
        .method = method_from_json(
            json_member(object, object.contains("method") ? "method" : "objective"), methods),
        .total_steps = json_member_or(object, "total_steps", std::int64_t{0}),
        .optimiser = optimiser_from_json(json_member(object, "optimiser")),
        .schedule = schedule_from_json(json_member(object, "schedule")),
        .batch = json_member<std::int64_t>(object, "batch"),
        .coupling = object.contains("coupling")
                        ? coupling_from_json(json_member(object, "coupling"))
                        : Coupling{},
        .seed = json_member<std::uint64_t>(object, "seed"),
        .recompute =
            json_member_or(object, "recompute", false),  // older files have neither of these
        .dropout = json_member_or(object, "dropout", 0.0),
        .precision = precision_from(json_member_or<std::string>(object, "precision", "f32")),
        .loss_scale = object.contains("loss_scale")
                          ? loss_scale_from_json(json_member(object, "loss_scale"))
                          : LossScaleOptions{}};
    check(config);
    return config;
  } catch (const FormatError&) {
    throw;
  } catch (const Error& error) {
    throw FormatError(error.what());
  }
}

}  // namespace fluxion
