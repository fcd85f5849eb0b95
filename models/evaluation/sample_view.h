// A set of samples as the metrics see it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fluxion {

// Row-major [count, dim]; whatever the samples are, each is one vector. Does not own the values.
struct SampleView {
  std::span<const float> values;
  std::int64_t count = 0, dim = 0;
};

// Throws ShapeError, naming `what`, unless the view has at least `least` samples of at least one
// finite number each; Error for a number that is not finite.
void check_samples(const SampleView& samples, std::int64_t least, const char* what);
// The same of two sets, which must have one dimension.
void check_samples(const SampleView& x, const SampleView& y, std::int64_t least, const char* what);

// `count` samples of a set: all of them, or some from all over it. (The first would be of few
// classes where a set is in their order.) The set outlives it.
class SomeSamples {
 public:
  SomeSamples(const SampleView& all, std::int64_t count);
  SomeSamples(const SomeSamples&) = delete;
  SomeSamples& operator=(const SomeSamples&) = delete;
  SampleView view() const { return view_; }

 private:
  std::vector<float> chosen_;
  SampleView view_;
};

}  // namespace fluxion
