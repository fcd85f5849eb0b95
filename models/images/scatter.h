// Scatter plots of points in the plane, shaded by density, and of the ways they took.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "models/images/image.h"

namespace fluxion {

struct ScatterPanel {
  std::string title = {};  // ASCII; empty: none
  std::span<const float> points =
      {};  // [count, 2]; points that are not finite or lie outside the limits are left out
  std::span<const float> paths = {};  // [states, count, 2], drawn as lines from pale to dark; those
                                      // that are not finite are left out
  std::int64_t states = 0;
};

struct ScatterOptions {
  int panel_size = 360;  // pixels of a panel's side
  float low = 0,
        high = 0;  // limits of both axes; equal: from the points of the first panel that has some
};

// Axes from minus this to this hold all of these points that are finite, with a little room.
float reach_of(std::span<const float> points);

// Panels side by side on common axes, e.g. data | samples. Throws ShapeError.
Image scatter_plot(const std::vector<ScatterPanel>& panels, const ScatterOptions& options = {});

}  // namespace fluxion
