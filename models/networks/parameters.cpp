#include "models/networks/parameters.h"

#include <algorithm>

#include "engine/graph/ops.h"

namespace fluxion {

const Tensor& parameter(const Parameters& parameters, const std::string& name) {
  const auto found = parameters.find(name);
  if (found == parameters.end()) throw Error("network: there is no parameter '" + name + "'");
  return found->second;
}

SplitParameters split_frozen(const Parameters& parameters, const std::vector<std::string>& frozen) {
  SplitParameters result;
  for (const auto& [name, tensor] : parameters)
    (std::find(frozen.begin(), frozen.end(), name) == frozen.end() ? result.trained : result.frozen)
        .emplace(name, tensor);
  return result;
}

Parameters merge(const Parameters& a, const Parameters& b) {
  Parameters result = a;
  result.insert(b.begin(), b.end());
  return result;
}

Tensor second_time(const Times& times, SecondTime kind) {
  return kind == SecondTime::r ? times.r : times.t - times.r;
}

std::string to_string(SecondTime kind) { return kind == SecondTime::r ? "r" : "t-r"; }

SecondTime second_time_from(const std::string& name) {
  if (name == "r") return SecondTime::r;
  if (name == "t-r") return SecondTime::difference;
  throw FormatError("second_time is '" + name + "'; it must be 'r' or 't-r'");
}

}  // namespace fluxion
