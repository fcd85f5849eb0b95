// Are samples copies of training images?
#pragma once

#include <functional>

#include "models/evaluation/evaluation.h"
#include "models/evaluation/neighbours.h"
#include "models/images/image.h"

namespace fluxion {

// The training images nearest to `count` samples from all over those there are, by Euclidean
// distance of their pixels, and to as many real images that are not in the training set, where the
// data have any: a generator that copies comes much closer than those.
struct NearestTraining {
  Neighbours of_samples;
  std::int64_t searched = 0;              // training images: all of a finite set, else 60,000
  double median = 0;                      // distance of a sample to its nearest
  std::optional<double> held_out_median;  // of a held-out image
  Image picture;  // one row a sample: the sample, a gap, its nearest training images
};
struct NearestTrainingOptions {
  std::int64_t count = 100;  // samples searched for
  std::int64_t shown = 10;   // rows of the picture
  std::int64_t columns = 4;  // neighbours in it
  int threads = 0;
};
// Throws ShapeError unless these are images.
NearestTraining nearest_training(
    const SampleView& samples, const EvaluationData& data,
    const NearestTrainingOptions& options = {},
    const std::function<void(std::int64_t done, std::int64_t of)>& progress = {});

}  // namespace fluxion
