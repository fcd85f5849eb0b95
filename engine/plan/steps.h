// One op as several simpler ones: the last resort if a single op on plain memory has more axes,
// guards or pieces than a kernel may have.
#pragma once

#include <cstdint>
#include <set>

#include "engine/plan/graph.h"
#include "engine/program/limits.h"

namespace fluxion::plan {

// Whether the op can be done in steps that need less of the broken limit.
bool has_steps(const Graph& graph, const GraphNode& node, Limit broken, const KernelLimits& limits);

// Appends the steps that replace `node`, whose inputs are in the graph, and returns the last of
// them. Values between two steps are copied to memory; the copies are added to `stored`.
//   transpose            a few axes at a time move to their places
//   slice, flip, pad,    half of the axes first
//   broadcast_to
//   concat               half of the pieces first, in two parts
//   sum, max, min        the reduced axes are moved to the end; or all but the first axis first
//   ops on whole tensors the axes before and after the one that they work along become one each
NodeId append_steps(Graph& graph, const GraphNode& node, Limit broken, const KernelLimits& limits,
                    std::set<NodeId>& stored);

}  // namespace fluxion::plan
