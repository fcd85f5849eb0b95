// Pictures for people: 8-bit pixels, and PNG files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
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

// A note in a picture file: what it shows, how it was made. UTF-8; the key has 1 to 79 characters
// of ASCII.
struct ImageText {
  std::string key, text;
  bool operator==(const ImageText&) const = default;
};

// The bytes of a PNG file. Throws ShapeError if the image is empty or its pixels do not fit its
// size, Error for a key that can't be.
std::vector<std::byte> encode_png(const Image& image, std::span<const ImageText> texts = {});
// Replaces the file in one piece. Throws IoError.
void write_png(const std::filesystem::path& path, const Image& image,
               std::span<const ImageText> texts = {});
bool is_png(std::span<const std::byte> file);
// The notes of a PNG file, of anybody's, in their order: tEXt as it is, and iTXt that is not
// compressed. Throws FormatError where the file is cut short or damaged before its end.
std::vector<ImageText> png_texts(std::span<const std::byte> file);

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
// Bytes of its pixels. Throws ShapeError for what would be too large.
std::uint64_t image_grid_bytes(std::int64_t count, std::int64_t height, std::int64_t width,
                               std::int64_t channels, const GridOptions& options = {});

}  // namespace fluxion
