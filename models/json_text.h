// JSON from files that nobody vouches for.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace fluxion {

// The value that a text stands for, with // and /* */ comments if allowed. Throws FormatError
// "`where`: is not JSON: .." or, since what takes a value apart goes as deep as the value does,
// "`where`: .. nested more than 16 deep".
nlohmann::json parse_json(std::string_view text, const std::string& where, bool comments = false);

// A value by its exact type, unlike get() of the library, which takes 1.5 and true for the whole
// number 1. All throw FormatError "`name` must be .., is ..".
std::int64_t json_whole_number(const nlohmann::json& value, const std::string& name,
                               std::int64_t low = std::numeric_limits<std::int64_t>::min(),
                               std::int64_t high = std::numeric_limits<std::int64_t>::max());
std::uint64_t json_natural_number(const nlohmann::json& value, const std::string& name);
double json_number(const nlohmann::json& value, const std::string& name);
bool json_boolean(const nlohmann::json& value, const std::string& name);
std::string json_string(const nlohmann::json& value, const std::string& name);
// Calls visit(item) for each item of a list.
void visit_json_list(const nlohmann::json& value, const std::string& name,
                     const std::function<void(const nlohmann::json& item)>& visit);

template <class T>
struct JsonValue {
  static_assert(std::is_integral_v<T> && sizeof(T) <= sizeof(std::int64_t));
  static T from(const nlohmann::json& value, const std::string& name) {
    if constexpr (std::is_same_v<T, std::uint64_t>) {
      return json_natural_number(value, name);
    } else {
      return static_cast<T>(json_whole_number(value, name, std::numeric_limits<T>::min(),
                                              std::numeric_limits<T>::max()));
    }
  }
};
template <>
struct JsonValue<double> {
  static double from(const nlohmann::json& value, const std::string& name) {
    return json_number(value, name);
  }
};
template <>
struct JsonValue<bool> {
  static bool from(const nlohmann::json& value, const std::string& name) {
    return json_boolean(value, name);
  }
};
template <>
struct JsonValue<std::string> {
  static std::string from(const nlohmann::json& value, const std::string& name) {
    return json_string(value, name);
  }
};
template <class T>
struct JsonValue<std::vector<T>> {
  static std::vector<T> from(const nlohmann::json& value, const std::string& name) {
    std::vector<T> result;
    visit_json_list(value, name, [&](const nlohmann::json& item) {
      result.push_back(JsonValue<T>::from(item, "each of " + name));
    });
    return result;
  }
};

// The member of an object. Throws FormatError where `object` is none or has no such member.
const nlohmann::json& json_member(const nlohmann::json& object, const std::string& name);
// nullptr where the object has none.
const nlohmann::json* find_json_member(const nlohmann::json& object, const std::string& name);

template <class T>
T json_member(const nlohmann::json& object, const std::string& name) {
  return JsonValue<T>::from(json_member(object, name), name);
}
// The same of a member that came later: older files have none, and what the default says.
template <class T>
T json_member_or(const nlohmann::json& object, const std::string& name, const T& otherwise) {
  const nlohmann::json* const found = find_json_member(object, name);
  return found ? JsonValue<T>::from(*found, name) : otherwise;
}

}  // namespace fluxion
