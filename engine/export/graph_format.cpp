// The bytes of a stored graph; docs/graph-files.md states the format. Ops, attributes, element
// types and sections are stored by name, never by number: files stay readable when a table grows,
// and a reader refuses what it does not know by name.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <optional>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include "engine/error.h"
#include "engine/export/crc32.h"
#include "engine/export/stored_graph.h"
#include "engine/graph/op_names.h"

namespace fluxion {

namespace {

constexpr std::string_view magic = "fluxgrph";
constexpr std::uint32_t version = 1;
constexpr std::size_t header_bytes = 8 + 4 + 4 + 8;

// Bounds on the numbers in a file, far beyond any use. They keep sums of sizes from overflowing.
constexpr std::int64_t most_elements = std::int64_t{1} << 48;
constexpr std::uint32_t most_axes = 64;

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

constexpr DType all_dtypes[] = {DType::boolean, DType::u8,  DType::i32, DType::u32, DType::i64,
                                DType::bf16,    DType::f16, DType::f32, DType::f64};

constexpr std::string_view sections[] = {"name",    "inputs",  "constants",
                                         "outputs", "scalars", "nodes"};

class Writer {
 public:
  std::vector<std::byte> bytes;

  template <class T>
  requires std::is_integral_v<T>
  void number(T value) {
    auto rest = static_cast<std::uint64_t>(value);
    for (std::size_t i = 0; i < sizeof(T); ++i, rest >>= 8)
      bytes.push_back(static_cast<std::byte>(rest & 0xFF));
  }
  void number(double value) { number(std::bit_cast<std::uint64_t>(value)); }
  void raw(std::string_view text) { append(std::as_bytes(std::span(text))); }
  void append(std::span<const std::byte> more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
  }
  void count(std::size_t value) { number(static_cast<std::uint32_t>(value)); }
  // A word of the format: at most 255 characters.
  void word(std::string_view text) {
    number(static_cast<std::uint8_t>(text.size()));
    raw(text);
  }
  // A text from the user, of any length.
  void text(std::string_view text) {
    count(text.size());
    raw(text);
  }
  void dims(const Dims& dims) {
    count(dims.size());
    for (const std::int64_t size : dims) number(size);
  }
  void type(const TensorType& type) {
    word(to_string(type.dtype));
    dims(type.shape.dims());
  }
  void section(std::string_view name, const Writer& body) {
    word(name);
    number(static_cast<std::uint64_t>(body.bytes.size()));
    append(body.bytes);
  }

  void attribute_value(std::int64_t value) { number(value); }
  void attribute_value(double value) { number(value); }
  void attribute_value(bool value) { number(static_cast<std::uint8_t>(value)); }
  void attribute_value(const Dims& value) { dims(value); }
  void attribute_value(DType value) { word(to_string(value)); }
  template <class T>
  void attribute(std::string_view name, const T& value) {
    word(name);
    word(kind_of(value));
    attribute_value(value);
  }

  void node(const plan::GraphNode& node) {
    word(to_string(node.op));
    Writer attributes;
    std::uint8_t how_many = 0;
    const auto add = [&](std::string_view name, const auto& value) {
      attributes.attribute(name, value);
      ++how_many;
    };
    std::visit([&](const auto& value) { visit_members(value, add); }, node.attributes);
    if (node.scalar >= 0) add("scalar", static_cast<std::int64_t>(node.scalar));
    number(how_many);
    append(attributes.bytes);
    count(node.inputs.size());
    for (const plan::Value input : node.inputs) value(input);
    count(node.outputs.size());
    for (const TensorType& output : node.outputs) type(output);
  }
  void value(plan::Value value) {
    number(static_cast<std::uint32_t>(value.node.number));
    number(static_cast<std::uint32_t>(value.output));
  }
};

// Reads from one span of bytes. It checks that enough bytes follow before it allocates for them.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, std::string what)
      : bytes_(bytes), what_(std::move(what)) {}

  [[noreturn]] void fail(const std::string& why) const {
    throw FormatError("graph file: " + what_ + ": " + why + " (at byte " +
                      std::to_string(position_) + " of " + std::to_string(bytes_.size()) + ")");
  }
  void finish() const {
    if (position_ != bytes_.size()) fail("bytes follow its end");
  }
  bool at_end() const { return position_ == bytes_.size(); }

