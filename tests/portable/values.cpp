#include "tests/portable/values.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "engine/error.h"
#include "engine/number_text.h"
#include "tests/op_examples.h"

namespace fluxion::testing {

namespace {

constexpr DType dtypes[] = {DType::boolean, DType::u8,  DType::i32, DType::u32, DType::i64,
                            DType::bf16,    DType::f16, DType::f32, DType::f64};

DType dtype_named(const std::string& name) {
  for (const DType dtype : dtypes)
    if (name == to_string(dtype)) return dtype;
  throw FormatError("there is no dtype '" + name + "'");
}

}  // namespace

void write_values(const std::filesystem::path& path, const std::vector<NamedValues>& all) {
  std::ofstream file(path, std::ios::binary);
  for (const NamedValues& each : all) {
    file << each.name << '\t' << to_string(each.dtype);
    for (const double value : each.values) file << '\t' << number_text(value);
    file << '\n';
  }
  if (!file.flush()) throw IoError("writing " + path.string() + " failed");
}

std::vector<NamedValues> read_values(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw IoError("reading " + path.string() + " failed");
  std::vector<NamedValues> all;
  for (std::string line; std::getline(file, line);) {
    std::vector<std::string> words;
    for (std::size_t begin = 0; begin <= line.size();) {
      const std::size_t end = std::min(line.find('\t', begin), line.size());
      words.push_back(line.substr(begin, end - begin));
      begin = end + 1;
    }
    const std::string where = path.string() + ", line " + std::to_string(all.size() + 1);
    if (words.size() < 2) throw FormatError(where + ": wants a name and a dtype");
    NamedValues each{words[0], dtype_named(words[1]), {}};
    for (std::size_t i = 2; i < words.size(); ++i) {
      const auto value = parse_number<double>(words[i]);
      if (!value) throw FormatError(where + ": '" + words[i] + "' is not a number");
      each.values.push_back(*value);
    }
    all.push_back(std::move(each));
  }
  return all;
}

Comparison compare(const std::vector<NamedValues>& got, const std::vector<NamedValues>& expected) {
  Comparison result;
  if (got.size() != expected.size())
    result.wrong.push_back("there are " + std::to_string(got.size()) + " results, expected " +
                           std::to_string(expected.size()));
  for (std::size_t k = 0; k < std::min(got.size(), expected.size()); ++k) {
    const NamedValues &a = got[k], &b = expected[k];
    if (a.name != b.name || a.dtype != b.dtype || a.values.size() != b.values.size()) {
      result.wrong.push_back("'" + a.name + "' has another name, dtype or size than '" + b.name +
                             "'");
      continue;
    }
    const double epsilon = epsilon_of(a.dtype);
    double scale = 0;
    for (const double value : b.values)
      if (std::isfinite(value)) scale = std::max(scale, std::abs(value));
    for (std::size_t i = 0; i < a.values.size(); ++i) {
      const double x = a.values[i], y = b.values[i];
      const bool same = (x == y && std::signbit(x) == std::signbit(y)) || (x != x && y != y);
      if (epsilon > 0) ++result.values;
      if (same) continue;
      if (epsilon == 0 || !std::isfinite(x) || !std::isfinite(y)) {
        result.wrong.push_back(a.name + ", element " + std::to_string(i) + ": got " +
                               number_text(x) + ", expected " + number_text(y));
        continue;
      }
      ++result.different;
      const double distance = std::abs(x - y) / (epsilon * scale);
      if (distance > result.largest) result.largest = distance, result.largest_in = a.name;
    }
  }
  return result;
}

}  // namespace fluxion::testing
