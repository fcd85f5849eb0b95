#include "models/data/source_set.h"

#include <algorithm>

#include "engine/error.h"

namespace fluxion {

std::shared_ptr<const DataSet> source_set(const std::string& name, const Shape& sample_shape) {
  std::string names;
  bool known = false;
  for (const DataSetDescription& each : built_in_data_sets()) {
    const std::unique_ptr<DataSet> set = make_data_set(each.name);
    if (set->is_image() || set->size()) continue;
    names += (names.empty() ? "" : ", ") + each.name;
    known = known || each.name == name;
  }
  if (!known)
    throw Error("source: wants one of the built-in sets of points, " + names + ", got '" + name +
                "'");
  std::shared_ptr<const DataSet> set = make_data_set(name);
  if (set->sample_shape() != sample_shape)
    throw ShapeError("source: " + name + " holds points of shape " +
                     to_string(set->sample_shape()) + ", the samples are " +
                     to_string(sample_shape));
  return set;
}

std::vector<float> source_points(const DataSet& source, SourceUse use, std::uint64_t seed,
                                 std::int64_t first, std::int64_t count) {
  std::vector<float> points;
  points.reserve(static_cast<std::size_t>(count * source.sample_shape().elements()));
  const std::uint64_t own = seed ^ static_cast<std::uint64_t>(use);
  if (count > 0 && first % count == 0)
    return source.batch(count, own, static_cast<std::uint64_t>(first / count)).x;
  for (std::int64_t i = first; i < first + count; ++i) {
    const HostBatch one = source.batch(1, own, static_cast<std::uint64_t>(i));
    points.insert(points.end(), one.x.begin(), one.x.end());
  }
  return points;
}

}  // namespace fluxion
