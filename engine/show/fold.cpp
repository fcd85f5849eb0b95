#include "engine/show/fold.h"

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <set>

#include "engine/show/graph_picture.h"
#include "engine/show/markup.h"

namespace fluxion::show {

namespace {

constexpr std::size_t folded_characters = 26, most_name_lines = 4, most_type_lines = 2,
                      most_detail_lines = 40;
constexpr double most_height = 2400;  // of a drawing that can still be followed

std::size_t box_at(std::int32_t index) { return static_cast<std::size_t>(index); }

// A diagram with the neighbours of each box.
struct Linked {
  const Diagram& diagram;
  std::vector<std::vector<std::int32_t>> inputs, users;

  explicit Linked(const Diagram& whole)
      : diagram(whole), inputs(whole.boxes.size()), users(whole.boxes.size()) {
    for (const LayeredEdge& edge : whole.edges) {
      inputs[box_at(edge.to)].push_back(edge.from);
      users[box_at(edge.from)].push_back(edge.to);
    }
  }
  std::size_t size() const { return diagram.boxes.size(); }
  const Box& operator[](std::size_t i) const { return diagram.boxes[i]; }
  // A number or another op without inputs.
  bool free(std::size_t i) const {
    return diagram.boxes[i].form == Form::plain && inputs[i].empty();
  }
};

bool light(const Box& box) {
  return box.kind == Kind::elementwise || box.kind == Kind::movement || box.kind == Kind::leaf;
}

// "blocks.0.attn.qkv" for blocks.0.attn.qkv.weight, "" for a name without dots. The block of it
// ends with the first number.
std::string layer_of_box(const Box& box, bool blocks) {
  if (box.form != Form::source || box.role.value_or(Role::primal) != Role::primal) return {};
  const std::string layer = layer_of(box.lines.front());
  if (!blocks) return layer;
  for (std::size_t begin = 0; begin < layer.size();) {
    const std::size_t end = std::min(layer.find('.', begin), layer.size());
    const std::string part = layer.substr(begin, end - begin);
    if (!part.empty() && part.find_first_not_of("0123456789") == std::string::npos)
      return layer.substr(0, end);
    begin = end + 1;
  }
  return layer.substr(0, layer.find('.'));
}

// The last box of the group of each box. A box joins its users if they are all in one group, so no
// line leaves a group but from its last box, and no cycle comes about. A group has one role and at
// most one op that is more than elementwise.
std::vector<std::int32_t> ops_together(const Linked& boxes) {
  std::vector<std::int32_t> group(boxes.size());
  std::iota(group.begin(), group.end(), 0);
  std::vector<bool> heavy(boxes.size());
  const bool program = boxes.diagram.noun == "kernel";
  for (std::size_t i = boxes.size(); i-- > 0;) {
    const Box& box = boxes[i];
    heavy[i] = !light(box);
    if (boxes.users[i].empty()) continue;
    const std::int32_t last = group[box_at(boxes.users[i].front())];
    if (std::any_of(boxes.users[i].begin(), boxes.users[i].end(),
                    [&](std::int32_t user) { return group[box_at(user)] != last; }))
      continue;
    const Box& into = boxes[box_at(last)];
    if (into.form != Form::plain || into.apart) continue;
    if (program) {
      if (layer_of_box(box, false).empty()) continue;
    } else {
      if (box.form != Form::plain || box.apart || box.role != into.role) continue;
      if (heavy[i] && heavy[box_at(last)]) continue;
      heavy[box_at(last)] = heavy[box_at(last)] || heavy[i];
    }
    group[i] = last;
  }
  return group;
}

// What a layer of parameters is to the boxes of a diagram.
struct Layers {
  std::vector<std::string> names;  // in order of first use
  std::vector<std::int32_t> own;   // of each box: the layer whose parameters alone it depends on
  std::vector<Role> roles;         // of each box: cotangent if it depends on one
  std::vector<std::int32_t> position;  // of each box: its layer
};

Layers find_layers(const Linked& boxes, bool blocks) {
  Layers found;
  std::vector<std::string> own(boxes.size());
  std::vector<std::int32_t> depth(boxes.size());
  // The deepest use of a layer; of one with uses on the way back alone the least deep of those.
  std::map<std::string, std::int32_t> forward, backward;
  const auto meet = [&](const std::string& layer, std::int32_t at_depth, bool back) {
    if (layer.empty()) return;
    if (!forward.contains(layer) && !backward.contains(layer)) found.names.push_back(layer);
    auto& place = (back ? backward : forward).emplace(layer, at_depth).first->second;
    place = back ? std::min(place, at_depth) : std::max(place, at_depth);
  };
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    const Box& box = boxes[i];
    Role role = box.role.value_or(Role::primal);
    own[i] = layer_of_box(box, blocks);
    bool mixed = false;
    for (const std::int32_t input : boxes.inputs[i]) {
      depth[i] = std::max(depth[i], depth[box_at(input)] + 1);
      if (!box.role && found.roles[box_at(input)] == Role::cotangent) role = Role::cotangent;
      if (boxes.free(box_at(input))) continue;
      mixed =
          mixed || own[box_at(input)].empty() || (!own[i].empty() && own[i] != own[box_at(input)]);
      own[i] = own[box_at(input)];
    }
    if (mixed || !(light(box) || box.form != Form::plain)) {
      for (const std::int32_t input : boxes.inputs[i])
        meet(own[box_at(input)], depth[i], role == Role::cotangent);
      own[i].clear();
    }
    found.roles.push_back(role);
  }
  for (const std::string& layer : own) meet(layer, static_cast<std::int32_t>(boxes.size()), true);
  // What depends on a layer's values is deeper than that layer.
  const auto key = [&](const std::string& layer) {
    const auto place = forward.find(layer);
    return place != forward.end() ? place->second : backward[layer];
  };
  std::stable_sort(found.names.begin(), found.names.end(),
                   [&](const std::string& a, const std::string& b) { return key(a) < key(b); });
  std::map<std::string, std::int32_t> number;
  for (const std::string& layer : found.names)
    number.emplace(layer, static_cast<std::int32_t>(number.size()));
  const auto last = static_cast<std::int32_t>(found.names.size()) - 1;
  for (std::size_t i = 0; i < boxes.size(); ++i)
    found.own.push_back(own[i].empty() ? -1 : number[own[i]]);

