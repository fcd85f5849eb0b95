#include "models/images/sample_picture.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"

namespace fluxion {

namespace {

// Points [count, dim] as points of the plane: their first two coordinates, or beside their only one
// the number of the sample, from -reach to reach.
std::vector<float> in_the_plane(std::span<const float> points, std::int64_t dim, float reach) {
  const auto width = static_cast<std::size_t>(dim), count = points.size() / width;
  std::vector<float> result;
  result.reserve(2 * count);
  for (std::size_t i = 0; i < count; ++i) {
    const float* const point = points.data() + i * width;
    const float upwards =
        (2 * static_cast<float>(i) + 1) / static_cast<float>(count) - 1;  // from -1 to 1
    result.push_back(point[0]);
    result.push_back(dim == 1 ? upwards * reach : point[1]);
  }
  return result;
}

std::string axes_text(std::int64_t dim) {
  if (dim == 2) return "";
  return dim == 1 ? " (sideways), by number" : ", axes 1 and 2 of " + std::to_string(dim);
}

}  // namespace

bool can_be_drawn(const Shape& sample_shape) {
  return sample_shape.rank() == 1 ||
         (sample_shape.rank() == 3 && (sample_shape[2] == 1 || sample_shape[2] == 3));
}

Image sample_picture(const Shape& sample_shape, std::span<const float> samples,
                     const GridOptions& grid, std::span<const float> reference,
                     std::span<const float> paths, std::int64_t states, float reach) {
  if (sample_shape.rank() == 3) {
    const auto count = static_cast<std::int64_t>(samples.size()) / sample_shape.elements();
    return image_grid(samples, count, sample_shape[0], sample_shape[1], sample_shape[2], grid);
  }
  if (sample_shape.rank() != 1)
    throw ShapeError("picture: samples of shape " + to_string(sample_shape) +
                     " are neither images [height, width, channels] nor points [dim]");
  const std::int64_t dim = sample_shape[0];
  if (dim == 1 && reach == 0) reach = reach_of(reference.empty() ? samples : reference);
  const std::vector<float> drawn = in_the_plane(samples, dim, reach),
                           data = in_the_plane(reference, dim, reach);
  std::vector<ScatterPanel> panels;
  if (!reference.empty()) panels.push_back({.title = "data" + axes_text(dim), .points = data});
  panels.push_back({.title = "samples" + axes_text(dim), .points = drawn});
  if (!paths.empty() && dim == 2)
    panels.push_back({.title = "trajectories, " + std::to_string(states - 1) + " steps",
                      .paths = paths,
                      .states = states});
  return scatter_plot(panels, {.low = -reach, .high = reach});
}

std::uint64_t picture_bytes(const Shape& sample_shape, std::int64_t count,
                            const GridOptions& grid) {
  if (sample_shape.rank() == 3)
    return image_grid_bytes(count, sample_shape[0], sample_shape[1], sample_shape[2], grid);
  const std::vector<float> none(static_cast<std::size_t>(sample_shape.elements()));
  return sample_picture(sample_shape, none).pixels.size();
}

}  // namespace fluxion
