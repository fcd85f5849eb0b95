#include "models/training/preview.h"

#include <algorithm>

#include "engine/graph/ops.h"
#include "models/data/source_set.h"
#include "models/images/sample_picture.h"
#include "models/samplers/default_sampler.h"

namespace fluxion {

namespace {

constexpr std::int64_t grid_rows = 6;    // of images, one column a class
constexpr std::int64_t points = 4000;    // of a scatter plot
constexpr std::int64_t paths = 320;      // from noise to data
constexpr std::int64_t path_steps = 24;  // of one of them
constexpr std::uint64_t seed = 1;        // of the noise

// [path_steps + 1, paths, 2], noise first. A model of average velocities is walked in short steps
// too: its single step shows where a sample ends, and these show the flow that it learned. Empty
// where steps draw noise, and a sample follows no path.
std::vector<float> paths_of(const Model& model, const Device& device) {
  SamplerOptions options = default_sampler(model.info);
  options.steps = path_steps;
  if (make_stepper(options).draws_noise) return {};
  const Sampler sampler(model.info.network, model.parameters, options);
  const Tensor noise = options.source.empty()
                           ? normal(fold_in(random_key(seed, device), 1), {paths, 2}, DType::f32)
                           : Tensor::from(source_points(*source_set(options.source, {2}),
                                                        SourceUse::drawing, seed, 0, paths),
                                          {paths, 2}, device);
  eval(noise);
  return sampler.path(noise).to_host<float>();
}

}  // namespace

Image preview(const Trainer& trainer) {
  const Model model = trainer.model(Weights::average);
  const DataSet& data = trainer.data();
  const std::vector<std::int32_t> classes = trained_classes(model.info);
  const std::int64_t columns =
      classes.empty() ? 10 : std::min<std::int64_t>(std::ssize(classes), 20);
  const std::int64_t count = data.is_image() ? grid_rows * columns : points;
  std::vector<std::int32_t> labels;
  if (!classes.empty())
    for (std::int64_t i = 0; i < count; ++i)
      labels.push_back(classes[static_cast<std::size_t>(i % columns)]);
  const Sampler sampler(model.info.network, model.parameters, default_sampler(model.info));
  // No more at a time than a step of training takes: what fits there fits here.
  const std::vector<float> samples =
      sampler.sample(count, std::min(count, trainer.config().batch), seed, labels);
  if (data.is_image())
    return sample_picture(data.sample_shape(), samples, {.columns = static_cast<int>(columns)});
  const std::vector<float> reference = data.batch(count, seed, 0).x;
  const std::vector<float> ways =
      data.sample_shape() == Shape{2} ? paths_of(model, trainer.device()) : std::vector<float>();
  return sample_picture(data.sample_shape(), samples, {.columns = static_cast<int>(columns)},
                        reference, ways, path_steps + 1);
}

}  // namespace fluxion
