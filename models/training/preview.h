// What a model draws, beside what it learned from.
#pragma once

#include "models/images/image.h"
#include "models/training/trainer.h"

namespace fluxion {

// A grid of images, one column a class that has samples; or of points in the plane: data, samples,
// and the ways that samples took from noise. Always the same noise, so that the pictures of a run
// compare.
Image preview(const Trainer& trainer);

}  // namespace fluxion
