// The `fluxion` program under faults: how it ends, what it leaves behind, and what lets its calls
// fail.
#pragma once

#include <sys/resource.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "tests/cli/program.h"

namespace fluxion::testing {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif

using Arguments = std::vector<std::string>;
Arguments words(const std::string& text);

inline const std::string tiny_training =
    "train --data 8gaussians --width 8 --depth 1 --batch 8 --schedule constant --device cpu:1 ";

// How a program ended: its exit code, or minus the signal that ended it, and what it said.
struct Ending {
  int code = 0;
  std::string out, error;
};
Ending ended(Process& process, const std::filesystem::path& folder);
Ending run(const Arguments& arguments, const std::filesystem::path& folder,
           const std::function<void()>& prepare = {});

std::string last_line(const std::string& text);

// Done, or failed with a line that says why.
void check_ended_well(const Ending& ending);

// Every file below the folder that has a format is whole, and nothing half written lies about.
void check_whole_files(const std::filesystem::path& folder);

// Lets writes beyond this size fail, as a full disk does. The program ignores the signal by itself.
std::function<void()> file_limit(rlim_t bytes);

// Lets calls fail (tests/faults/failing_calls.cpp).
std::function<void()> fault(const std::string& text, const std::filesystem::path& counts = {});

struct Counts {
  long memory = 0, thread = 0, file = 0;
};
Counts count_calls(const Arguments& arguments, const std::filesystem::path& folder);

// The folder of a run of two steps, made once, and a copy of it.
const std::filesystem::path& trained();
void copy_trained(const std::filesystem::path& to);

void write_images(const std::filesystem::path& folder, int count);

}  // namespace fluxion::testing
