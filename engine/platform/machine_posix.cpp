#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <locale>
#include <sstream>
#include <string>
#include <utility>

#include "engine/platform/machine.h"

namespace fluxion {

namespace {

// The folder of this process's control group (version 2), e.g. /sys/fs/cgroup/user.slice; empty if
// there is none.
std::filesystem::path control_group() {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("0::/")) return "/sys/fs/cgroup" + line.substr(3);
  return {};
}

// Calls see(folder) for the control group and each group around it: the tightest limit counts.
template <class See>
void for_each_group(See see) {
  const std::filesystem::path root = "/sys/fs/cgroup";
  for (std::filesystem::path group = control_group(); !group.empty(); group = group.parent_path()) {
    see(group);
    if (group == root || !group.has_relative_path() || group == group.parent_path()) return;
  }
}

// The folder of this process's control group for memory in version 1, where each resource has a
// hierarchy of its own; empty if there is none. A container may see the hierarchy from its own
// group on: then that is the root.
std::filesystem::path memory_group_1() {
  const std::filesystem::path root = "/sys/fs/cgroup/memory";
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t names = line.find(':'), path = line.find(':', names + 1);
    if (names == line.npos || path == line.npos) continue;
    const std::string controllers = "," + line.substr(names + 1, path - names - 1) + ",";
    if (controllers.find(",memory,") == controllers.npos) continue;
    const std::filesystem::path group = root / line.substr(path + 2);
    std::error_code missing;
    return std::filesystem::exists(group / "memory.usage_in_bytes", missing) ? group : root;
  }
  return {};
}

// A file that holds one number; empty if it is not there or says "max".
std::optional<std::uint64_t> read_number(const std::filesystem::path& path) {
  std::ifstream file(path);
  file.imbue(std::locale::classic());
  std::uint64_t value = 0;
  if (!(file >> value)) return std::nullopt;
  return value;
}

// The number that follows `name` at the start of a line.
std::optional<std::uint64_t> named_number(const std::filesystem::path& path,
                                          const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    words.imbue(std::locale::classic());
    std::string first;
    std::uint64_t value = 0;
    if (words >> first >> value && first == name) return value;
  }
  return std::nullopt;
}

}  // namespace

int usable_cpus() {
  int count = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  cpu_set_t affinity;
  CPU_ZERO(&affinity);
  if (::sched_getaffinity(0, sizeof(affinity), &affinity) == 0) count = CPU_COUNT(&affinity);
  for_each_group([&](const std::filesystem::path& group) {
    // "quota period" in microseconds, or "max period".
    std::ifstream file(group / "cpu.max");
    file.imbue(std::locale::classic());
    double quota = 0, period = 0;
    if (file >> quota >> period && period > 0)
      count = std::min(count, static_cast<int>(quota / period + 0.999));
  });
  return std::max(count, 1);
}

std::optional<std::uint64_t> available_memory_bytes() {
  std::optional<std::uint64_t> available = named_number("/proc/meminfo", "MemAvailable:");
  if (available) *available *= 1024;  // from KiB
  const auto lower_to = [&](std::uint64_t room) {
    available = available ? std::min(*available, room) : room;
  };
  const auto left = [](std::uint64_t limit, std::uint64_t held) {
    return limit > held ? limit - held : 0;
  };
  // Limits of this process (ulimit -v, ulimit -d).
  for (const auto& [resource, held] :
       {std::pair(RLIMIT_AS, "VmSize:"), std::pair(RLIMIT_DATA, "VmData:")}) {
    rlimit limit{};
    if (::getrlimit(resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
      lower_to(left(limit.rlim_cur, 1024 * named_number("/proc/self/status", held).value_or(0)));
  }
  const std::filesystem::path root_1 = "/sys/fs/cgroup/memory";
  for (std::filesystem::path group = memory_group_1(); !group.empty();
       group = group.parent_path()) {
    const auto limit = read_number(group / "memory.limit_in_bytes");
    const auto used = read_number(group / "memory.usage_in_bytes");
    if (limit && used)
      lower_to(left(
          *limit, *used - std::min(*used, named_number(group / "memory.stat", "total_inactive_file")
                                              .value_or(0))));
    if (group == root_1 || group == group.parent_path()) break;
  }
  for_each_group([&](const std::filesystem::path& group) {
    const auto limit = read_number(group / "memory.max");
    const auto used = read_number(group / "memory.current");
    if (!limit || !used) return;
    // Inactive file pages count as used, but are freed when memory is needed.
    const std::uint64_t held =
        *used - std::min(*used, named_number(group / "memory.stat", "inactive_file").value_or(0));
    lower_to(left(*limit, held));
  });
  return available;
}

std::optional<std::uint64_t> peak_memory_bytes() {
  struct rusage usage {};
  if (::getrusage(RUSAGE_SELF, &usage) != 0) return std::nullopt;
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

std::optional<std::uint64_t> free_disk_bytes(const std::filesystem::path& path) {
  std::filesystem::path place = path.empty() ? std::filesystem::path(".") : path;
  struct statvfs status {};
  while (::statvfs(place.c_str(), &status) != 0) {
    const int error = errno;
    const std::filesystem::path above =
        place.has_parent_path() ? place.parent_path() : std::filesystem::path(".");
    if (error != ENOENT || above == place) return std::nullopt;
    place = above;
  }
  // Pseudo file systems have no blocks at all and no meaningful free space.
  if (status.f_blocks == 0) return std::nullopt;
  return static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
}

void advise_huge_pages(void* data, std::size_t bytes) {
#ifdef MADV_HUGEPAGE
  madvise(data, bytes, MADV_HUGEPAGE);
#else
  static_cast<void>(data), static_cast<void>(bytes);
#endif
}

}  // namespace fluxion
