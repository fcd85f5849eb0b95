// Functions as files (engine/export/stored_graph.h): what is kept, what is refused, and that files
// of earlier versions stay readable.
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <set>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/export/stored_graph.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/plan/plan.h"
#include "engine/platform/file.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/mutate.h"
#include "tests/files/scratch.h"
#include "tests/files/seal.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

using Bytes = std::vector<std::byte>;

std::vector<StoredValue> named(const char* letter, std::size_t count) {
  std::vector<StoredValue> values;
  for (std::size_t i = 0; i < count; ++i) values.push_back({letter + std::to_string(i)});
  return values;
}

StoredGraph stored_function(const std::string& name, const std::vector<Tensor>& arguments,
                            const TensorFunction& f) {
  const TracedParameters traced(arguments);
  const std::vector<Tensor> results = f(traced.tensors());
  return store(name, named("x", arguments.size()), named("y", results.size()), traced.tensors(),
               results);
}

Bytes replaced(Bytes file, const std::string& from, const std::string& to) {
  REQUIRE(from.size() == to.size());
  const auto* text = reinterpret_cast<const char*>(file.data());
  const std::size_t at = std::string_view(text, file.size()).find(from);
  REQUIRE(at != std::string_view::npos);
  std::memcpy(file.data() + at, to.data(), to.size());
  seal(file);
  return file;
}

std::string file_refusal(const Bytes& file) {
  return message_of<FormatError>([&] { parse_graph(file); });
}

// Every op of op_examples(), and every kind of attribute, in one graph without arguments. Operands
// are constants, and so are the results as the reference backend gave them when the file was
// written: outputs come in two halves that must agree.
StoredGraph every_op() {
  const Device device = reference();
  std::vector<Tensor> operands, results, expected;
  for (const OpExample& example : op_examples()) {
    const std::vector<Tensor> inputs = to_tensors(example.inputs, device, DType::f32);
    const std::vector<Tensor> outputs = example.f(inputs);
    results.insert(results.end(), outputs.begin(), outputs.end());
    const std::vector<Tensor> again = example.f(inputs);
    eval(again);
    expected.insert(expected.end(), again.begin(), again.end());
  }
  StoredGraph stored;
  stored.name = "every op";
  std::vector<Tensor> all = results;
  all.insert(all.end(), expected.begin(), expected.end());
  plan::Canonical canonical = plan::canonicalise({}, all);
  stored.graph = std::move(canonical.graph);
  stored.scalars = std::move(canonical.scalars);
  for (const Tensor& input : canonical.inputs) stored.constants.push_back(host_bytes(input));
  stored.outputs = named("y", all.size());
  return stored;
}

std::filesystem::path golden_file() {
  return std::filesystem::path(FLUXION_SOURCE_DIR) / "tests/engine/golden/every-op-1.graph";
}

}  // namespace

TEST_CASE("a stored function comes back as it was and gives equal bits", "[export]") {
  const Device device = cpu({.threads = 1}), other = reference();
  for (const OpExample& example : op_examples()) {
    INFO(example.label);
    const std::vector<Tensor> inputs = to_tensors(example.inputs, device, DType::f32);
    const StoredGraph stored = stored_function(example.label, inputs, example.f);
    const StoredGraph read = parse_graph(serialise(stored));
    CHECK(read == stored);
    const std::vector<Tensor> expected = example.f(inputs), got = call(read, inputs, device);
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      CHECK(got[i].type() == expected[i].type());
      CHECK(host_bytes(got[i]) == host_bytes(expected[i]));
    }
    // Another device plans the same file for itself.
    const std::vector<Tensor> elsewhere =
        call(read, to_tensors(example.inputs, other, DType::f32), other);
    for (const Tensor& each : elsewhere) CHECK_NOTHROW(eval(each));
  }
}

TEST_CASE("a stored NaN equals itself, and what no reader takes is not written", "[export]") {
  const Tensor x = full({3}, 1, DType::f32, cpu({.threads = 1}));
  const StoredGraph graph = stored_function("f", {x}, [](const std::vector<Tensor>& in) {
    return std::vector<Tensor>{where(gt(in[0], 0.0), in[0], std::nan(""))};
  });
  CHECK(parse_graph(serialise(graph)) == graph);
  const StoredGraph far = stored_function("f", {x}, [](const std::vector<Tensor>& in) {
    return std::vector<Tensor>{slice(in[0], {0}, {3}, {std::int64_t{1} << 50})};
  });
  CHECK_THROWS_AS(serialise(far), Error);
}

