#include "models/data/glyphs.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/error.h"
#include "models/data/random.h"
#include "models/images/pen.h"

namespace fluxion {

namespace {

// Letter space: x to the right, y down, a digit fills some [-0.6, 0.6] x [-1, 1].
struct Control {
  float x, y;
  bool corner = false;
};
constexpr bool corner = true;

using DigitStroke = std::vector<Control>;
using Form = std::vector<DigitStroke>;  // one way of writing a digit

// The ways of writing each digit, in the order a hand would move.
const std::array<std::vector<Form>, 10>& forms() {
  static const std::array<std::vector<Form>, 10> table = {{
      // 0: an ellipse; rounder at the shoulders; one that overshoots its start.
      {{{{0, -1}, {-0.68f, -1}, {-0.68f, 1}, {0.68f, 1}, {0.68f, -1}, {0, -1}}},
       {{{0, -1},
         {-0.5f, -1},
         {-0.66f, 0},
         {-0.5f, 1},
         {0, 1.02f},
         {0.5f, 1},
         {0.66f, 0},
         {0.5f, -1},
         {0, -1}}},
       {{{0.35f, -0.85f},
         {-0.3f, -1.1f},
         {-0.7f, -0.3f},
         {-0.6f, 1.0f},
         {0, 1.1f},
         {0.6f, 0.9f},
         {0.7f, -0.2f},
         {0.4f, -1.0f},
         {-0.1f, -0.95f}}}},
      // 1: a line; with a flag; with flag and foot.
      {{{{0, -1}, {0.02f, 0}, {0, 1}}},
       {{{-0.35f, -0.55f}, {0.05f, -1, corner}, {0.05f, 0}, {0.03f, 1}}},
       {{{-0.32f, -0.6f}, {0.03f, -1, corner}, {0.03f, 1}}, {{-0.4f, 1}, {0.42f, 1}}}},
      // 2: with a straight foot; with a loop; with a wavy foot.
      {{{{-0.52f, -0.55f},
         {-0.4f, -1.05f},
         {0.45f, -1.15f},
         {0.65f, -0.35f},
         {0.05f, 0.3f},
         {-0.58f, 0.97f, corner},
         {0.6f, 0.95f}}},
       {{{-0.5f, -0.6f},
         {-0.2f, -1.15f},
         {0.6f, -1.0f},
         {0.5f, -0.1f},
         {0.1f, 0.7f},
         {-0.45f, 1.05f},
         {-0.6f, 0.7f},
         {-0.2f, 0.55f},
         {0.2f, 1.0f},
         {0.65f, 0.8f}}},
       {{{-0.48f, -0.7f},
         {-0.1f, -1.2f},
         {0.55f, -0.95f},
         {0.5f, -0.1f},
         {-0.1f, 0.4f},
         {-0.55f, 0.95f, corner},
         {-0.1f, 0.75f},
         {0.2f, 1.1f},
         {0.62f, 0.85f}}}},
      // 3: two bows; flat-topped.
      {{{{-0.5f, -0.75f},
         {-0.2f, -1.15f},
         {0.6f, -1.0f},
         {0.5f, -0.2f},
         {-0.08f, -0.08f, corner},
         {0.7f, -0.05f},
         {0.65f, 1.0f},
         {-0.2f, 1.2f},
         {-0.6f, 0.7f}}},
       {{{-0.5f, -0.95f},
         {0.5f, -0.95f, corner},
         {-0.05f, -0.2f, corner},
         {0.65f, -0.2f},
         {0.7f, 0.95f},
         {-0.1f, 1.2f},
         {-0.58f, 0.75f}}}},
      // 4: open; closed.
      {{{{-0.45f, -0.95f}, {-0.5f, -0.3f}, {-0.5f, 0.15f, corner}, {0.1f, 0.1f}, {0.62f, 0.12f}},
        {{0.32f, -0.75f}, {0.3f, 0.1f}, {0.25f, 1}}},
       {{{0.3f, -1}, {-0.62f, 0.3f, corner}, {0.65f, 0.28f}}, {{0.3f, -1}, {0.3f, 1}}}},
      // 5: the top bar last; in one go.
      {{{{-0.35f, -0.92f},
         {-0.42f, -0.1f, corner},
         {0.05f, -0.4f},
         {0.7f, -0.1f},
         {0.6f, 1.0f},
         {-0.15f, 1.15f},
         {-0.58f, 0.72f}},
        {{-0.35f, -0.92f}, {0.52f, -0.97f}}},
       {{{0.52f, -0.97f},
         {-0.33f, -0.93f, corner},
         {-0.43f, -0.05f, corner},
         {0.2f, -0.45f},
         {0.68f, 0.1f},
         {0.5f, 1.1f},
         {-0.2f, 1.1f},
         {-0.55f, 0.8f}}}},
      // 6: a bow into a loop; steeper.
      {{{{0.4f, -0.98f},
         {-0.25f, -0.8f},
         {-0.68f, 0.2f},
         {-0.55f, 1.1f},
         {0.3f, 1.15f},
         {0.65f, 0.5f},
         {0.2f, -0.1f},
         {-0.35f, 0.1f},
         {-0.5f, 0.55f}}},
       {{{0.1f, -1},
         {-0.45f, -0.4f},
         {-0.6f, 0.6f},
         {-0.3f, 1.15f},
         {0.4f, 1.05f},
         {0.55f, 0.3f},
         {0.0f, 0.05f},
         {-0.5f, 0.4f}}}},
      // 7: plain; crossed; with a serif.
      {{{{-0.52f, -0.9f}, {0.55f, -0.92f, corner}, {0.15f, 0.0f}, {-0.1f, 1}}},
       {{{-0.5f, -0.92f}, {0.55f, -0.9f, corner}, {0.1f, 0.1f}, {-0.12f, 1}},
        {{-0.28f, 0.02f}, {0.42f, -0.02f}}},
       {{{-0.52f, -0.6f},
         {-0.5f, -0.92f, corner},
         {0.55f, -0.88f, corner},
         {0.2f, 0.0f},
         {0.1f, 1}}}},
      // 8: one crossing stroke; two loops.
      {{{{0.42f, -0.72f},
         {0.2f, -1.15f},
         {-0.55f, -1.1f},
         {-0.55f, -0.3f},
         {0.1f, -0.05f},
         {0.65f, 0.4f},
         {0.5f, 1.15f},
         {-0.5f, 1.15f},
         {-0.65f, 0.4f},
         {0.0f, -0.05f},
         {0.5f, -0.4f},
         {0.5f, -0.85f},
         {0.36f, -0.95f}}},
       {{{0.05f, -0.1f},
         {-0.55f, -0.2f},
         {-0.5f, -1.0f},
         {0, -1.05f},
         {0.5f, -1.0f},
         {0.5f, -0.2f},
         {0.0f, -0.1f}},
        {{0.0f, -0.1f},
         {-0.65f, 0.05f},
         {-0.65f, 1.05f},
         {0, 1.05f},
         {0.65f, 1.05f},
         {0.62f, 0.0f},
         {0.05f, -0.1f}}}},
      // 9: straight tail; curved tail.
      {{{{0.45f, -0.6f},
         {0.3f, -1.1f},
         {-0.4f, -1.1f},
         {-0.6f, -0.4f},
         {-0.2f, 0.1f},
         {0.35f, -0.15f},
         {0.48f, -0.75f, corner},
         {0.45f, 0.1f},
         {0.35f, 1}}},
       {{{0.42f, -0.65f},
         {0.2f, -1.15f},
         {-0.5f, -1.0f},
         {-0.55f, -0.15f},
         {0.0f, 0.1f},
         {0.45f, -0.3f},
         {0.45f, -0.75f, corner},
         {0.52f, 0.3f},
         {0.35f, 1.1f},
         {-0.15f, 1.1f},
         {-0.42f, 0.85f}}}},
  }};
  return table;
}

class Glyphs : public DataSet {
 public:
  explicit Glyphs(std::int64_t size)
      : DataSet("glyphs", {size, size, 1}, 10, std::nullopt), size_(static_cast<int>(size)) {}

