// Graphs, plans and memory as pictures.
#include <algorithm>
#include <map>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/plan/plan.h"
#include "engine/show/markup.h"
#include "engine/show/memory_picture.h"
#include "engine/show/program_picture.h"
#include "models/networks/dit.h"
#include "tests/catch.h"
#include "tests/files/scratch.h"
#include "tests/show/well_formed.h"

using namespace fluxion;
using namespace fluxion::show;
using namespace fluxion::testing;

namespace {

struct Traced {
  plan::Graph graph;
  PictureLabels labels;
};

// y = silu(x w) with the tangent along dx.
Traced silu_jvp() {
  const Device device = cpu({1});
  const Tensor x = zeros({4, 8}, DType::f32, device), w = zeros({8, 8}, DType::f32, device);
  const TracedParameters traced({x, w, x});
  const auto& t = traced.tensors();
  const auto f = [&](const Tensor& x) { return silu(matmul(x, t[1])); };
  const auto [y, dy] = jvp(f, std::tuple(t[0]), std::tuple(t[2]));
  return {plan::canonicalise(t, std::vector{y, dy}).graph,
          {.title = "silu",
           .inputs = {{"x"}, {"w"}, {"dx", Role::tangent}},
           .outputs = {{"y"}, {"dy", Role::tangent}},
           .scalars = {}}};
}

// The training step of a small DiT block: enough kernels for an arena that is used again and again.
Program block_program() {
  DitConfig config;
  config.hidden_size = 16, config.num_heads = 2, config.depth = 1;
  const Device device = cpu({1});
  const Parameters parameters = initialise(config, random_key(0, device), DType::f32);
  std::vector<Tensor> arguments{zeros({2, 6, 16}, DType::f32, device),
                                zeros({2, 16}, DType::f32, device)};
  std::vector<std::string> names;
  for (const auto& [name, value] : parameters)
    if (name.starts_with("blocks.0.")) names.push_back(name), arguments.push_back(value);
  const TracedParameters traced(arguments);
  const auto loss = [&](const std::vector<Tensor>& values) {
    Parameters inside;
    for (std::size_t k = 0; k < names.size(); ++k) inside[names[k]] = values[k];
    return mean(
        square(dit_block(config, inside, "blocks.0", traced.tensors()[0], traced.tensors()[1])));
  };
  const auto [value, gradient] = value_and_grad(loss)(
      std::vector<Tensor>(traced.tensors().begin() + 2, traced.tensors().end()));
  std::vector<Tensor> outputs{value};
  outputs.insert(outputs.end(), gradient.begin(), gradient.end());
  return plan::make_plan(plan::canonicalise(traced.tensors(), outputs).graph, Capabilities{})
      .program;
}

plan::Graph chain(std::size_t length) {
  plan::Graph graph;
  const TensorType type{{4}, DType::f32};
  graph.inputs = {type};
  graph.nodes.add({Op::parameter, IndexAttributes{0}, {}, {type}});
  for (std::size_t k = 0; k < length; ++k)
    graph.nodes.add(
        {Op::tanh, NoAttributes{}, {{plan::NodeId(static_cast<std::int64_t>(k)), 0}}, {type}});
  graph.outputs = {{graph.nodes.last(), 0}};
  return graph;
}

}  // namespace

TEST_CASE("text is made safe for XML and DOT", "[show]") {
  CHECK(xml_escaped("a < b && \"c\" > 'd'") ==
        "a &lt; b &amp;&amp; &quot;c&quot; &gt; &#39;d&#39;");
  CHECK(xml_escaped(std::string("a\0b\x1b[0m\n", 8)) == "ab[0m\n");
  CHECK(xml_escaped("\xc3\xa9\xe2\x88\x82") == "\xc3\xa9\xe2\x88\x82");
  for (const std::string broken :
       {"\xff", "\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xef\xbf\xbf"}) {
    const std::string safe = xml_escaped(broken);
    INFO(safe);
    CHECK(safe.size() % 3 == 0);
    CHECK(occurrences(safe, "\xef\xbf\xbd") * 3 == safe.size());
  }
  CHECK(dot_escaped("a \"b\" \\ c\nd\x01") == "a \\\"b\\\" \\\\ c\\nd");
  CHECK(shortened("abcdefgh", 6) == "abc...");
  CHECK(shortened("ab\xc3\xa9"
                  "defgh",
                  6) == "ab...");
  CHECK(shortened("abc", 3) == "abc");
  CHECK(coordinate(-0.01) == "0");
  CHECK(coordinate(12.25) == "12.2");
  CHECK(bytes_text(1536) == "1.5 KiB");
}

