// Where the time of a program goes, kernel by kernel.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/program/program.h"

namespace fluxion {

enum class WorkKind : std::uint8_t { product, fused_product, attention, rows, map, other };

// A kernel's work, in words and numbers.
struct KernelWork {
  WorkKind kind = WorkKind::other;
  std::string
      text;  // "contract 64: 49 x 32 x 49, 2 terms", "map [64, 49, 128], 12 instructions", "take"
  double flops = 0;  // of matrix products, attention's too; a multiply-add counts two
  double bytes =
      0;  // that it reads and writes, each once; of maps, rows and products whole buffers
};
KernelWork describe(const Program& program, const Kernel& kernel);

// What a machine can do at best: no kernel takes less than its operations at the one rate, nor than
// its bytes at the other. A rate of 0 is not known, and allows everything. (Bytes that are still in
// a cache come faster than from memory, so small kernels may take less.) S. Williams, A. Waterman,
// D. Patterson, "Roofline" (2009).
struct Roofline {
  double flops = 0, bytes = 0;  // per second
  double seconds(const KernelWork& work) const;
};

// Kernels of one description together, the costliest first.
struct ProfileRow {
  std::string text;
  double seconds = 0, flops = 0, bytes = 0;  // of all of them
  double least_seconds = 0;                  // what the roofline allows them
  std::vector<std::size_t> kernels;          // their places in the program
};
// seconds[k]: what kernel k took. Throws Error if there is not one entry a kernel.
std::vector<ProfileRow> profile(const Program& program, std::span<const double> seconds,
                                const Roofline& roofline = {});

// The kernels of a run one after the other as an SVG file: how long each took and, filled, what the
// roofline allows it; a line for each kind. Throws Error if there is not one entry a kernel.
std::string timeline_svg(const Program& program, std::span<const double> seconds,
                         const Roofline& roofline, const std::string& title);

}  // namespace fluxion
