// Images from PNG and JPEG files, which may be damaged or hostile.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

#include "models/images/image.h"

namespace fluxion {

struct ImageInfo {
  int width = 0, height = 0;
  int channels = 0;  // of what decode_image returns: 1 grey, 3 RGB
};

// What the file is by its structure, without decoding: a file that ends early, contradicts itself,
// or claims more pixels than its bytes can hold (or than 2^27) is refused here. Throws FormatError;
// `name` stands for the file in messages.
ImageInfo image_info(std::span<const std::byte> file, std::string_view name = "image");

// The pixels: 16-bit samples rounded down to 8 bits, palettes looked up, CMYK converted,
// transparency laid over white. Colour profiles and the orientation that cameras note are not
// looked at. Throws FormatError.
Image decode_image(std::span<const std::byte> file, std::string_view name = "image");
// The same of a file by its path, which messages name. Throws IoError too; FormatError also where
// the file is cut short while it is read.
Image read_image(const std::filesystem::path& path);

}  // namespace fluxion
