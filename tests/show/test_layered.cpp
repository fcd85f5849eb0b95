// Layered drawings.
#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "engine/error.h"
#include "engine/show/layered.h"
#include "tests/catch.h"

using namespace fluxion;
using namespace fluxion::show;

namespace {

// What every drawing must be: nodes below their inputs, none over another, none outside, lines
// where nodes are.
void check_drawing(const std::vector<LayeredNode>& nodes, const std::vector<LayeredEdge>& edges,
                   const Layered& drawing) {
  REQUIRE(drawing.centres.size() == nodes.size());
  REQUIRE(drawing.layers.size() == nodes.size());
  for (const LayeredEdge& edge : edges) {
    REQUIRE(drawing.layers[static_cast<std::size_t>(edge.from)] <
            drawing.layers[static_cast<std::size_t>(edge.to)]);
    REQUIRE(drawing.centres[static_cast<std::size_t>(edge.from)].y <
            drawing.centres[static_cast<std::size_t>(edge.to)].y);
  }
  std::vector<std::size_t> order(nodes.size());
  for (std::size_t k = 0; k < order.size(); ++k) order[k] = k;
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::pair(drawing.layers[a], drawing.centres[a].x) <
           std::pair(drawing.layers[b], drawing.centres[b].x);
  });
  for (std::size_t k = 0; k < order.size(); ++k) {
    const std::size_t v = order[k];
    const Point centre = drawing.centres[v];
    REQUIRE(std::isfinite(centre.x));
    REQUIRE(centre.x - nodes[v].width / 2 >= -1e-6);
    REQUIRE(centre.x + nodes[v].width / 2 <= drawing.width + 1e-6);
    REQUIRE(centre.y + nodes[v].height / 2 <= drawing.height + 1e-6);
    const Layered::Lane& lane = drawing.lanes[static_cast<std::size_t>(nodes[v].lane)];
    REQUIRE(centre.x - nodes[v].width / 2 >= lane.left - 1e-6);
    REQUIRE(centre.x + nodes[v].width / 2 <= lane.right + 1e-6);
    if (k > 0 && drawing.layers[order[k - 1]] == drawing.layers[v])
      REQUIRE(drawing.centres[order[k - 1]].x + nodes[order[k - 1]].width / 2 <
              centre.x - nodes[v].width / 2);
  }
  // Every edge enters its node, drawn or cut.
  std::size_t entering = 0;
  for (const LayeredLine& line : drawing.lines) {
    REQUIRE(line.begin.y <= line.leave_y + 1e-6);
    REQUIRE(line.leave_y < line.arrive_y);
    REQUIRE(line.arrive_y <= line.end.y + 1e-6);
    entering += line.to >= 0;
  }
  REQUIRE(entering + drawing.cuts.size() == edges.size());
}

}  // namespace

TEST_CASE("a drawing of nothing, and of one node", "[show]") {
  const Layered nothing = layered({}, {});
  CHECK(nothing.centres.empty());
  CHECK(nothing.width == 0);

  const std::vector<LayeredNode> one = {{.width = 40, .height = 20}};
  const Layered drawing = layered(one, {});
  check_drawing(one, {}, drawing);
  CHECK(drawing.width == 40);
  CHECK(drawing.height == 20);
}

TEST_CASE("a chain is a straight column", "[show]") {
  const std::vector<LayeredNode> nodes(5, {.width = 50, .height = 20});
  const std::vector<LayeredEdge> edges = {{0, 1}, {1, 2}, {2, 3}, {3, 4}};
  const Layered drawing = layered(nodes, edges);
  check_drawing(nodes, edges, drawing);
  for (const Point& centre : drawing.centres) CHECK(centre.x == Approx(25));
  CHECK(drawing.cuts.empty());
}

TEST_CASE("sources move down to their users, with what leads to them alone", "[show]") {
  // 0 -> 1 -> 2 -> 3, and 4 -> 5 -> 3: the short chain hangs beside the end of the long one.
  const std::vector<LayeredNode> nodes(6, {.width = 50, .height = 20});
  const std::vector<LayeredEdge> edges = {{0, 1}, {1, 3}, {3, 5}, {2, 4}, {4, 5}};
  const Layered drawing = layered(nodes, edges);
  check_drawing(nodes, edges, drawing);
  CHECK(drawing.layers == std::vector<std::int32_t>{0, 1, 1, 2, 2, 3});
}

TEST_CASE("crossings that can be avoided are avoided", "[show]") {
  // Two chains with their ends given in the other order, and a square of crossing neighbours.
  const std::vector<LayeredNode> nodes(6, {.width = 50, .height = 20});
  const std::vector<LayeredEdge> edges = {{0, 3}, {1, 2}, {2, 5}, {3, 4}};
  const Layered drawing = layered(nodes, edges);
  check_drawing(nodes, edges, drawing);
  const auto left = [&](std::size_t a, std::size_t b) {
    return drawing.centres[a].x < drawing.centres[b].x;
  };
  CHECK(left(0, 1) == left(3, 2));
  CHECK(left(3, 2) == left(4, 5));
}

TEST_CASE("lanes hold their nodes", "[show]") {
  std::vector<LayeredNode> nodes(8, {.width = 50, .height = 20});
  for (std::size_t k = 0; k < nodes.size(); ++k) nodes[k].lane = k % 2 == 0 ? 0 : 3;
  const std::vector<LayeredEdge> edges = {{0, 2}, {2, 4}, {4, 6}, {1, 3}, {3, 5},
                                          {5, 7}, {0, 3}, {2, 5}, {0, 7}};
  const Layered drawing = layered(nodes, edges);
  check_drawing(nodes, edges, drawing);
  REQUIRE(drawing.lanes.size() == 4);
  CHECK(drawing.lanes[1].left == drawing.lanes[1].right);
  CHECK(drawing.lanes[0].right < drawing.lanes[3].left);
}

