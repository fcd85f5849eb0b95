// The arena of a program over time: which bytes each temporary has, from the kernel that writes it
// first to the one that reads it last.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/program/program.h"

namespace fluxion::show {

struct MemoryBlock {
  std::int32_t buffer = 0;
  std::int64_t offset = 0, bytes = 0;
  std::int32_t first = 0, last = 0;  // kernels, both included
  std::int32_t heir =
      -1;  // the buffer that takes its bytes over within kernel `last`, element by element
  std::int32_t donor = -1;  // the buffer whose bytes it took over within kernel `first`
};

// Every temporary that holds bytes, by buffer number.
std::vector<MemoryBlock> memory_blocks(const Program& program);

// Bytes alive while each kernel runs; bytes handed over count once.
std::vector<std::int64_t> live_bytes(const Program& program);

// Kernels from left to right, the arena from bottom to top; over it the live bytes, their peak
// marked.
std::string memory_svg(const Program& program, const std::string& title = {});
// The same as tables.
std::string memory_text(const Program& program);

}  // namespace fluxion::show
