// Short labels in pictures, in a stroke font of our own: letters (in lower case), digits and a
// little punctuation.
#pragma once

#include <array>
#include <string_view>

#include "models/images/image.h"

namespace fluxion {

struct TextStyle {
  float size = 8;  // height of a small letter in pixels; capitals and digits are half as tall again
  std::array<std::uint8_t, 3> colour{40, 40, 48};
};

enum class Align { left, centre, right };

// Width in pixels.
float text_width(std::string_view text, const TextStyle& style = {});

// Draws on an RGB image with the foot of the letters at y. Characters that the font lacks leave a
// gap; what lies outside the image is cut off.
void draw_text(Image& image, float x, float y, std::string_view text, const TextStyle& style = {},
               Align align = Align::left);

}  // namespace fluxion
