#include "engine/platform/control_group_posix.h"

#include <algorithm>
#include <fstream>
#include <locale>
#include <sstream>
#include <string>

namespace fluxion {

namespace {

namespace fs = std::filesystem;

std::ifstream open_text(const fs::path& path) {
  std::ifstream file(path);
  file.imbue(std::locale::classic());
  return file;
}

// The first number of a file; empty if there is none, as where it says "max".
std::optional<double> number_in(const fs::path& path) {
  std::ifstream file = open_text(path);
  double value = 0;
  if (!(file >> value)) return std::nullopt;
  return value;
}

// A hierarchy of groups: version 2 has one, version 1 one for each resource, at a folder with its
// name. A line of proc/self/cgroup, "number:controllers:/group", says where this process is.
struct Hierarchy {
  fs::path root, group;  // group is empty if the process is in none
};

Hierarchy hierarchy_of(const fs::path& system, const std::string& controller) {
  const fs::path mounts = system / "sys/fs/cgroup";
  Hierarchy result{controller.empty() ? mounts : mounts / controller, {}};
  std::ifstream file = open_text(system / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t names = line.find(':'), path = line.find(':', names + 1);
    if (names == line.npos || path == line.npos || line.substr(path + 1, 1) != "/") continue;
    const std::string controllers = line.substr(names + 1, path - names - 1);
    const bool found = controller.empty()
                           ? line.starts_with("0::")
                           : ("," + controllers + ",").find("," + controller + ",") != line.npos;
    if (!found) continue;
    // A container may see the hierarchy from its own group on: then that is the root.
    const std::string name = line.substr(path + 2);
    const fs::path group = (result.root / name).lexically_normal();
    std::error_code ignored;
    result.group = !name.empty() && fs::exists(group, ignored) ? group : result.root;
    break;
  }
  return result;
}

// Calls see(folder) for the process's group and each group around it.
template <class See>
void for_each_group(const Hierarchy& hierarchy, See see) {
  for (fs::path group = hierarchy.group; !group.empty(); group = group.parent_path()) {
    see(group);
    if (group == hierarchy.root || group == group.parent_path()) return;
  }
}

template <class T>
void lower(std::optional<T>& least, T value) {
  least = least ? std::min(*least, value) : value;
}

}  // namespace

std::optional<std::uint64_t> number_after(const fs::path& path, const std::string& name) {
  std::ifstream file = open_text(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    words.imbue(std::locale::classic());
    std::string first;
    std::uint64_t value = 0;
    if (words >> first >> value && first == name) return value;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> control_group_memory(const fs::path& system) {
  std::optional<std::uint64_t> least;
  const auto look = [&](const char* controller, const char* limit_file, const char* used_file,
                        const char* freed) {
    for_each_group(hierarchy_of(system, controller), [&](const fs::path& group) {
      const auto limit = number_in(group / limit_file), used = number_in(group / used_file);
      if (!limit || !used) return;
      // Inactive file pages count as used, but are freed when memory is needed.
      const double inactive =
          static_cast<double>(number_after(group / "memory.stat", freed).value_or(0));
      const double left = *limit - std::max(0.0, *used - inactive);
      // (Version 1 writes "no limit" as about 2^63.)
      if (*limit < 0x1p62) lower(least, static_cast<std::uint64_t>(std::max(0.0, left)));
    });
  };
  look("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file");
  look("", "memory.max", "memory.current", "inactive_file");
  return least;
}

std::optional<double> control_group_processors(const fs::path& system) {
  std::optional<double> least;
  const auto add = [&](double quota, double period) {
    if (quota > 0 && period > 0) lower(least, quota / period);
  };
  for_each_group(hierarchy_of(system, ""), [&](const fs::path& group) {
    std::ifstream file = open_text(group / "cpu.max");  // microseconds: "quota period"
    double quota = 0, period = 0;
    if (file >> quota >> period) add(quota, period);
  });
  for_each_group(hierarchy_of(system, "cpu"), [&](const fs::path& group) {
    add(number_in(group / "cpu.cfs_quota_us").value_or(-1),
        number_in(group / "cpu.cfs_period_us").value_or(0));
  });
  return least;
}

}  // namespace fluxion
