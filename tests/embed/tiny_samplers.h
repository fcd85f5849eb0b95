// A small sampler for the runtime library's tests, and the same as a network is sampled.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "models/samplers/sampler.h"
#include "tests/embed/stored_samplers.h"

namespace fluxion::testing {

// Images [height, width, channels] of 3 classes and the open one; the network mixes pixels with a
// matrix, and adds a row for the class and the times.
struct TinyGenerator {
  Sampler sampler;               // as it is sampled where it was trained
  std::vector<std::byte> bytes;  // the same, stored
};
TinyGenerator tiny_generator(std::int64_t steps, Shape image = {4, 4, 1});

}  // namespace fluxion::testing
