#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "engine/platform/control_group_posix.h"
#include "engine/platform/machine.h"

namespace fluxion {

int usable_cpus() {
  int count = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  cpu_set_t affinity;
  CPU_ZERO(&affinity);
  if (::sched_getaffinity(0, sizeof(affinity), &affinity) == 0) count = CPU_COUNT(&affinity);
  if (const auto quota = control_group_processors())
    count = std::min(count, static_cast<int>(*quota + 0.999));
  return std::max(count, 1);
}

std::optional<std::uint64_t> available_memory_bytes() {
  std::optional<std::uint64_t> available = number_after("/proc/meminfo", "MemAvailable:");
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
      lower_to(left(limit.rlim_cur, 1024 * number_after("/proc/self/status", held).value_or(0)));
  }
  if (const auto room = control_group_memory()) lower_to(*room);
  return available;
}

std::optional<std::uint64_t> peak_memory_bytes() {
  struct rusage usage {};
  if (::getrusage(RUSAGE_SELF, &usage) != 0) return std::nullopt;
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

void release_freed_memory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
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
