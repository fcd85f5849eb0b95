#include <functional>
#include <limits>
#include <random>

#include "backends/cpu/cpu.h"
#include "engine/backend.h"
#include "engine/compile.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/program/program.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/fuzz/hostile_programs.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

BufferSlot input(std::int64_t index, TensorType type) {
  return {BufferKind::input, std::move(type), index, 0};
}
BufferSlot output(std::int64_t index, TensorType type) {
  return {BufferKind::output, std::move(type), index, 0};
}
BufferSlot temporary(std::int64_t offset, TensorType type) {
  return {BufferKind::temporary, std::move(type), 0, offset};
}

TapeInstruction load(std::int32_t which, bool narrow = false) {
  return {TapeCode::load, Op::identity, DType::f32, narrow, which, {-1, -1, -1}};
}
TapeInstruction scalar(std::int32_t which) {
  return {TapeCode::scalar, Op::identity, DType::f32, false, which, {-1, -1, -1}};
}
TapeInstruction result(std::int32_t which) {
  return {TapeCode::result, Op::identity, DType::f32, false, which, {-1, -1, -1}};
}
TapeInstruction apply(Op op, std::int32_t a, std::int32_t b = -1) {
  return {TapeCode::apply, op, DType::f32, false, 0, {a, b, -1}};
}
TapeInstruction reduce(Op op, std::int32_t a) {
  return {TapeCode::reduce, op, DType::f32, true, 0, {a, -1, -1}};
}

// One kernel of each kind: t = x w + s y padded by one column in front; y = softmax(t); rows of y
// taken by index.
//   x f32[4, 3], w f32[3, 5], bias f32[4, 4], indices i32[2] -> f32[2, 5]
Program example() {
  const TensorType x{{4, 3}, DType::f32}, w{{3, 5}, DType::f32}, bias{{4, 4}, DType::f32},
      indices{{2}, DType::i32}, t{{4, 5}, DType::f32}, y{{2, 5}, DType::f32};
  Program program;
  program.inputs = {x, w, bias, indices};
  program.outputs = {y};
  program.buffers = {input(0, x),     input(1, w),       input(2, bias), input(3, indices),
                     temporary(0, t), temporary(128, t), output(0, y)};
  program.donations = {-1};
  program.scalars = 1;
  program.arena_bytes = 256;
  program.commit_point = 3;

  ContractKernel product;
  product.m = 4;
  product.n = 5;
  product.k = 3;
  product.terms = {{{0, 0, {}, {{4}, {3}}, {{3}, {1}}}, {1, 0, {}, {{3}, {5}}, {{5}, {1}}}, 0}};
  product.epilogue.extents = {4, 5};
  product.epilogue.loads = {{2, DType::f32, {-1, {4, 1}}, {{{{0, {0, 1}}, 1, 5}, 1}}}};
  product.epilogue.instructions = {result(0), load(0), scalar(0), apply(Op::mul, 1, 2),
                                   apply(Op::add, 0, 3)};
  product.epilogue.stores = {{4, 4, DType::f32, {0, {5, 1}}}};

  TapeKernel softmax;
  softmax.tape.extents = {4, 5};
  softmax.tape.reduced_axes = 1;
  softmax.tape.loads = {{4, DType::f32, {0, {5, 1}}, {}}};
  softmax.tape.instructions = {load(0),           reduce(Op::max, 0), apply(Op::sub, 0, 1),
                               apply(Op::exp, 2), reduce(Op::sum, 3), apply(Op::div, 3, 4)};
  softmax.tape.stores = {{5, 5, DType::f32, {0, {5, 1}}}};

  OpKernel take{Op::take, AxisAttributes{0}, {5, 3}, {6}, {t, indices}, {y}};
  program.kernels = {product, softmax, take};
  return program;
}

// z = x + y in the memory of x.
Program in_place() {
  const TensorType type{{6}, DType::f32};
  Program program;
  program.inputs = {type, type};
  program.outputs = {type};
  program.buffers = {input(0, type), input(1, type), output(0, type)};
  program.donations = {0};
  TapeKernel add;
  add.tape.extents = {6};
  add.tape.loads = {{0, DType::f32, {0, {1}}, {}}, {1, DType::f32, {0, {1}}, {}}};
  add.tape.instructions = {load(0), load(1), apply(Op::add, 0, 1)};
  add.tape.stores = {{2, 2, DType::f32, {0, {1}}}};
  program.kernels = {add};
  return program;
}

