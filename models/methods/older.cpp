#include "models/methods/older.h"

#include <array>
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "models/json_text.h"

namespace fluxion {
namespace {

using nlohmann::json;

struct OlderKind {
  const char* kind;
  const char* method;
};
constexpr std::array<OlderKind, 4> older_kinds = {{{"flow_matching", "flow-matching"},
                                                   {"meanflow", "meanflow"},
                                                   {"meanflow_cfg", "meanflow"},
                                                   {"split_meanflow", "split-meanflow"}}};

const OlderKind& older_kind(const std::string& name) {
  std::string known;
  for (const OlderKind& each : older_kinds) {
    if (name == each.kind) return each;
    known += (known.empty() ? "'" : ", '") + std::string(each.kind) + "'";
  }
  throw FormatError("objective '" + name + "' is not one of " + known);
}

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
  const OlderKind& kind = older_kind(object.at("kind").get<std::string>());
  const std::string method = kind.method;
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
  if (kind.kind == std::string("meanflow_cfg")) {
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
