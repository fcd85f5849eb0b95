// Runs one case in one way and compares everything the file holds.
#pragma once

#include <string>
#include <vector>

#include "tests/oracles/subject.h"

namespace fluxion::oracles {

// A device, an element type, and whether the whole computation is one compiled function.
struct Mode {
  std::string name;  // "cpu f32 compiled"
  Device device;
  DType floating = DType::f32;
  bool compiled = false;
};

// One line per tensor that fails, e.g. "jvp.0: worst error .., tolerance ..".
std::vector<std::string> check(const Case& oracle, const Subject& subject, const Mode& mode);

}  // namespace fluxion::oracles