TEST_CASE("what is stored is simplified, but no op is taken apart", "[export]") {
  const Device device = cpu({.threads = 1});
  const Tensor x = full({2, 4, 8}, 1, DType::f32, device);
  const StoredGraph stored = stored_function("f", {x}, [](const std::vector<Tensor>& in) {
    const Tensor h = layer_norm(in[0], 1e-6) * 1.0 + 0.0;
    const Tensor unused = exp(in[0]);
    return std::vector<Tensor>{attention(h, h, softmax(h)) + attention(h, h, softmax(h))};
  });
  std::multiset<Op> ops;
  for (const plan::GraphNode& node : stored.graph.nodes) ops.insert(node.op);
  for (const Op op : {Op::layer_norm, Op::softmax, Op::attention, Op::add}) {
    INFO(to_string(op));
    CHECK(ops.count(op) == 1);
  }
  for (const Op op : {Op::exp, Op::max, Op::matmul, Op::rsqrt}) CHECK(ops.count(op) == 0);
}

TEST_CASE("captured values, numbers and names travel with a function", "[export]") {
  const Device device = cpu({.threads = 1});
  const Tensor w = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {3, 2}, device);
  const Tensor mask = Tensor::from(std::vector<std::int32_t>{0, 1}, {2}, device);
  const TensorFunction f = [=](const std::vector<Tensor>& in) {
    const Tensor y = matmul(in[0], w) * 2.5;
    return std::vector<Tensor>{where(eq(mask, 1.0), y, -std::numeric_limits<double>::infinity())};
  };
  const Tensor x = Tensor::from(std::vector<float>{1, 0, 2}, {1, 3}, device);
  StoredGraph stored = stored_function("scores", {x}, f);
  stored.inputs[0] = {"dx", "tangent"};
  stored.graph.donated = {0};
  const ScratchFolder folder;
  save_graph(folder / "f.graph", stored);
  const StoredGraph read = load_graph(folder / "f.graph");
  CHECK(read == stored);
  CHECK(read.constants.size() == 2);
  CHECK(read.graph.donated == std::vector<std::int32_t>{0});
  CHECK(host_bytes(call(read, std::vector{x}, device)[0]) == host_bytes(f({x})[0]));

  // The signature is enforced, by name.
  const auto message = [&](const std::vector<Tensor>& arguments) {
    return message_of([&] { call(read, arguments, device); });
  };
  CHECK(message({}).find("wants 1 arguments, got 0") != std::string::npos);
  CHECK(message({Tensor()}).find("'dx' holds no tensor") != std::string::npos);
  CHECK(message({w}).find("'dx' is f32[1, 3], got f32[3, 2]") != std::string::npos);
  CHECK(message({x.to(DType::f64)}).find("'dx' is f32[1, 3], got f64[1, 3]") != std::string::npos);
}

TEST_CASE("a file of version 1 with every op and attribute is read, checked and run", "[export]") {
  const StoredGraph stored = load_graph(golden_file());
  std::set<Op> ops;
  std::set<std::size_t> attributes;
  for (const plan::GraphNode& node : stored.graph.nodes) {
    ops.insert(node.op);
    attributes.insert(node.attributes.index());
  }
  // Ops and kinds of attributes that version 1 of the format knew.
  CHECK(ops.size() == 66);
  CHECK(attributes.size() == 16);
  REQUIRE(stored.outputs.size() % 2 == 0);
  const std::size_t half = stored.outputs.size() / 2;
  for (const Device& device : {reference(), cpu({.threads = 1})}) {
    const std::vector<Tensor> results = call(stored, {}, device);
    for (std::size_t i = 0; i < half; ++i) {
      INFO("output " << i << " on " << device.name());
      const double loose = device.name() == "reference" ? 1e-6 : 1e-4;
      CHECK(difference(results[i], results[half + i], loose, loose) == "");
    }
  }
  // It would be written as it is: the encoding is unchanged.
  const MappedFile file(golden_file());
  CHECK(serialise(stored) == Bytes(file.bytes().begin(), file.bytes().end()));
}

