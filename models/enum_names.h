// Enumerations by the names that command lines and files have for them.
#pragma once

#include <array>
#include <string>
#include <utility>

#include "engine/error.h"

namespace fluxion {

template <class Enum, std::size_t n>
using EnumNames = std::array<std::pair<Enum, const char*>, n>;

template <class Enum, std::size_t n>
std::string name_of(const EnumNames<Enum, n>& names, Enum value) {
  for (const auto& [candidate, name] : names)
    if (candidate == value) return name;
  return "unknown";
}

// Throws FormatError, listing the names, for any other; `what` says what is named.
template <class Enum, std::size_t n>
Enum value_named(const EnumNames<Enum, n>& names, const std::string& name, const char* what) {
  std::string known;
  for (const auto& [value, candidate] : names) {
    if (name == candidate) return value;
    known += (known.empty() ? "'" : ", '") + std::string(candidate) + "'";
  }
  throw FormatError(std::string(what) + " '" + name + "' is not one of " + known);
}

}  // namespace fluxion
