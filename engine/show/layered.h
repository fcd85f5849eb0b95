// Layered drawings of acyclic graphs, after Sugiyama, Tagawa and Toda, "Methods for Visual
// Understanding of Hierarchical System Structures" (1981):
//
//   1. layers      every node lies below its inputs; then nodes move down to their users where that
//   shortens lines
//   2. bends       a line that passes a layer gets a bend there, a small vertex; the lines that
//   leave one node share theirs
//   3. order       barycentre sweeps and exchanges of neighbours within the layers, which lower the
//   number of crossings
//   4. places      each vertex as near to the middle of its neighbours as the order and the gaps
//   allow
//
// Lanes are columns that nodes don't leave: say, one for the primal computation and one for its
// tangent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace fluxion::show {

struct Point {
  double x = 0, y = 0;  // pixels, y down
};

struct LayeredNode {
  double width = 0, height = 0;
  int lane = 0;  // lanes are numbered from 0 and stand from left to right; empty ones take no room
  bool late = false;  // stands near its users, however far from its inputs
};

struct LayeredEdge {
  std::int32_t from = 0, to = 0;  // from < to
};

struct LayeredOptions {
  double node_gap = 14, bend_gap = 7, layer_gap = 26, lane_gap = 34;
  // Bends that a drawing may have, beside this many a node: where there would be more, the longest
  // lines are cut instead of drawn.
  std::size_t least_bends = 400, bends_per_node = 5;
};

// From `begin` straight down to leave_y, over to end.x on a smooth curve, reached at arrive_y, and
// down to `end`.
struct LayeredLine {
  Point begin, end;
  double leave_y = 0, arrive_y = 0;
  std::int32_t from = -1;  // the node whose value the line carries
  std::int32_t to = -1;    // the node it enters, or -1 if it ends in a bend
};

// A line that is not drawn because it is too long: it would enter node `to` at `at`.
struct CutLine {
  std::int32_t from = -1, to = -1;
  Point at;
};

struct Layered {
  double width = 0, height = 0;
  std::vector<std::int32_t> layers;  // of each node, from the top
  std::vector<Point> centres;        // of each node
  std::vector<LayeredLine> lines;
  std::vector<CutLine> cuts;
  struct Lane {
    double left = 0, right = 0;  // equal for an empty lane
  };
  std::vector<Lane> lanes;
};

// Deterministic; in time nearly linear in nodes, lines and bends. Throws Error for an edge that
// does not lead from a node to a later one.
Layered layered(std::span<const LayeredNode> nodes, std::span<const LayeredEdge> edges,
                const LayeredOptions& options = {});

}  // namespace fluxion::show
