// JPEG files, for decode_image alone: a check of their structure (ITU-T T.81, annex B), and
// decoding by libjpeg.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "models/images/image.h"

namespace fluxion::jpeg {

using Bytes = std::span<const std::byte>;

// Throws FormatError: the file's name, then what is wrong.
[[noreturn]] void refuse(std::string_view name, const std::string& what);

struct Structure {
  int width = 0, height = 0;
  int components = 0;            // 1: grey, 3: RGB or YCbCr, 4: CMYK or YCCK
  bool standard_tables = false;  // a scan needs Huffman tables that the file lacks
};

// What the markers say. Refuses a file that ends early, a kind that is not decoded, and what
// libjpeg would pass over in silence, or see only while it decodes.
Structure read_structure(Bytes file, std::string_view name);

// The pixels, those that Pillow has: grey or RGB; in CMYK 255 is no ink. What libjpeg warns of is
// refused where the picture would be wrong.
Image decode(Bytes file, const Structure& structure, std::string_view name);

}  // namespace fluxion::jpeg
