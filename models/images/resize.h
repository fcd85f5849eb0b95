// Images to one square size.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fluxion {

// Cuts the middle square out of [height, width, channels] and resamples it to [size, size,
// channels]: bilinear, and when shrinking with the filter widened by the factor of reduction, so
// that nothing aliases (the filter of Pillow's BILINEAR). A constant stays constant, and where the
// sizes agree every value stays as it is.
class SquareResize {
 public:
  // Throws ShapeError unless all sizes are at least 1.
  SquareResize(std::int64_t height, std::int64_t width, std::int64_t size);

  // Throws ShapeError unless both spans have the sizes stated.
  void operator()(std::span<const std::uint8_t> image, std::int64_t channels,
                  std::span<float> result) const;
  void operator()(std::span<const float> image, std::int64_t channels,
                  std::span<float> result) const;

 private:
  template <class Element>
  void run(std::span<const Element> image, std::int64_t channels, std::span<float> result) const;

  std::int64_t height_, width_, size_, top_, left_, side_;
  // Element i of a resampled line is the sum over k of weights_[i * taps_ + k] * line[first_[i] +
  // k].
  std::int64_t taps_ = 0;
  std::vector<std::int64_t> first_;
  std::vector<float> weights_;
};

}  // namespace fluxion
