// Programs from strangers: what passes verify runs inside its buffers and a stated bound of memory.
#include <limits>
#include <random>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "engine/program/program.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/fuzz/hostile_programs.h"
#include "tests/fuzz/program_seeds.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

const Device& attacked_device() {
  static const Device one = cpu({.threads = 1});
  return one;
}

Program seed_program(const std::string& name) {
  for (auto& [found, program] : program_seeds(attacked_device()))
    if (found == name) return program;
  throw Error("there is no seed " + name);
}

template <class K>
K& kernel_of(Program& program) {
  for (Kernel& kernel : program.kernels)
    if (K* found = std::get_if<K>(&kernel)) return *found;
  throw Error("there is no such kernel");
}

std::string compiler_refusal(const Program& program) {
  return message_of([&] { attacked_device().backend().compile(program); });
}

// out[i] = in[i], of rows of this length that are resident.
Program resident_row(std::int64_t length) {
  const TensorType row{{1}, DType::f32};
  Program program;
  program.inputs = {row};
  program.outputs = {row};
  program.donations = {-1};
  program.commit_point = 1;
  program.buffers = {{BufferKind::input, row, 0, 0}, {BufferKind::output, row, 0, 0}};
  TapeKernel kernel;
  kernel.tape.extents = {length};
  kernel.tape.reduced_axes = 1;
  kernel.tape.loads = {{0, DType::f32, {0, {0}}, {}}};
  kernel.tape.indices = {{0, {1}}};
  kernel.tape.instructions = {{TapeCode::index, Op::identity, DType::f32, false, 0, {-1, -1, -1}},
                              {TapeCode::reduce, Op::max, DType::f32, true, 0, {0, -1, -1}},
                              {TapeCode::apply, Op::sub, DType::f32, false, 0, {0, 1, -1}},
                              {TapeCode::reduce, Op::sum, DType::f32, true, 0, {2, -1, -1}}};
  kernel.tape.stores = {{3, 1, DType::f32, {0, {0}}}};
  program.kernels = {kernel};
  return program;
}

}  // namespace

TEST_CASE("the seeds of the fuzzer are sound programs of every kind", "[engine][hostile]") {
  bool kinds[3] = {};
  for (const auto& [name, program] : program_seeds(attacked_device())) {
    INFO(name);
    for (const Kernel& kernel : program.kernels) kinds[kernel.index()] = true;
    CHECK(parse_program(serialise(program)) == program);
    CHECK(compile_and_run(attacked_device(), program));
  }
  CHECK((kinds[0] && kinds[1] && kinds[2]));
}

TEST_CASE("a backend verifies what it compiles", "[engine][hostile]") {
  Program program = seed_program("map");
  kernel_of<TapeKernel>(program).tape.loads[0].address.constant = 1;
  CHECK_THAT(compiler_refusal(program), has_text("reads elements"));
  CHECK_THROWS_AS(reference().backend().compile(program), Error);
}

TEST_CASE("a contraction without results is refused", "[engine][hostile]") {
  Program program = seed_program("matmul");
  auto& kernel = kernel_of<ContractKernel>(program);
  kernel.results = 0;
  kernel.terms.clear();
  CHECK_THAT(compiler_refusal(program), has_text("without results"));
}

TEST_CASE("a literal is 0, 1 or -1, whatever its bits", "[engine][hostile]") {
  Program program = seed_program("map");
  auto& instruction = kernel_of<TapeKernel>(program).tape.instructions[0];
  instruction = {TapeCode::literal, Op::identity, DType::f32, false, 0, {-1, -1, -1}};
  for (const std::int32_t argument : {std::numeric_limits<std::int32_t>::min(), -2, 2}) {
    instruction.argument = argument;
    CHECK_THAT(compiler_refusal(program), has_text("a literal is 0, 1 or -1"));
  }
}

TEST_CASE("a row that no memory holds is refused before anything is allocated",
          "[engine][hostile]") {
  for (const int bits : {44, 47, 50})
    CHECK_THROWS_AS(attacked_device().backend().compile(resident_row(std::int64_t{1} << bits)),
                    Error);
  CHECK(compile_and_run(attacked_device(), resident_row(1 << 10)));
  CHECK_THAT(compiler_refusal(resident_row((std::int64_t{1} << 53) + 1)), has_text("absurd"));
}

TEST_CASE("two stores of a kernel never write the same element", "[engine][hostile]") {
  Program program = seed_program("map");
  Tape& tape = kernel_of<TapeKernel>(program).tape;
  SECTION("one address for several points") {
    tape.stores[0].address.coefficients.assign(tape.extents.size(), 1);
    if (tape.extents.size() < 2) return;
    CHECK_THAT(compiler_refusal(program), has_text("several times"));
  }
  SECTION("one buffer twice") {
    tape.stores.push_back(tape.stores[0]);
    CHECK_THAT(compiler_refusal(program), has_text("twice"));
  }
}

TEST_CASE("what is read once per row stays inside its buffer though the rows are empty",
          "[engine][hostile]") {
  Program program = seed_program("softmax");
  auto& tape = kernel_of<TapeKernel>(program).tape;
  // The rows become empty, one narrow load of far away is stored per row.
  tape.extents = {4, 0};
  tape.reduced_axes = 1;
  tape.streaming = true;
  tape.indices.clear();
  tape.ranges.clear();
  tape.loads = {{tape.loads[0].buffer, DType::f32, {1 << 20, {1, 0}}, {}}};
  tape.instructions = {{TapeCode::load, Op::identity, DType::f32, true, 0, {-1, -1, -1}}};
  tape.stores.resize(1);
  tape.stores[0].value = 0;
  tape.stores[0].address = {0, {1, 0}};
  CHECK_THAT(compiler_refusal(program), has_text("reads elements"));
}

TEST_CASE("changed programs are refused or run without harm", "[engine][hostile]") {
  // Whether memory is left alone is for the sanitizers to see; scripts/fuzz.sh goes on for longer.
  std::minstd_rand random(5);
  int ran = 0, refused = 0;
  for (const auto& [name, sound] : program_seeds(attacked_device()))
    for (int i = 0; i < 400; ++i) {
      Program program = sound;
      mutate(program, random);
      INFO(name << ", change " << i);
      try {
        if (compile_and_run(attacked_device(), program)) ++ran;
      } catch (const Error&) {
        ++refused;
      }
    }
  CHECK(ran > 300);
  CHECK(refused > 300);
}
