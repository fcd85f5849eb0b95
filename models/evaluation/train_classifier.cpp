#include "models/evaluation/train_classifier.h"

#include <algorithm>
#include <cmath>

#include "autograd/transforms.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "models/networks/initialise.h"
#include "models/optimisers/optimiser.h"

namespace fluxion {

namespace {

Parameters initial_parameters(const ClassifierInfo& info, const Tensor& key) {
  return initialise_each(classifier_parameters(info), key,
                         [](const std::string& name, const Shape& shape, const Tensor& key) {
                           if (shape.rank() == 1) return zeros(shape, DType::f32, key.device());
                           // He et al. 2015, for layers that ReLU follows. Convolutions are
                           // [height, width, in, out], linear weights [out, in].
                           const auto inputs = static_cast<double>(
                               name.starts_with("conv") ? shape.elements() / shape[3] : shape[1]);
                           return normal(key, shape) * std::sqrt(2.0 / inputs);
                         });
}

Tensor cross_entropy(const Tensor& logits, const Tensor& labels) {
  return neg(mean(sum(log_softmax(logits) * one_hot(labels, logits.size(1)), {1})));
}

}  // namespace

ClassifierTraining usual_training(const EvaluationData& data) {
  constexpr std::int64_t passes = 100, least_steps = 100;
  ClassifierTraining training;
  if (const std::optional<std::int64_t> size = data.training_size())
    training.steps = std::clamp(passes * *size / training.batch, least_steps, training.steps);
  return training;
}

Classifier train_classifier(const EvaluationData& data, const ClassifierTraining& training,
                            const Device& device, const ClassifierProgress& progress,
                            std::stop_token stop) {
  const DataSet& train = data.train();
  if (train.classes() < 2)
    throw Error("classifier: " + train.name() + " has no labels to learn from");
  if (training.steps < 1 || training.batch < 1 || training.tested < 1)
    throw Error("classifier: steps, batch and test samples must be at least 1");

  Classifier classifier;
  classifier.info = {.sample_shape = train.sample_shape(),
                     .classes = train.classes(),
                     .class_names = train.class_names(),
                     .class_marks = train.class_marks(),
                     .unseen = data.unseen_classes(),
                     .data = train.name(),
                     .steps = training.steps};
  const Parameters initial = initial_parameters(classifier.info, random_key(training.seed, device));
  TrainState state = make_train_state(initial, 0);
  const auto step = compile(
      [](const TrainState& state, const Tensor& x, const Tensor& labels, const Tensor& rate) {
        const auto loss = [&](const Parameters& parameters) {
          return cross_entropy(apply_classifier(parameters, x).logits, labels);
        };
        return update({.ema_decays = {}}, state, grad(loss)(state.parameters), rate).state;
      },
      {.donate = {0}});
  const Shape shape = with_leading_axis(training.batch, train.sample_shape());
  for (std::int64_t i = 0; i < training.steps; ++i) {
    if (stop.stop_requested()) throw Cancelled("classifier: training was interrupted");
    const HostBatch batch =
        data.training(training.batch, training.seed, static_cast<std::uint64_t>(i));
    const auto rate =
        static_cast<float>(training.learning_rate *
                           (1 - static_cast<double>(i) / static_cast<double>(training.steps)));
    state = step(state, Tensor::from(batch.x, shape, device),
                 Tensor::from(batch.labels, {training.batch}, device),
                 Tensor::from(std::span<const float>(&rate, 1), {}, device));
    if (progress) progress(i + 1);
  }
  classifier.parameters = state.parameters;

  const HostBatch held_out = data.reference(training.tested);
  const Judge judge(classifier);
  classifier.info.tested = static_cast<std::int64_t>(held_out.labels.size());
  classifier.info.accuracy = class_accuracy(judge(data.view(held_out)).classes, held_out.labels);
  return classifier;
}

}  // namespace fluxion
