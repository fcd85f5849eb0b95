// What a shader's machine code, as text, says of its speed.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace fluxion::amd {

// Memory instructions by the bytes that a lane moves with one: 1, 2, 4, 8, 12, 16.
struct Accesses {
  static constexpr std::array<int, 6> widths{1, 2, 4, 8, 12, 16};
  std::array<std::int64_t, 6> by_width{};

  std::int64_t count() const;
  std::int64_t bytes() const;
  // The share of the bytes that 16-byte instructions move; 1 if there are none.
  double widest_share() const;
};

struct CodeReport {
  std::int64_t instructions = 0;
  // Of the inner loop: of all loops without a loop inside, the one with most multiply-adds; the
  // whole program if none has any.
  bool loops = false;
  std::int64_t loop_instructions = 0, loop_multiply_adds = 0;
  Accesses loads, stores;                // of buffers, by vector instructions
  Accesses shared_loads, shared_stores;  // of shared memory
  std::int64_t scalar_loads = 0;         // of buffers, one for the whole subgroup
  std::int64_t scratch_accesses = 0;
  std::int64_t barriers = 0, waits = 0;

  double multiply_add_share() const {
    return loop_instructions > 0
               ? static_cast<double>(loop_multiply_adds) / static_cast<double>(loop_instructions)
               : 0;
  }
};

// Of text as RADV gives it: "BB4:" begins a block, every other line holds an instruction.
CodeReport read_isa(const std::string& text);

}  // namespace fluxion::amd