TEST_CASE("edges lead to later nodes", "[show]") {
  const std::vector<LayeredNode> nodes(2, {.width = 10, .height = 10});
  for (const LayeredEdge wrong :
       {LayeredEdge{1, 0}, LayeredEdge{0, 0}, LayeredEdge{0, 2}, LayeredEdge{-1, 1}})
    CHECK_THROWS_AS(layered(nodes, std::vector{wrong}), Error);
}

TEST_CASE("late nodes stand above their users, not below their inputs", "[show]") {
  // 0 -> 1 -> 2 -> 3 -> 5, 0 -> 4 -> 5: 4 is drawn where it is computed, or where it is used.
  std::vector<LayeredNode> nodes(6, {.width = 50, .height = 20});
  const std::vector<LayeredEdge> edges = {{0, 1}, {1, 2}, {2, 3}, {3, 5}, {0, 4}, {4, 5}};
  CHECK(layered(nodes, edges).layers[4] == 1);
  nodes[4].late = true;
  const Layered drawing = layered(nodes, edges);
  check_drawing(nodes, edges, drawing);
  CHECK(drawing.layers[4] == 3);
}

TEST_CASE("an edge given twice is drawn once", "[show]") {
  const std::vector<LayeredNode> nodes(2, {.width = 10, .height = 10});
  const std::vector<LayeredEdge> edges = {{0, 1}, {0, 1}};
  CHECK(layered(nodes, edges).lines.size() == 1);
}

TEST_CASE("random graphs of every size are drawn as they should be, and again the same", "[show]") {
  for (const std::size_t size : {2u, 10u, 100u, 1000u}) {
    for (unsigned seed = 0; seed < 4; ++seed) {
      std::mt19937 random(seed);
      std::vector<LayeredNode> nodes;
      std::vector<LayeredEdge> edges;
      for (std::size_t v = 0; v < size; ++v) {
        nodes.push_back({.width = 20.0 + random() % 60,
                         .height = 10.0 + random() % 30,
                         .lane = static_cast<int>(random() % (1 + seed))});
        std::vector<std::int32_t> inputs;
        for (std::size_t k = 0; v > 0 && k < random() % 4; ++k) {
          // Mostly near neighbours, some from far above.
          const std::size_t back =
              random() % 8 == 0 ? random() % v : random() % std::min<std::size_t>(v, 10);
          const auto from = static_cast<std::int32_t>(v - 1 - back);
          if (std::find(inputs.begin(), inputs.end(), from) == inputs.end()) inputs.push_back(from);
        }
        for (const std::int32_t from : inputs)
          edges.push_back({from, static_cast<std::int32_t>(v)});
      }
      INFO("size " << size << ", seed " << seed);
      const Layered drawing = layered(nodes, edges);
      check_drawing(nodes, edges, drawing);
      const Layered again = layered(nodes, edges);
      for (std::size_t v = 0; v < size; ++v) {
        REQUIRE(drawing.centres[v].x == again.centres[v].x);
        REQUIRE(drawing.centres[v].y == again.centres[v].y);
      }
    }
  }
}

TEST_CASE("of a graph with many long lines the longest are cut", "[show]") {
  // A chain of 2000 in which every node reads the first half as well.
  const std::size_t size = 2000;
  const std::vector<LayeredNode> nodes(size, {.width = 20, .height = 10});
  std::vector<LayeredEdge> edges;
  for (std::int32_t v = 1; v < static_cast<std::int32_t>(size); ++v) {
    edges.push_back({v - 1, v});
    if (v >= 1000) edges.push_back({v - 1000, v});
  }
  const LayeredOptions options;
  const Layered drawing = layered(nodes, edges, options);
  check_drawing(nodes, edges, drawing);
  CHECK(drawing.cuts.size() == 1000);
  CHECK(drawing.lines.size() <= edges.size() + options.least_bends + options.bends_per_node * size);
}

TEST_CASE("a lane with little room gets more layers instead of wide ones", "[show]") {
  std::mt19937 random(11);
  for (int trial = 0; trial < 20; ++trial) {
    std::vector<LayeredNode> nodes;
    std::vector<LayeredEdge> edges;
    for (std::int32_t v = 0; v < 40; ++v) {
      nodes.push_back({40.0 + static_cast<double>(random() % 60), 30, static_cast<int>(v % 2)});
      if (v > 0 && random() % 2) edges.push_back({static_cast<std::int32_t>(random() % v), v});
    }
    LayeredOptions options;
    options.lane_room = 220;
    const Layered drawing = layered(nodes, edges, options);
    check_drawing(nodes, edges, drawing);
    std::map<std::pair<std::int32_t, int>, double> widths;
    for (std::size_t v = 0; v < nodes.size(); ++v) {
      double& width = widths[{drawing.layers[v], nodes[v].lane}];
      width += (width > 0 ? options.node_gap : 0) + nodes[v].width;
      REQUIRE(width <= options.lane_room);
    }
  }
  // A node that is wider than the room stands alone.
  const std::vector<LayeredNode> wide = {{50, 20}, {50, 20}, {50, 20}};
  LayeredOptions options;
  options.lane_room = 30;
  CHECK(layered(wide, {}, options).layers == std::vector<std::int32_t>{0, 1, 2});
}
