#include <algorithm>

#include "engine/platform/system_windows.h"
#include "engine/platform/usage.h"
// (after windows.h)
#include <psapi.h>

namespace fluxion {

namespace {

// From units of 100 ns.
double seconds(const FILETIME& time) {
  return 1e-7 * (4294967296.0 * time.dwHighDateTime + time.dwLowDateTime);
}

}  // namespace

std::optional<double> machine_busy_seconds() {
  FILETIME idle{}, kernel{}, user{};
  if (!::GetSystemTimes(&idle, &kernel, &user)) return std::nullopt;
  return seconds(kernel) + seconds(user) - seconds(idle);  // the kernel's counts as idle too
}

double process_busy_seconds() {
  FILETIME start{}, end{}, kernel{}, user{};
  if (!::GetProcessTimes(::GetCurrentProcess(), &start, &end, &kernel, &user)) return 0;
  return seconds(kernel) + seconds(user);
}

std::optional<ResidentMemory> resident_memory() {
  PROCESS_MEMORY_COUNTERS_EX memory{};
  if (!::GetProcessMemoryInfo(::GetCurrentProcess(),
                              reinterpret_cast<PROCESS_MEMORY_COUNTERS*>(&memory), sizeof memory))
    return std::nullopt;
  return ResidentMemory{.now = memory.WorkingSetSize,
                        .peak = memory.PeakWorkingSetSize,
                        .own = std::min(memory.WorkingSetSize, memory.PrivateUsage)};
}

}  // namespace fluxion
