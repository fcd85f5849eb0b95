// How fast a device is at the few things that decide the speed of all others, for `fluxion devices
// --report`.
#pragma once

#include <string>
#include <vector>

#include "engine/device.h"

namespace fluxion {

// What is measured, in order, and in which unit: {"memory, a map reads and writes", "GB/s"}, ...
struct SpeedName {
  std::string what, unit;
};
const std::vector<SpeedName>& device_speeds();

// Measures number `number`. Sizes grow until a call takes long enough to be timed; about `seconds`
// in all, beside compiling and the one call that is under way then. Throws what the device throws.
double device_speed(std::size_t number, const Device& device, double seconds);

// Operations per second of the fastest product of square matrices of that type, summed in f32; a
// multiply-add is two.
double product_rate(const Device& device, double seconds, DType operands);

// Bytes per second that a map reads and writes where they lie in memory, not in caches. About
// `seconds`, and three calls at least.
double memory_rate(const Device& device, double seconds);

}  // namespace fluxion
