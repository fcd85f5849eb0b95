#include "engine/export/stored_graph.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "engine/graph/numbers.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "engine/platform/file.h"

namespace fluxion {

namespace {

// Files hold little-endian elements, which are copied from and to memory unchanged.
static_assert(std::endian::native == std::endian::little,
              "constants of graph files are copied as they are");

constexpr const char* roles[] = {"primal", "coefficient", "tangent", "cotangent"};

std::vector<std::byte> bytes_of(const Tensor& tensor) {
  std::vector<std::byte> bytes(tensor.type().bytes());
  tensor.copy_to(bytes, tensor.dtype());
  if (tensor.dtype() == DType::boolean)  // tensors take every byte, files 0 and 1
    for (std::byte& each : bytes) each = std::byte{each != std::byte{0}};
  return bytes;
}

[[noreturn]] void fail(const StoredGraph& stored, const std::string& what) {
  throw Error("graph '" + stored.name + "': " + what);
}

// Checks a leaf, which plan::verify leaves to the maker of the graph.
void check_leaf(const StoredGraph& stored, plan::NodeId id) {
  const plan::GraphNode& node = stored.graph[id];
  const std::string start = "node " + std::to_string(id.number) + " ";
  if (node.attributes.index() != info(node.op).attributes)
    fail(stored, start + "has attributes of another op");
  if (!node.inputs.empty() || node.outputs.size() != 1)
    fail(stored, start + "is a leaf with operands, or without its one output");
  const TensorType& type = node.outputs.front();
  switch (node.op) {
    case Op::parameter:
      return;
    case Op::constant: {
      if (type.shape.rank() != 0) fail(stored, start + "is a constant of rank above 0");
      const double literal = std::get<ValueAttributes>(node.attributes).value;
      const bool has_scalar = node.scalar >= 0;
      if (has_scalar && static_cast<std::size_t>(node.scalar) >= stored.scalars.size())
        fail(stored,
             start + "names scalar " + std::to_string(node.scalar) + ", which is not there");
      const bool plain =
          (literal == 0 && !std::signbit(literal)) || (!has_scalar && std::abs(literal) == 1);
      if (!plain)
        fail(stored, start + "is the number " + number_text(literal) +
                         ", which stands among the scalars unless it is 0, 1 or -1");
      const double value =
          has_scalar ? stored.scalars[static_cast<std::size_t>(node.scalar)] : literal;
      if (type.dtype == DType::i64 || !can_hold(type.dtype, value))
        fail(stored, start + "is the number " + number_text(value) + ", which " +
                         std::string(to_string(type.dtype)) + " can't hold");
      return;
    }
    case Op::iota: {
      const std::int64_t axis = std::get<AxisAttributes>(node.attributes).axis;
      if (axis < 0 || axis >= type.shape.rank())
        fail(stored, start + "is an iota along an axis that it does not have");
      if (type.dtype != DType::i32 && type.dtype != DType::u32 && !is_floating(type.dtype))
        fail(stored, start + "is an iota of " + std::string(to_string(type.dtype)));
      if (!can_count(type.dtype, type.shape[axis]))
        fail(stored, start + "is an iota of " + to_string(type) + ", which can't count its axis");
      return;
    }
    default:
      fail(stored,
           start + "is '" + std::string(to_string(node.op)) + "', which stands in no stored graph");
  }
}

void check_values(const StoredGraph& stored, const std::vector<StoredValue>& values) {
  for (const StoredValue& value : values)
    if (std::find(std::begin(roles), std::end(roles), value.role) == std::end(roles))
      fail(stored, "'" + value.name + "' has the role '" + value.role +
                       "'; there are primal, coefficient, tangent and cotangent");
}

}  // namespace

bool StoredGraph::operator==(const StoredGraph& other) const {
  const auto bits = [](double value) { return std::bit_cast<std::uint64_t>(value); };
  return name == other.name && graph == other.graph && inputs == other.inputs &&
         outputs == other.outputs && constants == other.constants &&
         std::ranges::equal(scalars, other.scalars, {}, bits, bits);
}

void check(const StoredGraph& stored) {
  const plan::Graph& graph = stored.graph;
  if (stored.inputs.size() + stored.constants.size() != graph.inputs.size())
    fail(stored, "it has " + std::to_string(graph.inputs.size()) + " inputs, but " +
                     std::to_string(stored.inputs.size()) + " names and " +
                     std::to_string(stored.constants.size()) + " constants");
  if (stored.outputs.size() != graph.outputs.size())
    fail(stored, "it has " + std::to_string(graph.outputs.size()) + " outputs, but " +
                     std::to_string(stored.outputs.size()) + " names");
  if (graph.scalars < 0 || static_cast<std::size_t>(graph.scalars) != stored.scalars.size())
    fail(stored, "its number of scalars is not the number of their values");
  check_values(stored, stored.inputs);
  check_values(stored, stored.outputs);
  std::vector<bool> donated(stored.inputs.size(), false);
  for (const std::int32_t input : graph.donated) {
    const auto index = static_cast<std::size_t>(input);
    if (input < 0 || index >= donated.size() || donated[index])
      fail(stored, "it donates input " + std::to_string(input) +
                       ", which does not exist or is donated twice");
    donated[index] = true;
  }
  for (std::size_t i = 0; i < stored.constants.size(); ++i) {
    const TensorType& type = graph.inputs[stored.inputs.size() + i];
    if (stored.constants[i].size() != type.bytes())
      fail(stored, "constant " + std::to_string(i) + ", " + to_string(type) + ", has " +
                       std::to_string(stored.constants[i].size()) + " bytes");
    if (type.dtype != DType::boolean) continue;
    for (const std::byte each : stored.constants[i])
      if (each > std::byte{1})
        fail(stored, "constant " + std::to_string(i) + ", " + to_string(type) + ", has the byte " +
                         std::to_string(std::to_integer<int>(each)) + "; a boolean is 0 or 1");
  }
  for (const plan::NodeId id : graph.nodes.ids()) {
    const plan::GraphNode& node = graph[id];
    const OpClass op_class = info(node.op).op_class;
    if (op_class == OpClass::leaf) {
      check_leaf(stored, id);
    } else if (op_class == OpClass::region || node.scalar != -1) {
      fail(stored, "node " + std::to_string(id.number) + " is '" + std::string(to_string(node.op)) +
                       "', with a region or a scalar, which no stored graph may hold");
    }
  }
  plan::verify(graph);
  for (const plan::Value output : graph.outputs)
    if (output.output < 0 ||
        static_cast<std::size_t>(output.output) >= graph[output].outputs.size())
      fail(stored, "an output names output " + std::to_string(output.output) + " of node " +
                       std::to_string(output.node.number) + ", which has fewer");
}

StoredGraph store(std::string name, std::vector<StoredValue> inputs,
                  std::vector<StoredValue> outputs, std::span<const Tensor> parameters,
                  std::span<const Tensor> results) {
  if (inputs.size() != parameters.size() || outputs.size() != results.size())
    throw Error("graph '" + name + "': " + std::to_string(parameters.size()) + " arguments and " +
                std::to_string(results.size()) + " results want as many names, got " +
                std::to_string(inputs.size()) + " and " + std::to_string(outputs.size()));
  return store(std::move(name), std::move(inputs), std::move(outputs),
               plan::canonicalise(parameters, results));
}

StoredGraph store(std::string name, std::vector<StoredValue> inputs,
                  std::vector<StoredValue> outputs, const plan::Canonical& traced) {
  StoredGraph stored;
  stored.name = std::move(name);
  stored.inputs = std::move(inputs);
  stored.outputs = std::move(outputs);
  stored.scalars = traced.scalars;
  std::vector<double> more;
  stored.graph = plan::simplify_portably(traced.graph, more);
  stored.scalars.insert(stored.scalars.end(), more.begin(), more.end());
  for (std::size_t i = stored.inputs.size(); i < traced.inputs.size(); ++i)
    stored.constants.push_back(bytes_of(traced.inputs[i]));
  check(stored);
  return stored;
}

std::vector<Tensor> call(const StoredGraph& stored, std::span<const Tensor> arguments,
                         const Device& device, Location where) {
  const auto refused = [&](const std::string& what) {
    return "graph '" + stored.name + "': " + what + " (" + to_string(where) + ")";
  };
  if (arguments.size() != stored.inputs.size())
    throw Error(refused("wants " + std::to_string(stored.inputs.size()) + " arguments, got " +
                        std::to_string(arguments.size())));
  std::vector<Tensor> leaves;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = stored.inputs[i].name;
    const TensorType& wanted = stored.graph.inputs[i];
    const Tensor& given = require_tensor(arguments[i], "graph '" + stored.name + "'",
                                         "argument '" + name + "'", where);
    const std::string message = refused("argument '" + name + "' is " + to_string(wanted) +
                                        ", got " + to_string(given.type()));
    if (given.dtype() != wanted.dtype) throw DTypeError(message);
    if (given.shape() != wanted.shape) throw ShapeError(message);
    if (given.device() != device)
      throw DeviceError(refused("argument '" + name + "' is on " + given.device().name() +
                                ", asked for on " + device.name()));
    leaves.push_back(given);
  }
  for (std::size_t i = 0; i < stored.constants.size(); ++i)
    leaves.push_back(Tensor::from_bytes(stored.constants[i],
                                        stored.graph.inputs[arguments.size() + i], device, where));

