// Named parameters, and the times a network is called at.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion {

// A tree: transforms, optimisers and files take it whole.
using Parameters = std::map<std::string, Tensor>;

// Throws Error, naming the parameter, if there is none of this name.
const Tensor& parameter(const Parameters& parameters, const std::string& name);

// Parameters split by whether training may change them, and joined again.
struct SplitParameters {
  Parameters trained, frozen;
};
SplitParameters split_frozen(const Parameters& parameters, const std::vector<std::string>& frozen);
Parameters merge(const Parameters& a, const Parameters& b);

// Both times of a call, [batch] each, in one value where a swap could hide. Time runs from data (0)
// to noise (1), r <= t.
struct Times {
  Tensor t, r;
};

// What a network's second time input embeds: r itself, or the difference t - r.
enum class SecondTime { r, difference };

// The second time input. The difference is taken inside the differentiated function, so that
// tangents dt = 1, dr = 0 give it the tangent 1.
Tensor second_time(const Times& times, SecondTime kind);

// "r" or "t-r". Throws FormatError for another name.
std::string to_string(SecondTime kind);
SecondTime second_time_from(const std::string& name);

}  // namespace fluxion