Tape& epilogue(Program& program) { return std::get<ContractKernel>(program.kernels[0]).epilogue; }
Tape& softmax(Program& program) { return std::get<TapeKernel>(program.kernels[1]).tape; }

}  // namespace

TEST_CASE("a program prints as a listing", "[engine][program]") {
  CHECK(to_string(example()) ==
        R"(program: 4 inputs, 1 output, 3 kernels, 1 scalar, arena 256 bytes
  b0  input 0   f32[4, 3]
  b1  input 1   f32[3, 5]
  b2  input 2   f32[4, 4]
  b3  input 3   i32[2]
  b4  at 0      f32[4, 5]
  b5  at 128    f32[4, 5]
  b6  output 0  f32[2, 5]
kernel 0: contract f32, batch 1, 4 x 3 x 5
  r0 += b0 (batch 1, rows 4:3, columns 3:1)
      x b1 (batch 1, rows 3:5, columns 5:1)
  epilogue [4, 5]
    v0  f32   result  r0
    v1  f32   load    b2[4*i0 + i1 - 1] where 1 <= i1 < 5
    v2  f32   scalar  s0
    v3  f32   mul     v1, v2
    v4  f32   add     v0, v3
              store   b4[5*i0 + i1] <- v4
kernel 1: rows [4 | 5]
  v0  f32       load   b4[5*i0 + i1]
  v1  f32 row   max    v0
  v2  f32       sub    v0, v1
  v3  f32       exp    v2
  v4  f32 row   sum    v3
  v5  f32       div    v3, v4
                store  b5[5*i0 + i1] <- v5
kernel 2: op take axis=0
  b6 f32[2, 5] <- b5 f32[4, 5], b3 i32[2]
)");
}

TEST_CASE("a program that works in place says so", "[engine][program]") {
  CHECK(to_string(in_place()) ==
        R"(program: 2 inputs, 1 output, 1 kernel, arena 0 bytes
  b0  input 0   f32[6]
  b1  input 1   f32[6]
  b2  output 0  f32[6]  takes over input 0
commit
kernel 0: map [6]
  v0  f32   load   b0[i0]
  v1  f32   load   b1[i0]
  v2  f32   add    v0, v1
            store  b2[i0] <- v2
)");
}

TEST_CASE("a contraction prints the dtypes of its operands and its sums where they differ",
          "[engine][program]") {
  Program program = example();
  const auto header = [&] {
    const std::string text = to_string(program);
    const std::size_t start = text.find("contract");
    return text.substr(start, text.find(',', start) - start);
  };
  CHECK(header() == "contract f32");
  std::get<ContractKernel>(program.kernels[0]).rhs = DType::f16;
  CHECK(header() == "contract f32 x f16 -> f32");
}

TEST_CASE("malformed programs still print", "[engine][program]") {
  Program program = example();
  program.buffers.clear();
  epilogue(program).loads.clear();
  CHECK_FALSE(to_string(program).empty());
}

TEST_CASE("serialise and parse give the same program", "[engine][program]") {
  Program mixed = example();
  std::get<ContractKernel>(mixed.kernels[0]).lhs = DType::bf16;
  std::get<ContractKernel>(mixed.kernels[0]).rhs = DType::f16;
  for (const Program& program : {Program{}, example(), in_place(), mixed}) {
    const std::vector<std::byte> bytes = serialise(program);
    CHECK(parse_program(bytes) == program);
    CHECK(serialise(parse_program(bytes)) == bytes);
  }
}

