// From bytes to what networks see, and between grey and colour.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

namespace fluxion {

// 0..255 to -1..1.
inline float from_level(float level) { return level / 127.5f - 1.0f; }
// The nearest byte.
inline std::uint8_t to_byte(float level) {
  return static_cast<std::uint8_t>(std::lround(std::clamp(level, 0.0f, 255.0f)));
}

// Pixels of 1 or 3 values to pixels of 1 or 3 values; grey is the luma of ITU-R BT.601.
inline void convert_channels(std::span<const float> from, std::int64_t from_channels,
                             std::span<float> to, std::int64_t to_channels) {
  if (from_channels == to_channels) {
    std::copy(from.begin(), from.end(), to.begin());
  } else if (to_channels == 3) {
    for (std::size_t i = 0; i < from.size(); ++i)
      to[3 * i] = to[3 * i + 1] = to[3 * i + 2] = from[i];
  } else {
    for (std::size_t i = 0; i < to.size(); ++i)
      to[i] = 0.299f * from[3 * i] + 0.587f * from[3 * i + 1] + 0.114f * from[3 * i + 2];
  }
}

}  // namespace fluxion
