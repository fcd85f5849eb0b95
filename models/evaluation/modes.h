// How points in the plane meet a density whose support is known.
#pragma once

#include <array>
#include <vector>

#include "models/evaluation/sample_view.h"

namespace fluxion {

// Against a mixture of equal isotropic Gaussians.
struct ModeCounts {
  double within = 0;  // share of points within 3 standard deviations of a centre; 1 - e^(-9/2) =
                      // 0.989 for the mixture itself
  std::vector<double>
      shares;  // of each mode among those points, by nearest centre; all 0 where there are none
  double worst = 0;  // largest |share - 1 / modes|
};
// Throws ShapeError unless the samples are points [count, 2] and there is a centre, Error for a
// deviation that is not above 0.
ModeCounts count_modes(const SampleView& points, const std::vector<std::array<float, 2>>& centres,
                       double deviation);

// Share of points in the occupied cells of a checkerboard; a uniform density on the board gives
// 1/2.
struct Checkerboard {
  double low = -4, high = 4;  // of both axes
  int cells = 4;  // along an axis; a cell is occupied if its column and row numbers add up to an
                  // odd number, or an even one:
  bool odd = false;
};
double share_on_board(const SampleView& points, const Checkerboard& board);

}  // namespace fluxion
