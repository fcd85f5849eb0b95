// Kullback-Leibler divergence of two sets of points in the plane, from counts on a grid.
#pragma once

#include "models/evaluation/sample_view.h"

namespace fluxion {

// Cells of equal size over the box of the reference, and one more for all points beside it.
struct GridCells {
  int per_axis = 32;
  double smoothing = 0.5;  // added to every count of the samples, so that none is 0
};

// KL(reference || samples) = sum_i p_i log(p_i / q_i), in nats, with p_i the share of the reference
// in cell i and q_i the smoothed share of the samples: large where the samples miss what the data
// have. It is 0 for one distribution and endlessly many samples of each; what few samples of it get
// grows with the number of cells. Throws ShapeError unless both are points [count, 2], Error for
// numbers that are not finite and for cells or a smoothing that are not above 0.
double planar_divergence(const SampleView& reference, const SampleView& samples,
                         const GridCells& cells = {});

}  // namespace fluxion