  std::span<const std::byte> take(std::uint64_t count) {
    if (count > bytes_.size() - position_) fail("the bytes end within a value");
    const auto taken = bytes_.subspan(position_, static_cast<std::size_t>(count));
    position_ += taken.size();
    return taken;
  }
  template <class T>
  T number() {
    std::uint64_t result = 0;
    const auto taken = take(sizeof(T));
    for (std::size_t i = 0; i < sizeof(T); ++i)
      result |= std::to_integer<std::uint64_t>(taken[i]) << (8 * i);
    if constexpr (std::is_same_v<T, double>)
      return std::bit_cast<double>(result);
    else
      return static_cast<T>(result);
  }
  std::string_view raw(std::uint64_t count) {
    const auto taken = take(count);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }
  std::string_view word() { return raw(number<std::uint8_t>()); }
  std::string text() { return std::string(raw(number<std::uint32_t>())); }
  // The number of items that follow, each of at least one byte.
  std::uint32_t count(const char* items) {
    const auto result = number<std::uint32_t>();
    if (result > bytes_.size() - position_)
      fail(std::to_string(result) + " " + items + " do not fit the bytes that are left");
    return result;
  }
  Dims dims() {
    const std::uint32_t rank = count("sizes");
    if (rank > most_axes) fail(std::to_string(rank) + " axes; at most 64 are read");
    Dims result;
    for (std::uint32_t axis = 0; axis < rank; ++axis) {
      result.push_back(number<std::int64_t>());
      bounded(result.back());
    }
    return result;
  }
  DType dtype() {
    const std::string_view name = word();
    for (const DType each : all_dtypes)
      if (to_string(each) == name) return each;
    fail("element type " + quoted(name) + " is not one that this version knows");
  }
  TensorType type() {
    const DType dtype = this->dtype();
    Dims sizes = dims();
    std::int64_t elements = 1;
    for (const std::int64_t size : sizes) {
      if (size < 0) fail("a tensor has an axis of negative size");
      if (size > most_elements / elements) fail("a tensor has absurdly many elements");
      elements *= std::max<std::int64_t>(size, 1);
    }
    return {Shape(std::move(sizes)), dtype};
  }
  plan::Value value() {
    const auto node = number<std::uint32_t>(), output = number<std::uint32_t>();
    constexpr std::uint32_t most = 0x7FFFFFFF;
    if (node > most || output > most) fail("a value of node " + std::to_string(node));
    return {plan::NodeId(node), static_cast<std::int32_t>(output)};
  }

  void attribute_value(std::int64_t& value) { bounded(value = number<std::int64_t>()); }
  void attribute_value(double& value) { value = number<double>(); }
  void attribute_value(bool& value) {
    const auto byte = number<std::uint8_t>();
    if (byte > 1) fail("a truth value of " + std::to_string(byte));
    value = byte == 1;
  }
  void attribute_value(Dims& value) { value = dims(); }
  void attribute_value(DType& value) { value = dtype(); }

  static std::string quoted(std::string_view name) {
    std::string text = "'";
    for (const char c : name)
      text += static_cast<unsigned char>(c) < 32 || c == 127 ? std::string("?") : std::string(1, c);
    return text + "'";
  }

 private:
  void bounded(std::int64_t value) const {
    if (value > most_elements || value < -most_elements)
      fail("the number " + std::to_string(value) + " is beyond every size");
  }

  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
  std::string what_;
};

Op op_of(const Reader& reader, std::string_view name) {
  for (int number = 0; number < op_count; ++number)
    if (info(static_cast<Op>(number)).name == name) return static_cast<Op>(number);
  reader.fail("op " + Reader::quoted(name) + " is not one that this version knows");
}

template <std::size_t... i>
Attributes default_attributes(std::size_t wanted, std::index_sequence<i...>) {
  Attributes result;
  ((i == wanted ? void(result.emplace<i>()) : void()), ...);
  return result;
}

plan::GraphNode read_node(Reader& reader) {
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
        reader.fail("attribute " + Reader::quoted(name) + " of " + op_name + " is of the kind " +
                    Reader::quoted(kind) + ", not " + std::string(kind_of(value)));
      reader.attribute_value(value);
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
      reader.fail("attribute " + Reader::quoted(name) + " of " + op_name +
                  " is not one that this version knows");
    if (std::find(seen.begin(), seen.end(), name) != seen.end())
      reader.fail("attribute " + Reader::quoted(name) + " of " + op_name + " is given twice");
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
  for (std::uint32_t k = 0; k < inputs; ++k) node.inputs.push_back(reader.value());
  const std::uint32_t outputs = reader.count("outputs");
  for (std::uint32_t k = 0; k < outputs; ++k) node.outputs.push_back(reader.type());
  return node;
}

// The sections by name. Fails unless each known one is there exactly once, and no other.
std::map<std::string_view, std::span<const std::byte>> read_sections(
    std::span<const std::byte> bytes) {
  std::map<std::string_view, std::span<const std::byte>> found;
  Reader reader(bytes, "sections");
  while (!reader.at_end()) {
    const std::string_view name = reader.word();
    if (std::find(std::begin(sections), std::end(sections), name) == std::end(sections))
      reader.fail("section " + Reader::quoted(name) + " is not one that this version knows");
    if (!found.emplace(name, reader.take(reader.number<std::uint64_t>())).second)
      reader.fail("section '" + std::string(name) + "' is given twice");
  }
  for (const std::string_view name : sections)
    if (!found.contains(name)) reader.fail("section '" + std::string(name) + "' is missing");
  return found;
}

// Checks the header and the checksum. Returns the bytes of the sections.
std::span<const std::byte> body_of(std::span<const std::byte> bytes) {
  Reader header(bytes, "header");
  if (bytes.size() < magic.size() || header.raw(magic.size()) != magic)
    header.fail("these bytes are no graph: they do not start with \"fluxgrph\"");
  const auto found = header.number<std::uint32_t>();
  if (found != version)
    header.fail("version " + std::to_string(found) + ", this library reads version " +
                std::to_string(version));
  const auto checksum = header.number<std::uint32_t>();
  const auto length = header.number<std::uint64_t>();
  const std::span<const std::byte> body = bytes.subspan(header_bytes);
  if (body.size() != length)
    header.fail(std::to_string(length) + " bytes should follow, there are " +
                std::to_string(body.size()) + ": the file is cut short, or something follows it");
  if (crc32(body) != checksum) header.fail("the checksum differs: the file is damaged");
  return body;
}

StoredValue read_name(Reader& reader) {
  std::string name = reader.text();
  return {std::move(name), std::string(reader.word())};
}

}  // namespace

