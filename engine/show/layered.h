// Layered drawings of acyclic graphs, after Sugiyama, Tagawa and Toda, "Methods for Visual
// Understanding of Hierarchical System Structures" (1981):
//
//   1. layers   every node lies below its inputs; then nodes move down where that shortens lines,
//               or where a layer is too wide
//   2. bends    a line gets a bend, a small vertex, in each layer it passes; the lines that leave
//               one node share their bends
//   3. order    barycentre sweeps and exchanges of neighbours lower the number of crossings
//   4. places   each vertex as near to the middle of its neighbours as order and gaps allow
//
// A lane is a column that its nodes can't leave: for example one for the primal computation and one
// for its tangent.
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
  // A drawing may have least_bends + bends_per_node * nodes bends. If it would have more, the
  // longest lines are cut.
  // Where the nodes of a lane in one layer are wider together, some move down; 0 for no limit.
  double lane_room = 0;
  std::size_t least_bends = 400, bends_per_node = 5;
};

// Straight down from `begin` to leave_y, a smooth curve to (end.x, arrive_y), straight down to
// `end`.
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

// Deterministic; time is nearly linear in nodes, lines and bends. Throws Error for an edge that
// does not lead from a node to a later one.
Layered layered(std::span<const LayeredNode> nodes, std::span<const LayeredEdge> edges,
                const LayeredOptions& options = {});

}  // namespace fluxion::show
