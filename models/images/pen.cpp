#include "models/images/pen.h"

#include <algorithm>
#include <cmath>

namespace fluxion {

std::vector<PlanePoint> flatten(const Stroke& stroke, int pieces) {
  std::vector<PlanePoint> line;
  if (stroke.empty()) return line;
  line.reserve(stroke.size() * static_cast<std::size_t>(pieces) + 1);
  line.push_back(stroke.front().at);
  for (std::size_t i = 1; i < stroke.size(); ++i) {
    const PlanePoint control = stroke[i].at;
    if (i + 1 == stroke.size() || stroke[i].corner) {
      line.push_back(control);
      continue;
    }
    // The piece under this control point ends midway to the next one, or at that one itself if the
    // stroke passes through it.
    const bool reaches_next = i + 2 == stroke.size() || stroke[i + 1].corner;
    const PlanePoint from = line.back(),
                     to = reaches_next ? stroke[i + 1].at : 0.5f * (control + stroke[i + 1].at);
    for (int piece = 1; piece <= pieces; ++piece) {
      const float t = static_cast<float>(piece) / static_cast<float>(pieces), s = 1 - t;
      line.push_back(s * s * from + 2 * s * t * control + t * t * to);
    }
    if (reaches_next) ++i;
  }
  return line;
}

void draw_segment(std::span<float> field, int width, int height, PenPoint from, PenPoint to) {
  const float reach = std::max(from.radius, to.radius) + 1;
  const int x0 = std::max(0, static_cast<int>(std::floor(std::min(from.at.x, to.at.x) - reach)));
  const int x1 =
      std::min(width, static_cast<int>(std::ceil(std::max(from.at.x, to.at.x) + reach)) + 1);
  const int y0 = std::max(0, static_cast<int>(std::floor(std::min(from.at.y, to.at.y) - reach)));
  const int y1 =
      std::min(height, static_cast<int>(std::ceil(std::max(from.at.y, to.at.y) + reach)) + 1);
  const PlanePoint along = to.at - from.at;
  const float inverse = 1 / std::max(along.x * along.x + along.y * along.y, 1e-12f);
  const float growth = to.radius - from.radius;
  for (int y = y0; y < y1; ++y) {
    float* const row = field.data() + static_cast<std::size_t>(y) * static_cast<std::size_t>(width);
    const float dy = static_cast<float>(y) + 0.5f - from.at.y;
    for (int x = x0; x < x1; ++x) {
      const float dx = static_cast<float>(x) + 0.5f - from.at.x;
      const float t = std::min(std::max((dx * along.x + dy * along.y) * inverse, 0.0f), 1.0f);
      const float ex = dx - t * along.x, ey = dy - t * along.y;
      row[x] = std::min(row[x], std::sqrt(ex * ex + ey * ey) - (from.radius + t * growth));
    }
  }
}

}  // namespace fluxion
