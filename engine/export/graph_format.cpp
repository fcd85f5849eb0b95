// The bytes of a stored graph; docs/graph-files.md states the format. Ops, attributes, element
// types and sections are stored by name, never by number: files stay readable when a table grows,
// and a reader refuses what it does not know by name.
#include <algorithm>
#include <array>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include "engine/error.h"
#include "engine/export/stored_graph.h"
#include "engine/export/tagged_bytes.h"
#include "engine/graph/op_names.h"

namespace fluxion {

namespace {

constexpr FileFormat graph_file{"graph file", "graph", "fluxgrph", 1};

// The names of each attribute type's members, in the order of its list (engine/graph/op.h).
template <class T>
inline constexpr std::array<std::string_view, 0> member_names{};
template <>
inline constexpr std::array<std::string_view, 1> member_names<IndexAttributes>{"index"};
template <>
inline constexpr std::array<std::string_view, 1> member_names<ValueAttributes>{"value"};
template <>
inline constexpr std::array<std::string_view, 1> member_names<AxisAttributes>{"axis"};
template <>
inline constexpr std::array<std::string_view, 1> member_names<AxesAttributes>{"axes"};
template <>
inline constexpr std::array<std::string_view, 1> member_names<DTypeAttributes>{"dtype"};
template <>
inline constexpr std::array<std::string_view, 1> member_names<ShapeAttributes>{"shape"};
template <>
inline constexpr std::array<std::string_view, 3> member_names<SliceAttributes>{"start", "stop",
                                                                               "step"};
template <>
inline constexpr std::array<std::string_view, 3> member_names<PadAttributes>{"low", "high",
                                                                             "value"};
template <>
inline constexpr std::array<std::string_view, 2> member_names<RandomAttributes>{"shape", "domain"};
template <>
inline constexpr std::array<std::string_view, 1> member_names<EpsilonAttributes>{"epsilon"};
template <>
inline constexpr std::array<std::string_view, 2> member_names<SortAttributes>{"axis", "descending"};
template <>
inline constexpr std::array<std::string_view, 3> member_names<WindowAttributes>{"kernel", "stride",
                                                                                "dilation"};
template <>
inline constexpr std::array<std::string_view, 8> member_names<ConvAttributes>{
    "stride", "dilation", "spread", "low", "high", "groups", "accumulate", "result"};
template <>
inline constexpr std::array<std::string_view, 2> member_names<ContractAttributes>{"accumulate",
                                                                                  "result"};
template <>
inline constexpr std::array<std::string_view, 2> member_names<AttentionAttributes>{"scale",
                                                                                   "causal"};

// Calls f(name, member) for every member of an attribute value. It does not compile unless every
// member has a name.
template <class T, class F>
void visit_members(T& attributes, F&& f) {
  using Plain = std::remove_const_t<T>;
  auto members = Plain::members(attributes);
  constexpr std::size_t count = std::tuple_size_v<decltype(members)>;
  static_assert(count == member_names<Plain>.size(), "every attribute has a name in files");
  [&]<std::size_t... i>(std::index_sequence<i...>) {
    (f(member_names<Plain>[i], std::get<i>(members)), ...);
  }
  (std::make_index_sequence<count>());
}

constexpr std::string_view kind_of(std::int64_t) { return "int"; }
constexpr std::string_view kind_of(double) { return "float"; }
constexpr std::string_view kind_of(bool) { return "bool"; }
constexpr std::string_view kind_of(const Dims&) { return "ints"; }
constexpr std::string_view kind_of(DType) { return "dtype"; }

constexpr std::string_view sections[] = {"name",    "inputs",  "constants",
                                         "outputs", "scalars", "nodes"};

void write_value(TaggedWriter& writer, plan::Value value) {
  writer.number(static_cast<std::uint32_t>(value.node.number));
  writer.number(static_cast<std::uint32_t>(value.output));
}

void write_node(TaggedWriter& writer, const plan::GraphNode& node) {
  writer.word(to_string(node.op));
  TaggedWriter attributes;
  std::uint8_t how_many = 0;
  const auto add = [&](std::string_view name, const auto& value) {
    attributes.word(name);
    attributes.word(kind_of(value));
    attributes.item(value);
    ++how_many;
  };
  std::visit([&](const auto& value) { visit_members(value, add); }, node.attributes);
  if (node.scalar >= 0) add("scalar", static_cast<std::int64_t>(node.scalar));
  writer.number(how_many);
  writer.append(attributes.bytes);
  writer.count(node.inputs.size());
  for (const plan::Value input : node.inputs) write_value(writer, input);
  writer.count(node.outputs.size());
  for (const TensorType& output : node.outputs) writer.type(output);
}

plan::Value read_value(TaggedReader& reader) {
  const auto node = reader.number<std::uint32_t>(), output = reader.number<std::uint32_t>();
  constexpr std::uint32_t most = 0x7FFFFFFF;
  if (node > most || output > most) reader.fail("a value of node " + std::to_string(node));
  return {plan::NodeId(node), static_cast<std::int32_t>(output)};
}

Op op_of(const TaggedReader& reader, std::string_view name) {
  for (int number = 0; number < op_count; ++number)
    if (info(static_cast<Op>(number)).name == name) return static_cast<Op>(number);
  reader.fail("op " + TaggedReader::quoted(name) + " is not one that this version knows");
}

template <std::size_t... i>
Attributes default_attributes(std::size_t wanted, std::index_sequence<i...>) {
  Attributes result;
  ((i == wanted ? void(result.emplace<i>()) : void()), ...);
  return result;
}

plan::GraphNode read_node(TaggedReader& reader) {
  plan::GraphNode node;
  node.op = op_of(reader, reader.word());
  const std::string op_name(to_string(node.op));
  node.attributes = default_attributes(info(node.op).attributes,
                                       std::make_index_sequence<std::variant_size_v<Attributes>>());
  std::vector<std::string_view> seen;
  const auto how_many = reader.number<std::uint8_t>();
  for (int k = 0; k < how_many; ++k) {
    const std::string_view name = reader.word(), kind = reader.word();
    bool known = false;
    const auto read = [&](std::string_view member, auto& value) {
      if (member != name) return;
      if (kind != kind_of(value))
        reader.fail("attribute " + TaggedReader::quoted(name) + " of " + op_name +
                    " is of the kind " + TaggedReader::quoted(kind) + ", not " +
                    std::string(kind_of(value)));
      reader.item(value);
      known = true;
    };
    std::visit([&](auto& attributes) { visit_members(attributes, read); }, node.attributes);
    if (node.op == Op::constant && name == "scalar") {
      std::int64_t scalar = -1;
      read("scalar", scalar);
      if (scalar < 0 || scalar > 0x7FFFFFFF) reader.fail("scalar " + std::to_string(scalar));
      node.scalar = static_cast<std::int32_t>(scalar);
    }
    if (!known)
      reader.fail("attribute " + TaggedReader::quoted(name) + " of " + op_name +
                  " is not one that this version knows");
    if (std::find(seen.begin(), seen.end(), name) != seen.end())
      reader.fail("attribute " + TaggedReader::quoted(name) + " of " + op_name + " is given twice");
    seen.push_back(name);
  }
  std::visit(
      [&](const auto& attributes) {
        visit_members(attributes, [&](std::string_view member, const auto&) {
          if (std::find(seen.begin(), seen.end(), member) == seen.end())
            reader.fail("attribute '" + std::string(member) + "' of " + op_name + " is missing");
        });
      },
      node.attributes);
  const std::uint32_t inputs = reader.count("operands");
  for (std::uint32_t k = 0; k < inputs; ++k) node.inputs.push_back(read_value(reader));
  const std::uint32_t outputs = reader.count("outputs");
  for (std::uint32_t k = 0; k < outputs; ++k) node.outputs.push_back(reader.type());
  return node;
}

StoredValue read_name(TaggedReader& reader) {
  std::string name = reader.text();
  return {std::move(name), std::string(reader.word())};
}

}  // namespace

std::vector<std::byte> serialise(const StoredGraph& stored) {
  check(stored);
  const plan::Graph& graph = stored.graph;
  TaggedWriter name, inputs, constants, outputs, scalars, nodes;
  name.text(stored.name);
  inputs.count(stored.inputs.size());
  for (std::size_t i = 0; i < stored.inputs.size(); ++i) {
    inputs.text(stored.inputs[i].name);
    inputs.word(stored.inputs[i].role);
    inputs.type(graph.inputs[i]);
    const bool donated = std::find(graph.donated.begin(), graph.donated.end(),
                                   static_cast<std::int32_t>(i)) != graph.donated.end();
    inputs.item(donated);
  }
  constants.count(stored.constants.size());
  for (std::size_t i = 0; i < stored.constants.size(); ++i) {
    constants.type(graph.inputs[stored.inputs.size() + i]);
    constants.number(static_cast<std::uint64_t>(stored.constants[i].size()));
    constants.append(stored.constants[i]);
  }
  outputs.count(stored.outputs.size());
  for (std::size_t i = 0; i < stored.outputs.size(); ++i) {
    outputs.text(stored.outputs[i].name);
    outputs.word(stored.outputs[i].role);
    write_value(outputs, graph.outputs[i]);
  }
  scalars.count(stored.scalars.size());
  for (const double scalar : stored.scalars) scalars.number(scalar);
  nodes.count(graph.nodes.size());
  for (const plan::GraphNode& node : graph.nodes) write_node(nodes, node);

  TaggedWriter body;
  body.section("name", name);
  body.section("inputs", inputs);
  body.section("constants", constants);
  body.section("outputs", outputs);
  body.section("scalars", scalars);
  body.section("nodes", nodes);
  return whole_file(graph_file, body.bytes);
}

namespace {

StoredGraph read_graph(std::span<const std::byte> bytes) {
  const TaggedSections sections_of(graph_file, bytes, sections);
  const auto section = [&](std::string_view name) { return sections_of.reader(name); };
  StoredGraph stored;
  plan::Graph& graph = stored.graph;
  TaggedReader name = section("name");
  stored.name = name.text();
  name.finish();

  TaggedReader inputs = section("inputs");
  const std::uint32_t input_count = inputs.count("inputs");
  for (std::uint32_t i = 0; i < input_count; ++i) {
    stored.inputs.push_back(read_name(inputs));
    graph.inputs.push_back(inputs.type());
    bool donated = false;
    inputs.item(donated);
    if (donated) graph.donated.push_back(static_cast<std::int32_t>(i));
  }
  inputs.finish();

  TaggedReader constants = section("constants");
  const std::uint32_t constant_count = constants.count("constants");
  for (std::uint32_t i = 0; i < constant_count; ++i) {
    graph.inputs.push_back(constants.type());
    const auto elements = constants.take(constants.number<std::uint64_t>());
    stored.constants.emplace_back(elements.begin(), elements.end());
  }
  constants.finish();

  TaggedReader outputs = section("outputs");
  const std::uint32_t output_count = outputs.count("outputs");
  for (std::uint32_t i = 0; i < output_count; ++i) {
    stored.outputs.push_back(read_name(outputs));
    graph.outputs.push_back(read_value(outputs));
  }
  outputs.finish();

  TaggedReader scalars = section("scalars");
  const std::uint32_t scalar_count = scalars.count("scalars");
  stored.scalars.resize(scalar_count);
  for (double& scalar : stored.scalars) scalars.item(scalar);
  scalars.finish();
  graph.scalars = static_cast<std::int32_t>(std::min<std::uint32_t>(scalar_count, 0x7FFFFFFF));

  TaggedReader nodes = section("nodes");
  const std::uint32_t node_count = nodes.count("nodes");
  for (std::uint32_t i = 0; i < node_count; ++i) graph.nodes.add(read_node(nodes));
  nodes.finish();

  check(stored);
  return stored;
}

}  // namespace

StoredGraph parse_graph(std::span<const std::byte> bytes) {
  try {
    return read_graph(bytes);
  } catch (const FormatError&) {
    throw;
  } catch (const Error& error) {  // of a type that can't be, say
    throw FormatError(std::string("graph file: ") + error.what());
  }
}

}  // namespace fluxion
