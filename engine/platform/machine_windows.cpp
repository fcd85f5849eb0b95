#include <algorithm>
#include <bit>
#include <iterator>
#include <span>

#include "engine/platform/machine.h"
#include "engine/platform/system_windows.h"
// (after windows.h)
#include <psapi.h>

namespace fluxion {

int usable_cpus() {
  // Processors are in groups of at most 64. A process that runs in several (every process on a
  // large machine, since Windows 11 and Server 2022) may use all of each; the mask below would be
  // that of its first group alone.
  USHORT groups[64];
  USHORT used = static_cast<USHORT>(std::size(groups));
  int count = 0;
  if (::GetProcessGroupAffinity(::GetCurrentProcess(), &used, groups) && used > 1) {
    for (const USHORT group : std::span(groups, used))
      count += static_cast<int>(::GetActiveProcessorCount(group));
  } else {
    DWORD_PTR process = 0, system = 0;
    if (::GetProcessAffinityMask(::GetCurrentProcess(), &process, &system))
      count = std::popcount(static_cast<std::uint64_t>(process));
  }
  if (count == 0) count = static_cast<int>(::GetActiveProcessorCount(ALL_PROCESSOR_GROUPS));
  return std::max(count, 1);
}

std::optional<std::uint64_t> available_memory_bytes() {
  MEMORYSTATUSEX memory{};
  memory.dwLength = sizeof memory;
  if (!::GlobalMemoryStatusEx(&memory)) return std::nullopt;
  std::uint64_t available = std::min({static_cast<std::uint64_t>(memory.ullAvailPhys),
                                      static_cast<std::uint64_t>(memory.ullAvailPageFile),
                                      static_cast<std::uint64_t>(memory.ullAvailVirtual)});
  // The limit of the job that this process is in, as in a container.
  JOBOBJECT_EXTENDED_LIMIT_INFORMATION job{};
  PROCESS_MEMORY_COUNTERS_EX used{};
  if (::QueryInformationJobObject(nullptr, JobObjectExtendedLimitInformation, &job, sizeof job,
                                  nullptr) &&
      (job.BasicLimitInformation.LimitFlags & JOB_OBJECT_LIMIT_PROCESS_MEMORY) &&
      ::GetProcessMemoryInfo(::GetCurrentProcess(),
                             reinterpret_cast<PROCESS_MEMORY_COUNTERS*>(&used), sizeof used))
    available = std::min<std::uint64_t>(
        available, job.ProcessMemoryLimit - std::min(job.ProcessMemoryLimit, used.PrivateUsage));
  return available;
}

void release_freed_memory() {}

std::optional<std::uint64_t> peak_memory_bytes() {
  PROCESS_MEMORY_COUNTERS memory{};
  if (!::GetProcessMemoryInfo(::GetCurrentProcess(), &memory, sizeof memory)) return std::nullopt;
  return memory.PeakWorkingSetSize;
}

std::optional<std::uint64_t> free_disk_bytes(const std::filesystem::path& path) {
  std::filesystem::path place = path.empty() ? std::filesystem::path(L".") : path;
  ULARGE_INTEGER free{};
  // It takes folders only.
  while (!::GetDiskFreeSpaceExW(place.c_str(), &free, nullptr, nullptr)) {
    const std::filesystem::path above =
        place.has_parent_path() ? place.parent_path() : std::filesystem::path(L".");
    if (above == place) return std::nullopt;
    place = above;
  }
  return free.QuadPart;
}

// Windows gives large pages only to accounts that may lock memory.
void advise_huge_pages(void*, std::size_t) {}

}  // namespace fluxion
