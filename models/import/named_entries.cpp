#include "models/import/named_entries.h"

#include <algorithm>
#include <array>

namespace fluxion {
namespace {

// Wrappers of training frameworks: data parallel, torch.compile, averaged models, Lightning
// modules.
constexpr std::array wrappers = {"module.",  "_orig_mod.", "ema_model.", "ema.", "model.",
                                 "network.", "net.",       "dit.",       "unet."};

bool starts_with_any(const std::string& name, const std::vector<std::string>& starts) {
  return std::any_of(starts.begin(), starts.end(),
                     [&](const std::string& start) { return name.starts_with(start); });
}

// The prefix that all keys share because somebody wrapped the model, "" if none. Keys that are to
// be ignored do not count, unless all are.
std::string wrapping_prefix(const SafetensorsFile& file, const std::vector<std::string>& ignore) {
  std::vector<const std::string*> names;
  for (const SafetensorsEntry& entry : file.entries())
    if (!starts_with_any(entry.name, ignore)) names.push_back(&entry.name);
  if (names.empty())
    for (const SafetensorsEntry& entry : file.entries()) names.push_back(&entry.name);
  std::string prefix;
  const auto all_start_with = [&](const std::string& start) {
    return std::all_of(names.begin(), names.end(),
                       [&](const std::string* name) { return name->starts_with(start); });
  };
  for (bool found = !names.empty(); found;) {
    found = false;
    for (const char* wrapper : wrappers)
      if (all_start_with(prefix + wrapper)) {
        prefix += wrapper;
        found = true;
        break;
      }
  }
  return prefix;
}

}  // namespace

std::set<std::string_view> NamedEntries::numbers(const std::string& prefix) const {
  std::set<std::string_view> result;
  for (auto entry = entries.lower_bound(prefix);
       entry != entries.end() && entry->first.starts_with(prefix); ++entry) {
    const std::string_view rest = std::string_view(entry->first).substr(prefix.size());
    result.insert(rest.substr(0, rest.find('.')));
  }
  return result;
}

NamedEntries named_entries(const SafetensorsFile& file, const ImportOptions& options) {
  NamedEntries result;
  const std::string prefix = wrapping_prefix(file, options.ignore);
  if (!prefix.empty()) result.notes.push_back("all keys start with '" + prefix + "': taken off");
  auto renames = options.rename;
  renames.emplace_back("h_embedder.", "r_embedder.");
  std::map<std::string, int> renamed, ignored;
  for (const SafetensorsEntry& entry : file.entries()) {
    std::string name = entry.name;
    if (name.starts_with(prefix)) name.erase(0, prefix.size());
    for (const auto& [from, to] : renames)
      if (name.starts_with(from)) {
        name = to + name.substr(from.size());
        ++renamed["'" + from + "' became '" + to + "'"];
        break;
      }
    const auto ignoring =
        std::find_if(options.ignore.begin(), options.ignore.end(),
                     [&](const std::string& start) { return name.starts_with(start); });
    if (ignoring != options.ignore.end())
      ++ignored["'" + *ignoring + "'"];
    else if (!result.entries.emplace(name, &entry).second)
      result.mismatches.push_back(
          {Mismatch::Kind::repeated, entry.name, "is a second '" + name + "'"});
  }
  for (const auto& [text, count] : renamed)
    result.notes.push_back(text + " in " + std::to_string(count) + " keys");
  for (const auto& [text, count] : ignored)
    result.notes.push_back("ignored " + std::to_string(count) + " keys that start with " + text);
  return result;
}

}  // namespace fluxion