  // Forward the latest layer of the inputs; backward the earliest of the cotangents and parameters.
  // A kernel may serve many layers at once, so in a plan only the kernel's own parameters count, or
  // the latest of its inputs.
  const bool program = boxes.diagram.noun == "kernel";
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    const bool back = found.roles[i] == Role::cotangent;
    std::int32_t position = found.own[i] >= 0 || !back ? found.own[i] : last;
    std::pair<bool, std::int32_t> best;  // reads parameters, depth
    for (const std::int32_t input : boxes.inputs[i]) {
      const std::int32_t before = found.position[box_at(input)];
      const bool owned = found.own[box_at(input)] >= 0;
      if (program) {
        const std::pair now(owned, owned ? before : depth[box_at(input)]);
        if (before >= 0 && now >= best) best = now, position = before;
      } else if (!back) {
        position = std::max(position, before);
      } else if (owned || found.roles[box_at(input)] == Role::cotangent) {
        position = std::min(position, before);
      }
    }
    found.position.push_back(position);
  }
  // What only makes the gradient of a layer's parameters, without reading parameters, belongs to
  // that layer.
  std::map<std::string, std::int32_t> gradients;
  for (std::size_t i = 0; i < boxes.size(); ++i)
    if (boxes[i].form == Form::source && found.own[i] >= 0)
      gradients[boxes[i].lines.front() + " bar"] = found.own[i];
  std::vector<std::int32_t> makes(boxes.size(), -1);
  for (std::size_t i = boxes.size(); i-- > 0;) {
    if (found.roles[i] != Role::cotangent) continue;
    if (boxes[i].form == Form::result) {
      const auto known = gradients.find(boxes[i].lines.front());
      if (known != gradients.end()) makes[i] = known->second;
    } else if (boxes[i].form != Form::source && !boxes.users[i].empty()) {
      makes[i] = makes[box_at(boxes.users[i].front())];
      for (const std::int32_t user : boxes.users[i])
        if (makes[box_at(user)] != makes[i]) makes[i] = -1;
      for (const std::int32_t input : boxes.inputs[i])
        if (found.own[box_at(input)] >= 0) makes[i] = -1;
    }
    if (makes[i] >= 0) found.position[i] = makes[i];
    if (boxes[i].form == Form::result) found.own[i] = makes[i];
  }
  for (std::int32_t& position : found.position) position = std::max(position, 0);
  return found;
}

