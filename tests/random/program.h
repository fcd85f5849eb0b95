// Random programs: graphs of some thirty ops drawn from the table, as plain descriptions that can
// be built on any device and in any floating dtype, printed, and made smaller while they still show
// a fault.
//
// Everything is drawn from `Choices`: a 64-bit seed gives one program for ever, and so do the bytes
// of a fuzzer.
//
// A program keeps to where its derivatives are smooth and its values near 1: arguments of log,
// sqrt, pow, div, atan2 and hypot are made positive first, values that could grow are squashed, and
// whatever has a kink states how far its operands are from it (the margin), so that points too near
// are refused.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tests/op_examples.h"

namespace fluxion::testing {

// Where random decisions come from.
class Choices {
 public:
  explicit Choices(std::uint64_t seed);
  // Decisions read from bytes; 0 once there are none left.
  explicit Choices(std::span<const std::uint8_t> bytes) : bytes_(bytes), from_bytes_(true) {}

  std::int64_t below(std::int64_t count);  // 0 .. count - 1
  std::int64_t between(std::int64_t low, std::int64_t high) { return low + below(high - low + 1); }
  bool one_in(std::int64_t count) { return below(count) == count - 1; }
  template <class T>
  const T& any(std::span<const T> list) {
    return list[static_cast<std::size_t>(below(static_cast<std::int64_t>(list.size())))];
  }

 private:
  std::uint64_t state_ = 0;
  std::span<const std::uint8_t> bytes_;
  bool from_bytes_ = false;
};

// One instruction: an action of the table (tests/random/actions.h) on values known before.
struct Step {
  std::size_t action = 0;
  std::vector<int> operands{}, results{};  // numbers of values
  std::vector<TensorType> types{};  // of the results; f64 stands for the floating dtype under test
  Dims shape{};                     // what the action brings its operands to
  Dims numbers{};                   // attributes and variants
  std::vector<Step> body{};         // of a region: a function of the operands, under their numbers
  std::vector<int> body_outputs{};
};

struct ProgramInput {
  int value = 0;
  TensorType type;
};

struct RandomProgram {
  std::vector<ProgramInput> inputs;
  std::vector<Step> steps;
  std::vector<int> outputs;
  std::uint64_t points = 0;  // seed of the inputs' values

  int next_value = 0;  // numbers below are taken
};

RandomProgram draw_program(Choices& choices);
// The same outputs without the steps and inputs that none of them needs.
RandomProgram without_dead(const RandomProgram& program);
// Text: a line per input, step and output.
std::string to_string(const RandomProgram& program);

// The inputs' values: floating ones in [-1.5, 1.5), whole ones in [0, 5), a random key for u32[2].
std::vector<Tensor> make_inputs(const RandomProgram& program, const Device& device, DType floating);

struct BuildOptions {
  DType floating = DType::f64;
  bool regions = true;                     // false: what a region holds takes its place
  std::vector<Tensor>* margins = nullptr;  // gets tensors of distances from kinks
  std::vector<Tensor>* stopped = nullptr;  // gets the values that stop_gradient passes on..
  const std::vector<Tensor>* held =
      nullptr;  // ..or says what they are, as finite differences of a stopped value need
};
// The outputs as functions of the inputs.
std::vector<Tensor> build(const RandomProgram& program, const std::vector<Tensor>& inputs,
                          const BuildOptions& options = {});

// A smaller program for which `fails` still holds: fewer outputs, steps replaced by an operand or
// by an input of their type.
RandomProgram shrink(RandomProgram program, const std::function<bool(const RandomProgram&)>& fails);

// How many nodes of each op there are behind these tensors.
std::map<Op, int> count_ops(std::span<const Tensor> tensors);

}  // namespace fluxion::testing