TEST_CASE("roles follow from inputs and outputs", "[show]") {
  const Traced traced = silu_jvp();
  const std::vector<Role> found = roles(traced.graph, traced.labels);
  REQUIRE(found.size() == traced.graph.nodes.size());
  std::map<Role, int> counts;
  for (std::size_t i = 0; i < found.size(); ++i) {
    ++counts[found[i]];
    for (const plan::Value input :
         traced.graph[plan::NodeId(static_cast<std::int64_t>(i))].inputs) {
      const Role from = found[input.node.index()];
      if (from == Role::tangent) CHECK(found[i] == Role::tangent);
      if (from == Role::coefficient) CHECK(found[i] != Role::primal);
    }
  }
  CHECK(counts[Role::primal] == 6);       // x, w, the leaf, the product, its sigmoid, their product
  CHECK(counts[Role::coefficient] == 1);  // the slope of sigmoid
  CHECK(counts[Role::tangent] == 6);
  CHECK(counts[Role::cotangent] == 0);
  // Without labels all is primal.
  for (const Role role : roles(traced.graph, {})) CHECK(role == Role::primal);
}

TEST_CASE("an output that is called primal ends a tangent", "[show]") {
  plan::Graph graph = chain(3);
  graph.outputs = {{plan::NodeId(2), 0}, {plan::NodeId(3), 0}};
  const PictureLabels labels{.title = {},
                             .inputs = {{"dx", Role::tangent}},
                             .outputs = {{"target"}, {"loss"}},
                             .scalars = {}};
  CHECK(roles(graph, labels) ==
        std::vector<Role>{Role::tangent, Role::tangent, Role::primal, Role::primal});
}

TEST_CASE("a picture of a graph shows every node, argument and output", "[show]") {
  const Traced traced = silu_jvp();
  const Diagram diagram = graph_diagram(traced.graph, traced.labels);
  CHECK(diagram.columns_by_role);
  const std::string svg = to_svg(diagram), dot = to_dot(diagram);
  CHECK(xml_fault(svg) == "");
  CHECK(dot_fault(dot) == "");
  for (std::size_t i = 0; i < traced.graph.nodes.size(); ++i) {
    INFO(i);
    CHECK(contains(svg, ">%" + std::to_string(i) + "</text>"));
    CHECK(contains(dot, "\"%" + std::to_string(i) + "\""));
  }
  for (const char* name : {"x", "w", "dx", "y", "dy", "sigmoid", "matmul", "f32[4, 8]", "primal",
                           "coefficient", "tangent"}) {
    INFO(name);
    CHECK(contains(svg, ">" + std::string(name) + "</text>"));
  }
  CHECK_FALSE(contains(svg, ">cotangent</text>"));
  CHECK(occurrences(dot, "subgraph cluster_") == 3);
  CHECK(occurrences(dot, "n0 [") == 1);
  CHECK(svg == to_svg(graph_diagram(traced.graph, traced.labels)));
}

TEST_CASE("a constant stands beside each of its users", "[show]") {
  plan::Graph graph;
  const TensorType scalar{{}, DType::f32};
  graph.inputs = {scalar};
  graph.scalars = 1;
  graph.nodes = {{Op::parameter, IndexAttributes{0}, {}, {scalar}},
                 {Op::constant, ValueAttributes{0}, {}, {scalar}, 0},
                 {Op::mul, NoAttributes{}, {{plan::NodeId(0), 0}, {plan::NodeId(1), 0}}, {scalar}},
                 {Op::add, NoAttributes{}, {{plan::NodeId(2), 0}, {plan::NodeId(1), 0}}, {scalar}}};
  graph.outputs = {{plan::NodeId(3), 0}};
  const std::string svg =
      to_svg(graph_diagram(graph, {.title = {}, .inputs = {}, .outputs = {}, .scalars = {0.25}}));
  CHECK(xml_fault(svg) == "");
  CHECK(occurrences(svg, ">0.25</text>") == 2);
  CHECK(contains(svg, ">input 0</text>"));
  CHECK(contains(svg, ">output 0</text>"));
  CHECK(contains(to_svg(graph_diagram(graph)), ">scalar 0</text>"));
}

TEST_CASE("a heading has the attributes that a type does not tell, numbers to a few digits",
          "[show]") {
  plan::Graph graph;
  const TensorType type{{2, 3}, DType::f32}, row{{2, 1}, DType::f32};
  graph.inputs = {type};
  graph.nodes = {
      {Op::parameter, IndexAttributes{0}, {}, {type}},
      {Op::layer_norm, EpsilonAttributes{0.123456789}, {{plan::NodeId(0), 0}}, {type, row}},
      {Op::sum, AxesAttributes{{1}}, {{plan::NodeId(1), 0}}, {row}},
      {Op::broadcast_to, ShapeAttributes{{2, 3}}, {{plan::NodeId(2), 0}}, {type}}};
  graph.outputs = {{plan::NodeId(3), 0}, {plan::NodeId(1), 1}};
  const std::string svg = to_svg(graph_diagram(graph));
  for (const char* part :
       {">layer_norm epsilon=0.1234<", ">f32[2, 3], f32[2, 1]<", ">sum axes=[1]<", ">broadcast_to<",
        ">output 1<",
        "<title>%1 = layer_norm %0 {epsilon=0.123456789} : f32[2, 3], f32[2, 1]</title>"})
    CHECK(contains(svg, part));
}

