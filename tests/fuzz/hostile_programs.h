// What a program from a stranger may do to this process: nothing. Shared by the fuzz target and the
// tests.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "engine/device.h"
#include "engine/program/program.h"

namespace fluxion::testing {

// Changes one to four numbers of the program, wherever they stand: sizes, strides, offsets, buffer
// numbers, operands, ops, dtypes. Lists grow, shrink, and take items from one another.
void mutate(Program& program, std::minstd_rand& random);

// Whether a run takes little memory and time: at most some 2^16 points, bytes and scalars.
bool is_small(const Program& program);

// Compiles the program on the device and, if it is small, runs it with buffers of exactly the bytes
// that it states. Whatever is wrong with it must surface as an Error. True if it ran.
bool compile_and_run(const Device& device, const Program& program);

}  // namespace fluxion::testing
