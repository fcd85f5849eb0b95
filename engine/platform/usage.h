// What this process and its machine have used, for measurements.
#pragma once

#include <cstdint>
#include <optional>

namespace fluxion {

// Processor seconds spent since the machine started, by all its processes, over all its processors;
// time stolen by other virtual machines included. Empty if the system does not say.
std::optional<double> machine_busy_seconds();

// Processor seconds that this process has spent, in all its threads.
double process_busy_seconds();

// Bytes of memory that this process holds now, and the most that it has held; `own`: of those that
// it holds now, what is no page of a mapped file. Empty if the system does not say.
struct ResidentMemory {
  std::uint64_t now = 0, peak = 0, own = 0;
};
std::optional<ResidentMemory> resident_memory();

}  // namespace fluxion
