#include "models/methods/method.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/graph/ops.h"
#include "models/json_text.h"
#include "models/methods/older.h"
#include "models/names.h"

namespace fluxion {
namespace {

using nlohmann::json;

MethodOptions completed(const Method& method, const GivenOptions& given, SampleKind kind) {
  MethodOptions options;
  for (const MethodOption& option : method.options)
    options.set(option.name, option.default_for(kind));
  for (const auto& [name, value] : given) {
    try {
      options.set(name, method.option(name).checked(value));
    } catch (const FormatError&) {
      throw;
    } catch (const Error& error) {
      const std::string text = error.what();
      throw Error(text.starts_with("method ") ? text : "method " + method.name + ": " + text);
    }
  }
  // What changes nothing has one value, so that equal methods compare equal.
  for (const MethodOption& option : method.options)
    if (method.unread_by(option, options))
      options.set(option.name, option.default_for(SampleKind::images));
  return options;
}

OptionValue value_from(const std::string& name, const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (value.is_number()) return value.get<double>();
  throw FormatError("method: option '" + name + "' has the wrong type: " + value.dump());
}

// In what an option differs from another of its name, as the command line has one for both; "": in
// nothing. (Each method has a default of its own.)
std::string difference(const MethodOption& a, const MethodOption& b) {
  if (a.fallback.images.index() != b.fallback.images.index()) return "type";
  if (a.low != b.low || a.high != b.high) return "range";
  if (a.choices != b.choices) return "choices";
  return a.help != b.help ? "help" : "";
}

void check_options(const Method& method, const MethodTable& table) {
  const std::string start = "method " + method.name + ": option ";
  for (const MethodOption& option : method.options) {
    option.checked(option.default_for(SampleKind::points));
    if (std::ranges::count(method.options, option.name, &MethodOption::name) > 1)
      throw Error(start + option.name + " is there twice");
    for (const auto& row : table)
      for (const MethodOption& other : row->options)
        if (const std::string what = other.name == option.name ? difference(option, other) : "";
            !what.empty())
          throw Error(start + option.name + " has another " + what + " than that of method " +
                      row->name + "; give it the same, or another name");
  }
}

}  // namespace

const MethodOption* Method::unread_by(const MethodOption& option,
                                      const MethodOptions& values) const {
  if (option.of_option.empty()) return nullptr;
  const MethodOption& other = this->option(option.of_option);
  const std::string value = to_string(values.values().at(other.name));
  if (std::ranges::count(option.of_choices, value) == 0) return &other;
  return unread_by(other, values);
}

const MethodOption& Method::option(const std::string& name) const {
  const auto found = std::ranges::find(options, name, &MethodOption::name);
  if (found != options.end()) return *found;
  std::string names;
  for (const MethodOption& each : options) names += (names.empty() ? "" : ", ") + each.name;
  throw Error("method " + this->name + ": there is no option '" + name + "'; there are " + names);
}

const std::shared_ptr<const Method>& method_named(const std::string& name,
                                                  const MethodTable& table) {
  for (const auto& method : table)
    if (method->name == name) return method;
  throw FormatError("method '" + name + "' is not one of " + method_names(table));
}

MethodTable with_method(MethodTable table, Method method) {
  if (!method.loss) throw Error("method " + method.name + ": has no loss");
  if (std::ranges::any_of(table, [&](const auto& row) { return row->name == method.name; }))
    throw Error("method " + method.name + ": the table has one of this name");
  check_options(method, table);
  table.push_back(std::make_shared<const Method>(std::move(method)));
  return table;
}

std::string method_names(const MethodTable& table) {
  return quoted_names(table, [](const auto& method) { return method->name; });
}

MethodConfig::MethodConfig() : MethodConfig(configure("meanflow")) {}

MethodConfig::MethodConfig(std::shared_ptr<const Method> method, MethodOptions options)
    : method(std::move(method)), options(std::move(options)) {}

bool MethodConfig::operator==(const MethodConfig& other) const {
  return method->name == other.method->name && options == other.options;
}

MethodConfig configure(const std::string& name, const GivenOptions& given, SampleKind kind,
                       const MethodTable& table) {
  const std::shared_ptr<const Method>& method = method_named(name, table);
  return {method, completed(*method, given, kind)};
}

Parameters UpdateArguments::average(const Parameters& tree, const Operand& share) const {
  return zip_tree(tree, trained, [&](const Tensor& before, const Tensor& fresh) {
    return before + share * (fresh - before);
  });
}

std::vector<std::string> state_trees(const MethodConfig& config) {
  const Method& method = *config.method;
  std::vector<std::string> names;
  if (!method.keeps_copies || method.keeps_copies(config.options)) names = method.copies;
  if (!method.teacher_option.empty()) names.push_back("teacher");
  return names;
}

void check(const MethodConfig& config, const NetworkConfig& network, std::int64_t total_steps) {
  const Method& method = *config.method;
  const std::vector<std::string> trees = state_trees(config);
  if (method.restart && method.restart({network, config.options, total_steps}) > 0 &&
      std::ranges::find(trees, "teacher") == trees.end())
    throw Error("method " + method.name + ": it restarts, and keeps no 'teacher' to begin with");
  if (method.has_schedule && total_steps < 1)
    throw Error(
        "train: method " + method.name +
        " changes over the run, and needs to know its number of steps; give --steps (beside "
        "--minutes, if you like)");
  if (!method.refusal) return;
  const std::string why = method.refusal({network, config.options, total_steps});
  if (!why.empty()) throw Error("train: method " + method.name + ": " + why);
}

void describe(const MethodConfig& config, ModelInfo& info) {
  const Method& method = *config.method;
  info.method = method.name;
  info.method_options = method_to_json(config).at("options").dump();
  info.prediction = method.prediction;
  info.wrapping = method.wrapping;
  if (method.path) info.path = method.path(config.options);
  info.sampling = method.sampling_for ? method.sampling_for(config.options) : method.sampling;
  if (method.guidance) info.guidance = method.guidance(config.options);
  if (method.any_flow) info.coupling = "flow";
  info.open_class =
      !config.options.has("label-dropout") || config.options.real("label-dropout") > 0;
}

json method_to_json(const MethodConfig& config) {
  json options = json::object();
  for (const auto& [name, value] : config.options.values())
    std::visit([&](const auto& each) { options[name] = each; }, value);
  return {{"method", config.method->name}, {"options", options}};
}

MethodConfig method_from_json(const json& object, const MethodTable& table) {
  if (is_older_objective(object)) return older_objective(object, table);
  const std::shared_ptr<const Method>& method =
      method_named(json_member<std::string>(object, "method"), table);
  GivenOptions given;
  if (const auto options = object.find("options"); options != object.end()) {
    if (!options->is_object())
      throw FormatError("method: 'options' is no object: " + options->dump());
    for (const auto& [option, value] : options->items()) given[option] = value_from(option, value);
  }
  for (const MethodOption& option : method->options)
    if (option.in_older_files) given.try_emplace(option.name, *option.in_older_files);
  try {
    return {method, completed(*method, given, SampleKind::images)};
  } catch (const Error& error) {
    throw FormatError(error.what());
  }
}

}  // namespace fluxion