// The group of each box, numbered so that lines lead to later groups: boxes with one role and layer
// share a rank, and ranks follow the computation. Where a line leads to a lower rank nevertheless,
// a new epoch begins. So all lines lead from a pair (epoch, rank) to the same or a later one.
std::vector<std::int32_t> layers_together(const Linked& boxes, const Layers& layers) {
  using Rank = std::array<std::int32_t, 4>;  // outside, role, layer, own number
  std::vector<std::pair<std::int32_t, Rank>> places(boxes.size());
  const auto last = static_cast<std::int32_t>(layers.names.size()) - 1;
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    const Box& box = boxes[i];
    const auto number = static_cast<std::int32_t>(i) + 1;
    const bool outside =
        (box.form == Form::source || box.form == Form::result) && layers.own[i] < 0;
    const std::int32_t layer =
        layers.roles[i] == Role::cotangent ? last - layers.position[i] : layers.position[i];
    auto& [epoch, rank] = places[i];
    rank = {outside ? (box.form == Form::source ? -1 : 1) : 0,
            outside ? 0 : static_cast<std::int32_t>(layers.roles[i]), outside ? 0 : layer,
            outside || box.apart ? number : 0};
    for (const std::int32_t input : boxes.inputs[i])
      epoch = std::max(epoch,
                       places[box_at(input)].first + (places[box_at(input)].second > rank ? 1 : 0));
  }
  for (std::size_t i = boxes.size(); i-- > 0;)
    if (boxes.free(i) && boxes.users[i].size() == 1 &&
        boxes[box_at(boxes.users[i].front())].form == Form::plain &&
        !boxes[box_at(boxes.users[i].front())].apart)
      places[i] = places[box_at(boxes.users[i].front())];
  std::map<std::pair<std::int32_t, Rank>, std::int32_t> numbers;
  for (const auto& place : places) numbers.emplace(place, 0);
  std::int32_t next = 0;
  for (auto& [place, number] : numbers) number = next++;
  std::vector<std::int32_t> group;
  for (const auto& place : places) group.push_back(numbers[place]);
  return group;
}

// "matmul, 2 add, 3 f32[4, 8]": equal words once, in order of appearance.
std::vector<std::string> with_counts(const std::vector<std::string>& words) {
  std::vector<std::pair<std::string, std::size_t>> counts;
  std::map<std::string, std::size_t> places;
  for (const std::string& word : words) {
    const auto [place, first] = places.emplace(word, counts.size());
    if (first) counts.emplace_back(word, 0);
    ++counts[place->second].second;
  }
  std::vector<std::string> result;
  for (const auto& [word, count] : counts)
    result.push_back(count == 1 ? word : std::to_string(count) + " x " + word);
  return result;
}

