#include "models/evaluation/sample_view.h"

#include <cmath>
#include <string>

#include "engine/error.h"
#include "models/data/random.h"

namespace fluxion {

void check_samples(const SampleView& samples, std::int64_t least, const char* what) {
  const std::string start = std::string(what) + ": ";
  if (samples.dim < 1 || samples.count < 0 ||
      samples.values.size() != static_cast<std::size_t>(samples.count * samples.dim))
    throw ShapeError(start + std::to_string(samples.values.size()) + " numbers are not " +
                     std::to_string(samples.count) + " samples of dimension " +
                     std::to_string(samples.dim));
  if (samples.count < least)
    throw ShapeError(start + "needs at least " + std::to_string(least) + " samples, got " +
                     std::to_string(samples.count));
  for (std::size_t i = 0; i < samples.values.size(); ++i)
    if (!std::isfinite(samples.values[i]))
      throw Error(start + "sample " + std::to_string(i / static_cast<std::size_t>(samples.dim)) +
                  " holds a number that is not finite");
}

void check_samples(const SampleView& x, const SampleView& y, std::int64_t least, const char* what) {
  check_samples(x, least, what);
  check_samples(y, least, what);
  if (x.dim != y.dim)
    throw ShapeError(std::string(what) + ": samples of dimension " + std::to_string(x.dim) +
                     " can't be compared with samples of dimension " + std::to_string(y.dim));
}

SomeSamples::SomeSamples(const SampleView& all, std::int64_t count) : view_(all) {
  if (count >= all.count) return;
  const auto dim = static_cast<std::size_t>(all.dim);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto row = static_cast<std::size_t>(
        permuted(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(all.count), 0, 0));
    const auto values = all.values.subspan(row * dim, dim);
    chosen_.insert(chosen_.end(), values.begin(), values.end());
  }
  view_ = {chosen_, count, all.dim};
}

}  // namespace fluxion
