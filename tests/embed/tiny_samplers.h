// Small samplers for the runtime library's tests, made by hand and in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/export/stored_sampler.h"
#include "models/samplers/sampler.h"

namespace fluxion::testing {

// Images [height, width, channels] of 3 classes and the open one; the network mixes pixels with a
// matrix, and adds a row for the class and the times.
struct TinyGenerator {
  Sampler sampler;               // as it is sampled where it was trained
  std::vector<std::byte> bytes;  // the same, stored
};
TinyGenerator tiny_generator(std::int64_t steps, Shape image = {4, 4, 1});

// Samples [3], with a start, one number of memory for each coordinate, and two draws in each of two
// steps: m = 2 z; then z' = z + 0.5 m + number (draw 0) + 0.25 (draw 3), m' = m - z.
std::vector<std::byte> restless_sampler();
// What it draws, step by step on the host: samples first .. first + count, [count, 3].
std::vector<float> restless_samples(std::uint64_t seed, std::int64_t first, std::int64_t count);

// An image [height, width, 1] whose pixels are these, whatever the noise. 1e30 stands for NaN.
std::vector<std::byte> constant_image(const std::vector<float>& pixels, std::int64_t height,
                                      std::int64_t width);

}  // namespace fluxion::testing
