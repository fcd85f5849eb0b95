#include "engine/show/layered.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <string>

#include "engine/error.h"

namespace fluxion::show {

namespace {

constexpr int order_sweeps = 12, place_sweeps = 16;
constexpr std::size_t many_vertices = 4000;  // beyond, fewer sweeps and no exchanges
constexpr double line_room = 10;             // of a bend

using Indices = std::vector<std::int32_t>;

std::size_t at(std::int32_t index) { return static_cast<std::size_t>(index); }

class Drawing {
 public:
  Drawing(std::span<const LayeredNode> nodes, std::span<const LayeredEdge> edges,
          const LayeredOptions& options)
      : options_(options), node_count_(nodes.size()) {
    for (const LayeredNode& node : nodes) {
      if (node.lane < 0)
        throw Error("layered: lane " + std::to_string(node.lane) + "; lanes are numbered from 0");
      vertices_.push_back({node.width, node.height, node.lane});
      late_.push_back(node.late);
    }
    users_.resize(nodes.size());
    inputs_.resize(nodes.size());
    std::set<std::pair<std::int32_t, std::int32_t>> seen;
    for (const LayeredEdge& edge : edges) {
      if (edge.from < 0 || edge.from >= edge.to || at(edge.to) >= nodes.size())
        throw Error("layered: an edge from node " + std::to_string(edge.from) + " to " +
                    std::to_string(edge.to) + " of " + std::to_string(nodes.size()) +
                    "; edges lead to later nodes");
      if (!seen.insert({edge.from, edge.to}).second) continue;
      users_[at(edge.from)].push_back(edge.to);
      inputs_[at(edge.to)].push_back(edge.from);
    }
  }

  Layered run() {
    if (vertices_.empty()) return {};
    assign_layers();
    if (options_.lane_room > 0) thin_layers();
    make_bends();
    order_layers();
    place_across();
    return result();
  }

 private:
  struct Vertex {
    double width = 0, height = 0;
    int lane = 0;
    std::int32_t layer = 0;
    std::int32_t position = 0;  // within the layer
    double x = 0;
    std::int32_t source = -1;  // of a bend: the node whose value passes
    Indices above{}, below{};  // neighbours in the adjacent layers
  };

  bool is_bend(std::int32_t v) const { return at(v) >= node_count_; }

  // ---- 1. layers

  void assign_layers() {
    const auto count = static_cast<std::int32_t>(node_count_);
    for (std::int32_t v = 0; v < count; ++v)
      for (const std::int32_t input : inputs_[at(v)])
        vertices_[at(v)].layer = std::max(vertices_[at(v)].layer, vertices_[at(input)].layer + 1);
    // Nodes that can move without lengthening a line: nothing else reads their inputs, so the
    // inputs move along.
    std::vector<bool> follows(node_count_);
    for (std::int32_t v = 0; v < count; ++v)
      follows[at(v)] = users_[at(v)].size() == 1 &&
                       std::all_of(inputs_[at(v)].begin(), inputs_[at(v)].end(),
                                   [&](std::int32_t input) { return follows[at(input)]; });
    // Move down towards the users, as far as no input's line grows.
    for (std::int32_t v = count - 1; v >= 0; --v) {
      if (users_[at(v)].empty()) continue;
      std::int32_t lowest = std::numeric_limits<std::int32_t>::max();
      for (const std::int32_t user : users_[at(v)])
        lowest = std::min(lowest, vertices_[at(user)].layer - 1);
      for (const std::int32_t input : inputs_[at(v)]) {
        if (late_[at(v)] || follows[at(input)]) continue;
        std::int32_t reach = 0;  // how far down the input's line goes anyway
        for (const std::int32_t user : users_[at(input)])
          if (user != v) reach = std::max(reach, vertices_[at(user)].layer);
        lowest = std::min(lowest, reach);
      }
      vertices_[at(v)].layer = std::max(vertices_[at(v)].layer, lowest);
    }
  }