std::vector<std::byte> serialise(const StoredGraph& stored) {
  check(stored);
  const plan::Graph& graph = stored.graph;
  Writer name, inputs, constants, outputs, scalars, nodes;
  name.text(stored.name);
  inputs.count(stored.inputs.size());
  for (std::size_t i = 0; i < stored.inputs.size(); ++i) {
    inputs.text(stored.inputs[i].name);
    inputs.word(stored.inputs[i].role);
    inputs.type(graph.inputs[i]);
    const bool donated = std::find(graph.donated.begin(), graph.donated.end(),
                                   static_cast<std::int32_t>(i)) != graph.donated.end();
    inputs.attribute_value(donated);
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
    outputs.value(graph.outputs[i]);
  }
  scalars.count(stored.scalars.size());
  for (const double scalar : stored.scalars) scalars.number(scalar);
  nodes.count(graph.nodes.size());
  for (const plan::GraphNode& node : graph.nodes) nodes.node(node);

  Writer body, file;
  body.section("name", name);
  body.section("inputs", inputs);
  body.section("constants", constants);
  body.section("outputs", outputs);
  body.section("scalars", scalars);
  body.section("nodes", nodes);
  file.raw(magic);
  file.number(version);
  file.number(crc32(body.bytes));
  file.number(static_cast<std::uint64_t>(body.bytes.size()));
  file.append(body.bytes);
  return std::move(file.bytes);
}

namespace {

StoredGraph read_graph(std::span<const std::byte> bytes) {
  const auto sections_of = read_sections(body_of(bytes));
  const auto section = [&](std::string_view name) {
    return Reader(sections_of.at(name), "section '" + std::string(name) + "'");
  };
  StoredGraph stored;
  plan::Graph& graph = stored.graph;
  Reader name = section("name");
  stored.name = name.text();
  name.finish();

  Reader inputs = section("inputs");
  const std::uint32_t input_count = inputs.count("inputs");
  for (std::uint32_t i = 0; i < input_count; ++i) {
    stored.inputs.push_back(read_name(inputs));
    graph.inputs.push_back(inputs.type());
    bool donated = false;
    inputs.attribute_value(donated);
    if (donated) graph.donated.push_back(static_cast<std::int32_t>(i));
  }
  inputs.finish();

  Reader constants = section("constants");
  const std::uint32_t constant_count = constants.count("constants");
  for (std::uint32_t i = 0; i < constant_count; ++i) {
    graph.inputs.push_back(constants.type());
    const auto elements = constants.take(constants.number<std::uint64_t>());
    stored.constants.emplace_back(elements.begin(), elements.end());
  }
  constants.finish();

  Reader outputs = section("outputs");
  const std::uint32_t output_count = outputs.count("outputs");
  for (std::uint32_t i = 0; i < output_count; ++i) {
    stored.outputs.push_back(read_name(outputs));
    graph.outputs.push_back(outputs.value());
  }
  outputs.finish();

  Reader scalars = section("scalars");
  const std::uint32_t scalar_count = scalars.count("scalars");
  for (std::uint32_t i = 0; i < scalar_count; ++i)
    stored.scalars.push_back(scalars.number<double>());
  scalars.finish();
  graph.scalars = static_cast<std::int32_t>(std::min<std::uint32_t>(scalar_count, 0x7FFFFFFF));

  Reader nodes = section("nodes");
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
