// The arena of a program over time: the bytes of each temporary, from the kernel that writes it
// first to the kernel that reads it last.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/program/program.h"
#include "engine/show/graph_picture.h"

namespace fluxion::show {

struct MemoryBlock {
  std::int32_t buffer = 0;
  std::int64_t offset = 0, bytes = 0;
  std::int32_t first = 0, last = 0;  // kernels, both included
  std::int32_t heir = -1;            // the buffer that takes over its bytes within kernel `last`
  std::int32_t donor = -1;           // the buffer whose bytes it took over within kernel `first`
};

// Every temporary that holds bytes, by buffer number.
std::vector<MemoryBlock> memory_blocks(const Program& program);

// Live bytes during each kernel. Bytes that are handed over count once.
std::vector<std::int64_t> live_bytes(const Program& program);

// Kernels run from left to right, the arena from bottom to top. The live bytes and their peak are
// drawn above. A buffer is called as in a picture of the plan (program_picture.h).
std::string memory_svg(const Program& program, const PictureLabels& labels = {});
// The same as tables.
std::string memory_text(const Program& program, const PictureLabels& labels = {});

}  // namespace fluxion::show
