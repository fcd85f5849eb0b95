// Trains the judge of classifier.h on the labels of a data set. Needs a build with derivatives.
#pragma once

#include <functional>
#include <stop_token>

#include "models/evaluation/evaluation.h"

namespace fluxion {

struct ClassifierTraining {
  std::int64_t steps = 1000, batch = 128;
  double learning_rate = 2e-3;  // of Adam, falling linearly to 0
  std::uint64_t seed = 0;
  std::int64_t tested = 10'000;
};
// Of data with few samples, fewer steps: those in which it sees each a hundred times.
ClassifierTraining usual_training(const EvaluationData& data);

// Called now and then with the steps done.
using ClassifierProgress = std::function<void(std::int64_t step)>;

// Cross-entropy on data.training(), which the reference is no part of; the accuracy is measured on
// `tested` samples of the reference (fewer if it has fewer). A pure function of its arguments and
// the device. Throws Error for data without classes, Cancelled when asked to stop.
Classifier train_classifier(const EvaluationData& data, const ClassifierTraining& training,
                            const Device& device, const ClassifierProgress& progress = {},
                            std::stop_token stop = {});

}  // namespace fluxion
