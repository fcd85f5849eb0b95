#include "models/images/sample_picture.h"

#include "engine/error.h"

namespace fluxion {

Image sample_picture(const Shape& sample_shape, std::span<const float> samples, int columns,
                     std::span<const float> reference, std::span<const float> paths,
                     std::int64_t states) {
  if (sample_shape.rank() == 3) {
    const auto count = static_cast<std::int64_t>(samples.size()) / sample_shape.elements();
    return image_grid(samples, count, sample_shape[0], sample_shape[1], sample_shape[2],
                      {.columns = columns});
  }
  if (sample_shape == Shape{2}) {
    std::vector<ScatterPanel> panels;
    if (!reference.empty()) panels.push_back({.title = "data", .points = reference});
    panels.push_back({.title = "samples", .points = samples});
    if (!paths.empty())
      panels.push_back({.title = "trajectories, " + std::to_string(states - 1) + " steps",
                        .paths = paths,
                        .states = states});
    return scatter_plot(panels);
  }
  throw ShapeError("picture: samples of shape " + to_string(sample_shape) +
                   " are neither images [height, width, channels] nor points [2]");
}

}  // namespace fluxion
