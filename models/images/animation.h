// Moving pictures: GIF files, and PNG files that move (APNG), which every browser shows.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <vector>

#include "models/images/image.h"

namespace fluxion {

struct AnimationOptions {
  int frame_ms = 50;   // each frame is shown for so many milliseconds; GIF rounds to hundredths
  int last_ms = 1500;  // the last one
};

// Frames of one size, 1 or 3 channels each, repeated without end. A GIF has 256 colours: grey
// frames keep all their levels, those of colour frames are the means of 256 boxes into which their
// colours are cut (Heckbert's median cut). Throws ShapeError for no frames or unequal ones.
std::vector<std::byte> encode_gif(std::span<const Image> frames,
                                  const AnimationOptions& options = {});
std::vector<std::byte> encode_apng(std::span<const Image> frames,
                                   std::span<const ImageText> texts = {},
                                   const AnimationOptions& options = {});

}  // namespace fluxion