TEST_CASE("every attribute type and every number survives serialisation", "[engine][program]") {
  const double nan = std::bit_cast<double>(std::uint64_t{0x7FF8000000001234});
  const std::vector<std::pair<Op, Attributes>> ops = {
      {Op::neg, NoAttributes{}},
      {Op::parameter, IndexAttributes{-3}},
      {Op::constant, ValueAttributes{nan}},
      {Op::constant, ValueAttributes{-0.0}},
      {Op::iota, AxisAttributes{2}},
      {Op::sum, AxesAttributes{{0, 2}}},
      {Op::convert, DTypeAttributes{DType::bf16}},
      {Op::matmul, ContractAttributes{DType::f32, DType::f16}},
      {Op::reshape, ShapeAttributes{{2, 3}}},
      {Op::slice, SliceAttributes{{0}, {4}, {2}}},
      {Op::pad, PadAttributes{{1}, {0}, -1.5}},
      {Op::random_bits, RandomAttributes{{4}, 1}},
      {Op::layer_norm, EpsilonAttributes{1e-6}}};
  Program program;
  for (const auto& [op, attributes] : ops)
    program.kernels.push_back(
        OpKernel{op, attributes, {0}, {1}, {{{2, 3}, DType::f16}}, {{{}, DType::i64}}});
  program.arena_bytes = std::numeric_limits<std::int64_t>::max();
  program.donations = {-1, std::numeric_limits<std::int32_t>::min()};
  CHECK(parse_program(serialise(program)) == program);
}

TEST_CASE("a program cut short anywhere is refused", "[engine][program]") {
  const std::vector<std::byte> bytes = serialise(example());
  for (std::size_t length = 0; length < bytes.size(); ++length)
    REQUIRE_THROWS_AS(parse_program(std::span(bytes).first(length)), FormatError);
  std::vector<std::byte> longer = bytes;
  longer.push_back(std::byte{0});
  CHECK_THROWS_AS(parse_program(longer), FormatError);
}

TEST_CASE("a program with flipped bits is refused or read, never worse", "[engine][program]") {
  const std::vector<std::byte> bytes = serialise(example());
  std::size_t refused = 0;
  const auto attempt = [&](std::span<const std::byte> damaged) {
    try {
      const Program program = parse_program(damaged);
      message_of([&] { verify(program); });
      to_string(program);
    } catch (const FormatError&) {
      ++refused;
    }
  };
  for (std::size_t i = 0; i < bytes.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      std::vector<std::byte> damaged = bytes;
      damaged[i] ^= static_cast<std::byte>(1 << bit);
      attempt(damaged);
    }
  CHECK(refused > 0);
  std::mt19937 random(7);
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::byte> damaged = bytes;
    for (int j = 0; j < 3; ++j)
      damaged[random() % damaged.size()] = static_cast<std::byte>(random());
    attempt(damaged);
  }
}

TEST_CASE("hostile sizes are refused before anything is allocated", "[engine][program]") {
  std::vector<std::byte> bytes = serialise(Program{});
  // The first list of an empty program, its buffers, starts after the magic and the version.
  for (std::size_t i = 12; i < 20; ++i) bytes[i] = std::byte{0xFF};
  CHECK_THROWS_AS(parse_program(bytes), FormatError);

  Program absurd;
  absurd.inputs = {{{2, 2}, DType::f64}};
  absurd.inputs[0].shape = {std::int64_t{1} << 40, std::int64_t{1} << 40};
  CHECK_THROWS_AS(parse_program(serialise(absurd)), FormatError);
  absurd.inputs[0].shape = {-1};
  CHECK_THROWS_AS(parse_program(serialise(absurd)), FormatError);
}

TEST_CASE("another version and other bytes are refused with a reason", "[engine][program]") {
  std::vector<std::byte> bytes = serialise(example());
  bytes[8] = std::byte{9};
  CHECK_THROWS_WITH(parse_program(bytes), has_text("version 9"));
  CHECK_THROWS_WITH(parse_program(std::vector<std::byte>(40)), has_text("no program"));
}

TEST_CASE("verify accepts sound programs", "[engine][program]") {
  CHECK(message_of([] { verify(Program{}); }) == "");
  CHECK(message_of([] { verify(example()); }) == "");
  CHECK(message_of([] { verify(in_place()); }) == "");
}

