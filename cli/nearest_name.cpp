#include "cli/nearest_name.h"

#include <algorithm>

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

}  // namespace

std::optional<std::string> nearest_name(const std::string& written,
                                        const std::vector<std::string>& names) {
  constexpr std::size_t longest_written = 64, least_begun = 4;
  if (written.size() > longest_written) return std::nullopt;
  std::optional<std::string> nearest;
  const std::size_t letters =
      written.size() - std::min(written.find_first_not_of('-'), written.size());
  std::size_t least = letters / 3 + 2;
  for (const std::string& name : names) {
    const bool begun = written.size() >= least_begun && name.starts_with(written);
    const std::size_t distance = begun ? 0 : edit_distance(written, name);
    if (distance < least) nearest = name, least = distance;
  }
  return nearest;
}

}  // namespace fluxion::cli
