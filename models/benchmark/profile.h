// Where the time of a program goes, kernel by kernel.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/program/program.h"

namespace fluxion {

// A kernel's work, in words and numbers.
struct KernelWork {
  std::string
      text;  // "contract 64: 49 x 32 x 49, 2 terms", "map [64, 49, 128], 12 instructions", "take"
  double flops = 0;  // of matrix products; a multiply-add counts two
  double bytes = 0;  // of the distinct buffers that it reads and writes, each once
};
KernelWork describe(const Program& program, const Kernel& kernel);

// Kernels of one description together, the costliest first.
struct ProfileRow {
  std::string text;
  double seconds = 0, flops = 0, bytes = 0;  // of all of them
  std::vector<std::size_t> kernels;          // their places in the program
};
// seconds[k]: what kernel k took. Throws Error if there is not one entry a kernel.
std::vector<ProfileRow> profile(const Program& program, std::span<const double> seconds);

}  // namespace fluxion
