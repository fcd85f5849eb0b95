// Things by the names that command lines and files have for them, and errors that list the names.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "engine/error.h"

namespace fluxion {

// "'a', 'b'": the names of a list of things, for an error that says what there is.
template <class Range, class Name>
std::string quoted_names(const Range& range, const Name& name_of_each) {
  std::string names;
  for (const auto& each : range)
    names += (names.empty() ? "'" : ", '") + std::string(std::invoke(name_of_each, each)) + "'";
  return names;
}

template <class Enum, std::size_t n>
using EnumNames = std::array<std::pair<Enum, const char*>, n>;

template <class Enum, std::size_t n>
std::string name_of(const EnumNames<Enum, n>& names, Enum value) {
  for (const auto& [candidate, name] : names)
    if (candidate == value) return name;
  return "unknown";
}

template <class Enum, std::size_t n>
std::vector<std::string> names_of(const EnumNames<Enum, n>& names) {
  std::vector<std::string> all;
  for (const auto& [value, name] : names) all.emplace_back(name);
  return all;
}

// Throws FormatError, listing the names, for any other; `what` says what is named.
template <class Enum, std::size_t n>
Enum value_named(const EnumNames<Enum, n>& names, const std::string& name, const char* what) {
  for (const auto& [value, candidate] : names)
    if (name == candidate) return value;
  throw FormatError(std::string(what) + " '" + name + "' is not one of " +
                    quoted_names(names, &std::pair<Enum, const char*>::second));
}

}  // namespace fluxion