TEST_CASE("the graph file that covers every op is up to date", "[export]") {
  std::set<Op> ops;
  for (const plan::GraphNode& node : every_op().graph.nodes) ops.insert(node.op);
  for (int number = 0; number < op_count; ++number) {
    const auto op = static_cast<Op>(number);
    if (op == Op::data || op == Op::region) continue;  // stand in no graph of the planner's
    INFO(to_string(op));
    CHECK(ops.contains(op));
  }
}

// To write the golden file of a new version: fluxion-tests "[write-golden-graph]"
TEST_CASE("write the graph file that covers every op", "[.][write-golden-graph]") {
  // (A filter such as "*graph*" runs this too.)
  if (std::filesystem::exists(golden_file())) {
    WARN("it is there, and files of old versions stay as they are");
    return;
  }
  save_graph(golden_file(), every_op());
}

TEST_CASE("names that this version does not know are refused by name", "[export]") {
  const Device device = cpu({.threads = 1});
  const Tensor x = full({2, 3}, 1, DType::f32, device);
  const Bytes file = serialise(stored_function("f", {x}, [](const std::vector<Tensor>& in) {
    return std::vector<Tensor>{sum(tanh(in[0]) * 2.5, {1}), softmax(in[0], 0), argmax(in[0], 1)};
  }));
  REQUIRE(file_refusal(file) == "");
  CHECK(file_refusal(replaced(file, "tanh", "tahn")).find("op 'tahn'") != std::string::npos);
  CHECK(file_refusal(replaced(file, "axes", "axle")).find("attribute 'axle' of sum") !=
        std::string::npos);
  CHECK(file_refusal(replaced(file, "\4ints", "\4inns")).find("of the kind 'inns', not ints") !=
        std::string::npos);
  CHECK(file_refusal(replaced(file, "f32", "f08")).find("element type 'f08'") != std::string::npos);
  CHECK(file_refusal(replaced(file, "scalars", "scalarz")).find("section 'scalarz'") !=
        std::string::npos);
  CHECK(file_refusal(replaced(file, "primal", "prymal")).find("the role 'prymal'") !=
        std::string::npos);
  CHECK(file_refusal(replaced(file, "\4axis", "\4axes")).find("attribute 'axes'") !=
        std::string::npos);

  Bytes other = file;
  other[8] = std::byte{2};
  CHECK(file_refusal(other).find("version 2, this library reads version 1") != std::string::npos);
  other = file;
  other[0] = std::byte{'F'};
  CHECK(file_refusal(other).find("no graph") != std::string::npos);
  other = file;
  other.back() ^= std::byte{1};
  CHECK(file_refusal(other).find("checksum") != std::string::npos);
  other = file;
  other.pop_back();
  CHECK(file_refusal(other).find("cut short") != std::string::npos);
  other = file;
  other.push_back({});
  CHECK(file_refusal(other).find("cut short, or something follows") != std::string::npos);
  CHECK(file_refusal({}).find("no graph") != std::string::npos);
}

