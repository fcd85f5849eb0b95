// Trains the judge of classifier.h on the labels of a data set. Needs a build with derivatives.
#pragma once

#include <functional>
#include <stop_token>

#include "models/data/data_set.h"
#include "models/evaluation/classifier.h"

namespace fluxion {

struct ClassifierTraining {
  std::int64_t steps = 1000, batch = 128;
  double learning_rate = 2e-3;  // of Adam, falling linearly to 0
  std::uint64_t seed = 0;
};
// Called now and then with the steps done.
using ClassifierProgress = std::function<void(std::int64_t step)>;

// Cross-entropy on batches of `train`; the accuracy is measured on `tested` samples of `test` (fewer if it has fewer). A pure function of its
// arguments and the device. Throws Error for sets without classes or of different shapes, Cancelled when asked to stop.
Classifier train_classifier(const DataSet& train, const DataSet& test, std::int64_t tested, const ClassifierTraining& training, const Device& device,
                            const ClassifierProgress& progress = {}, std::stop_token stop = {});

}  // namespace fluxion
