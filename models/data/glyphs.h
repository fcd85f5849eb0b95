// Handwritten-looking digits drawn by code: an endless labelled image set that needs no download.
//
// A digit is a few strokes of quadratic Bezier curves. Every sample picks one of the digit's ways
// of writing, moves the control points a little, applies a random affine map (rotation, shear,
// scale, translation) and a pen width, and shades each pixel by its distance to the nearest stroke.
#pragma once

#include <memory>

#include "models/data/data_set.h"

namespace fluxion {

// Images [size, size, 1], ink 1 on background -1, labels 0 .. 9. Throws Error unless 8 <= size <=
// 512.
std::unique_ptr<DataSet> glyphs(std::int64_t size = 28);

}  // namespace fluxion
