// Boxes of pictures that are folded together: none is lost, and lines are those of the members.
#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "engine/graph/op_names.h"
#include "engine/show/fold.h"
#include "engine/show/graph_picture.h"
#include "tests/catch.h"
#include "tests/files/scratch.h"
#include "tests/show/well_formed.h"

using namespace fluxion;
using namespace fluxion::show;
using namespace fluxion::testing;

namespace {

constexpr std::array every_fold = {Fold::none, Fold::ops, Fold::layers, Fold::blocks};

std::size_t index_of(std::int32_t index) { return static_cast<std::size_t>(index); }

// Every box is in one box of the right role; the lines are those of the members, and lead down.
void check_folded(const Diagram& whole, Fold fold) {
  const Folded result = folded(whole, fold);
  REQUIRE(result.box.size() == whole.boxes.size());
  std::vector<std::vector<std::size_t>> members(result.diagram.boxes.size());
  for (std::size_t i = 0; i < whole.boxes.size(); ++i) {
    REQUIRE(result.box[i] >= 0);
    REQUIRE(index_of(result.box[i]) < members.size());
    members[index_of(result.box[i])].push_back(i);
  }
  for (std::size_t b = 0; b < members.size(); ++b) {
    REQUIRE_FALSE(members[b].empty());
    const Box& box = result.diagram.boxes[b];
    if (members[b].size() == 1) {
      CHECK(box.lines == whole.boxes[members[b].front()].lines);
      continue;
    }
    std::size_t listed =
        1 + static_cast<std::size_t>(std::count(box.detail.begin(), box.detail.end(), '\n'));
    if (const std::size_t more = box.detail.rfind("\nand "); more != std::string::npos)
      listed += std::stoul(box.detail.substr(more + 5)) - 1;
    CHECK(listed == members[b].size());
    for (const std::size_t i : members[b]) {
      CHECK_FALSE(whole.boxes[i].apart);
      if (box.role && whole.boxes[i].role) CHECK(box.role == whole.boxes[i].role);
    }
  }
  std::set<std::pair<std::int32_t, std::int32_t>> expected, found;
  for (const LayeredEdge& edge : whole.edges)
    if (result.box[index_of(edge.from)] != result.box[index_of(edge.to)])
      expected.emplace(result.box[index_of(edge.from)], result.box[index_of(edge.to)]);
  for (const LayeredEdge& edge : result.diagram.edges) {
    CHECK(edge.from < edge.to);
    found.emplace(edge.from, edge.to);
  }
  if (fold != Fold::none) CHECK(found.size() == result.diagram.edges.size());
  CHECK(found == expected);
  const std::string svg = to_svg(result.diagram), dot = to_dot(result.diagram);
  CHECK(xml_fault(svg) == "");
  CHECK(dot_fault(dot) == "");
  CHECK(svg == to_svg(folded(whole, fold).diagram));
}

// A graph of some ops on [4], with parameters of two blocks among its inputs.
Diagram random_diagram(std::uint32_t seed, std::size_t nodes) {
  std::mt19937 random(seed);
  const auto below = [&](std::size_t n) { return random() % n; };
  const TensorType type{{4}, DType::f32};
  plan::Graph graph;
  PictureLabels labels;
  for (const char* name :
       {"x", "blocks.0.a.weight", "blocks.0.b.weight", "blocks.1.a.weight", "dx", "y bar"}) {
    const auto index = static_cast<std::int64_t>(graph.inputs.size());
    graph.inputs.push_back(type);
    graph.nodes.add({Op::parameter, IndexAttributes{index}, {}, {type}});
    labels.inputs.push_back({name, index == 4   ? Role::tangent
                                   : index == 5 ? Role::cotangent
                                                : Role::primal});
  }
  for (std::size_t k = 0; k < nodes; ++k) {
    const auto any = [&] {
      const std::size_t known = graph.nodes.size(), near = std::min<std::size_t>(known, 8);
      const std::size_t node = below(3) == 0 ? below(known) : known - 1 - below(near);
      return plan::Value{plan::NodeId(static_cast<std::int64_t>(node)), 0};
    };
    switch (below(5)) {
      case 0:
        graph.nodes.add({Op::constant, ValueAttributes{1}, {}, {type}});
        break;
      case 1:
        graph.nodes.add(
            {below(4) == 0 ? Op::stop_gradient : Op::tanh, NoAttributes{}, {any()}, {type}});
        break;
      case 2:
        graph.nodes.add({Op::matmul, NoAttributes{}, {any(), any()}, {type}});
        break;
      default:
        graph.nodes.add({Op::add, NoAttributes{}, {any(), any()}, {type}});
    }
  }
  const std::vector<std::string> results = {"y", "blocks.0.a.weight bar", "blocks.1.a.weight bar"};
  for (std::size_t k = 0; k < results.size(); ++k) {
    graph.outputs.push_back(
        {plan::NodeId(static_cast<std::int64_t>(graph.nodes.size() - 1 - k)), 0});
    labels.outputs.push_back({results[k], k == 0 ? Role::primal : Role::cotangent});
  }
  return graph_diagram(graph, labels);
}

Box plain(std::string op, Role role = Role::primal, Kind kind = Kind::elementwise) {
  return {
      .lines = {op}, .name = "%" + op, .detail = op, .type = "f32[4]", .role = role, .kind = kind};
}
Box outside(std::string name, Form form, Role role = Role::primal) {
  return {
      .lines = {name}, .name = name, .detail = name, .type = "f32[2]", .role = role, .form = form};
}

}  // namespace

