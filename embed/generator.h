// A stored sampler on a device, ready to draw samples. It needs neither networks nor derivatives.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "engine/device.h"
#include "engine/export/stored_sampler.h"
#include "engine/graph/tensor.h"

namespace fluxion {

// Misuse by the caller of Generator or of the C API.
class InvalidArgument : public Error {
 public:
  using Error::Error;
};

struct SampleRequest {
  std::uint64_t seed = 0;
  std::int64_t first = 0;  // number of the first sample
  std::int64_t count = 1;
  // One class for each sample, open_class to leave one open. Empty: see Generator::generate.
  std::span<const std::int32_t> classes = {};
  std::int64_t batch = 1;
  // What the samples begin with, [count, ..sample_shape], in place of the noise of the seed: N(0,
  // 1) each, as noise() gives it. Steps that draw noise on their way draw that of the seed.
  std::span<const float> noise = {};
  // The scale of guidance, of generators that leave it free; empty: their own.
  std::optional<double> guidance = {};
  std::stop_token cancel = {};
  // Called after each step of each batch, while the step's memory is still in use. The call throws
  // Cancelled once it returns false.
  std::function<bool(std::int64_t done, std::int64_t all)> progress = {};
};

class Generator {
 public:
  static constexpr std::int32_t open_class = -1;
  static constexpr std::int64_t most_batch = 65536;
  static constexpr std::int64_t most_samples = std::int64_t{1} << 37;  // numbers of a seed

  // Copies the weights to the device. `sampler` has passed check(), as those of parse_sampler have.
  // Throws OutOfMemory.
  Generator(StoredSampler sampler, const Device& device);

  // What it was made from, without the bytes of the weights.
  const StoredSampler& sampler() const;
  std::uint64_t weight_bytes() const;  // on the device

  // Plans and compiles for batches of that size. The result: how much memory generate() needs on
  // the device for such a batch, weights included. Throws InvalidArgument, and FormatError where
  // the file's graphs don't fit that size, or can't be computed here.
  std::uint64_t prepare(std::int64_t batch) const;

  // Samples first .. first + count of the seed, row-major [count, ..sample_shape], into `to`, in
  // batches of which the last is filled up. All noise of a sample depends on the seed and its
  // number alone. Without classes in the request, sample i is of class usual_classes[i % their
  // number] or, where there are none, left open; where it can't be, of class i % classes.
  // May be called from several threads at once.
  // Throws InvalidArgument, OutOfMemory, Cancelled, and FormatError as prepare() does.
  void generate(const SampleRequest& request, std::span<float> to) const;
  // The same batch by batch, on the device: f32 [batch, ..sample_shape], of which the first `used`
  // are samples `begin` .. of the request. The last batch may still be under way.
  using Take = std::function<void(std::int64_t begin, std::int64_t used, const Tensor& samples)>;
  void generate(const SampleRequest& request, const Take& take) const;
  // The same as bytes: round((x + 1) 127.5), clamped to 0..255, NaN as 0. Throws InvalidArgument
  // unless samples are images.
  void generate_pixels(const SampleRequest& request, std::span<std::uint8_t> to) const;
  // The noise that those samples begin with, [count, ..sample_shape]: to mix, and to hand to
  // generate(). Uses seed, first, count and cancel of the request, all of which is checked.
  void noise(const SampleRequest& request, std::span<float> to) const;
  bool has_images() const;  // [height, width, channels], grey or RGB

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace fluxion