  // Where the nodes of a lane are wider together than its room, those whose users are farthest down
  // go a layer down, and what is below them gives way. Every pass completes a layer.
  void thin_layers() {
    const auto count = static_cast<std::int32_t>(node_count_);
    const auto reach = [&](std::int32_t v) {  // the first layer with a user
      std::int32_t first = std::numeric_limits<std::int32_t>::max();
      for (const std::int32_t user : users_[at(v)])
        first = std::min(first, vertices_[at(user)].layer);
      return first;
    };
    std::map<std::pair<std::int32_t, int>, double> taken;  // by layer and lane
    const auto place = [&](std::int32_t v, std::int32_t layer) {
      double& width = taken[{layer, vertices_[at(v)].lane}];
      const double wider = width + (width > 0 ? options_.node_gap : 0) + vertices_[at(v)].width;
      if (width > 0 && wider > options_.lane_room) return false;
      width = wider;
      return true;
    };
    for (std::int32_t layer = 0, last = 0; layer <= last; ++layer) {
      Indices here;
      for (std::int32_t v = 0; v < count; ++v) {
        for (const std::int32_t input : inputs_[at(v)])
          vertices_[at(v)].layer = std::max(vertices_[at(v)].layer, vertices_[at(input)].layer + 1);
        last = std::max(last, vertices_[at(v)].layer);
        if (vertices_[at(v)].layer == layer) here.push_back(v);
      }
      std::stable_sort(here.begin(), here.end(),
                       [&](std::int32_t a, std::int32_t b) { return reach(a) < reach(b); });
      for (const std::int32_t v : here)
        if (!place(v, layer)) last = std::max(last, ++vertices_[at(v)].layer);
    }
    // Back to the users, who may have given way.
    for (std::int32_t v = count - 1; v >= 0; --v) {
      if (!inputs_[at(v)].empty() || users_[at(v)].empty()) continue;
      std::int32_t layer = reach(v) - 1;
      while (layer > vertices_[at(v)].layer && !place(v, layer)) --layer;
      vertices_[at(v)].layer = layer;
    }
  }

  // ---- 2. bends

  // The longest span, in layers, of a line that is drawn. Longer lines would need too many bends.
  std::int32_t longest_span() const {
    const std::size_t most = options_.least_bends + options_.bends_per_node * node_count_;
    const auto bends = [&](std::int32_t longest) {
      std::size_t total = 0;
      for (std::size_t v = 0; v < node_count_; ++v) {
        std::int32_t reach = 1;
        for (const std::int32_t user : users_[v]) {
          const std::int32_t span = vertices_[at(user)].layer - vertices_[v].layer;
          if (span <= longest) reach = std::max(reach, span);
        }
        total += at(reach - 1);
      }
      return total;
    };
    std::int32_t low = 1, high = 1;
    for (std::size_t v = 0; v < node_count_; ++v) high = std::max(high, vertices_[v].layer + 1);
    if (bends(high) <= most) return high;
    while (low + 1 < high) {
      const std::int32_t middle = std::midpoint(low, high);
      (bends(middle) <= most ? low : high) = middle;
    }
    return low;
  }

  void connect(std::int32_t upper, std::int32_t lower) {
    vertices_[at(upper)].below.push_back(lower);
    vertices_[at(lower)].above.push_back(upper);
  }

  void make_bends() {
    const std::int32_t longest = longest_span();
    for (std::int32_t v = 0; at(v) < node_count_; ++v) {
      const std::int32_t layer = vertices_[at(v)].layer;
      Indices users = users_[at(v)];
      std::stable_sort(users.begin(), users.end(), [&](std::int32_t a, std::int32_t b) {
        return vertices_[at(a)].layer < vertices_[at(b)].layer;
      });
      std::int32_t end = v;  // of the shared line so far
      for (const std::int32_t user : users) {
        if (vertices_[at(user)].layer - layer > longest) {
          cuts_.push_back({v, user, {}});
          continue;
        }
        while (vertices_[at(end)].layer + 1 < vertices_[at(user)].layer) {
          const auto bend = static_cast<std::int32_t>(vertices_.size());
          Vertex vertex{.width = line_room,
                        .height = 0,
                        .lane = vertices_[at(v)].lane,
                        .layer = vertices_[at(end)].layer + 1};
          vertex.source = v;
          vertices_.push_back(std::move(vertex));
          connect(end, bend);
          end = bend;
        }
        connect(end, user);
      }
    }
  }

