// A set of points that a flow begins in instead of standard normal noise: one of those drawn by
// code, so that every program has it by its name.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "models/data/data_set.h"

namespace fluxion {

// Throws Error that lists the built-in sets of points where it is none of these, or where its
// samples have another shape.
std::shared_ptr<const DataSet> source_set(const std::string& name, const Shape& sample_shape);

// Whom points are drawn for: the same seed gives each points of its own, which are not those of the
// data set of that name either.
enum class SourceUse : std::uint64_t { training = 0x7472616973, drawing = 0x6472617773 };
// Points first, first + 1, .. of that seed, whatever `count` is.
std::vector<float> source_points(const DataSet& source, SourceUse use, std::uint64_t seed,
                                 std::int64_t first, std::int64_t count);

}  // namespace fluxion