// "5 nodes, 2 arguments". A constant that is drawn twice counts once.
std::string contents(const Linked& boxes, const std::vector<std::size_t>& members) {
  const std::array<std::string, 4> nouns = {boxes.diagram.noun, "argument", "output", "buffer"};
  std::array<std::size_t, 4> counts{};
  std::set<std::string> seen;
  for (const std::size_t i : members)
    if (boxes[i].form != Form::plain || boxes[i].name.empty() || seen.insert(boxes[i].name).second)
      ++counts[static_cast<std::size_t>(boxes[i].form)];
  std::string text;
  for (std::size_t k = 0; k < nouns.size(); ++k)
    if (counts[k] > 0) text += (text.empty() ? "" : ", ") + counted(counts[k], nouns[k]);
  return text;
}

void add_types(Box& box, const std::string& what, const std::vector<std::string>& types) {
  std::vector<std::string> lines = wrapped(with_counts(types), folded_characters, most_type_lines);
  if (lines.empty()) return;
  lines[0] = what + " " + lines[0];
  box.lines.insert(box.lines.end(), lines.begin(), lines.end());
}

// A box that holds `members`, more than one. `heading` names their layers, if they have some.
Box box_of(const Linked& boxes, const std::vector<std::size_t>& members, const std::string& heading,
           const std::vector<std::int32_t>& group) {
  // The most telling first.
  constexpr std::array<Kind, 9> kinds = {Kind::contraction, Kind::fused,    Kind::reduction,
                                         Kind::index,       Kind::random,   Kind::other,
                                         Kind::elementwise, Kind::movement, Kind::leaf};
  const auto place = [&](Kind kind) { return std::find(kinds.begin(), kinds.end(), kind); };
  const bool alike = std::all_of(members.begin(), members.end(), [&](std::size_t i) {
    return boxes[i].form == boxes[members.back()].form;
  });
  Box box{.role = boxes[members.back()].role,
          .kind = Kind::leaf,
          .form = alike ? boxes[members.back()].form : Form::plain};
  std::vector<std::string> words, entering, leaving, details;
  std::set<std::int32_t> outside;
  // What a line carries: a kernel has no type, but its buffers do.
  const auto carried = [&](std::size_t from, std::size_t to) {
    return boxes[from].type.empty() ? boxes[to].type : boxes[from].type;
  };
  const auto kernels = std::count_if(members.begin(), members.end(),
                                     [&](std::size_t i) { return boxes[i].form == Form::plain; });
  for (const std::size_t i : members) {
    const Box& one = boxes[i];
    if (one.role != box.role) box.role.reset();
    if (one.form == Form::plain) {
      if (place(one.kind) < place(box.kind)) box.kind = one.kind;
      words.push_back(one.lines.front().substr(0, one.lines.front().find(' ')));
    } else if (box.form == Form::source) {
      words.push_back(one.lines.front().substr(one.lines.front().find_last_of('.') + 1));
    }
    details.push_back(one.detail.empty() ? one.lines.front() : one.detail);
    for (const std::int32_t input : boxes.inputs[i])
      if (group[box_at(input)] != group[i] &&
          (boxes[box_at(input)].type.empty() || outside.insert(input).second))
        entering.push_back(carried(box_at(input), i));
    bool leaves = false;
    for (const std::int32_t user : boxes.users[i]) {
      if (group[box_at(user)] == group[i]) continue;
      if (!leaves || one.type.empty()) leaving.push_back(carried(i, box_at(user)));
      leaves = true;
    }
    if (!leaves && one.form == Form::result) leaving.push_back(one.type);
    if (leaves || box.name.empty()) box.name = one.name;
  }
  if (boxes.diagram.noun == "kernel" && kernels == 1 && heading.empty()) {
    // A kernel with the weights that only it reads.
    for (const std::size_t i : members)
      if (boxes[i].form == Form::plain) box = boxes[i];
    for (const std::size_t i : members)
      if (boxes[i].form == Form::source)
        box.lines.push_back("reads " + boxes[i].lines.front() + " " + boxes[i].type);
  } else {
    if (!heading.empty()) box.lines.push_back(heading);
    const std::vector<std::string> ops =
        wrapped(with_counts(words), folded_characters, most_name_lines);
    box.lines.insert(box.lines.end(), ops.begin(), ops.end());
    box.lines.push_back(contents(boxes, members));
    add_types(box, "in", entering);
    add_types(box, "out", leaving);
  }
  box.detail.clear();
  for (std::size_t k = 0; k < details.size() && k < most_detail_lines; ++k)
    box.detail += (k > 0 ? "\n" : "") + details[k];
  if (details.size() > most_detail_lines)
    box.detail += "\nand " + std::to_string(details.size() - most_detail_lines) + " more";
  return box;
}

}  // namespace

