#include "models/evaluation/memorisation.h"

#include <algorithm>

#include "engine/error.h"

namespace fluxion {

namespace {

constexpr std::uint64_t training_seed = 0;
constexpr std::int64_t endless_size = 60'000;  // searched of a set without end
constexpr std::int64_t part_size = 5'000;      // held in memory at a time

double median_nearest(const Neighbours& neighbours) {
  std::vector<double> nearest;
  for (std::size_t i = 0; i < neighbours.distance.size();
       i += static_cast<std::size_t>(neighbours.k))
    nearest.push_back(neighbours.distance[i]);
  const auto middle = nearest.begin() + static_cast<std::ptrdiff_t>(nearest.size() / 2);
  std::nth_element(nearest.begin(), middle, nearest.end());
  return *middle;
}

HostBatch training_images(const DataSet& set, std::int64_t begin, std::int64_t end) {
  HostBatch result;
  for (std::int64_t i = begin; i < end; ++i) {
    const HostBatch one = set.batch(1, training_seed, static_cast<std::uint64_t>(i));
    result.x.insert(result.x.end(), one.x.begin(), one.x.end());
    result.labels.insert(result.labels.end(), one.labels.begin(), one.labels.end());
  }
  return result;
}

}  // namespace

NearestTraining nearest_training(
    const SampleView& all_samples, const EvaluationData& data,
    const NearestTrainingOptions& options,
    const std::function<void(std::int64_t done, std::int64_t of)>& progress) {
  const DataSet& set = data.train();
  const Shape& shape = set.sample_shape();
  if (!set.is_image())
    throw ShapeError("nearest training images: " + set.name() + " holds samples of shape " +
                     to_string(shape) + ", not images");
  check_samples(all_samples, 1, "nearest training images");
  if (all_samples.dim != shape.elements())
    throw ShapeError("nearest training images: the data's are " + to_string(shape) +
                     ", samples have " + std::to_string(all_samples.dim) + " numbers");
  const auto elements = static_cast<std::size_t>(shape.elements());
  const std::int64_t count = std::min(options.count, all_samples.count);
  const SomeSamples some(all_samples, count);
  const SampleView samples = some.view();

  NearestTraining result;
  result.searched = set.size().value_or(endless_size);
  const std::int64_t columns = std::min(options.columns, result.searched);
  const HostBatch held_out = data.held_out() ? data.reference(count) : HostBatch{};
  NearestSearch of_samples(samples, columns, options.threads);
  std::optional<NearestSearch> of_held_out;
  if (data.held_out()) of_held_out.emplace(data.view(held_out), 1, options.threads);
  for (std::int64_t begin = 0; begin < result.searched; begin += part_size) {
    if (progress) progress(begin, result.searched);
    const HostBatch part =
        training_images(set, begin, std::min(begin + part_size, result.searched));
    of_samples.add(data.view(part));
    if (of_held_out) of_held_out->add(data.view(part));
  }
  result.of_samples = of_samples.result();
  result.median = median_nearest(result.of_samples);
  if (of_held_out) result.held_out_median = median_nearest(of_held_out->result());

  const std::int64_t rows = std::min(options.shown, count);
  std::vector<float> tiles;
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto sample = samples.values.subspan(static_cast<std::size_t>(row) * elements, elements);
    tiles.insert(tiles.end(), sample.begin(), sample.end());
    tiles.insert(tiles.end(), elements, 1.0f);  // the gap: white as the background
    for (std::int64_t k = 0; k < columns; ++k) {
      const std::int64_t index =
          result.of_samples.index[static_cast<std::size_t>(row * columns + k)];
      const HostBatch neighbour = training_images(set, index, index + 1);
      tiles.insert(tiles.end(), neighbour.x.begin(), neighbour.x.end());
    }
  }
  const std::int64_t tile_columns = columns + 2;
  result.picture = image_grid(tiles, rows * tile_columns, shape[0], shape[1], shape[2],
                              {.columns = static_cast<int>(tile_columns)});
  return result;
}

}  // namespace fluxion