TEST_CASE("verify names what is wrong", "[engine][program]") {
  struct Damage {
    const char* expected;
    std::function<void(Program&)> apply;
  };
  const Damage damages[] = {
      {"reads elements", [](Program& p) { epilogue(p).loads[0].guards.clear(); }},
      {"reads elements", [](Program& p) { epilogue(p).loads[0].guards[0].stride = 0; }},
      {"reads elements",
       [](Program& p) {
         epilogue(p).loads[0].guards[0].range.high = 6;
         epilogue(p).loads[0].address.constant = 0;
       }},
      {"reads elements", [](Program& p) { softmax(p).loads[0].address.constant = 1; }},
      {"reads elements",
       [](Program& p) { std::get<ContractKernel>(p.kernels[0]).terms[0].lhs.offset = -1; }},
      {"writes elements", [](Program& p) { softmax(p).stores[0].address.constant = 1; }},
      {"writes one element several times",
       [](Program& p) { softmax(p).stores[0].address.coefficients[0] = 0; }},
      {"which is an input",
       [](Program& p) {
         softmax(p).stores[0].buffer = 2;
         softmax(p).stores[0].address.coefficients[0] = 4;
         softmax(p).extents[1] = 4;
       }},
      {"there is no buffer b9", [](Program& p) { softmax(p).loads[0].buffer = 9; }},
      {"does not come before it", [](Program& p) { softmax(p).instructions[2].operands[1] = 2; }},
      {"does not come before it", [](Program& p) { softmax(p).instructions[2].operands[1] = -1; }},
      {"too many operands", [](Program& p) { softmax(p).instructions[3].operands[1] = 0; }},
      {"one value per row", [](Program& p) { softmax(p).instructions[2].narrow = true; }},
      {"one value per row", [](Program& p) { softmax(p).instructions[0].narrow = true; }},
      {"gives one per row", [](Program& p) { softmax(p).instructions[1].narrow = false; }},
      {"depends on its own reduction", [](Program& p) { softmax(p).streaming = true; }},
      {"argument 1 is out of range", [](Program& p) { epilogue(p).instructions[2].argument = 1; }},
      {"outside of an epilogue",
       [](Program& p) { softmax(p).instructions[0].code = TapeCode::result; }},
      {"two dtypes", [](Program& p) { epilogue(p).instructions[2].dtype = DType::i32; }},
      {"another dtype", [](Program& p) { softmax(p).instructions[2].op = Op::lt; }},
      {"left operand is f32[4, 3], the kernel reads it as bf16",
       [](Program& p) { std::get<ContractKernel>(p.kernels[0]).lhs = DType::bf16; }},
      {"right operand is f32[3, 5], the kernel reads it as f16",
       [](Program& p) { std::get<ContractKernel>(p.kernels[0]).rhs = DType::f16; }},
      {"contracts f32 in f64",
       [](Program& p) { std::get<ContractKernel>(p.kernels[0]).accumulate = DType::f64; }},
      {"contracts f32 in bf16",
       [](Program& p) { std::get<ContractKernel>(p.kernels[0]).accumulate = DType::bf16; }},
      {"contracts i32 in f32",
       [](Program& p) { std::get<ContractKernel>(p.kernels[0]).rhs = DType::i32; }},
      {"is not batch x m x n",
       [](Program& p) {
         std::get<ContractKernel>(p.kernels[0]).m = 3;
         std::get<ContractKernel>(p.kernels[0]).terms[0].lhs.rows.sizes = {3};
       }},
      {"do not make",
       [](Program& p) { std::get<ContractKernel>(p.kernels[0]).terms[0].rhs.rows.sizes = {2}; }},
      {"straddles",
       [](Program& p) {
         epilogue(p).extents = {5, 4};
       }},
      {"a result has no term",
       [](Program& p) { std::get<ContractKernel>(p.kernels[0]).results = 2; }},
      {"before it is written", [](Program& p) { std::swap(p.kernels[0], p.kernels[1]); }},
      {"never written",
       [](Program& p) {
         p.kernels.pop_back();
         p.commit_point = 2;
       }},
      {"no multiple of 64", [](Program& p) { p.buffers[5].offset = 96; }},
      {"beyond the arena", [](Program& p) { p.arena_bytes = 192; }},
      {"share bytes", [](Program& p) { p.buffers[5].offset = 64; }},
      {"has two buffers", [](Program& p) { p.buffers[3] = p.buffers[2]; }},
      {"wrong output types",
       [](Program& p) { std::get<OpKernel>(p.kernels[2]).attributes = AxisAttributes{1}; }},
      {"attributes of another op",
       [](Program& p) { std::get<OpKernel>(p.kernels[2]).attributes = NoAttributes{}; }},
      {"absurd", [](Program& p) { softmax(p).extents[0] = std::int64_t{1} << 60; }},
      {"absurd",
       [](Program& p) {
         softmax(p).loads[0].address.coefficients[0] = std::numeric_limits<std::int64_t>::min();
       }},
  };
  for (const Damage& damage : damages) {
    Program program = example();
    damage.apply(program);
    INFO("expected: " << damage.expected);
    CHECK_THAT(message_of([&] { verify(program); }), has_text(damage.expected));
  }
}

