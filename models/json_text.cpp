#include "models/json_text.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/error.h"

namespace fluxion {

namespace {

using nlohmann::json;

[[noreturn]] void refuse_json_value(const json& value, const std::string& name,
                                    const std::string& wanted) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 80) + "..";
  throw FormatError(name + " must be " + wanted + ", is " + text);
}

}  // namespace

json parse_json(std::string_view text, const std::string& where, bool comments) {
  constexpr int deepest = 16;
  const auto check_depth = [&](int depth, json::parse_event_t, json&) {
    if (depth > deepest)
      throw FormatError(where + ": JSON that is nested more than " + std::to_string(deepest) +
                        " deep");
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), check_depth, true, comments);
  } catch (const json::exception& error) {
    throw FormatError(where + ": is not JSON: " + error.what());
  }
}

std::int64_t json_whole_number(const json& value, const std::string& name, std::int64_t low,
                               std::int64_t high) {
  const bool too_large = value.is_number_unsigned() &&
                         value.get<std::uint64_t>() >
                             static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (value.is_number_integer() && !too_large)
    if (const auto number = value.get<std::int64_t>(); number >= low && number <= high)
      return number;
  const bool any = low == std::numeric_limits<std::int64_t>::min() &&
                   high == std::numeric_limits<std::int64_t>::max();
  refuse_json_value(
      value, name,
      any ? "a whole number"
          : "a whole number from " + std::to_string(low) + " to " + std::to_string(high));
}

std::uint64_t json_natural_number(const json& value, const std::string& name) {
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  // What a program made from a signed number.
  if (value.is_number_integer() && value.get<std::int64_t>() >= 0)
    return static_cast<std::uint64_t>(value.get<std::int64_t>());
  refuse_json_value(value, name, "a whole number that is not negative");
}

double json_number(const json& value, const std::string& name) {
  if (value.is_number())
    if (const double number = value.get<double>(); std::isfinite(number)) return number;
  refuse_json_value(value, name, "a finite number");
}

bool json_boolean(const json& value, const std::string& name) {
  if (!value.is_boolean()) refuse_json_value(value, name, "true or false");
  return value.get<bool>();
}

std::string json_string(const json& value, const std::string& name) {
  if (!value.is_string()) refuse_json_value(value, name, "a text");
  return value.get<std::string>();
}

void visit_json_list(const json& value, const std::string& name,
                     const std::function<void(const json& item)>& visit) {
  if (!value.is_array()) refuse_json_value(value, name, "a list");
  for (const json& item : value) visit(item);
}

const json& json_member(const json& object, const std::string& name) {
  const json* const found = find_json_member(object, name);
  if (!found) throw FormatError(name + " is missing");
  return *found;
}

const json* find_json_member(const json& object, const std::string& name) {
  if (!object.is_object())
    throw FormatError("an object with the member " + name + " is wanted, not " +
                      object.dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 80));
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

}  // namespace fluxion
