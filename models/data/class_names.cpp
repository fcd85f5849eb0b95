#include "models/data/class_names.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "engine/number_text.h"
#include "models/files/lower_case.h"

namespace fluxion {

namespace {

constexpr std::size_t names_listed = 5;

bool is_number(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](unsigned char c) { return c >= '0' && c <= '9'; });
}

std::vector<std::string> only_in_first(const std::vector<std::string>& first,
                                       const std::vector<std::string>& second) {
  std::vector<std::string> result;
  const std::vector<std::int32_t> places = places_of(first, second);
  for (std::size_t i = 0; i < first.size(); ++i)
    if (places[i] < 0) result.push_back(first[i]);
  return result;
}

// The classes that alone have their mark, by mark.
std::map<std::string, std::string> by_mark(const std::vector<std::string>& names,
                                           const std::vector<std::string>& marks) {
  std::map<std::string, std::string> result;
  if (marks.size() != names.size()) return result;
  std::map<std::string, int> holders;
  for (const std::string& mark : marks) ++holders[mark];
  for (std::size_t i = 0; i < names.size(); ++i)
    if (!marks[i].empty() && holders[marks[i]] == 1) result.emplace(marks[i], names[i]);
  return result;
}

}  // namespace

std::vector<std::string> numbered_classes(std::int32_t count) {
  std::vector<std::string> names;
  for (std::int32_t i = 0; i < count; ++i) names.push_back(std::to_string(i));
  return names;
}

std::string class_text(const std::string& name) {
  try {
    nlohmann::json(name).dump();
    return name;
  } catch (const nlohmann::json::exception&) {
    std::string result;
    for (const char c : name) {
      const auto byte = static_cast<unsigned char>(c);
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", byte);
      result += byte < 0x80 ? std::string(1, c) : escaped;
    }
    return result;
  }
}

std::optional<std::int32_t> find_class(const std::vector<std::string>& names,
                                       const std::string& text) {
  const auto named = std::find(names.begin(), names.end(), class_text(text));
  if (named != names.end()) return static_cast<std::int32_t>(named - names.begin());
  if (!is_number(text) || std::any_of(names.begin(), names.end(), is_number)) return std::nullopt;
  const std::optional<std::int32_t> number = parse_number<std::int32_t>(text);
  if (!number || static_cast<std::size_t>(*number) >= names.size()) return std::nullopt;
  return number;
}

std::optional<std::int32_t> find_class_in_any_case(const std::vector<std::string>& names,
                                                   const std::string& text) {
  if (const auto found = find_class(names, text)) return found;
  const auto alike = [&](const std::string& name) { return lower_case(name) == lower_case(text); };
  if (std::ranges::count_if(names, alike) != 1) return std::nullopt;
  return static_cast<std::int32_t>(std::ranges::find_if(names, alike) - names.begin());
}

std::vector<std::int32_t> places_of(const std::vector<std::string>& classes,
                                    const std::vector<std::string>& names) {
  std::unordered_map<std::string, std::int32_t> places;
  for (std::size_t i = 0; i < names.size(); ++i)
    places.emplace(names[i], static_cast<std::int32_t>(i));
  std::vector<std::int32_t> result;
  for (const std::string& name : classes) {
    const auto found = places.find(name);
    result.push_back(found == places.end() ? -1 : found->second);
  }
  return result;
}

std::string class_list(const std::vector<std::string>& names) {
  if (names.size() > names_listed)
    if (const auto first = parse_number<std::int32_t>(names.front())) {
      const auto count = static_cast<std::int32_t>(names.size());
      std::int32_t next = 0;
      while (next < count &&
             names[static_cast<std::size_t>(next)] == std::to_string(std::int64_t{*first} + next))
        ++next;
      if (next == count) return names.front() + " to " + names.back();
    }
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), names_listed); ++i)
    text += (i == 0 ? "" : ", ") + names[i];
  if (names.size() > names_listed)
    text += " and " + std::to_string(names.size() - names_listed) + " more";
  return text;
}

std::string class_difference(const std::string& a, const std::vector<std::string>& names_of_a,
                             const std::string& b, const std::vector<std::string>& names_of_b) {
  const std::vector<std::string> only_a = only_in_first(names_of_a, names_of_b),
                                 only_b = only_in_first(names_of_b, names_of_a);
  std::string text;
  if (!only_a.empty()) text = a + " has " + class_list(only_a) + ", which " + b + " lacks";
  if (!only_b.empty())
    text += (text.empty() ? "" : ", and ") + b + " has " + class_list(only_b) + ", which " + a +
            " lacks";
  return text;
}

std::string exchanged_classes(const std::vector<std::string>& names_before,
                              const std::vector<std::string>& marks_before,
                              const std::vector<std::string>& names_now,
                              const std::vector<std::string>& marks_now) {
  const std::map<std::string, std::string> before = by_mark(names_before, marks_before);
  // What a class of now was called before.
  std::map<std::string, std::string> former;
  for (const auto& [mark, name] : by_mark(names_now, marks_now))
    if (const auto found = before.find(mark); found != before.end() && found->second != name)
      former.emplace(name, found->second);
  // One that moved alone may be a sample that was put right; of an exchange, both have moved.
  for (const auto& [name, was] : former)
    if (former.contains(was)) return name + " holds what was " + was;
  return "";
}

bool are_other_data(const std::vector<std::string>& marks_before,
                    const std::vector<std::string>& marks_now) {
  std::set<std::string> before(marks_before.begin(), marks_before.end());
  before.erase("");
  const auto known = [](const std::string& mark) { return !mark.empty(); };
  return !before.empty() && std::ranges::any_of(marks_now, known) &&
         std::ranges::none_of(marks_now,
                              [&](const std::string& mark) { return before.contains(mark); });
}

}  // namespace fluxion
