// The reference backend against values worked out by hand. Programs are built here, kernel by
// kernel, so nothing but the backend is under test.
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "backends/reference/reference.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "engine/graph/shape_rules.h"
#include "tests/catch.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

using Values = std::vector<double>;

struct OperandValues {
  Shape shape;
  Values values;
  DType dtype = DType::f32;
};

template <class T>
std::vector<std::byte> stored(const Values& values) {
  std::vector<std::byte> bytes;
  for (const double value : values) {
    const T each = static_cast<T>(value);
    const auto* start = reinterpret_cast<const std::byte*>(&each);
    bytes.insert(bytes.end(), start, start + sizeof(T));
  }
  return bytes;
}
template <class T>
Values loaded(const std::vector<std::byte>& bytes) {
  Values values;
  for (std::size_t i = 0; i < bytes.size(); i += sizeof(T)) {
    T each;
    std::memcpy(&each, &bytes[i], sizeof(T));
    values.push_back(static_cast<double>(each));
  }
  return values;
}

std::vector<std::byte> stored(const Values& values, DType dtype) {
  switch (dtype) {
    case DType::i32:
      return stored<std::int32_t>(values);
    case DType::u32:
      return stored<std::uint32_t>(values);
    case DType::i64:
      return stored<std::int64_t>(values);
    case DType::f32:
      return stored<float>(values);
    case DType::f64:
      return stored<double>(values);
    default:
      return stored<std::uint8_t>(values);
  }
}
Values loaded(const std::vector<std::byte>& bytes, DType dtype) {
  switch (dtype) {
    case DType::i32:
      return loaded<std::int32_t>(bytes);
    case DType::u32:
      return loaded<std::uint32_t>(bytes);
    case DType::i64:
      return loaded<std::int64_t>(bytes);
    case DType::f32:
      return loaded<float>(bytes);
    case DType::f64:
      return loaded<double>(bytes);
    default:
      return loaded<std::uint8_t>(bytes);
  }
}

// A program of one kernel. Input i is buffer i, the output the last.
Program one_op(Op op, const Attributes& attributes, const std::vector<TensorType>& inputs,
               const TensorType& output) {
  Program program;
  OpKernel kernel{op, attributes, {}, {static_cast<std::int32_t>(inputs.size())}, inputs, {output}};
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    program.buffers.push_back({BufferKind::input, inputs[i], static_cast<std::int64_t>(i), 0});
    kernel.inputs.push_back(static_cast<std::int32_t>(i));
  }
  program.buffers.push_back({BufferKind::output, output, 0, 0});
  program.inputs = inputs;
  program.outputs = {output};
  program.donations = {-1};
  program.commit_point = 1;
  program.kernels = {kernel};
  return program;
}

Values run_op(Op op, const Attributes& attributes, const std::vector<OperandValues>& operands,
              std::optional<TensorType> stated = {}) {
  const Device device = reference();
  std::vector<TensorType> types;
  std::vector<std::shared_ptr<Buffer>> owned;
  std::vector<Buffer*> inputs;
  for (const OperandValues& operand : operands) {
    types.push_back({operand.shape, operand.dtype});
    const std::vector<std::byte> bytes = stored(operand.values, operand.dtype);
    REQUIRE(bytes.size() == types.back().bytes());
    owned.push_back(device.backend().allocate(bytes.size()));
    device.backend().upload(*owned.back(), operand.dtype, bytes);
    inputs.push_back(owned.back().get());
  }
  const TensorType output =
      stated ? *stated : infer_types(op, attributes, types, Location::current())[0];
  const Program program = one_op(op, attributes, types, output);
  verify(program);
  const auto result = device.backend().allocate(output.bytes());
  Buffer* const outputs[] = {result.get()};
  device.backend().compile(program)->run({inputs, outputs, {}}, {});
  std::vector<std::byte> bytes(output.bytes());
  device.backend().download(*result, output.dtype, bytes);
  return loaded(bytes, output.dtype);
}
Values run_op(Op op, const std::vector<OperandValues>& operands) {
  return run_op(op, NoAttributes{}, operands);
}

const double nan_value = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("reference: leaves", "[backends][reference]") {
  CHECK(run_op(Op::constant, ValueAttributes{2.5}, {}, TensorType{{}, DType::f32}) == Values{2.5});
  CHECK(run_op(Op::iota, AxisAttributes{0}, {}, TensorType{{2, 3}, DType::i32}) ==
        Values{0, 0, 0, 1, 1, 1});
  CHECK(run_op(Op::iota, AxisAttributes{1}, {}, TensorType{{2, 3}, DType::f64}) ==
        Values{0, 1, 2, 0, 1, 2});
}

