// Planned programs with every kind of kernel, small enough to run thousands of times.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/device.h"
#include "engine/program/program.h"

namespace fluxion::testing {

std::vector<std::pair<std::string, Program>> program_seeds(const Device& device);

}  // namespace fluxion::testing
