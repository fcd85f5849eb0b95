#include <algorithm>

#include "engine/error.h"
#include "models/data/random.h"
#include "models/evaluation/evaluation.h"

namespace fluxion {

namespace {

// Seeds of streams that training does not draw from, unless somebody chooses them.
constexpr std::uint64_t reference_seed = 0x7265'6665'7265'6e63, fresh_seed = 0x6672'6573'6864'6174;

}  // namespace

EvaluationData::EvaluationData(std::shared_ptr<const DataSet> train,
                               std::shared_ptr<const DataSet> test)
    : train_(std::move(train)) {
  if (test && test->sample_shape() != train_->sample_shape())
    throw ShapeError("evaluation: training samples are " + to_string(train_->sample_shape()) +
                     ", test samples " + to_string(test->sample_shape()));
  if (test) {
    reference_ = {test, reference_seed, 0, test->size()};
    if (train_->classes() > 0 && test->classes() > 0 &&
        test->class_names() != train_->class_names()) {
      reference_.number_of = places_of(test->class_names(), train_->class_names());
      if (std::ranges::count(reference_.number_of, -1) > 0)
        throw Error("evaluation: the test part of " + train_->name() +
                    " has other classes than its training part: " +
                    class_difference("the training part", train_->class_names(), "the test part",
                                     test->class_names()));
    }
    fresh_ = {train_, fresh_seed, 0, train_->size()};
  } else if (const std::optional<std::int64_t> size = train_->size()) {
    const std::int64_t half = *size / 2;
    reference_ = {train_, reference_seed, 0, half};
    fresh_ = {train_, reference_seed, half, *size - half};
    held_out_ = false;
  } else {
    reference_ = {train_, reference_seed, 0, std::nullopt};
    fresh_ = {train_, fresh_seed, 0, std::nullopt};
  }
  if (reference_.count == 0 || fresh_.count == 0)
    throw Error("evaluation: " + train_->name() + " holds too few samples to compare with");
}

HostBatch EvaluationData::Part::read(std::int64_t from, std::int64_t wanted) const {
  HostBatch result;
  result.x.reserve(static_cast<std::size_t>(wanted * set->sample_shape().elements()));
  result.labels.reserve(static_cast<std::size_t>(wanted));
  for (std::int64_t i = 0; i < wanted; ++i) {
    const HostBatch one = set->batch(1, seed, static_cast<std::uint64_t>(begin + from + i));
    result.x.insert(result.x.end(), one.x.begin(), one.x.end());
    const std::int32_t label = one.labels.front();
    result.labels.push_back(number_of.empty() ? label : number_of[static_cast<std::size_t>(label)]);
  }
  return result;
}

HostBatch EvaluationData::reference(std::int64_t count) const {
  return reference_.read(0, reference_.count ? std::min(count, *reference_.count) : count);
}

HostBatch EvaluationData::fresh(std::int64_t count, std::int64_t draw) const {
  return fresh_.read(draw * count, count);
}

std::int64_t EvaluationData::draws(std::int64_t count, std::int64_t most) const {
  return fresh_.count ? std::min(most, *fresh_.count / std::max<std::int64_t>(count, 1)) : most;
}

HostBatch EvaluationData::training(std::int64_t count, std::uint64_t seed,
                                   std::uint64_t step) const {
  if (held_out_) return train_->batch(count, seed, step);
  const auto size = static_cast<std::uint64_t>(*fresh_.count);
  HostBatch result;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint64_t position =
        step * static_cast<std::uint64_t>(count) + static_cast<std::uint64_t>(i);
    const HostBatch one = fresh_.read(
        static_cast<std::int64_t>(permuted(position % size, size, seed, position / size)), 1);
    result.x.insert(result.x.end(), one.x.begin(), one.x.end());
    result.labels.insert(result.labels.end(), one.labels.begin(), one.labels.end());
  }
  return result;
}

std::vector<std::int32_t> EvaluationData::unseen_classes() const {
  if (held_out_) return train_->classes_without_samples();
  const std::vector<std::int32_t> labels = train_->labels();
  std::vector<std::int32_t> result;
  if (labels.empty()) return result;
  std::vector<bool> seen(static_cast<std::size_t>(train_->classes()));
  const auto size = static_cast<std::uint64_t>(*train_->size());
  for (std::int64_t i = 0; i < *fresh_.count; ++i) {
    const std::uint64_t index =
        permuted(static_cast<std::uint64_t>(fresh_.begin + i), size, fresh_.seed, 0);
    if (labels[index] >= 0) seen[static_cast<std::size_t>(labels[index])] = true;
  }
  for (std::size_t i = 0; i < seen.size(); ++i)
    if (!seen[i]) result.push_back(static_cast<std::int32_t>(i));
  return result;
}

double EvaluationData::batch_bytes(std::int64_t count) const {
  const auto elements = static_cast<double>(train_->sample_shape().elements());
  return static_cast<double>(count) * (elements * sizeof(float) + sizeof(std::int32_t));
}

SampleView EvaluationData::view(const HostBatch& batch) const {
  return {batch.x, static_cast<std::int64_t>(batch.labels.size()),
          train_->sample_shape().elements()};
}

}  // namespace fluxion
