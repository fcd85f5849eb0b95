// What a Linux control group leaves to this process, in version 1 and 2 of their interface.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace fluxion {

// The number that follows `name` at the start of a line of the file; empty if there is none.
std::optional<std::uint64_t> number_after(const std::filesystem::path& path,
                                          const std::string& name);

// The files are read below `system`, whose proc/self/cgroup names the group and whose sys/fs/cgroup
// holds the hierarchies; tests have one of their own. Groups lie in each other, and the tightest
// limit counts.

// Bytes until a group is full; empty: no group has a limit.
std::optional<std::uint64_t> control_group_memory(const std::filesystem::path& system = "/");

// Processors' worth of time, e.g. 1.5; empty: no group has a quota.
std::optional<double> control_group_processors(const std::filesystem::path& system = "/");

}  // namespace fluxion
