// Drawing with a round pen: strokes are smooth curves, and a picture is the distance of every pixel
// to the ink, so edges come out anti-aliased.
#pragma once

#include <span>
#include <vector>

namespace fluxion {

// x to the right, y down.
struct PlanePoint {
  float x = 0, y = 0;
  friend PlanePoint operator+(PlanePoint a, PlanePoint b) { return {a.x + b.x, a.y + b.y}; }
  friend PlanePoint operator-(PlanePoint a, PlanePoint b) { return {a.x - b.x, a.y - b.y}; }
  friend PlanePoint operator*(float s, PlanePoint a) { return {s * a.x, s * a.y}; }
};

// A control point of a stroke. The stroke is the quadratic B-spline of its control points: Bezier
// pieces from midpoint to midpoint, which stay smooth however the points are moved. It passes
// through its two ends and its corners; between two such points it is a straight line.
struct ControlPoint {
  PlanePoint at;
  bool corner = false;
};
using Stroke = std::vector<ControlPoint>;

// The stroke as a polyline, each Bezier piece in `pieces` parts.
std::vector<PlanePoint> flatten(const Stroke& stroke, int pieces = 6);

// A point on the pen's way with the half width of its line there, in pixels.
struct PenPoint {
  PlanePoint at;
  float radius = 1;
};

// Lowers field [height, width], the signed distance in pixels from each pixel's centre to the ink,
// to that of one segment with round ends. A field starts as no_ink everywhere.
inline constexpr float no_ink = 1e9f;
void draw_segment(std::span<float> field, int width, int height, PenPoint from, PenPoint to);

// The part of a pixel that is inked, from its distance: 0 .. 1.
inline float coverage(float distance) {
  return distance >= 0.5f ? 0.0f : distance <= -0.5f ? 1.0f : 0.5f - distance;
}

}  // namespace fluxion
