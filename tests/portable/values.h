// The values that a target computed, as a text that another target reads and compares.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion::testing {

struct NamedValues {
  std::string name;
  DType dtype = DType::f32;
  std::vector<double> values;
};

// One line for each: name, dtype, number of elements, elements. Throws Error if the file can't be
// written.
void write_values(const std::filesystem::path& path, const std::vector<NamedValues>& all);
// Throws FormatError, with the line, for a file of another form.
std::vector<NamedValues> read_values(const std::filesystem::path& path);

// How far two targets are apart. A difference is in units of epsilon times the largest magnitude of
// the tensor.
struct Comparison {
  std::size_t values = 0, different = 0;  // floating ones; different: in any bit
  double largest = 0;
  std::string largest_in;  // the name
  std::vector<std::string>
      wrong;  // other names or numbers of elements, integers or NaN that differ
};
Comparison compare(const std::vector<NamedValues>& got, const std::vector<NamedValues>& expected);

}  // namespace fluxion::testing