TEST_CASE("folding loses no box and no line, whatever the graph", "[show][fold]") {
  for (std::uint32_t seed = 0; seed < 40; ++seed) {
    const Diagram whole = random_diagram(seed, seed);
    for (const Fold fold : every_fold) {
      INFO("seed " << seed << ", fold " << static_cast<int>(fold));
      check_folded(whole, fold);
    }
  }
  check_folded(random_diagram(7, 600), Fold::layers);
}

TEST_CASE("an op is folded with the ops that only it uses", "[show][fold]") {
  Diagram whole;
  whole.boxes = {outside("x", Form::source),
                 plain("exp"),
                 plain("tanh"),
                 plain("matmul", Role::primal, Kind::contraction),
                 plain("add"),
                 plain("matmul", Role::primal, Kind::contraction),
                 outside("y", Form::result)};
  whole.boxes[3].name = "%first";
  // The first product keeps what leads to it; the second is more than elementwise, so it stays.
  whole.edges = {{0, 1}, {1, 2}, {2, 3}, {0, 3}, {3, 4}, {4, 5}, {0, 5}, {5, 6}};
  const Folded result = folded(whole, Fold::ops);
  CHECK(result.box == std::vector<std::int32_t>{0, 1, 1, 1, 2, 2, 3});
  CHECK(result.diagram.boxes[1].lines ==
        std::vector<std::string>{"exp, tanh, matmul", "3 nodes", "in f32[2]", "out f32[4]"});
  CHECK(result.diagram.boxes[1].detail == "exp\ntanh\nmatmul");
  CHECK(result.diagram.boxes[1].kind == Kind::contraction);
  CHECK(result.diagram.note == "5 nodes, 1 argument, 1 output in 4 boxes");
  // Two users in different boxes: it stays apart.
  whole.edges.push_back({1, 5});
  CHECK(folded(whole, Fold::ops).box[1] != folded(whole, Fold::ops).box[2]);
}

