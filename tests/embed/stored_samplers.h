// Small samplers, made by hand and in memory, for tests of the runtime library and of readers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/export/stored_sampler.h"
#include "engine/graph/tensor.h"

namespace fluxion::testing {

struct Argument {
  std::string name;
  std::function<TensorType(std::int64_t batch)> type;
};
TensorType scalar(std::int64_t batch);

// The graph of a function of these arguments, for any batch.
BatchedGraph batched_graph(
    const std::vector<Argument>& arguments, const std::vector<StoredValue>& results,
    const std::function<std::vector<Tensor>(const std::vector<Tensor>&)>& function);

void add_weight(StoredSampler& sampler, std::vector<std::byte>& storage, const std::string& name,
                const Tensor& value, WeightEncoding encoding = WeightEncoding::f32);
// The file, of a sampler whose weights were added to `storage`.
std::vector<std::byte> finished(StoredSampler sampler, const std::vector<std::byte>& storage);

// Samples [width], with a start, one number of memory for each coordinate, and two draws in each of
// two steps: m = 2 z; then z' = z + 0.5 m + number (draw 0) + 0.25 (draw 3), m' = m - z.
std::vector<std::byte> restless_sampler(std::int64_t width = 3);
// What it draws of width 3, step by step on the host: samples first .. first + count, [count, 3].
std::vector<float> restless_samples(std::uint64_t seed, std::int64_t first, std::int64_t count);

// An image [height, width, 1] whose pixels are these, whatever the noise. 1e30 stands for NaN.
std::vector<std::byte> constant_image(const std::vector<float>& pixels, std::int64_t height,
                                      std::int64_t width);

// An image [4, 4, 1]: half of its noise, computed in f64, which the small build of the runtime
// refuses.
std::vector<std::byte> wide_image();

// Samples [40] of two classes or none, with all that a file can have: weights of 8 and 16 bits, a
// start, two forms, noise in some steps, memory, and guidance that a call may choose.
std::vector<std::byte> guided_sampler();

// Files of a stranger. z [batch, 3] gets a row of zeros at its end, and every second row is kept:
// as many rows as z has for batches of one and two samples, 2 for 3, 33 for 64.
enum class Uneven {
  samples,  // they are what the step returns
  memory,   // they are the memory that the start returns
  graph,    // they are added to z, which no batch of three can do
};
std::vector<std::byte> uneven_sampler(Uneven kind);

// Samples [3] that no step changes. No step uses the weights, of one number each.
std::vector<std::byte> long_sampler(std::size_t weights, std::size_t steps);

}  // namespace fluxion::testing
