// Processors, memory and disk space that this process may use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>

namespace fluxion {

// Processors this process may run on: the scheduling affinity, and the quota of its control group
// where there is one. At least 1.
int usable_cpus();

// Bytes of memory that can be allocated without swapping, within the limits of the control group
// (version 1 or 2) and of the process (ulimit) where there are some. Empty if the system does not
// say.
std::optional<std::uint64_t> available_memory_bytes();

// The most memory this process has held so far. Empty if the system does not say.
std::optional<std::uint64_t> peak_memory_bytes();

// Gives back to the system what the allocator keeps of memory that was freed, as far as it can:
// after something large that is not needed again.
void release_freed_memory();

// Bytes that an ordinary user can still write on the disk that holds `path`, which need not exist
// yet. Empty if the system does not say.
std::optional<std::uint64_t> free_disk_bytes(const std::filesystem::path& path);

// Asks for large pages behind [data, data + bytes), best before the memory is first touched:
// reading through it then misses the translation buffer hundreds of times less often. Only a
// request: does nothing if the system has no large pages.
inline constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;
void advise_huge_pages(void* data, std::size_t bytes);

}  // namespace fluxion
