#include "models/images/resize.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "engine/error.h"

namespace fluxion {

SquareResize::SquareResize(std::int64_t height, std::int64_t width, std::int64_t size)
    : height_(height), width_(width), size_(size) {
  if (height < 1 || width < 1 || size < 1)
    throw ShapeError("resize: " + std::to_string(height) + " x " + std::to_string(width) + " to " +
                     std::to_string(size) + " (sizes above 0)");
  side_ = std::min(height, width);
  top_ = (height - side_) / 2;
  left_ = (width - side_) / 2;

  // Element i of the result covers [i, i + 1) * scale of the line. Its triangle is centred there,
  // and `reach` long on either side.
  const double scale = static_cast<double>(side_) / static_cast<double>(size),
               reach = std::max(scale, 1.0);
  taps_ = std::min(side_, static_cast<std::int64_t>(std::ceil(2 * reach)) + 1);
  weights_.resize(static_cast<std::size_t>(size * taps_));
  for (std::int64_t i = 0; i < size; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const auto lowest = static_cast<std::int64_t>(std::floor(centre - reach));
    const std::int64_t first = std::clamp<std::int64_t>(lowest, 0, side_ - taps_);
    double sum = 0;
    const auto weight = [&](std::int64_t k) {
      return std::max(0.0, 1 - std::abs(static_cast<double>(first + k) + 0.5 - centre) / reach);
    };
    for (std::int64_t k = 0; k < taps_; ++k) sum += weight(k);
    for (std::int64_t k = 0; k < taps_; ++k)
      weights_[static_cast<std::size_t>(i * taps_ + k)] = static_cast<float>(weight(k) / sum);
    first_.push_back(first);
  }
}

template <class Element>
void SquareResize::run(std::span<const Element> image, std::int64_t channels,
                       std::span<float> result) const {
  if (channels < 1 || image.size() != static_cast<std::size_t>(height_ * width_ * channels) ||
      result.size() != static_cast<std::size_t>(size_ * size_ * channels))
    throw ShapeError("resize: " + std::to_string(image.size()) + " values to " +
                     std::to_string(result.size()) + ", made for " + std::to_string(height_) +
                     " x " + std::to_string(width_) + " to " + std::to_string(size_) + " with " +
                     std::to_string(channels) + " channels");
  const auto row_of = [&](std::int64_t y) {
    return image.data() + ((top_ + y) * width_ + left_) * channels;
  };
  if (side_ == size_) {
    for (std::int64_t y = 0; y < size_; ++y)
      std::copy_n(row_of(y), size_ * channels,
                  result.begin() + static_cast<std::ptrdiff_t>(y * size_ * channels));
    return;
  }
  // Rows first, then columns.
  const std::int64_t row = size_ * channels;
  std::vector<float> rows(static_cast<std::size_t>(side_ * row));
  for (std::int64_t y = 0; y < side_; ++y)
    for (std::int64_t x = 0; x < size_; ++x) {
      const Element* const from = row_of(y) + first_[static_cast<std::size_t>(x)] * channels;
      const float* const weights = weights_.data() + x * taps_;
      float* const to = rows.data() + y * row + x * channels;
      for (std::int64_t k = 0; k < taps_; ++k)
        for (std::int64_t c = 0; c < channels; ++c)
          to[c] += weights[k] * static_cast<float>(from[k * channels + c]);
    }
  std::fill(result.begin(), result.end(), 0.0f);
  for (std::int64_t y = 0; y < size_; ++y)
    for (std::int64_t k = 0; k < taps_; ++k) {
      const float weight = weights_[static_cast<std::size_t>(y * taps_ + k)];
      const float* const from = rows.data() + (first_[static_cast<std::size_t>(y)] + k) * row;
      float* const to = result.data() + y * row;
      for (std::int64_t i = 0; i < row; ++i) to[i] += weight * from[i];
    }
}

void SquareResize::operator()(std::span<const std::uint8_t> image, std::int64_t channels,
                              std::span<float> result) const {
  run(image, channels, result);
}
void SquareResize::operator()(std::span<const float> image, std::int64_t channels,
                              std::span<float> result) const {
  run(image, channels, result);
}

}  // namespace fluxion
