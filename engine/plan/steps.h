// One op as several simpler ones: what is left to do when a single op on plain memory has more
// axes, guards or pieces than a kernel may have.
#pragma once

#include <cstdint>
#include <set>

#include "engine/plan/graph.h"
#include "engine/program/limits.h"

namespace fluxion::plan {

// Whether there are steps for this op that make kernels smaller in the limit that it breaks.
bool has_steps(const Graph& graph, const GraphNode& node, Limit broken, const KernelLimits& limits);

// Appends the steps that stand for `node`, whose inputs are in the graph, and returns the last of
// them. What lies between two steps is copied to memory; the copies are added to `stored`.
//   transpose            a few axes at a time move to their places
//   slice, flip, pad,    half of the axes first
//   broadcast_to
//   concat               half of the pieces first, in two parts
//   sum, max, min        the reduced axes are moved to the end; or all but the first axis first
//   ops on whole tensors the axes before and after the one that they work along become one each
NodeId append_steps(Graph& graph, const GraphNode& node, Limit broken, const KernelLimits& limits,
                    std::set<NodeId>& stored);

}  // namespace fluxion::plan
