// The bytes of PNG files of one frame or several, for image.cpp and animation.cpp alone.
#pragma once

#include <span>
#include <vector>

#include "models/images/image.h"

namespace fluxion {

// Frames of one size. `ms`: how long each is shown, of several; they are repeated without end. One
// frame is a plain picture.
std::vector<std::byte> encode_png_frames(std::span<const Image> frames, std::span<const int> ms,
                                         std::span<const ImageText> texts);

}  // namespace fluxion
