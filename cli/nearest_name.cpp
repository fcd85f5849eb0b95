#include "cli/nearest_name.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace fluxion::cli {

namespace {

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<std::size_t>> cost(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i)
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = i + j;
        continue;
      }
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1,
                             cost[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
    }
  return cost[a.size()][b.size()];
}

// What other programs call it, and what it is here.
constexpr std::pair<std::string_view, std::string_view> elsewhere[] = {
    {"epoch", "steps"},      {"epochs", "steps"},       {"iters", "steps"},
    {"output-dir", "out"},   {"iterations", "steps"},   {"num-samples", "count"},
    {"cfg", "guidance"},     {"cfg-scale", "guidance"}, {"fid", "frechet"},
    {"precision", "recall"}, {"nll", "likelihood"},     {"accuracy", "classifier"},
    {"min-lr", "final-lr"},  {"lr-min", "final-lr"}};

// "lr" of "learning-rate"; "" of a single word.
std::string first_letters(std::string_view words) {
  std::string letters;
  for (std::size_t at = 0; at < words.size(); at = std::min(words.find('-', at), words.size()) + 1)
    letters += words[at];
  return letters.size() > 1 ? letters : "";
}

}  // namespace

std::optional<std::string> nearest_name(const std::string& text,
                                        const std::vector<std::string>& names) {
  constexpr std::size_t longest_written = 64, least_begun = 4;
  if (text.size() > longest_written) return std::nullopt;
  std::string written = text;
  std::replace(written.begin(), written.end(), '_', '-');
  const std::size_t dashes = std::min(written.find_first_not_of('-'), written.size()),
                    letters = written.size() - dashes;
  const auto known = [&](std::string_view word) {
    return std::find(names.begin(), names.end(), written.substr(0, dashes).append(word));
  };
  const std::string_view word = std::string_view(written).substr(dashes);
  for (const auto& [other, here] : elsewhere)
    if (const auto name = known(here); word == other && name != names.end()) return *name;
  if (const std::string first = first_letters(word); !first.empty())
    if (const auto name = known(first); name != names.end()) return *name;

  std::optional<std::string> nearest;
  if (letters < 2) return nearest;
  std::size_t least = letters / 3 + 2;
  for (const std::string& name : names) {
    const bool begun = written.size() >= least_begun && name.starts_with(written);
    const std::size_t distance = begun ? 0 : edit_distance(written, name);
    if (distance < least) nearest = name, least = distance;
  }
  constexpr std::size_t slip = 2;  // letters that fingers get wrong
  if (nearest && least <= slip) return nearest;
  std::string whole;
  for (const std::string& name : names) {
    const std::string own = name.substr(std::min(name.find_first_not_of('-'), name.size()));
    // (What begins with "no" wants the opposite of what it ends with.)
    if (name.size() > whole.size() && (written.starts_with(name + "-") ||
                                       (written.ends_with("-" + own) && !word.starts_with("no-"))))
      whole = name;
  }
  return whole.empty() ? nearest : whole;
}

std::string suggestion(const std::string& written, const std::vector<std::string>& names) {
  const std::optional<std::string> name = nearest_name(written, names);
  return name ? " (did you mean " + *name + "?)" : "";
}

}  // namespace fluxion::cli
