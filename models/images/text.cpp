#include "models/images/text.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "models/files/lower_case.h"
#include "models/images/pen.h"

namespace fluxion {

namespace {

struct Letter {
  char character;
  float width;
  std::vector<Stroke> strokes;
};

// x to the right, y down: 0 is the top of a small letter, 1 the line it stands on, -0.5 the top of
// a digit, 1.5 the foot of a p. A bowl is the B-spline inside the four corners of its box.
const std::vector<Letter>& letters() {
  constexpr bool corner = true;
  const Stroke bowl{{{0.37f, 0}}, {{0, 0}}, {{0, 1}}, {{0.74f, 1}}, {{0.74f, 0}}, {{0.37f, 0}}};
  const Stroke arch{{{0, 0.4f}}, {{0.08f, 0}}, {{0.64f, -0.1f}}, {{0.64f, 0.5f}}, {{0.64f, 1}}};
  const auto line = [](float x0, float y0, float x1, float y1) {
    return Stroke{{{x0, y0}}, {{x1, y1}}};
  };
  static const std::vector<Letter> table = {
      {'a', 0.74f, {bowl, line(0.74f, 0, 0.74f, 1)}},
      {'b', 0.74f, {bowl, line(0, -0.55f, 0, 1)}},
      {'c',
       0.66f,
       {{{{0.66f, 0.22f}},
         {{0.55f, 0}},
         {{0, -0.05f}},
         {{0, 1.05f}},
         {{0.55f, 1}},
         {{0.66f, 0.78f}}}}},
      {'d', 0.74f, {bowl, line(0.74f, -0.55f, 0.74f, 1)}},
      {'e',
       0.72f,
       {{{{0.02f, 0.5f}},
         {{0.72f, 0.5f}, corner},
         {{0.72f, 0}},
         {{0, -0.02f}},
         {{0, 1.03f}},
         {{0.58f, 1.03f}},
         {{0.68f, 0.8f}}}}},
      {'f',
       0.48f,
       {{{{0.5f, -0.5f}}, {{0.2f, -0.65f}}, {{0.2f, 0}, corner}, {{0.2f, 1}}},
        line(0, 0, 0.46f, 0)}},
      {'g',
       0.74f,
       {bowl,
        {{{0.74f, 0}}, {{0.74f, 1}, corner}, {{0.74f, 1.5f}}, {{0.15f, 1.55f}}, {{0.06f, 1.32f}}}}},
      {'h', 0.64f, {line(0, -0.55f, 0, 1), arch}},
      {'i', 0.1f, {line(0.05f, 0, 0.05f, 1), line(0.05f, -0.42f, 0.05f, -0.42f)}},
      {'j',
       0.2f,
       {{{{0.15f, 0}}, {{0.15f, 1}, corner}, {{0.15f, 1.5f}}, {{-0.12f, 1.48f}}},
        line(0.15f, -0.42f, 0.15f, -0.42f)}},
      {'k', 0.62f, {line(0, -0.55f, 0, 1), line(0.58f, 0, 0, 0.6f), line(0.2f, 0.42f, 0.62f, 1)}},
      {'l', 0.1f, {line(0.05f, -0.55f, 0.05f, 1)}},
      {'m',
       1.0f,
       {line(0, 0, 0, 1),
        {{{0, 0.4f}}, {{0.05f, 0}}, {{0.5f, -0.1f}}, {{0.5f, 0.5f}}, {{0.5f, 1}}},
        {{{0.5f, 0.4f}}, {{0.55f, 0}}, {{1, -0.1f}}, {{1, 0.5f}}, {{1, 1}}}}},
      {'n', 0.64f, {line(0, 0, 0, 1), arch}},
      {'o', 0.74f, {bowl}},
      {'p', 0.74f, {bowl, line(0, 0, 0, 1.5f)}},
      {'q', 0.74f, {bowl, line(0.74f, 0, 0.74f, 1.5f)}},
      {'r', 0.45f, {line(0, 0, 0, 1), {{{0, 0.5f}}, {{0.05f, 0}}, {{0.45f, 0.02f}}}}},
      {'s',
       0.62f,
       {{{{0.58f, 0.18f}},
         {{0.48f, -0.02f}},
         {{0.03f, -0.05f}},
         {{0.05f, 0.47f}},
         {{0.62f, 0.5f}},
         {{0.62f, 1.05f}},
         {{0.1f, 1.03f}},
         {{0, 0.82f}}}}},
      {'t',
       0.5f,
       {{{{0.2f, -0.38f}}, {{0.2f, 0.7f}, corner}, {{0.2f, 1.03f}}, {{0.5f, 0.98f}}},
        line(0, 0, 0.46f, 0)}},
      {'u',
       0.66f,
       {{{{0, 0}}, {{0, 0.5f}, corner}, {{0, 1.08f}}, {{0.66f, 1.08f}}, {{0.66f, 0.5f}}},
        line(0.66f, 0, 0.66f, 1)}},
      {'v', 0.7f, {{{{0, 0}}, {{0.35f, 1}, corner}, {{0.7f, 0}}}}},
      {'w',
       1.04f,
       {{{{0, 0}},
         {{0.27f, 1}, corner},
         {{0.52f, 0.15f}, corner},
         {{0.77f, 1}, corner},
         {{1.04f, 0}}}}},
      {'x', 0.64f, {line(0, 0, 0.64f, 1), line(0.64f, 0, 0, 1)}},
      {'y', 0.72f, {line(0, 0, 0.36f, 1), line(0.72f, 0, 0.2f, 1.5f)}},
      {'z', 0.62f, {{{{0, 0}}, {{0.6f, 0}, corner}, {{0, 1}, corner}, {{0.62f, 1}}}}},
      {'0',
       0.76f,
       {{{{0.38f, -0.5f}},
         {{0, -0.5f}},
         {{0, 1}},
         {{0.76f, 1}},
         {{0.76f, -0.5f}},
         {{0.38f, -0.5f}}}}},
      {'1', 0.42f, {{{{0.03f, -0.18f}}, {{0.36f, -0.5f}, corner}, {{0.36f, 1}}}}},
      {'2',
       0.72f,
       {{{{0.03f, -0.15f}},
         {{0.05f, -0.53f}},
         {{0.7f, -0.55f}},
         {{0.72f, 0.1f}},
         {{0, 1}, corner},
         {{0.72f, 1}}}}},
      {'3',
       0.72f,
       {{{{0.03f, -0.28f}},
         {{0.12f, -0.53f}},
         {{0.68f, -0.53f}},
         {{0.68f, 0.2f}},
         {{0.26f, 0.2f}, corner},
         {{0.74f, 0.2f}},
         {{0.74f, 1.02f}},
         {{0.1f, 1.03f}},
         {{0, 0.76f}}}}},
      {'4',
       0.78f,
       {{{{0.56f, 1}}, {{0.56f, -0.5f}, corner}, {{0, 0.6f}, corner}, {{0.78f, 0.6f}}}}},
      {'5',
       0.72f,
       {{{{0.64f, -0.5f}},
         {{0.12f, -0.5f}, corner},
         {{0.06f, 0.15f}, corner},
         {{0.25f, -0.05f}},
         {{0.74f, 0}},
         {{0.74f, 1.02f}},
         {{0.1f, 1.03f}},
         {{0, 0.78f}}}}},
      {'6',
       0.74f,
       {{{{0.64f, -0.35f}},
         {{0.55f, -0.53f}},
         {{0, -0.55f}},
         {{0, 0.5f}, corner},
         {{0, 1.02f}},
         {{0.74f, 1.02f}},
         {{0.74f, 0.05f}},
         {{0, 0.05f}},
         {{0, 0.5f}}}}},
      {'7', 0.7f, {{{{0, -0.5f}}, {{0.7f, -0.5f}, corner}, {{0.25f, 1}}}}},
      {'8',
       0.74f,
       {{{{0.37f, 0.2f}},
         {{0.04f, 0.2f}},
         {{0.04f, -0.52f}},
         {{0.7f, -0.52f}},
         {{0.7f, 0.2f}},
         {{0.37f, 0.2f}}},
        {{{0.37f, 0.2f}},
         {{-0.02f, 0.2f}},
         {{-0.02f, 1.02f}},
         {{0.76f, 1.02f}},
         {{0.76f, 0.2f}},
         {{0.37f, 0.2f}}}}},
      {'9',
       0.74f,
       {{{{0.1f, 0.85f}},
         {{0.19f, 1.03f}},
         {{0.74f, 1.05f}},
         {{0.74f, 0}, corner},
         {{0.74f, -0.52f}},
         {{0, -0.52f}},
         {{0, 0.45f}},
         {{0.74f, 0.45f}},
         {{0.74f, 0}}}}},
      {'-', 0.5f, {line(0.03f, 0.4f, 0.5f, 0.4f)}},
      {'+', 0.6f, {line(0, 0.4f, 0.6f, 0.4f), line(0.3f, 0.1f, 0.3f, 0.7f)}},
      {'=', 0.6f, {line(0, 0.25f, 0.6f, 0.25f), line(0, 0.6f, 0.6f, 0.6f)}},
      {'.', 0.1f, {line(0.05f, 0.98f, 0.05f, 0.98f)}},
      {',', 0.15f, {line(0.1f, 0.98f, 0.02f, 1.28f)}},
      {':', 0.1f, {line(0.05f, 0.1f, 0.05f, 0.1f), line(0.05f, 0.98f, 0.05f, 0.98f)}},
      {'/', 0.5f, {line(0.5f, -0.55f, 0, 1.15f)}},
      {'|', 0.1f, {line(0.05f, -0.6f, 0.05f, 1.2f)}},
      {'_', 0.6f, {line(0, 1.15f, 0.6f, 1.15f)}},
      {'(', 0.28f, {{{{0.26f, -0.65f}}, {{-0.1f, 0.25f}}, {{0.26f, 1.2f}}}}},
      {')', 0.28f, {{{{0.02f, -0.65f}}, {{0.38f, 0.25f}}, {{0.02f, 1.2f}}}}},
  };
  return table;
}

constexpr float space_width = 0.35f, gap = 0.34f;

const Letter* find_letter(char character) {
  const char small = lower_case(character);
  const auto found = std::find_if(letters().begin(), letters().end(),
                                  [&](const Letter& letter) { return letter.character == small; });
  return found == letters().end() ? nullptr : &*found;
}

}  // namespace

float text_width(std::string_view text, const TextStyle& style) {
  float width = text.empty() ? 0 : -gap;
  for (const char character : text) {
    const Letter* const letter = find_letter(character);
    width += (letter != nullptr ? letter->width : space_width) + gap;
  }
  return width * style.size;
}

void draw_text(Image& image, float x, float y, std::string_view text, const TextStyle& style,
               Align align) {
  if (image.channels != 3)
    throw ShapeError("draw_text: wants an RGB image, got " + std::to_string(image.channels) +
                     " channels");
  const float width = text_width(text, style);
  if (align != Align::left) x -= align == Align::centre ? width / 2 : width;

  // The part of the image that the text can touch.
  const int left = std::max(0, static_cast<int>(x - 2)),
            right = std::min(image.width, static_cast<int>(x + width + 3));
  const int top = std::max(0, static_cast<int>(y - 1.9f * style.size)),
            bottom = std::min(image.height, static_cast<int>(y + 0.8f * style.size));
  if (left >= right || top >= bottom) return;
  std::vector<float> field(
      static_cast<std::size_t>(right - left) * static_cast<std::size_t>(bottom - top), no_ink);

  const float pen = std::max(0.55f, 0.085f * style.size);
  for (const char character : text) {
    const Letter* const letter = find_letter(character);
    if (letter != nullptr)
      for (const Stroke& stroke : letter->strokes) {
        const std::vector<PlanePoint> points = flatten(stroke);
        const auto place = [&](PlanePoint p) {
          return PenPoint{{x + style.size * p.x - static_cast<float>(left),
                           y + style.size * (p.y - 1) - static_cast<float>(top)},
                          pen};
        };
        for (std::size_t i = 1; i < points.size(); ++i)
          draw_segment(field, right - left, bottom - top, place(points[i - 1]), place(points[i]));
      }
    x += ((letter != nullptr ? letter->width : space_width) + gap) * style.size;
  }
  for (int v = top; v < bottom; ++v)
    for (int u = left; u < right; ++u) {
      const float ink = coverage(
          field[static_cast<std::size_t>(v - top) * static_cast<std::size_t>(right - left) +
                static_cast<std::size_t>(u - left)]);
      if (ink <= 0) continue;
      std::uint8_t* const pixel = image.at(u, v);
      for (std::size_t c = 0; c < 3; ++c)
        pixel[c] =
            static_cast<std::uint8_t>(std::lround((1 - ink) * pixel[c] + ink * style.colour[c]));
    }
}

}  // namespace fluxion