  std::vector<std::vector<Tensor>> made;
  const auto tensor_of = [&](plan::Value value) -> const Tensor& {
    return made[value.node.index()][static_cast<std::size_t>(value.output)];
  };
  for (const plan::GraphNode& node : stored.graph.nodes) {
    std::vector<Tensor> operands;
    for (const plan::Value input : node.inputs) operands.push_back(tensor_of(input));
    if (node.op == Op::parameter) {
      const std::int64_t index = std::get<IndexAttributes>(node.attributes).index;
      made.push_back({leaves[static_cast<std::size_t>(index)]});
    } else if (node.op == Op::constant) {
      const double value = node.scalar >= 0 ? stored.scalars[static_cast<std::size_t>(node.scalar)]
                                            : std::get<ValueAttributes>(node.attributes).value;
      made.push_back({make_constant(value, node.outputs[0].dtype, device, stored.name, where)});
    } else if (node.op == Op::iota) {
      made.push_back({make_leaf(node.op, node.attributes, node.outputs[0], device)});
    } else {
      made.push_back(make_nodes(node.op, node.attributes, std::move(operands), where));
    }
  }
  std::vector<Tensor> results;
  for (const plan::Value output : stored.graph.outputs) results.push_back(tensor_of(output));
  return results;
}

void save_graph(const std::filesystem::path& path, const StoredGraph& stored) {
  replace_file(path, serialise(stored));
}

StoredGraph load_graph(const std::filesystem::path& path) {
  const MappedFile file(path);
  try {
    StoredGraph graph = parse_graph(file.bytes());
    file.check_whole();
    return graph;
  } catch (const FormatError& error) {
    throw FormatError(path.string() + ": " + error.what());
  }
}

}  // namespace fluxion
