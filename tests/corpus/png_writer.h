// PNG files written chunk by chunk, and the picture that they hold by the definitions of the
// standard (https://www.w3.org/TR/png). The decoder is not used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "models/images/image.h"

namespace fluxion::testing {

struct PngPicture {
  int width = 1, height = 1, bits = 8, colour = 0;
  std::vector<std::uint32_t> samples = {};      // row-major, channels together
  std::vector<std::uint8_t> palette = {};       // RGB, for colour type 3
  std::vector<std::uint32_t> transparent = {};  // tRNS: levels, or alpha of the palette's colours

  int channels() const;
};

// Random samples, and a palette that has just as many colours as there are indices.
PngPicture png_picture(int width, int height, int bits, int colour);

class PngWriter {
 public:
  std::vector<std::byte> file;

  explicit PngWriter(PngPicture picture);  // begins with the signature

  PngWriter& header(bool interlaced = false);
  PngWriter& chunk(const std::string& kind, const std::vector<std::byte>& content = {});
  PngWriter& palette();
  PngWriter& transparency();
  // All five filters, in turns; the compressed data in `parts` chunks. A `missing` number of bytes
  // of the rows is left out.
  PngWriter& data(bool interlaced = false, int parts = 1, std::size_t missing = 0);
  PngWriter& end();

  // In 8 bits, transparency over white.
  Image expected() const;

 private:
  PngPicture picture_;

  std::vector<std::uint8_t> rows(int first_x, int first_y, int step_x, int step_y) const;
};

// Header to IEND.
std::vector<std::byte> png_file(const PngPicture& picture, bool interlaced = false);

}  // namespace fluxion::testing