TEST_CASE("a graph that breaks a rule is refused, whatever its checksum says", "[export]") {
  const Device device = cpu({.threads = 1});
  const Tensor x = full({2, 3}, 1, DType::f32, device);
  const StoredGraph good = stored_function("f", {x}, [=](const std::vector<Tensor>& in) {
    return std::vector<Tensor>{sum(in[0] * 2.5, {1}) + iota({2}, 0, DType::f32, device),
                               cumsum(flip(in[0], {0, 1}), 1)};
  });
  const auto broken = [&](const std::function<void(StoredGraph&)>& change) {
    StoredGraph stored = good;
    change(stored);
    CHECK_THROWS_AS(check(stored), Error);
    CHECK_THROWS_AS(serialise(stored), Error);
  };
  const auto find = [](StoredGraph& stored, Op op) -> plan::GraphNode& {
    for (plan::GraphNode& node : stored.graph.nodes)
      if (node.op == op) return node;
    throw Error("no such node");
  };
  CHECK_NOTHROW(check(good));
  broken([&](StoredGraph& s) { find(s, Op::mul).inputs.pop_back(); });
  broken([&](StoredGraph& s) { find(s, Op::mul).inputs[0].node = plan::NodeId(1000); });
  broken([&](StoredGraph& s) { find(s, Op::mul).inputs[0].output = 1; });
  broken([&](StoredGraph& s) { find(s, Op::mul).attributes = AxisAttributes{}; });
  broken([&](StoredGraph& s) { find(s, Op::mul).outputs[0].dtype = DType::f64; });
  broken([&](StoredGraph& s) { find(s, Op::mul).op = Op::region; });
  broken([&](StoredGraph& s) { find(s, Op::constant).scalar = 7; });
  broken([&](StoredGraph& s) { find(s, Op::constant).outputs[0].shape = Shape{2}; });
  broken([&](StoredGraph& s) { find(s, Op::constant).attributes = ValueAttributes{3}; });
  broken([&](StoredGraph& s) { find(s, Op::iota).attributes = AxisAttributes{1}; });
  broken([&](StoredGraph& s) { find(s, Op::iota).op = Op::data; });
  for (const Dims& axes : {Dims{1, 1}, Dims{-1}, Dims{2}})
    broken([&](StoredGraph& s) { find(s, Op::sum).attributes = AxesAttributes{axes}; });
  for (const Dims& axes : {Dims{0, 0}, Dims{1, 0}, Dims{-1}, Dims{0, 2}})
    broken([&](StoredGraph& s) { find(s, Op::flip).attributes = AxesAttributes{axes}; });
  for (const std::int64_t axis : {-1, 2})
    broken([&](StoredGraph& s) { find(s, Op::cumsum).attributes = AxisAttributes{axis}; });
  broken([&](StoredGraph& s) { find(s, Op::parameter).attributes = IndexAttributes{-1}; });
  broken([&](StoredGraph& s) { find(s, Op::parameter).attributes = IndexAttributes{1}; });
  broken([&](StoredGraph& s) { s.scalars[0] = 1e39; });
  broken([&](StoredGraph& s) { s.scalars.push_back(1); });
  broken([&](StoredGraph& s) { s.constants.emplace_back(); });
  broken([&](StoredGraph& s) { s.inputs.clear(); });
  broken([&](StoredGraph& s) { s.outputs.clear(); });
  broken([&](StoredGraph& s) { s.graph.donated = {0, 0}; });
  broken([&](StoredGraph& s) { s.graph.donated = {1}; });
  broken([&](StoredGraph& s) { s.graph.outputs[0].output = 1; });
  broken([&](StoredGraph& s) { s.graph.outputs[0].node = {}; });
}

TEST_CASE("a boolean in a file is 0 or 1", "[export]") {
  const Device device = cpu({.threads = 1});
  const std::vector<std::uint8_t> bytes{1, 2, 1, 255, 1, 1, 1, 3};
  const Tensor captured =
      Tensor::from_bytes(std::as_bytes(std::span(bytes)), {{8}, DType::boolean}, device);
  const Tensor x = full({8}, 1, DType::f32, device);
  const StoredGraph stored = stored_function("f", {x}, [=](const std::vector<Tensor>& in) {
    return std::vector<Tensor>{where(captured, in[0], 0.0)};
  });
  REQUIRE(stored.constants.size() == 1);
  CHECK(stored.constants[0] == Bytes(8, std::byte{1}));
  const Bytes file = replaced(serialise(stored), std::string(8, '\1'), "\1\1\1\2\1\1\1\1");
  CHECK(file_refusal(file).find("constant 0, bool[8], has the byte 2; a boolean is 0 or 1") !=
        std::string::npos);
}

