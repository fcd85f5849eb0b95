// Pictures for people: 8-bit pixels, and PNG files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

namespace fluxion {

// Row-major pixels, 1 (grey) or 3 (RGB) bytes each.
struct Image {
  int width = 0, height = 0, channels = 3;
  std::vector<std::uint8_t> pixels;

  Image() = default;
  Image(int width, int height, int channels, std::uint8_t value = 255);
  std::uint8_t* at(int x, int y) {
    return pixels.data() + (static_cast<std::size_t>(y) * width + x) * channels;
  }
  const std::uint8_t* at(int x, int y) const {
    return pixels.data() + (static_cast<std::size_t>(y) * width + x) * channels;
  }
};

// The bytes of a PNG file. Throws ShapeError if the image is empty or its pixels do not fit its
// size.
std::vector<std::byte> encode_png(const Image& image);
// Replaces the file in one piece. Throws IoError.
void write_png(const std::filesystem::path& path, const Image& image);

struct GridOptions {
  int columns = 0;  // 0: nearly square
  int padding = 2;  // pixels between and around tiles, after upscaling
  int scale =
      0;  // integer nearest-neighbour upscaling; 0: small images are enlarged to some 56 pixels
  std::uint8_t background = 255;
};

// Tiles samples [count, height, width, channels] in [-1, 1] (values outside are clamped, NaN is
// black); channels 1 or 3. Throws ShapeError.
Image image_grid(std::span<const float> samples, std::int64_t count, std::int64_t height,
                 std::int64_t width, std::int64_t channels, const GridOptions& options = {});

}  // namespace fluxion