TEST_CASE("layers are known by the names of parameters, and their gradients stay with them",
          "[show][fold]") {
  Diagram whole;
  whole.columns_by_role = true;
  const auto add = [&](Box box, std::vector<std::int32_t> inputs) {
    const auto number = static_cast<std::int32_t>(whole.boxes.size());
    box.detail = std::to_string(number);
    if (box.form == Form::plain) box.name = "%" + box.detail;
    whole.boxes.push_back(std::move(box));
    for (const std::int32_t input : inputs) whole.edges.push_back({input, number});
    return number;
  };
  const auto x = add(outside("x", Form::source), {}),
             w = add(outside("net.0.fc.weight", Form::source), {}),
             v = add(outside("net.1.fc.weight", Form::source), {}), before = add(plain("exp"), {x}),
             transposed = add(plain("transpose", Role::primal, Kind::movement), {w}),
             first = add(plain("matmul", Role::primal, Kind::contraction), {before, transposed}),
             act = add(plain("tanh"), {first}),
             second = add(plain("matmul", Role::primal, Kind::contraction), {act, v}),
             y = add(outside("y", Form::result), {second}),
             bar = add(outside("y bar", Form::source, Role::cotangent), {}),
             dv = add(plain("matmul", Role::cotangent, Kind::contraction), {bar, act}),
             v_bar = add(outside("net.1.fc.weight bar", Form::result, Role::cotangent), {dv}),
             back = add(plain("matmul", Role::cotangent, Kind::contraction), {bar, v}),
             dw = add(plain("matmul", Role::cotangent, Kind::contraction), {back, before}),
             w_bar = add(outside("net.0.fc.weight bar", Form::result, Role::cotangent), {dw});
  for (const Fold fold : {Fold::layers, Fold::blocks}) {
    const Folded result = folded(whole, fold);
    const auto box = [&](std::int32_t i) { return result.box[index_of(i)]; };
    for (const std::int32_t i : {before, transposed, first, act}) CHECK(box(i) == box(w));
    CHECK(box(v) == box(second));
    CHECK(box(v) != box(w));
    CHECK(box(dv) == box(v_bar));
    CHECK(box(back) == box(dv));
    CHECK(box(dw) == box(w_bar));
    CHECK(box(dw) != box(dv));
    for (const std::int32_t i : {x, y, bar})
      CHECK(std::count(result.box.begin(), result.box.end(), box(i)) == 1);
    const std::string name = fold == Fold::layers ? "net.0.fc" : "net.0";
    const std::vector<std::string>& lines = result.diagram.boxes[index_of(box(w))].lines;
    CHECK(lines == std::vector<std::string>{name, "exp, transpose, matmul,", "tanh",
                                            "4 nodes, 1 argument", "in f32[2]", "out 2 x f32[4]"});
  }
  // Without parameters that have a layer in their names, layers are ops.
  for (Box& box : whole.boxes)
    std::replace(box.lines.front().begin(), box.lines.front().end(), '.', '_');
  CHECK(folded(whole, Fold::layers).box == folded(whole, Fold::ops).box);
}

TEST_CASE("a kernel that reads the weights of many layers names them", "[show][fold]") {
  Diagram whole;
  whole.noun = "kernel";
  const Box buffer{.lines = {"copy"}, .name = "b0", .type = "f32[3]", .form = Form::memory};
  Box both = plain("matmul"), later = plain("rows");
  both.role = later.role = std::nullopt;
  both.type = later.type = "";
  whole.boxes = {outside("c", Form::source),
                 outside("b.0.weight", Form::source),
                 outside("b.1.weight", Form::source),
                 both,
                 buffer,
                 buffer,
                 outside("b.0.bias", Form::source),
                 later,
                 outside("b.1.bias", Form::source),
                 later,
                 outside("y", Form::result)};
  whole.edges = {{0, 3}, {1, 3}, {2, 3}, {3, 4}, {3, 5}, {4, 7}, {6, 7}, {7, 9}, {8, 9}, {9, 10}};
  const Folded result = folded(whole, Fold::layers);
  const Box& first = result.diagram.boxes[index_of(result.box[3])];
  CHECK(first.lines.front() == "b.0, b.1");
  CHECK(std::count(first.lines.begin(), first.lines.end(), "1 kernel, 2 arguments, 2 buffers") ==
        1);
  CHECK(result.box[7] != result.box[3]);  // it reads parameters of b.0 alone
  CHECK(result.box[5] == result.box[3]);
  for (const Fold fold : every_fold) check_folded(whole, fold);
}

TEST_CASE("odd names of arguments are only names", "[show][fold]") {
  for (const char* name : {".", "..", ".weight", "0.", "a..b", "1.2.3", "</text>.\"x\"", ""}) {
    Diagram whole;
    whole.boxes = {outside(name, Form::source), plain("exp"), plain("tanh"),
                   outside("y", Form::result)};
    whole.edges = {{0, 1}, {1, 2}, {2, 3}};
    INFO(name);
    for (const Fold fold : every_fold) check_folded(whole, fold);
  }
  for (const Fold fold : every_fold) check_folded({}, fold);
}

TEST_CASE("a picture is folded until it can be read in a page", "[show][fold]") {
  CHECK(fold_for_page({}) == Fold::none);
  CHECK(fold_for_page(random_diagram(3, 4)) == Fold::none);
  const Diagram large = random_diagram(5, 400);
  const Fold fold = fold_for_page(large);
  CHECK(fold != Fold::none);
  CHECK(folded(large, fold).diagram.boxes.size() < large.boxes.size());
}