  // ---- 3. order

  // The parts of a layer that lie in one lane, from left to right.
  template <class Visit>
  void each_run(std::size_t layer, Visit visit) {
    Indices& order = layers_[layer];
    for (std::size_t begin = 0; begin < order.size();) {
      std::size_t end = begin + 1;
      while (end < order.size() &&
             vertices_[at(order[end])].lane == vertices_[at(order[begin])].lane)
        ++end;
      visit(std::span<std::int32_t>(order).subspan(begin, end - begin));
      begin = end;
    }
  }

  void number_positions(std::size_t layer) {
    for (std::size_t k = 0; k < layers_[layer].size(); ++k)
      vertices_[at(layers_[layer][k])].position = static_cast<std::int32_t>(k);
  }

  // Crossings of the lines between `layer` and the next: inversions, counted with a Fenwick tree
  // (Barth, Juenger, Mutzel 2002).
  std::size_t crossings(std::size_t layer) const {
    const std::size_t size = layers_[layer + 1].size();
    std::vector<std::size_t> tree(size + 1, 0);
    std::size_t total = 0, entered = 0;
    Indices ends;
    for (const std::int32_t v : layers_[layer]) {
      ends.clear();
      for (const std::int32_t w : vertices_[at(v)].below) ends.push_back(vertices_[at(w)].position);
      std::sort(ends.begin(), ends.end());
      for (const std::int32_t end : ends) {
        std::size_t not_right = 0;
        for (std::size_t k = at(end) + 1; k > 0; k &= k - 1) not_right += tree[k];
        total += entered - not_right;
      }
      for (const std::int32_t end : ends) {
        for (std::size_t k = at(end) + 1; k <= size; k += k & (~k + 1)) ++tree[k];
        ++entered;
      }
    }
    return total;
  }
  std::size_t crossings() const {
    std::size_t total = 0;
    for (std::size_t layer = 0; layer + 1 < layers_.size(); ++layer) total += crossings(layer);
    return total;
  }

  void sort_by_neighbours(std::size_t layer, Indices Vertex::*side) {
    std::vector<std::pair<double, std::int32_t>> keyed;
    for (const std::int32_t v : layers_[layer]) {
      const Indices& neighbours = vertices_[at(v)].*side;
      double centre = vertices_[at(v)].position;
      if (!neighbours.empty()) {
        centre = 0;
        for (const std::int32_t w : neighbours) centre += vertices_[at(w)].position;
        centre /= static_cast<double>(neighbours.size());
      }
      keyed.emplace_back(centre, v);
    }
    std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
      const int lane_a = vertices_[at(a.second)].lane, lane_b = vertices_[at(b.second)].lane;
      return lane_a != lane_b ? lane_a < lane_b : a.first < b.first;
    });
    for (std::size_t k = 0; k < keyed.size(); ++k) layers_[layer][k] = keyed[k].second;
    number_positions(layer);
  }

  // Crossings among the lines of u and v if u stands left of v.
  std::size_t crossings_of(std::int32_t u, std::int32_t v) const {
    std::size_t total = 0;
    for (const auto side : {&Vertex::above, &Vertex::below})
      for (const std::int32_t a : vertices_[at(u)].*side)
        for (const std::int32_t b : vertices_[at(v)].*side)
          total += vertices_[at(a)].position > vertices_[at(b)].position;
    return total;
  }

  // Swaps neighbours while that lowers the number of crossings. With `ties`: one round of swaps
  // that do not change it, to leave local minima.
  void exchange_neighbours(bool ties = false) {
    for (int round = 0; round < (ties ? 1 : 8); ++round) {
      bool better = false;
      for (Indices& order : layers_) {
        for (std::size_t k = 0; k + 1 < order.size(); ++k) {
          if (vertices_[at(order[k])].lane != vertices_[at(order[k + 1])].lane) continue;
          const std::size_t now = crossings_of(order[k], order[k + 1]),
                            swapped = crossings_of(order[k + 1], order[k]);
          if (ties ? swapped != now || now == 0 : swapped >= now) continue;
          std::swap(vertices_[at(order[k])].position, vertices_[at(order[k + 1])].position);
          std::swap(order[k], order[k + 1]);
          better = true;
        }
      }
      if (!better) return;
    }
  }

