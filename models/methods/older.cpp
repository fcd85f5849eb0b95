#include "models/methods/older.h"

#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "models/json_text.h"
#include "models/older_objectives.h"

namespace fluxion {
namespace {

using nlohmann::json;

template <class T>
T member(const json& object, const char* name, T otherwise) {
  const auto found = object.find(name);
  if (found == object.end()) return otherwise;
  return JsonValue<T>::from(*found, std::string("objective: member '") + name + "'");
}

}  // namespace

bool is_older_objective(const json& object) {
  return object.is_object() && object.contains("kind") && object["kind"].is_string();
}

MethodConfig older_objective(const json& object, const MethodTable& table) {
  const OlderObjective& kind = older_objective_named(object.at("kind").get<std::string>());
  const std::string method = kind.method;
  if (method.empty())
    throw FormatError("objective '" + std::string(kind.name) + "' is not one to train with");
  GivenOptions given = {{"time-mean", member(object, "time_mean", -0.4)},
                        {"time-std", member(object, "time_std", 1.0)},
                        {"label-dropout", member(object, "label_dropout", 0.1)}};
  if (method != "flow-matching") given["equal-share"] = member(object, "equal_share", 0.75);
  if (method == "meanflow") {
    given["weight-offset"] = member(object, "c", 1e-3);
    given["power"] = member(object, "p", 1.0);
    given["tangent"] = member(object, "subset_jvp", true) ? "subset" : "all";
    given["direction"] = member(object, "own_direction", false) ? "network" : "data";
  }
  // Every objective had these members, and only one read them.
  if (kind.name == std::string("meanflow_cfg")) {
    given["omega"] = member(object, "omega", 1.0);
    given["kappa"] = member(object, "kappa", 0.5);
  }
  try {
    return configure(method, given, SampleKind::images, table);
  } catch (const Error& error) {
    throw FormatError(error.what());
  }
}

}  // namespace fluxion