Folded folded(const Diagram& diagram, Fold fold) {
  Folded result;
  if (fold == Fold::none) {
    result.diagram = diagram;
    result.box.resize(diagram.boxes.size());
    std::iota(result.box.begin(), result.box.end(), 0);
    return result;
  }
  const Linked boxes(diagram);
  const Layers layers = fold == Fold::ops ? Layers() : find_layers(boxes, fold == Fold::blocks);
  const std::vector<std::int32_t> group =
      layers.names.empty() ? ops_together(boxes) : layers_together(boxes, layers);

  std::map<std::int32_t, std::vector<std::size_t>> members;
  for (std::size_t i = 0; i < group.size(); ++i) members[group[i]].push_back(i);
  std::map<std::int32_t, std::int32_t> numbers;
  result.diagram.title = diagram.title;
  result.diagram.noun = diagram.noun;
  result.diagram.columns_by_role = diagram.columns_by_role;
  for (const auto& [id, some] : members) {
    numbers[id] = static_cast<std::int32_t>(numbers.size());
    // The heading: the layers whose parameters are used.
    std::set<std::int32_t> used;
    if (!layers.names.empty())
      for (const std::size_t i : some) {
        used.insert(layers.own[i]);
        for (const std::int32_t input : boxes.inputs[i]) used.insert(layers.own[box_at(input)]);
      }
    std::vector<std::string> names;
    for (const std::int32_t layer : used)
      if (layer >= 0) names.push_back(layers.names[box_at(layer)]);
    const std::string heading = names.empty() ? "" : wrapped(names, folded_characters, 1).front();
    result.diagram.boxes.push_back(some.size() == 1 ? diagram.boxes[some.front()]
                                                    : box_of(boxes, some, heading, group));
  }
  for (const std::int32_t id : group) result.box.push_back(numbers[id]);
  std::set<std::pair<std::int32_t, std::int32_t>> edges;
  for (const LayeredEdge& edge : diagram.edges)
    edges.emplace(result.box[box_at(edge.from)], result.box[box_at(edge.to)]);
  for (const auto& [from, to] : edges)
    if (from != to) result.diagram.edges.push_back({from, to});

  std::vector<std::size_t> all(diagram.boxes.size());
  std::iota(all.begin(), all.end(), 0);
  result.diagram.note = diagram.note;
  if (result.diagram.boxes.size() < diagram.boxes.size())
    result.diagram.note += (diagram.note.empty() ? "" : "; ") + contents(boxes, all) + " in " +
                           std::to_string(result.diagram.boxes.size()) + " boxes";
  return result;
}

Fold fold_for_page(const Diagram& diagram) {
  Fold best = Fold::blocks;
  double least = 0;
  for (const Fold fold : {Fold::none, Fold::ops, Fold::layers, Fold::blocks}) {
    const Diagram some = folded(diagram, fold).diagram;
    if (some.boxes.size() > comfortable_boxes) continue;
    const Point size = drawn_size(some);
    if (size.x <= page_width && size.y <= most_height) return fold;
    const double over = std::max(size.x / page_width, 1.0) * std::max(size.y / most_height, 1.0);
    if (least == 0 || over < least) best = fold, least = over;
  }
  return best;
}

}  // namespace fluxion::show