  void order_layers() {
    std::int32_t deepest = 0;
    for (const Vertex& vertex : vertices_) deepest = std::max(deepest, vertex.layer);
    layers_.resize(at(deepest) + 1);
    for (std::int32_t v = 0; at(v) < vertices_.size(); ++v)
      layers_[at(vertices_[at(v)].layer)].push_back(v);
    for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
      std::stable_sort(layers_[layer].begin(), layers_[layer].end(),
                       [&](std::int32_t a, std::int32_t b) {
                         return vertices_[at(a)].lane < vertices_[at(b)].lane;
                       });
      number_positions(layer);
    }
    const bool many = vertices_.size() > many_vertices;
    std::vector<Indices> best = layers_;
    std::size_t fewest = crossings();
    const std::vector<Indices> given = layers_;
    const auto keep_if_better = [&] {
      const std::size_t now = crossings();
      if (now < fewest) fewest = now, best = layers_;
    };
    // Start from the given order and from its mirror image; they end in different minima.
    for (const bool mirrored : {false, true}) {
      if (mirrored && (many || fewest == 0)) break;
      layers_ = given;
      for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
        if (mirrored)
          each_run(layer,
                   [](std::span<std::int32_t> run) { std::reverse(run.begin(), run.end()); });
        number_positions(layer);
      }
      for (int sweep = 0; sweep < (many ? 4 : order_sweeps) && fewest > 0; ++sweep) {
        if (sweep % 2 == 0)
          for (std::size_t layer = 1; layer < layers_.size(); ++layer)
            sort_by_neighbours(layer, &Vertex::above);
        else
          for (std::size_t layer = layers_.size() - 1; layer-- > 0;)
            sort_by_neighbours(layer, &Vertex::below);
        if (!many && sweep % 2 == 1) {
          keep_if_better();
          if (sweep % 4 == 1) exchange_neighbours(true);
          exchange_neighbours();
        }
        keep_if_better();
      }
    }
    layers_ = best;
    for (std::size_t layer = 0; layer < layers_.size(); ++layer) number_positions(layer);
    if (!many) exchange_neighbours();
  }

  // ---- 4. places

  double gap(std::int32_t left, std::int32_t right) const {
    return is_bend(left) || is_bend(right) ? options_.bend_gap : options_.node_gap;
  }
  // Between the centres of neighbours in a layer.
  double apart(std::int32_t left, std::int32_t right) const {
    return (vertices_[at(left)].width + vertices_[at(right)].width) / 2 + gap(left, right);
  }

  // Bends of a long line attract each other more than nodes do, so that it gets straight.
  double pull(std::int32_t v, std::int32_t w) const {
    return is_bend(v) && is_bend(w) ? 8 : is_bend(v) || is_bend(w) ? 2 : 1;
  }

  // Places the part of a layer in one lane as near to its neighbours' middle as order, gaps and
  // lane allow: least squares under order constraints, by pooling adjacent violators (Ayer et al.
  // 1955).
  void place(std::span<const std::int32_t> run, bool use_above, bool use_below) {
    struct Pool {
      double weighted = 0, weight = 0;
      std::size_t count = 0;
      double mean() const { return weighted / weight; }
    };
    std::vector<Pool> pools;
    std::vector<double> shift(run.size(), 0);  // distance from the first, when packed
    for (std::size_t k = 1; k < run.size(); ++k)
      shift[k] = shift[k - 1] + apart(run[k - 1], run[k]);
    for (std::size_t k = 0; k < run.size(); ++k) {
      const Vertex& vertex = vertices_[at(run[k])];
      double wanted = 0, weight = 0;
      const auto add = [&](const Indices& neighbours) {
        for (const std::int32_t w : neighbours)
          wanted += pull(run[k], w) * vertices_[at(w)].x, weight += pull(run[k], w);
      };
      if (use_above) add(vertex.above);
      if (use_below) add(vertex.below);
      if (weight == 0) wanted = 0.05 * vertex.x, weight = 0.05;
      pools.push_back({wanted - weight * shift[k], weight, 1});
      while (pools.size() > 1 && pools[pools.size() - 2].mean() >= pools.back().mean()) {
        const Pool last = pools.back();
        pools.pop_back();
        pools.back().weighted += last.weighted, pools.back().weight += last.weight,
            pools.back().count += last.count;
      }
    }
    const Layered::Lane& lane = lanes_[at(vertices_[at(run[0])].lane)];
    const double lowest = lane.left + vertices_[at(run.front())].width / 2;
    const double highest =
        std::max(lowest, lane.right - vertices_[at(run.back())].width / 2 - shift.back());
    std::size_t k = 0;
    for (const Pool& pool : pools)
      for (std::size_t i = 0; i < pool.count; ++i, ++k)
        vertices_[at(run[k])].x = std::clamp(pool.mean(), lowest, highest) + shift[k];
  }

  void place_across() {
    int lane_count = 0;
    for (const Vertex& vertex : vertices_) lane_count = std::max(lane_count, vertex.lane + 1);
    lanes_.resize(at(lane_count));
    for (std::size_t layer = 0; layer < layers_.size(); ++layer)
      each_run(layer, [&](std::span<const std::int32_t> run) {
        double width = (vertices_[at(run.front())].width + vertices_[at(run.back())].width) / 2;
        for (std::size_t k = 1; k < run.size(); ++k) width += apart(run[k - 1], run[k]);
        Layered::Lane& lane = lanes_[at(vertices_[at(run[0])].lane)];
        lane.right = std::max(lane.right, width);
      });
    double x = 0;
    for (Layered::Lane& lane : lanes_) {
      const double width = lane.right;
      lane = {x, x + width};
      if (width > 0) x += width + options_.lane_gap;
    }
    width_ = std::max(0.0, x - options_.lane_gap);

    for (Vertex& vertex : vertices_)
      vertex.x = (lanes_[at(vertex.lane)].left + lanes_[at(vertex.lane)].right) / 2;
    const int sweeps = vertices_.size() > many_vertices ? 4 : place_sweeps;
    for (int sweep = 0; sweep < sweeps; ++sweep) {
      const bool last = sweep + 2 >= sweeps;  // the last ones weigh both sides
      if (sweep % 2 == 0)
        for (std::size_t layer = 0; layer < layers_.size(); ++layer)
          each_run(layer, [&](auto run) { place(run, true, last); });
      else
        for (std::size_t layer = layers_.size(); layer-- > 0;)
          each_run(layer, [&](auto run) { place(run, last, true); });
    }
    for (int round = 0; round < 3; ++round) straighten();
  }

  // Straightens lines over several layers where their neighbours leave room: a bend joins the run
  // above it while one x fits all of it.
  void straighten() {
    const auto room = [&](std::int32_t v) {
      const Vertex& vertex = vertices_[at(v)];
      const Indices& order = layers_[at(vertex.layer)];
      const auto position = at(vertex.position);
      Layered::Lane range = lanes_[at(vertex.lane)];
      range.left += vertex.width / 2, range.right -= vertex.width / 2;
      const auto same_lane = [&](std::int32_t other) {
        return vertices_[at(other)].lane == vertex.lane;
      };
      if (position > 0 && same_lane(order[position - 1]))
        range.left = vertices_[at(order[position - 1])].x + apart(order[position - 1], v);
      if (position + 1 < order.size() && same_lane(order[position + 1]))
        range.right = vertices_[at(order[position + 1])].x - apart(v, order[position + 1]);
      return range;
    };
    for (auto first = static_cast<std::int32_t>(node_count_); at(first) < vertices_.size();) {
      Layered::Lane shared = room(first);
      std::int32_t last = first;
      double sum = vertices_[at(first)].x;
      while (at(last + 1) < vertices_.size() &&
             vertices_[at(last + 1)].source == vertices_[at(first)].source) {
        const Layered::Lane next = room(last + 1);
        const Layered::Lane both{std::max(shared.left, next.left),
                                 std::min(shared.right, next.right)};
        if (both.left > both.right) break;
        shared = both;
        sum += vertices_[at(++last)].x;
      }
      if (shared.left <= shared.right)
        for (std::int32_t v = first; v <= last; ++v)
          vertices_[at(v)].x = std::clamp(sum / (last - first + 1), shared.left, shared.right);
      first = last + 1;
    }
  }

  // ---- the drawing

  Layered result() {
    // The gap between layers grows with the sideways reach of the lines in it, so that none gets
    // too flat.
    std::vector<double> top(layers_.size()), bottom(layers_.size());
    double y = 0;
    for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
      double height = 0, sideways = 0;
      for (const std::int32_t v : layers_[layer]) {
        height = std::max(height, vertices_[at(v)].height);
        for (const std::int32_t w : vertices_[at(v)].below)
          sideways = std::max(sideways, std::abs(vertices_[at(v)].x - vertices_[at(w)].x));
      }
      top[layer] = y, bottom[layer] = y + height;
      y = bottom[layer] + options_.layer_gap + std::min(0.05 * sideways, options_.layer_gap);
    }

    Layered drawing;
    drawing.width = width_, drawing.height = bottom.back();
    drawing.lanes = lanes_;
    const auto middle = [&](std::int32_t v) {
      return (top[at(vertices_[at(v)].layer)] + bottom[at(vertices_[at(v)].layer)]) / 2;
    };
    std::vector<std::vector<std::size_t>> entering(node_count_);  // lines by the node they enter
    for (std::int32_t v = 0; at(v) < vertices_.size(); ++v) {
      const Vertex& vertex = vertices_[at(v)];
      if (!is_bend(v))
        drawing.centres.push_back({vertex.x, middle(v)}), drawing.layers.push_back(vertex.layer);
      for (const std::int32_t w : vertex.below) {
        const Vertex& next = vertices_[at(w)];
        LayeredLine line{{vertex.x, middle(v) + vertex.height / 2},
                         {next.x, middle(w) - next.height / 2}};
        line.leave_y = bottom[at(vertex.layer)], line.arrive_y = top[at(next.layer)];
        line.from = is_bend(v) ? vertex.source : v;
        if (!is_bend(w)) {
          line.to = w;
          entering[at(w)].push_back(drawing.lines.size());
        }
        drawing.lines.push_back(line);
      }
    }
    drawing.cuts = cuts_;
    std::vector<std::vector<CutLine*>> cut(node_count_);
    for (CutLine& line : drawing.cuts) cut[at(line.to)].push_back(&line);

    // Lines enter a node side by side, ordered by where they come from; cut lines enter on the
    // right.
    for (std::size_t v = 0; v < node_count_; ++v) {
      std::vector<std::size_t>& lines = entering[v];
      std::stable_sort(lines.begin(), lines.end(), [&](std::size_t a, std::size_t b) {
        return drawing.lines[a].begin.x < drawing.lines[b].begin.x;
      });
      const std::size_t count = lines.size() + cut[v].size();
      const double step = std::min(
          22.0, 0.8 * vertices_[v].width / static_cast<double>(std::max<std::size_t>(count, 1)));
      const auto port = [&](std::size_t k) {
        return vertices_[v].x +
               step * (static_cast<double>(k) - (static_cast<double>(count) - 1) / 2);
      };
      for (std::size_t k = 0; k < lines.size(); ++k) drawing.lines[lines[k]].end.x = port(k);
      for (std::size_t k = 0; k < cut[v].size(); ++k)
        cut[v][k]->at = {port(lines.size() + k), drawing.centres[v].y - vertices_[v].height / 2};
    }
    return drawing;
  }

  const LayeredOptions& options_;
  std::size_t node_count_;
  std::vector<Vertex> vertices_;         // nodes, then bends
  std::vector<Indices> users_, inputs_;  // of nodes
  std::vector<bool> late_;               // of nodes
  std::vector<CutLine> cuts_;
  std::vector<Indices> layers_;  // vertices from left to right
  std::vector<Layered::Lane> lanes_;
  double width_ = 0;
};

}  // namespace

Layered layered(std::span<const LayeredNode> nodes, std::span<const LayeredEdge> edges,
                const LayeredOptions& options) {
  return Drawing(nodes, edges, options).run();
}

}  // namespace fluxion::show