TEST_CASE("names that mean something to XML and DOT are only names", "[show]") {
  plan::Graph graph = chain(1);
  const PictureLabels labels{.title = "a < b & \"c\"\n",
                             .inputs = {{"</text><script>"}},
                             .outputs = {{"\\\"]; }\xff\x02"}},
                             .scalars = {}};
  const Diagram diagram = graph_diagram(graph, labels);
  CHECK(xml_fault(to_svg(diagram)) == "");
  CHECK(dot_fault(to_dot(diagram)) == "");
  CHECK_FALSE(contains(to_svg(diagram), "<script>"));
}

TEST_CASE("pictures of nothing, of one node and of thousands", "[show]") {
  const Diagram nothing = graph_diagram({});
  CHECK(xml_fault(to_svg(nothing)) == "");
  CHECK(dot_fault(to_dot(nothing)) == "");
  CHECK(xml_fault(to_svg(program_diagram({}))) == "");
  CHECK(xml_fault(memory_svg({})) == "");
  CHECK(contains(memory_text({}), "arena 0 B"));

  for (const std::size_t length : {0, 1, 1000, 5000}) {
    const Diagram diagram = graph_diagram(chain(length));
    const std::string svg = to_svg(diagram);
    CHECK(xml_fault(svg) == "");
    CHECK(occurrences(svg, ">tanh</text>") == length);
    CHECK(occurrences(to_dot(diagram), " -> ") == length + 1);
  }
}

TEST_CASE("a picture of a plan shows kernels, what is fused in them and the buffers between them",
          "[show]") {
  const Program program = block_program();
  const Diagram diagram = program_diagram(
      program, {.title = "step", .inputs = {{"h"}, {"c"}}, .outputs = {{"loss"}}, .scalars = {}});
  const std::string svg = to_svg(diagram), dot = to_dot(diagram);
  CHECK(xml_fault(svg) == "");
  CHECK(dot_fault(dot) == "");
  for (std::size_t k = 0; k < program.kernels.size(); ++k)
    CHECK(contains(svg, ">kernel " + std::to_string(k) + "</text>"));
  for (std::size_t b = 0; b < program.buffers.size(); ++b)
    CHECK(contains(svg, ">b" + std::to_string(b) + "</text>"));
  CHECK(diagram.boxes.size() == program.kernels.size() + program.buffers.size());
  for (const char* part :
       {"row sum", "rsqrt", "r0 += ", ">loss</text>", ">input 2</text>", ">output 1</text>"})
    CHECK(contains(svg, part));
  CHECK(contains(svg, std::to_string(program.kernels.size()) + " kernels"));
}

TEST_CASE("buffers that live at one time share no bytes in the picture of memory", "[show]") {
  const Program program = block_program();
  const std::vector<MemoryBlock> blocks = memory_blocks(program);
  REQUIRE(blocks.size() > 10);
  std::size_t taken_over = 0;
  for (const MemoryBlock& a : blocks) {
    CHECK(a.first <= a.last);
    CHECK(a.offset + a.bytes <= program.arena_bytes);
    taken_over += a.donor >= 0;
    for (const MemoryBlock& b : blocks) {
      if (a.buffer >= b.buffer || a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset)
        continue;
      INFO("b" << a.buffer << " and b" << b.buffer);
      CHECK((a.last < b.first || b.last < a.first || a.heir == b.buffer || b.heir == a.buffer));
    }
  }
  CHECK(taken_over > 0);
  // Live bytes: at least what the blocks of each kernel weigh, at most the arena.
  const std::vector<std::int64_t> live = live_bytes(program);
  REQUIRE(live.size() == program.kernels.size());
  for (std::size_t k = 0; k < live.size(); ++k) {
    std::int64_t expected = 0;
    for (const MemoryBlock& block : blocks) {
      const auto now = static_cast<std::int32_t>(k);
      if (block.first <= now && now <= block.last && !(block.heir >= 0 && block.last == now))
        expected += block.bytes;
    }
    CHECK(live[k] == expected);
    CHECK(live[k] <= program.arena_bytes);
  }
  const std::string svg = memory_svg(
                        program, {.title = "a < b", .inputs = {}, .outputs = {}, .scalars = {}}),
                    text = memory_text(program);
  CHECK(xml_fault(svg) == "");
  CHECK(occurrences(svg, "class=\"block\"") == blocks.size());
  CHECK(occurrences(svg, ">peak ") == 1);
  CHECK(occurrences(text, "  peak\n") >= 1);
  for (const MemoryBlock& block : blocks)
    CHECK(contains(text, "\nb" + std::to_string(block.buffer) + " "));
}
