#include "models/images/scatter.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/error.h"
#include "engine/number_text.h"
#include "models/images/text.h"

namespace fluxion {

namespace {

using Colour = std::array<float, 3>;

// From few points to many: evenly spaced in lightness, so that it reads in grey too.
Colour density_colour(float density) {
  static constexpr std::array<Colour, 6> stops = {
      {{138, 190, 222}, {86, 150, 205}, {58, 104, 184}, {66, 60, 146}, {62, 28, 96}, {36, 12, 50}}};
  const float place = std::clamp(density, 0.0f, 1.0f) * (stops.size() - 1);
  const std::size_t below = std::min(static_cast<std::size_t>(place), stops.size() - 2);
  const float t = place - static_cast<float>(below);
  Colour colour{};
  for (std::size_t c = 0; c < 3; ++c)
    colour[c] = (1 - t) * stops[below][c] + t * stops[below + 1][c];
  return colour;
}

void blend(std::uint8_t* pixel, const Colour& colour, float opacity) {
  for (std::size_t c = 0; c < 3; ++c)
    pixel[c] =
        static_cast<std::uint8_t>(std::lround((1 - opacity) * pixel[c] + opacity * colour[c]));
}

void fill(Image& image, int x0, int y0, int x1, int y1, const Colour& colour) {
  for (int y = y0; y < y1; ++y)
    for (int x = x0; x < x1; ++x) blend(image.at(x, y), colour, 1);
}

// Three passes of a box filter come close to a Gaussian; along rows, then along columns.
void blur(std::vector<float>& values, int size, int radius) {
  std::vector<float> line(static_cast<std::size_t>(size));
  for (int pass = 0; pass < 6; ++pass)
    for (int fixed = 0; fixed < size; ++fixed) {
      const auto at = [&](int i) -> float& {
        return values[static_cast<std::size_t>(pass % 2 == 0 ? fixed * size + i
                                                             : i * size + fixed)];
      };
      float sum = 0;
      for (int i = 0; i < std::min(radius, size); ++i) sum += at(i);
      for (int i = 0; i < size; ++i) {
        if (i + radius < size) sum += at(i + radius);
        line[static_cast<std::size_t>(i)] =
            std::max(sum, 0.0f) / static_cast<float>(2 * radius + 1);
        if (i >= radius) sum -= at(i - radius);
      }
      for (int i = 0; i < size; ++i) at(i) = line[static_cast<std::size_t>(i)];
    }
}

// A step of 1, 2 or 5 times a power of ten that divides the range into some four to eight.
double tick_step(double range) {
  const double power = std::pow(10.0, std::floor(std::log10(range / 4)));
  for (const double factor : {5.0, 2.0, 1.0})
    if (range / (factor * power) >= 4) return factor * power;
  return power;
}

struct Limits {
  float low, high;
  // Pixel position within a panel of `size` pixels.
  float place(float value, int size) const {
    return (value - low) / (high - low) * static_cast<float>(size);
  }
};

// Axes to this number and a little beyond.
float with_margin(float reach) {
  constexpr float farthest = 1e30f;  // the range between is a float, too
  return reach > 0 ? std::min(1.15f * reach, farthest) : 1.0f;
}

// A square around the origin with all points but the outermost of each hundred.
Limits limits_of(std::span<const float> points) {
  std::vector<float> reaches;
  for (std::size_t i = 0; i + 1 < points.size(); i += 2)
    if (std::isfinite(points[i]) && std::isfinite(points[i + 1]))
      reaches.push_back(std::max(std::abs(points[i]), std::abs(points[i + 1])));
  if (reaches.empty()) return {-1, 1};
  const auto outermost = reaches.end() - 1 - std::ssize(reaches) / 100;
  std::nth_element(reaches.begin(), outermost, reaches.end());
  const float reach = with_margin(*outermost);
  return {-reach, reach};
}

std::span<const float> points_of_first(const std::vector<ScatterPanel>& panels) {
  for (const ScatterPanel& panel : panels)
    if (!panel.points.empty()) return panel.points;
  return panels.front().paths;
}

void draw_points(Image& image, int left, int top, int size, std::span<const float> points,
                 Limits limits) {
  const auto cells = static_cast<std::size_t>(size) * static_cast<std::size_t>(size);
  std::vector<float> density(cells, 0),
      clear(cells, 1);  // `clear`: the part of a pixel that no point covers
  const std::size_t count = points.size() / 2;
  // Few points are drawn large and solid, many small and faint.
  const float many =
      std::clamp(
          static_cast<float>(std::log10(std::max<double>(static_cast<double>(count), 1))) - 2.5f,
          0.0f, 2.0f) /
      2;
  const float radius = static_cast<float>(size) / 360 * (2.1f - 1.0f * many),
              opacity = 0.95f - 0.5f * many;
  const int reach = static_cast<int>(std::ceil(radius + 1));
  for (std::size_t i = 0; i < count; ++i) {
    const float x = limits.place(points[2 * i], size),
                y = static_cast<float>(size) - limits.place(points[2 * i + 1], size);
    if (!(x >= 0 && x < static_cast<float>(size) && y >= 0 && y < static_cast<float>(size)))
      continue;  // NaN fails too
    const int column = static_cast<int>(x), row = static_cast<int>(y);
    density[static_cast<std::size_t>(row * size + column)] += 1;
    for (int v = std::max(0, row - reach); v <= std::min(size - 1, row + reach); ++v)
      for (int u = std::max(0, column - reach); u <= std::min(size - 1, column + reach); ++u) {
        const float distance =
            std::hypot(static_cast<float>(u) + 0.5f - x, static_cast<float>(v) + 0.5f - y);
        clear[static_cast<std::size_t>(v * size + u)] *=
            1 - opacity * std::clamp(radius + 0.5f - distance, 0.0f, 1.0f);
      }
  }
  blur(density, size, std::max(1, size / 90));
  const float densest = *std::max_element(density.begin(), density.end());
  for (int y = 0; y < size; ++y)
    for (int x = 0; x < size; ++x) {
      const auto cell = static_cast<std::size_t>(y * size + x);
      if (clear[cell] < 1)
        blend(image.at(left + x, top + y),
              density_colour(densest > 0 ? std::sqrt(density[cell] / densest) : 0),
              1 - clear[cell]);
    }
}

// The lines of a panel: a path goes from the amber of its noise to the colour of its sample; both
// ends get a dot.
void draw_paths(Image& image, int left, int top, int size, std::span<const float> paths,
                std::int64_t states, Limits limits) {
  const auto count = paths.size() / 2 / static_cast<std::size_t>(states);
  const float unit = static_cast<float>(size) / 360, radius = 0.45f * unit;
  const Colour pale{238, 176, 98}, dark{66, 60, 146}, dot{62, 28, 96}, start{226, 148, 58};
  struct Place {
    float x, y;
  };
  std::vector<Place> way(static_cast<std::size_t>(states));
  std::vector<float> cover, along;
  const auto draw_dot = [&](Place at, float dot_radius, const Colour& colour, float opacity) {
    const int reach = static_cast<int>(std::ceil(dot_radius + 1));
    for (int y = std::max(0, static_cast<int>(at.y) - reach);
         y <= std::min(size - 1, static_cast<int>(at.y) + reach); ++y)
      for (int x = std::max(0, static_cast<int>(at.x) - reach);
           x <= std::min(size - 1, static_cast<int>(at.x) + reach); ++x) {
        const float distance =
            std::hypot(static_cast<float>(x) + 0.5f - at.x, static_cast<float>(y) + 0.5f - at.y);
        blend(image.at(left + x, top + y), colour,
              opacity * std::clamp(dot_radius + 0.5f - distance, 0.0f, 1.0f));
      }
  };
  for (std::size_t i = 0; i < count; ++i) {
    float low_x = 1e9f, high_x = -1e9f, low_y = 1e9f, high_y = -1e9f;
    bool finite = true;
    for (std::size_t s = 0; s < way.size(); ++s) {
      const float* const point = paths.data() + 2 * (s * count + i);
      finite = finite && std::isfinite(point[0]) && std::isfinite(point[1]);
      // Far outside counts as just outside, which keeps the numbers of pixels small.
      const auto near = [&](float place) {
        return std::clamp(place, -static_cast<float>(size), 2.0f * static_cast<float>(size));
      };
      way[s] = {near(limits.place(point[0], size)),
                near(static_cast<float>(size) - limits.place(point[1], size))};
      low_x = std::min(low_x, way[s].x), high_x = std::max(high_x, way[s].x);
      low_y = std::min(low_y, way[s].y), high_y = std::max(high_y, way[s].y);
    }
    if (!finite) continue;
    const int margin = static_cast<int>(std::ceil(radius + 1));
    const int x0 = std::max(0, static_cast<int>(low_x) - margin),
              x1 = std::min(size - 1, static_cast<int>(high_x) + margin);
    const int y0 = std::max(0, static_cast<int>(low_y) - margin),
              y1 = std::min(size - 1, static_cast<int>(high_y) + margin);
    if (x0 > x1 || y0 > y1) continue;
    // Each pixel takes the part of the path that covers it most, so that joints don't show.
    const int columns = x1 - x0 + 1;
    cover.assign(static_cast<std::size_t>(columns * (y1 - y0 + 1)), 0);
    along.assign(cover.size(), 0);
    for (std::size_t s = 0; s + 1 < way.size(); ++s) {
      const Place a = way[s], b = way[s + 1];
      const float dx = b.x - a.x, dy = b.y - a.y, length2 = std::max(dx * dx + dy * dy, 1e-12f);
      const auto from = [&](float p, float q, int low) {
        return std::max(low, static_cast<int>(std::min(p, q)) - margin);
      };
      const auto to = [&](float p, float q, int high) {
        return std::min(high, static_cast<int>(std::max(p, q)) + margin);
      };
      for (int y = from(a.y, b.y, y0); y <= to(a.y, b.y, y1); ++y)
        for (int x = from(a.x, b.x, x0); x <= to(a.x, b.x, x1); ++x) {
          const float px = static_cast<float>(x) + 0.5f - a.x,
                      py = static_cast<float>(y) + 0.5f - a.y;
          const float t = std::clamp((px * dx + py * dy) / length2, 0.0f, 1.0f);
          const float inked =
              std::clamp(radius + 0.5f - std::hypot(px - t * dx, py - t * dy), 0.0f, 1.0f);
          const auto cell = static_cast<std::size_t>((y - y0) * columns + (x - x0));
          if (inked <= cover[cell]) continue;
          cover[cell] = inked;
          along[cell] = (static_cast<float>(s) + t) / static_cast<float>(states - 1);
        }
    }
    for (int y = y0; y <= y1; ++y)
      for (int x = x0; x <= x1; ++x) {
        const auto cell = static_cast<std::size_t>((y - y0) * columns + (x - x0));
        if (cover[cell] == 0) continue;
        Colour colour{};
        for (std::size_t c = 0; c < 3; ++c)
          colour[c] = (1 - along[cell]) * pale[c] + along[cell] * dark[c];
        blend(image.at(left + x, top + y), colour, cover[cell] * (0.4f + 0.3f * along[cell]));
      }
    draw_dot(way.front(), 1.0f * unit, start, 0.75f);
  }
  for (std::size_t i = 0; i < count; ++i) {
    const float* const point = paths.data() + 2 * ((way.size() - 1) * count + i);
    const float x = limits.place(point[0], size),
                y = static_cast<float>(size) - limits.place(point[1], size);
    if (x >= 0 && x < static_cast<float>(size) && y >= 0 && y < static_cast<float>(size))
      draw_dot({x, y}, 1.5f * unit, dot, 0.9f);
  }
}

}  // namespace

float reach_of(std::span<const float> points) {
  float reach = 0;
  for (const float value : points)
    if (std::isfinite(value)) reach = std::max(reach, std::abs(value));
  return with_margin(reach);
}

Image scatter_plot(const std::vector<ScatterPanel>& panels, const ScatterOptions& options) {
  if (panels.empty()) throw ShapeError("scatter_plot: no panels");
  for (const ScatterPanel& panel : panels) {
    if (panel.points.size() % 2 != 0)
      throw ShapeError("scatter_plot: points are [count, 2], got " +
                       std::to_string(panel.points.size()) + " numbers");
    if (!panel.paths.empty() &&
        (panel.states < 2 ||
         panel.paths.size() % (2 * static_cast<std::size_t>(panel.states)) != 0))
      throw ShapeError("scatter_plot: paths are [states, count, 2] of at least 2 states, got " +
                       std::to_string(panel.paths.size()) + " numbers for " +
                       std::to_string(panel.states) + " states");
  }
  const int size = options.panel_size;
  if (size < 32 || size > 4096 || panels.size() > 64)
    throw ShapeError("scatter_plot: 1 to 64 panels of 32 to 4096 pixels");
  const bool given =
      std::isfinite(options.low) && std::isfinite(options.high) && options.low < options.high;
  const Limits limits =
      given ? Limits{options.low, options.high} : limits_of(points_of_first(panels));

  const float unit = static_cast<float>(size) / 360;
  const TextStyle label{std::max(5.0f, 6.5f * unit), {110, 110, 122}},
      title{std::max(6.0f, 9.0f * unit), {40, 40, 48}};
  const bool titled = std::any_of(panels.begin(), panels.end(),
                                  [](const ScatterPanel& panel) { return !panel.title.empty(); });
  const int margin_left = static_cast<int>(4.6f * label.size),
            margin_bottom = static_cast<int>(3.6f * label.size);
  const int margin_top = static_cast<int>(titled ? 3.4f * title.size : 2 * label.size),
            gap = static_cast<int>(2.6f * label.size);
  const auto count = static_cast<int>(panels.size());
  Image image(margin_left + count * size + (count - 1) * gap + 2 * static_cast<int>(label.size),
              margin_top + size + margin_bottom, 3);

  const double step = tick_step(static_cast<double>(limits.high) - limits.low);
  for (int i = 0; i < count; ++i) {
    const ScatterPanel& panel = panels[static_cast<std::size_t>(i)];
    const int left = margin_left + i * (size + gap), top = margin_top;
    fill(image, left, top, left + size, top + size, {250, 250, 252});
    for (double tick = std::ceil(limits.low / step) * step; tick <= limits.high; tick += step) {
      const auto place = static_cast<int>(limits.place(static_cast<float>(tick), size));
      if (place > 0 && place < size) {
        fill(image, left + place, top, left + place + 1, top + size, {233, 233, 239});
        fill(image, left, top + size - place, left + size, top + size - place + 1, {233, 233, 239});
      }
      const std::string text = rounded_text(std::abs(tick) < 1e-9 * step ? 0.0 : tick, 3);
      const auto at = static_cast<float>(place);
      draw_text(image, static_cast<float>(left) + at,
                static_cast<float>(top + size) + 2.5f * label.size, text, label, Align::centre);
      if (i == 0)
        draw_text(image, static_cast<float>(left) - 0.8f * label.size,
                  static_cast<float>(top + size) - at + 0.75f * label.size, text, label,
                  Align::right);
    }
    if (!panel.paths.empty()) draw_paths(image, left, top, size, panel.paths, panel.states, limits);
    if (!panel.points.empty()) draw_points(image, left, top, size, panel.points, limits);
    const Colour frame{160, 160, 172};
    fill(image, left - 1, top - 1, left + size + 1, top, frame);
    fill(image, left - 1, top + size, left + size + 1, top + size + 1, frame);
    fill(image, left - 1, top - 1, left, top + size + 1, frame);
    fill(image, left + size, top - 1, left + size + 1, top + size + 1, frame);
    draw_text(image, static_cast<float>(left) + static_cast<float>(size) / 2,
              static_cast<float>(top) - 1.0f * title.size, panel.title, title, Align::centre);
  }
  return image;
}

}  // namespace fluxion
