#include "models/data/label_file.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace fluxion {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view endings[] = {".npy", ".npz", ".npy.gz"};
constexpr std::pair<std::string_view, std::string_view> words[] = {
    {"images", "labels"}, {"image", "label"}, {"imgs", "labels"},
    {"img", "label"},     {"x", "y"},         {"xs", "ys"}};

std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

bool is_word_character(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

// The stem with one of the words above replaced by its partner; "" if it has none.
std::string with_partner(const std::string& stem) {
  for (const auto& [samples, labels] : words)
    for (std::size_t at = stem.find(samples); at != stem.npos; at = stem.find(samples, at + 1)) {
      const std::size_t end = at + samples.size();
      const bool whole = (at == 0 || !is_word_character(stem[at - 1])) &&
                         (end == stem.size() || !is_word_character(stem[end]));
      if (whole) return stem.substr(0, at) + std::string(labels) + stem.substr(end);
    }
  return "";
}

// The file of a folder with one of these names but for letter case; the first name that is there.
fs::path find_in(const fs::path& folder, const std::vector<std::string>& names) {
  std::error_code error;
  fs::directory_iterator place(folder.empty() ? fs::path(".") : folder, error);
  std::size_t best = names.size();
  fs::path found;
  for (; !error && place != fs::directory_iterator(); place.increment(error)) {
    const fs::path name = place->path().filename();
    const auto at = static_cast<std::size_t>(
        std::find(names.begin(), names.end(), lower(name.string())) - names.begin());
    std::error_code kind_error;
    if (at >= best || !place->is_regular_file(kind_error)) continue;
    best = at;
    found = folder / name;
  }
  return found;
}

}  // namespace

LabelFile label_file_beside(const fs::path& samples) {
  std::string stem = lower(samples.filename().string());
  for (const std::string_view ending : {".gz", ".npy", ".npz"})
    if (stem.ends_with(ending)) stem.resize(stem.size() - ending.size());
  const auto ended = [&](const std::string& start) {
    std::vector<std::string> names;
    for (const std::string_view ending : endings) names.push_back(start + std::string(ending));
    return names;
  };
  if (fs::path own = find_in(samples.parent_path(), ended(stem + ".labels")); !own.empty())
    return {std::move(own), true};
  const std::string partner = with_partner(stem);
  if (partner.empty()) return {};
  return {find_in(samples.parent_path(), ended(partner)), false};
}

}  // namespace fluxion
