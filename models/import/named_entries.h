// What a file of somebody else's calls its tensors, in our terms.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "models/files/safetensors.h"
#include "models/import.h"

namespace fluxion {

// A file's tensors under the names that our network gives them.
struct NamedEntries {
  std::map<std::string, const SafetensorsEntry*> entries;
  std::vector<Mismatch> mismatches;
  std::vector<std::string> notes;

  const SafetensorsEntry* find(const std::string& name) const {
    const auto found = entries.find(name);
    return found == entries.end() ? nullptr : found->second;
  }
  // The size of one axis of a tensor of this rank; empty if there is no such tensor.
  std::optional<std::int64_t> size(const std::string& name, std::int64_t rank,
                                   std::int64_t axis) const {
    const SafetensorsEntry* entry = find(name);
    if (entry == nullptr || entry->shape.rank() != rank) return std::nullopt;
    return entry->shape[axis];
  }
  bool any(const std::string& prefix) const {
    const auto found = entries.lower_bound(prefix);
    return found != entries.end() && found->first.starts_with(prefix);
  }
  // The different words between `prefix` and the next dot, as in blocks.12.attn.
  std::set<std::string_view> numbers(const std::string& prefix) const;
};

// Takes off the prefixes of wrappers, renames, and leaves out what is to be ignored. The result
// points into the file and the options.
NamedEntries named_entries(const SafetensorsFile& file, const ImportOptions& options);

}  // namespace fluxion
