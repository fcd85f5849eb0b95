// The planner: graph in, program out.
//
//   simplify -> pair -> prepare -> fuse -> lower -> merge contractions and epilogues -> order ->
//   place in memory
//
// canonicalise() (graph.h) makes the graph. prepare, fuse and lower repeat until every kernel fits
// the device's limits (split.h).
#pragma once

#include <vector>

#include "engine/backend.h"
#include "engine/plan/graph.h"

namespace fluxion {

// Where each requested output comes from: an output of the program, or an input passed through.
struct OutputSource {
  bool from_input = false;
  std::int32_t index = 0;
};

struct Plan {
  Program program;
  std::vector<double> extra_scalars;  // bound after the graph's own
  std::vector<OutputSource> outputs;
};

namespace plan {
// Plans `graph` for a device; deterministic. Throws DeviceError if some tensor or op can't fit the
// device.
Plan make_plan(const Graph& graph, const Capabilities& device);
}  // namespace plan

}  // namespace fluxion