TEST_CASE("reference: elementwise ops", "[backends][reference]") {
  CHECK(run_op(Op::neg, {{{2}, {1, -2}}}) == Values{-1, 2});
  CHECK(run_op(Op::exp, {{{1}, {1}, DType::f64}}) == Values{std::exp(1.0)});
  CHECK(run_op(Op::sign, {{{4}, {-3, 0, 5, infinity}}}) == Values{-1, 0, 1, 1});
  CHECK(std::isnan(run_op(Op::sign, {{{1}, {nan_value}}})[0]));
  CHECK(run_op(Op::rsqrt, {{{2}, {4, 0}}}) == Values{0.5, infinity});
  CHECK(run_op(Op::sigmoid, {{{3}, {0, infinity, -infinity}}}) == Values{0.5, 1, 0});
  CHECK(std::isnan(run_op(Op::maximum, {{{1}, {nan_value}}, {{1}, {1}}})[0]));
  CHECK(std::isnan(run_op(Op::minimum, {{{1}, {1}}, {{1}, {nan_value}}})[0]));
  CHECK(run_op(Op::sub, {{{2}, {5, 3}, DType::i32}, {{2}, {7, 3}, DType::i32}}) == Values{-2, 0});
  CHECK(run_op(Op::mul, {{{1}, {4294967295.0}, DType::u32}, {{1}, {3}, DType::u32}}) ==
        Values{4294967293.0});
  CHECK(run_op(Op::shift_right, {{{2}, {4294967295.0, 8}, DType::u32},
                                 {{2}, {28, 3}, DType::u32}}) == Values{15, 1});
  CHECK(run_op(Op::lt, {{{3}, {1, 2, nan_value}}, {{3}, {2, 2, 2}}}) == Values{1, 0, 0});
  CHECK(run_op(Op::ne, {{{2}, {1, nan_value}}, {{2}, {1, nan_value}}}) == Values{0, 1});
  CHECK(run_op(Op::where, {{{2}, {1, 0}, DType::boolean}, {{2}, {1, 2}}, {{2}, {3, 4}}}) ==
        Values{1, 4});
}

TEST_CASE("reference: conversions truncate, saturate and take NaN to zero",
          "[backends][reference]") {
  const OperandValues values{{7}, {1.9, -1.9, nan_value, 1e20, -1e20, infinity, 300}, DType::f64};
  const auto to = [&](DType dtype) {
    return run_op(Op::convert, DTypeAttributes{dtype}, {values});
  };
  CHECK(to(DType::i32) == Values{1, -1, 0, 2147483647, -2147483648.0, 2147483647, 300});
  CHECK(to(DType::u32) == Values{1, 0, 0, 4294967295.0, 0, 4294967295.0, 300});
  CHECK(to(DType::u8) == Values{1, 0, 0, 255, 0, 255, 255});
  CHECK(to(DType::boolean) == Values{1, 1, 1, 1, 1, 1, 1});
  CHECK(run_op(Op::convert, DTypeAttributes{DType::i32}, {{{2}, {4294967295.0, 5}, DType::u32}}) ==
        Values{-1, 5});
  CHECK(run_op(Op::convert, DTypeAttributes{DType::f32}, {{{1}, {16777217}, DType::f64}}) ==
        Values{16777216});
}

TEST_CASE("reference: movement", "[backends][reference]") {
  const OperandValues x{{2, 3}, {1, 2, 3, 4, 5, 6}};
  CHECK(run_op(Op::reshape, ShapeAttributes{{3, 2}}, {x}) == x.values);
  CHECK(run_op(Op::transpose, AxesAttributes{{1, 0}}, {x}) == Values{1, 4, 2, 5, 3, 6});
  CHECK(run_op(Op::transpose, AxesAttributes{{1, 2, 0}}, {{{2, 1, 3}, {1, 2, 3, 4, 5, 6}}}) ==
        Values{1, 4, 2, 5, 3, 6});
  CHECK(run_op(Op::broadcast_to, ShapeAttributes{{2, 2, 3}}, {{{1, 3}, {1, 2, 3}}}) ==
        Values{1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3});
  CHECK(run_op(Op::slice, SliceAttributes{{0, 0}, {2, 3}, {1, 2}}, {x}) == Values{1, 3, 4, 6});
  CHECK(run_op(Op::pad, PadAttributes{{1, 0}, {0, 1}, 9}, {x}) ==
        Values{9, 9, 9, 9, 1, 2, 3, 9, 4, 5, 6, 9});
  CHECK(run_op(Op::flip, AxesAttributes{{1}}, {x}) == Values{3, 2, 1, 6, 5, 4});
  CHECK(run_op(Op::concat, AxisAttributes{1}, {x, {{2, 0}, {}}, {{2, 1}, {7, 8}}}) ==
        Values{1, 2, 3, 7, 4, 5, 6, 8});
}

