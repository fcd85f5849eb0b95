// Samples of a model as a picture, whatever they are: a grid of images, or points in the plane.
#pragma once

#include "models/data/data_set.h"
#include "models/images/image.h"
#include "models/images/scatter.h"

namespace fluxion {

// Whether sample_picture can show samples of this shape: images of 1 or 3 channels, and points.
bool can_be_drawn(const Shape& sample_shape);

// samples [count, ..sample_shape]; sample_shape [height, width, channels] or [dim]. `grid`: of
// images. Points get a panel, between one of `reference` points and one of `paths`
// [states, count, 2] of points in the plane, noise first, where these are given. Points of more
// dimensions are shown by their first two coordinates, those of one by it and their number. Throws
// ShapeError for samples that are neither images nor points. reach: of the axes of points; 0:
// theirs.
Image sample_picture(const Shape& sample_shape, std::span<const float> samples,
                     const GridOptions& grid = {}, std::span<const float> reference = {},
                     std::span<const float> paths = {}, std::int64_t states = 0, float reach = 0);

// Bytes of the pixels of that picture of samples alone. Throws ShapeError as sample_picture does.
std::uint64_t picture_bytes(const Shape& sample_shape, std::int64_t count,
                            const GridOptions& grid = {});

}  // namespace fluxion
