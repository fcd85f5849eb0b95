#include "engine/export/sample_noise.h"

#include <algorithm>

#include "engine/error.h"

namespace fluxion {

NoiseKeys noise_keys(std::uint64_t seed, const Device& device) {
  // No block has this number.
  constexpr std::uint32_t steps = 0xffffffff;
  const Tensor key = random_key(seed, device);
  return {key, fold_in(key, steps)};
}

SampleNoise::SampleNoise(Shape sample_shape, DType dtype, const Device& device)
    : device_(device),
      elements_(static_cast<std::size_t>(sample_shape.elements())),
      block_(compile(Block([sample_shape, dtype](const Tensor& key, const Tensor& number) {
        return normal(fold_in(key, number), with_leading_axis(samples_per_key, sample_shape),
                      dtype);
      }))) {}

std::size_t SampleNoise::bytes() const {
  const Tensor number = Tensor::from(std::vector<std::int32_t>{0}, {}, device_);
  return block_.memory_report(random_key(0, device_), number).peak_bytes();
}

void SampleNoise::draw(const Tensor& key, std::int64_t first, std::int64_t count,
                       std::span<float> to, const RunOptions& run) {
  constexpr std::int64_t most = samples_per_key * (std::int64_t{1} << 31);
  if (first < 0 || count < 0 || first > most - count || to.size() % elements_ != 0 ||
      to.size() / elements_ != static_cast<std::uint64_t>(count))
    throw Error("noise: samples " + std::to_string(first) + " to " +
                std::to_string(first + count - 1) + " do not fill " + std::to_string(to.size()) +
                " elements");
  const auto place = [&](std::int64_t sample) {
    return static_cast<std::size_t>(sample) * elements_;
  };
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t sample = first + done, number = sample / samples_per_key,
                       from = sample % samples_per_key;
    if (number != number_ || !(key_ && key_.same_as(key))) {
      number_ = -1;
      const Tensor block =
          Tensor::from(std::vector<std::int32_t>{static_cast<std::int32_t>(number)}, {}, device_);
      kept_ = block_.run(run, key, block).to(DType::f32).to_host<float>();
      key_ = key;
      number_ = number;
    }
    const std::int64_t taken = std::min(count - done, samples_per_key - from);
    std::copy_n(kept_.begin() + static_cast<std::ptrdiff_t>(place(from)), place(taken),
                to.begin() + static_cast<std::ptrdiff_t>(place(done)));
    done += taken;
  }
}

}  // namespace fluxion
