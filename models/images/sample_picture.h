// Samples of a model as a picture, whatever they are: a grid of images, or points in the plane.
#pragma once

#include "models/data/data_set.h"
#include "models/images/image.h"
#include "models/images/scatter.h"

namespace fluxion {

// samples [count, ..sample_shape]; sample_shape [height, width, channels] or [2]. `columns` of a
// grid, 0: nearly square. Points get a panel, between one of `reference` points and one of `paths`
// [states, count, 2], noise first, where these are given. Throws ShapeError for samples that are
// neither images nor points.
Image sample_picture(const Shape& sample_shape, std::span<const float> samples, int columns = 0,
                     std::span<const float> reference = {}, std::span<const float> paths = {},
                     std::int64_t states = 0);

}  // namespace fluxion