TEST_CASE("an index in a file that its type can't hold is refused", "[export]") {
  const Device device = cpu({.threads = 1});
  const std::int64_t longest = std::int64_t{1} << 31;
  const Tensor x = full({2}, 1, DType::f32, device);
  const StoredGraph stored = stored_function("f", {x}, [=](const std::vector<Tensor>& in) {
    const Tensor index = iota({longest}, 0, DType::i32, device);
    return std::vector<Tensor>{in[0] + convert(slice_axis(index, 0, 7, 9), DType::f32)};
  });
  const auto text = [](std::int64_t size) {
    return std::string(reinterpret_cast<const char*>(&size), sizeof size);
  };
  const Bytes file = replaced(serialise(stored), text(longest), text(longest + 1));
  CHECK(file_refusal(file).find("is an iota of i32[2147483649], which can't count its axis") !=
        std::string::npos);
}

TEST_CASE("damaged graph files are refused or whole, with any checksum", "[export]") {
  const Device device = reference();
  std::mt19937 random(20261128);
  std::vector<Bytes> files;
  for (const OpExample& example : op_examples())
    files.push_back(serialise(
        stored_function(example.label, to_tensors(example.inputs, device, DType::f32), example.f)));
  int accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    Bytes file = mutate(files[random() % files.size()], random);
    seal(file);
    try {
      check(parse_graph(file));
      ++accepted;
    } catch (const FormatError&) {
    }
  }
  INFO(accepted << " of 20000 were whole");
  CHECK(accepted > 0);
  CHECK(accepted < 15'000);
}

TEST_CASE("a file with a tensor larger than any is refused as a file", "[export]") {
  const Tensor x = full({7919}, 1, DType::f64, reference());
  Bytes file = serialise(stored_function(
      "f", {x}, [](const std::vector<Tensor>& in) { return std::vector<Tensor>{exp(in[0])}; }));
  const std::int64_t size = 7919, larger = std::int64_t{1} << 48;
  std::array<std::byte, 8> pattern;
  std::memcpy(pattern.data(), &size, 8);
  const auto at = std::search(file.begin(), file.end(), pattern.begin(), pattern.end());
  REQUIRE(at != file.end());
  std::memcpy(&*at, &larger, 8);
  seal(file);
  CHECK_THROWS_AS(parse_graph(file), FormatError);
}

TEST_CASE("a file's counts cost nothing before its bytes are there", "[export]") {
  // Sections whose first count claims four thousand million items.
  const Device device = reference();
  const Tensor x = full({2}, 1, DType::f32, device);
  const Bytes file = serialise(stored_function(
      "f", {x}, [](const std::vector<Tensor>& in) { return std::vector<Tensor>{exp(in[0])}; }));
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  for (const std::string name : {"inputs", "constants", "outputs", "scalars", "nodes"}) {
    Bytes damaged = file;
    const std::size_t at = text.find(static_cast<char>(name.size()) + name);
    REQUIRE(at != std::string_view::npos);
    for (std::size_t k = 0; k < 4; ++k) damaged[at + 1 + name.size() + 8 + k] = std::byte{0xff};
    seal(damaged);
    INFO(name);
    CHECK(file_refusal(damaged).find("do not fit the bytes that are left") != std::string::npos);
  }
}

TEST_CASE("the checksum is the usual CRC-32", "[export]") {
  const std::string_view digits = "123456789";
  CHECK(crc32(std::as_bytes(std::span(digits))) == 0xCBF43926u);
  CHECK(crc32({}) == 0);
}

TEST_CASE("the checksum of many bytes is that of bit after bit", "[export]") {
  std::vector<std::byte> bytes;
  for (std::uint32_t i = 0; i < 20'000; ++i)
    bytes.push_back(std::byte((i * i * 2654435761u) >> 24));
  const auto plain = [](std::span<const std::byte> of) {
    std::uint32_t rest = 0xFFFFFFFFu;
    for (const std::byte each : of) {
      rest ^= std::to_integer<std::uint32_t>(each);
      for (int bit = 0; bit < 8; ++bit) rest = (rest >> 1) ^ ((rest & 1) != 0 ? 0xEDB88320u : 0u);
    }
    return ~rest;
  };
  for (const std::size_t size : {7, 8, 9, 255, 4095, 4096, 4097, 4103, 4127, 4128, 19'999}) {
    INFO(size);
    CHECK(crc32(std::span(bytes).first(size)) == plain(std::span(bytes).first(size)));
    CHECK(crc32(std::span(bytes).subspan(1, size)) == plain(std::span(bytes).subspan(1, size)));
  }
}