TEST_CASE("verify knows when memory may be taken over", "[engine][program]") {
  SECTION("softmax of a temporary in place") {
    Program program = example();
    program.buffers[5].offset = 0;
    CHECK(message_of([&] { verify(program); }) == "");
    // Not where a row reads what another row has overwritten.
    softmax(program).loads[0].address = {0, {0, 1}};
    CHECK_THAT(message_of([&] { verify(program); }), has_text("share bytes"));
  }
  SECTION("a donated input read elsewhere") {
    Program program = in_place();
    std::get<TapeKernel>(program.kernels[0]).tape.loads[0].address = {5, {-1}};
    CHECK_THAT(message_of([&] { verify(program); }), has_text("still to be read"));
  }
  SECTION("a donation of another size") {
    Program program = in_place();
    program.inputs[0].shape = program.buffers[0].type.shape = {7};
    CHECK_THAT(message_of([&] { verify(program); }), has_text("differ in size"));
  }
  SECTION("a write before the commit point") {
    Program program = in_place();
    program.commit_point = 1;
    CHECK_THAT(message_of([&] { verify(program); }), has_text("before the commit point"));
  }
}

TEST_CASE("verify follows padding through merged axes", "[engine][program]") {
  // x f32[3, 4] padded by one all round to [5, 6], read through a flat view of 30 elements split as
  // [15, 2].
  const TensorType x{{3, 4}, DType::f32}, y{{30}, DType::f32};
  Program program;
  program.inputs = {x};
  program.outputs = {y};
  program.buffers = {input(0, x), output(0, y)};
  program.donations = {-1};
  program.commit_point = 1;
  TapeKernel pad;
  pad.tape.extents = {5, 3, 2};
  pad.tape.loads = {
      {0, DType::f32, {-5, {4, 2, 1}}, {{{{0, {1, 0, 0}}, 1, 4}, 4}, {{{0, {0, 2, 1}}, 1, 5}, 1}}}};
  pad.tape.instructions = {load(0)};
  pad.tape.stores = {{0, 1, DType::f32, {0, {6, 2, 1}}}};
  program.kernels = {pad};
  CHECK(message_of([&] { verify(program); }) == "");
  std::get<TapeKernel>(program.kernels[0]).tape.loads[0].guards[1].range.high = 6;
  CHECK_THAT(message_of([&] { verify(program); }), has_text("reads elements"));
}

namespace {

// What the planner makes of a layer with a padded operand, its row statistics, and an index op.
Program layer_program(const Device& device) {
  const auto layer = compile([](const Tensor& x, const Tensor& w, const Tensor& i) {
    const Tensor y = gelu_tanh(matmul(pad(x, {1, 0}, {0, 1}), w) + 0.5);
    return std::pair(layer_norm(y, 1e-6), take(cumsum(y, 0), i, 1));
  });
  return layer.program(zeros({4, 3}, DType::f32, device), zeros({4, 6}, DType::f32, device),
                       zeros({2}, DType::i32, device));
}

}  // namespace

TEST_CASE("a damaged program that passes the verifier runs without harm", "[engine][program]") {
  // Whether memory is left alone is for the address sanitizer to see.
  const Device device = cpu({.threads = 1});
  std::mt19937 random(11);
  int ran = 0;
  for (const Program& sound : {example(), in_place(), layer_program(device)}) {
    const std::vector<std::byte> bytes = serialise(sound);
    CHECK(compile_and_run(device, sound));
    for (int i = 0; i < 20000; ++i) {
      std::vector<std::byte> damaged = bytes;
      for (std::uint32_t j = 0; j < 1 + random() % 3; ++j) {
        std::byte& byte = damaged[12 + random() % (damaged.size() - 12)];
        byte =
            static_cast<std::byte>(std::to_integer<int>(byte) + static_cast<int>(random() % 7) - 3);
      }
      try {
        if (compile_and_run(device, parse_program(damaged))) ++ran;
      } catch (const Error&) {
      }
    }
  }
  CHECK(ran > 100);
}