TEST_CASE("reference: reductions", "[backends][reference]") {
  const OperandValues x{{2, 3}, {1, 5, 3, 4, 2, 6}};
  CHECK(run_op(Op::sum, AxesAttributes{{0}}, {x}) == Values{5, 7, 9});
  CHECK(run_op(Op::sum, AxesAttributes{{0, 1}}, {x}) == Values{21});
  CHECK(run_op(Op::max, AxesAttributes{{1}}, {x}) == Values{5, 6});
  CHECK(run_op(Op::min, AxesAttributes{{0}}, {x}) == Values{1, 2, 3});
  CHECK(run_op(Op::max, AxesAttributes{{0}}, {{{0, 1}, {}}}) == Values{-infinity});
  CHECK(run_op(Op::min, AxesAttributes{{0}}, {{{0, 1}, {}, DType::u32}}) == Values{4294967295.0});
  CHECK(std::isnan(run_op(Op::max, AxesAttributes{{0}}, {{{3}, {1, nan_value, 2}}})[0]));
  CHECK(run_op(Op::argmax, AxisAttributes{1}, {{{2, 3}, {1, 5, 5, nan_value, 9, nan_value}}}) ==
        Values{1, 0});
  CHECK(run_op(Op::argmax, AxisAttributes{0}, {{{3}, {1, nan_value, 9}}}) == Values{1});
  CHECK(run_op(Op::cumsum, AxisAttributes{0}, {x}) == Values{1, 5, 3, 5, 7, 9});
  CHECK(run_op(Op::cumsum, AxisAttributes{1}, {x}) == Values{1, 6, 9, 4, 6, 12});
}

TEST_CASE("reference: matrix products", "[backends][reference]") {
  CHECK(run_op(Op::matmul, ContractAttributes{},
               {{{2, 3}, {1, 2, 3, 4, 5, 6}}, {{3, 2}, {1, 0, 0, 1, 1, 1}}}) ==
        Values{4, 5, 10, 11});
  CHECK(run_op(Op::matmul, ContractAttributes{},
               {{{2, 1, 1}, {2, 3}}, {{2, 1, 2}, {1, 2, 3, 4}}}) == Values{2, 4, 9, 12});
  CHECK(run_op(Op::matmul, ContractAttributes{}, {{{1, 0}, {}}, {{0, 2}, {}}}) == Values{0, 0});
}

TEST_CASE("reference: index ops", "[backends][reference]") {
  const OperandValues x{{2, 3}, {1, 2, 3, 4, 5, 6}};
  CHECK(run_op(Op::take, AxisAttributes{1}, {x, {{2}, {2, 0}, DType::i32}}) == Values{3, 1, 6, 4});
  CHECK(run_op(Op::take, AxisAttributes{0}, {x, {{1, 2}, {9, -9}, DType::i32}}) ==
        Values{4, 5, 6, 1, 2, 3});
  CHECK(run_op(Op::index_add, AxisAttributes{0},
               {x, {{2}, {1, 1}, DType::i32}, {{2, 3}, {1, 1, 1, 2, 2, 2}}}) ==
        Values{1, 2, 3, 7, 8, 9});
  CHECK(run_op(Op::take_along_axis, AxisAttributes{1}, {x, {{2, 1}, {2, 0}, DType::i32}}) ==
        Values{3, 4});
  CHECK(run_op(Op::scatter_add, AxisAttributes{1},
               {x, {{2, 2}, {0, 0, 2, 1}, DType::i32}, {{2, 2}, {10, 10, 10, 10}}}) ==
        Values{21, 2, 3, 4, 15, 16});
}

TEST_CASE("reference: what it does not run, it refuses", "[backends][reference]") {
  const Device device = reference();
  Program program;
  program.kernels = {TapeKernel{}};
  CHECK_THROWS_AS(device.backend().compile(program), Error);

  program = one_op(Op::neg, NoAttributes{}, {{{4}, DType::f32}}, {{4}, DType::f32});
  program.arena_bytes = 128;
  const auto executable = device.backend().compile(program);
  const auto from = device.backend().allocate(16), to = device.backend().allocate(16);
  Buffer* const in[] = {from.get()};
  Buffer* const out[] = {to.get()};
  CHECK_THROWS_AS(executable->run({in, out, {}}, {{}, 127}), OutOfMemory);
  std::stop_source source;
  source.request_stop();
  CHECK_THROWS_AS(executable->run({in, out, {}}, {source.get_token()}), Cancelled);
  CHECK_NOTHROW(executable->run({in, out, {}}, {}));
}
