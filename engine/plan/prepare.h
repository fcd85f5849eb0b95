// Preparing: inserts copies where a value must lie in memory, and splits ops that are too large for
// a kernel into steps. The planner adds work nowhere else.
#pragma once

#include "engine/plan/graph.h"
#include "engine/program/limits.h"

namespace fluxion::plan {

struct Cuts;  // engine/plan/split.h

// A graph ready for fusion. An explicit copy (Op::identity) precedes each movement op that does not
// fold into an index map, and each operand that must lie in memory. No value is read from more than
// limits.max_loads places through views: a concatenation of more pieces than a kernel can choose
// between is done in parts. Carries out `cuts`, which name nodes of the given graph; afterwards
// `cuts` holds the nodes of the result that must be stored.
Graph prepare(const Graph& graph, const KernelLimits& limits, Cuts& cuts);

}  // namespace fluxion::plan