 protected:
  std::int32_t sample(std::uint64_t seed, std::uint64_t position,
                      std::span<float> x) const override {
    RandomSequence random(seed, position);
    const std::int32_t label = random.below(10);
    const std::vector<Form>& ways = forms()[static_cast<std::size_t>(label)];
    const Form& form =
        ways[static_cast<std::size_t>(random.below(static_cast<std::int32_t>(ways.size())))];

    // Slant (people lean to the right), rotation and proportions, in letter space.
    const float shear = 0.12f + 0.17f * random.normal();
    const float angle = 0.09f * random.normal();
    const float width = random.uniform(0.75f, 1.2f);
    const float jitter = random.uniform(0.03f, 0.075f);
    const float cosine = std::cos(angle), sine = std::sin(angle);

    std::vector<std::vector<PlanePoint>> lines;
    PlanePoint low{1e9f, 1e9f}, high{-1e9f, -1e9f};
    for (const DigitStroke& digit_stroke : form) {
      Stroke stroke;
      for (const Control& control : digit_stroke) {
        const float dx = random.normal(), dy = random.normal();
        const float u = width * (control.x + jitter * dx), v = control.y + jitter * dy;
        const float slanted = u - shear * v;
        stroke.push_back(
            {{cosine * slanted - sine * v, sine * slanted + cosine * v}, control.corner});
      }
      lines.push_back(flatten(stroke));
      for (const PlanePoint& point : lines.back()) {
        low = {std::min(low.x, point.x), std::min(low.y, point.y)};
        high = {std::max(high.x, point.x), std::max(high.y, point.y)};
      }
    }

    // Into the image: the ink fills a random part of it and stays a pixel away from its border.
    const float size = static_cast<float>(size_);
    const float pen = std::max(
        0.6f, size * 0.036f *
                  std::exp(random.uniform(0.0f, 0.6f)));  // half width, 0.036 .. 0.066 of the image
    const float tremble = random.uniform(0.0f, 0.25f), phase = random.uniform(0.0f, 6.28f);
    const float widest = pen * (1 + tremble);
    const float extent = std::min(size * random.uniform(0.66f, 0.8f), size - 3) - 2 * widest;
    const float scale = extent / std::max(high.x - low.x, high.y - low.y);
    const float free_x = 0.5f * (size - scale * (high.x - low.x)) - widest - 1.5f,
                free_y = 0.5f * (size - scale * (high.y - low.y)) - widest - 1.5f;
    const float drift_x = random.uniform(-1, 1), drift_y = random.uniform(-1, 1);
    const float drift = 0.07f * size;
    const PlanePoint centre{0.5f * size + drift_x * std::clamp(free_x, 0.0f, drift),
                            0.5f * size + drift_y * std::clamp(free_y, 0.0f, drift)};
    const PlanePoint middle = 0.5f * (low + high);

    std::vector<float> field(x.size(), no_ink);
    for (const std::vector<PlanePoint>& line : lines) {
      const auto pen_point = [&](std::size_t i) {
        const float pressure = 1 + tremble * std::sin(phase + 0.35f * static_cast<float>(i));
        return PenPoint{centre + scale * (line[i] - middle), pen * pressure};
      };
      PenPoint from = pen_point(0);
      for (std::size_t i = 1; i < line.size(); ++i) {
        const PenPoint to = pen_point(i);
        draw_segment(field, size_, size_, from, to);
        from = to;
      }
    }
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = 2 * coverage(field[i]) - 1;
    return label;
  }

 private:
  int size_;
};

}  // namespace

std::unique_ptr<DataSet> glyphs(std::int64_t size) {
  if (size < 8 || size > 512)
    throw Error("data set glyphs: an image size of " + std::to_string(size) + " (8 to 512)");
  return std::make_unique<Glyphs>(size);
}

}  // namespace fluxion
