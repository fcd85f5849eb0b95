// Curves over the steps of a run, as an SVG picture that reads in light and dark.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace fluxion {

struct CurvePanel {
  std::string label;
  std::span<const double> y;  // one for each x; what is not finite leaves a gap
};

struct CurveChartOptions {
  std::string title, x_label;
  int width = 760, panel_height = 220;
};

// Panels one below the other on a common x axis (rising values): each curve thin as it is and, over
// it, smoothed. Its y axis is logarithmic where the values are positive and span more than a factor
// of eight. Throws ShapeError for a panel with another number of values than x.
std::string curve_chart(std::span<const double> x, const std::vector<CurvePanel>& panels,
                        const CurveChartOptions& options = {});

}  // namespace fluxion
