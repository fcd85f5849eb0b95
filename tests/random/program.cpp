#include "tests/random/program.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "backends/reference/reference.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/graph/walk.h"
#include "tests/op_examples.h"
#include "tests/random/actions.h"

namespace fluxion::testing {

using fluxion::to_string;

namespace {

const TensorType key_type{{2}, DType::u32};

// One step of splitmix64 (Steele, Lea, Flood 2014): the state's next value, well mixed.
std::uint64_t mixed(std::uint64_t state) {
  state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9u;
  state = (state ^ (state >> 27)) * 0x94D049BB133111EBu;
  return state ^ (state >> 31);
}

}  // namespace

// The state of neighbouring seeds must lie far apart: it advances by a constant.
Choices::Choices(std::uint64_t seed) : state_(mixed(seed + 0x9E3779B97F4A7C15u)) {}

std::int64_t Choices::below(std::int64_t count) {
  if (count <= 1) return 0;
  if (!from_bytes_)
    return static_cast<std::int64_t>(mixed(state_ += 0x9E3779B97F4A7C15u) %
                                     static_cast<std::uint64_t>(count));
  if (bytes_.empty()) return 0;
  const std::int64_t value = bytes_.front() % count;
  bytes_ = bytes_.subspan(1);
  return value;
}

// ---- drawing

const Known& Drawing::operator[](int value) const {
  return *std::find_if(known.begin(), known.end(),
                       [&](const Known& each) { return each.value == value; });
}

int Drawing::pick(DType dtype) {
  std::vector<Known*> fresh, all;
  for (Known& each : known) {
    if (each.tensor.dtype() != dtype || each.tensor.type() == key_type) continue;
    all.push_back(&each);
    if (each.uses == 0) fresh.push_back(&each);
  }
  if (all.empty()) return -1;
  const auto& from = !fresh.empty() && !choices.one_in(3) ? fresh : all;
  Known* chosen =
      from[static_cast<std::size_t>(choices.below(static_cast<std::int64_t>(from.size())))];
  ++chosen->uses;
  return chosen->value;
}

int Drawing::floating(double limit) {
  const int value = pick(DType::f64);
  const double size = bound(value);
  if (size <= limit) return value;
  Step squash{.action = action_named("squash"),
              .operands = {value},
              .numbers = {choices.below(5), static_cast<std::int64_t>(size * 1024)}};
  // tanh, sin, erf, sigmoid, or a scale that brings it to 1.
  return append(std::move(squash), 1, 1);
}

int Drawing::boolean() {
  const int value = choices.one_in(3) ? -1 : pick(DType::boolean);
  if (value >= 0) return value;
  const char* const names[] = {"lt", "le", "gt", "ge", "eq", "ne"};
  Step step{.action = action_named(names[choices.below(6)])};
  const double size = actions()[step.action].draw(*this, step);
  return append(std::move(step), size, 1);
}

int Drawing::integer() {
  const int value = choices.one_in(4) ? -1 : pick(DType::i32);
  if (value >= 0) return value;
  if (depth == 0 && choices.one_in(3)) return input({Shape(dims()), DType::i32});
  Step step{.action = action_named("whole"), .operands = {floating()}};
  return append(std::move(step), 0, 1);
}

int Drawing::key() {
  for (const Known& each : known)
    if (each.tensor.type() == key_type) return each.value;
  return depth == 0 ? input(key_type) : -1;
}

int Drawing::bits() {
  const int value = pick(DType::u32);
  if (value >= 0) return value;
  Step step{.action = action_named("random_bits")};
  const double size = actions()[step.action].draw(*this, step);
  if (size < 0) return -1;
  return append(std::move(step), size, 1);
}

Dims Drawing::dims(std::int64_t rank) {
  if (rank < 0) {
    constexpr std::int64_t ranks[] = {2, 1, 3, 2, 0, 1, 2, 3, 4};
    rank = choices.any<std::int64_t>(ranks);
  }
  constexpr std::int64_t sizes[] = {3, 1, 2, 4, 3, 5, 2, 7};
  Dims result;
  std::int64_t elements = 1;
  for (std::int64_t axis = 0; axis < rank; ++axis) {
    std::int64_t size = choices.any<std::int64_t>(sizes);
    if (elements * size > 60) size = 1;
    if (choices.one_in(200)) size = 0;
    elements *= std::max<std::int64_t>(size, 1);
    result.push_back(size);
  }
  return result;
}

namespace {

// Drawing happens on graphs of parameters that nobody evaluates.
const Device& drawing_device() {
  static const Device device = reference();
  return device;
}

}  // namespace

int Drawing::input(const TensorType& type) {
  const int value = program.next_value++;
  program.inputs.push_back({value, type});
  known.push_back(
      {value, make_leaf(Op::parameter, IndexAttributes{value}, type, drawing_device()), 1.5, 0});
  return value;
}

int Drawing::append(Step step, double bound, int uses) {
  std::vector<Tensor> in;
  for (const int operand : step.operands) in.push_back(tensor(operand));
  const BuildOptions plain{.regions = false};
  const std::vector<Tensor> results = actions()[step.action].make({step, in, plain});
  for (const Tensor& result : results) {
    step.results.push_back(program.next_value++);
    step.types.push_back(result.type());
    known.push_back({step.results.back(), result, bound, uses});
  }
  const int first = step.results.front();
  steps->push_back(std::move(step));
  return first;
}

void Drawing::step() {
  std::int64_t total = 0;
  for (const Action& action : actions()) total += action.weight;
  // Few actions refuse, and those for want of one kind of value.
  for (int attempt = 0; attempt < 8; ++attempt) {
    // Two draws: bytes of a fuzzer reach 255.
    std::int64_t ticket = (choices.below(256) * 256 + choices.below(256)) % total;
    std::size_t chosen = 0;
    while (ticket >= actions()[chosen].weight) ticket -= actions()[chosen++].weight;
    Step step{.action = chosen};
    const double size = actions()[chosen].draw(*this, step);
    if (size < 0) continue;
    append(std::move(step), size);
    return;
  }
}

RandomProgram draw_program(Choices& choices) {
  RandomProgram program;
  Drawing drawing(choices, program);
  drawing.steps = &program.steps;
  const std::int64_t inputs = choices.between(1, 3);
  for (std::int64_t i = 0; i < inputs; ++i) drawing.input({Shape(drawing.dims()), DType::f64});
  const std::int64_t steps = choices.between(7, 22);
  for (std::int64_t i = 0; i < steps; ++i) drawing.step();
  // What nobody reads is an output; of floating values all but two are joined into one.
  std::vector<int> unread;
  for (const Known& each : drawing.known) {
    if (each.uses > 0 || each.value < static_cast<int>(inputs)) continue;
    if (each.tensor.dtype() == DType::f64)
      unread.push_back(each.value);
    else if (each.tensor.type() != key_type)
      program.outputs.push_back(each.value);
  }
  if (unread.empty()) unread.push_back(drawing.floating());
  if (unread.size() > 3) {
    Step join{.action = action_named("join"), .operands = {unread.begin() + 2, unread.end()}};
    unread.resize(2);
    unread.push_back(drawing.append(std::move(join), 1));
  }
  program.outputs.insert(program.outputs.begin(), unread.begin(), unread.end());
  return without_dead(program);
}

RandomProgram without_dead(const RandomProgram& program) {
  RandomProgram result = program;
  std::set<int> read(program.outputs.begin(), program.outputs.end());
  const auto sweep = [](std::vector<Step>& steps, std::set<int>& needed) {
    std::vector<Step> kept;
    for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
      if (std::none_of(step->results.begin(), step->results.end(),
                       [&](int value) { return needed.contains(value); }))
        continue;
      needed.insert(step->operands.begin(), step->operands.end());
      kept.push_back(std::move(*step));
    }
    steps.assign(std::make_move_iterator(kept.rbegin()), std::make_move_iterator(kept.rend()));
  };
  for (Step& step : result.steps) {
    if (step.body.empty()) continue;
    std::set<int> inner(step.body_outputs.begin(), step.body_outputs.end());
    sweep(step.body, inner);
  }
  sweep(result.steps, read);
  // The first input stays: it says where and in which dtype.
  for (std::size_t i = result.inputs.size(); i-- > 1;)
    if (!read.contains(result.inputs[i].value))
      result.inputs.erase(result.inputs.begin() + static_cast<std::ptrdiff_t>(i));
  return result;
}

// ---- building

std::vector<Tensor> make_inputs(const RandomProgram& program, const Device& device,
                                DType floating) {
  std::vector<Tensor> inputs;
  for (const ProgramInput& input : program.inputs) {
    const std::uint64_t seed = mixed(program.points * 1000003u +
                                     static_cast<std::uint64_t>(input.value) + 0x9E3779B97F4A7C15u);
    HostValue value = random_value(input.type.shape, -1.5, 1.5, seed);
    value.dtype = input.type.dtype;
    if (input.type.dtype != DType::f64)
      for (double& each : value.values)
        each = std::floor((each + 1.5) / 3 * (input.type.dtype == DType::u32 ? 4294967295.0 : 5.0));
    if (input.type.dtype == DType::boolean)
      for (double& each : value.values) each = each > 2;
    inputs.push_back(to_tensor(value, device, floating));
  }
  return inputs;
}

void run_steps(const std::vector<Step>& steps, std::map<int, Tensor>& values,
               const BuildOptions& options, std::size_t* held) {
  for (const Step& step : steps) {
    std::vector<Tensor> in;
    for (const int operand : step.operands) in.push_back(values.at(operand));
    const std::vector<Tensor> results = actions()[step.action].make({step, in, options, held});
    for (std::size_t i = 0; i < results.size(); ++i) values[step.results[i]] = results[i];
  }
}

std::vector<Tensor> build(const RandomProgram& program, const std::vector<Tensor>& inputs,
                          const BuildOptions& options) {
  std::map<int, Tensor> values;
  for (std::size_t i = 0; i < inputs.size(); ++i) values[program.inputs[i].value] = inputs[i];
  std::size_t held = 0;
  run_steps(program.steps, values, options, &held);
  std::vector<Tensor> outputs;
  for (const int output : program.outputs) outputs.push_back(values.at(output));
  return outputs;
}

std::map<Op, int> count_ops(std::span<const Tensor> tensors) {
  std::map<Op, int> counts;
  for (const WalkedNode& walked : walk(tensors, [](const Node&) { return true; }))
    ++counts[walked.node->op];
  return counts;
}

// ---- printing

namespace {

std::string listed(const std::vector<int>& values) {
  std::string text;
  for (const int value : values) text += (text.empty() ? "%" : ", %") + std::to_string(value);
  return text;
}

void print(const std::vector<Step>& steps, const std::string& indent, std::string& text) {
  for (const Step& step : steps) {
    text += indent + listed(step.results) + " = " + actions()[step.action].name + "(" +
            listed(step.operands) + ")";
    if (!step.shape.empty()) text += " at " + to_string(step.shape);
    if (!step.numbers.empty()) text += " by " + to_string(step.numbers);
    text += " ->";
    for (const TensorType& type : step.types) text += " " + to_string(type);
    text += "\n";
    if (step.body.empty()) continue;
    print(step.body, indent + "  | ", text);
    text += indent + "  | return " + listed(step.body_outputs) + "\n";
  }
}

}  // namespace

std::string to_string(const RandomProgram& program) {
  std::string text = "points " + std::to_string(program.points) + "\n";
  for (const ProgramInput& input : program.inputs)
    text += "%" + std::to_string(input.value) + " = input " + to_string(input.type) + "\n";
  print(program.steps, "", text);
  return text + "return " + listed(program.outputs) + "\n";
}

// ---- shrinking

namespace {

void rename(RandomProgram& program, int from, int to) {
  const auto in = [&](std::vector<int>& values) {
    std::replace(values.begin(), values.end(), from, to);
  };
  const std::function<void(std::vector<Step>&)> visit = [&](std::vector<Step>& steps) {
    for (Step& step : steps) {
      in(step.operands), in(step.body_outputs);
      visit(step.body);
    }
  };
  visit(program.steps);
  in(program.outputs);
}

// The type of a value of the program, or of the body it is in.
const TensorType* type_of(const RandomProgram& program, const std::vector<Step>& steps, int value) {
  for (const ProgramInput& input : program.inputs)
    if (input.value == value) return &input.type;
  for (const Step& step : steps)
    for (std::size_t i = 0; i < step.results.size(); ++i)
      if (step.results[i] == value) return &step.types[i];
  return nullptr;
}

// Everything that is one cut smaller than the program, the largest cuts first.
std::vector<RandomProgram> smaller(const RandomProgram& program) {
  std::vector<RandomProgram> result;
  if (program.outputs.size() > 1)
    for (const int output : program.outputs) {
      RandomProgram one = program;
      one.outputs = {output};
      result.push_back(std::move(one));
    }
  const auto is_output = [&](int value) {
    return std::find(program.outputs.begin(), program.outputs.end(), value) !=
           program.outputs.end();
  };
  for (std::size_t i = 0; i < program.steps.size(); ++i) {
    const Step& step = program.steps[i];
    // What the step reads is put out in its place.
    if (std::any_of(step.results.begin(), step.results.end(), is_output)) {
      RandomProgram earlier = program;
      std::erase_if(earlier.outputs, [&](int value) {
        return std::find(step.results.begin(), step.results.end(), value) != step.results.end();
      });
      for (const int operand : step.operands)
        if (std::find(earlier.outputs.begin(), earlier.outputs.end(), operand) ==
            earlier.outputs.end())
          earlier.outputs.push_back(operand);
      result.push_back(std::move(earlier));
    }
    // The body of a region takes its place.
    if (!step.body_outputs.empty()) {
      RandomProgram inlined = program;
      inlined.steps.erase(inlined.steps.begin() + static_cast<std::ptrdiff_t>(i));
      inlined.steps.insert(inlined.steps.begin() + static_cast<std::ptrdiff_t>(i),
                           step.body.begin(), step.body.end());
      for (std::size_t k = 0; k < step.results.size(); ++k)
        rename(inlined, step.results[k], step.body_outputs[k]);
      result.push_back(std::move(inlined));
    }
    // The step's results become inputs.
    RandomProgram cut = program;
    for (std::size_t k = 0; k < step.results.size(); ++k)
      cut.inputs.push_back({step.results[k], step.types[k]});
    cut.steps.erase(cut.steps.begin() + static_cast<std::ptrdiff_t>(i));
    result.push_back(std::move(cut));
    // Or one of its operands stands for the result.
    for (const int operand : step.operands) {
      const TensorType* type = type_of(program, program.steps, operand);
      if (!type || *type != step.types[0] || step.results.size() != 1) continue;
      RandomProgram bypassed = program;
      bypassed.steps.erase(bypassed.steps.begin() + static_cast<std::ptrdiff_t>(i));
      rename(bypassed, step.results[0], operand);
      result.push_back(std::move(bypassed));
    }
    for (std::size_t k = 0; k < step.body.size(); ++k) {
      const Step& inner = step.body[k];
      std::vector<Step> scope = program.steps;
      scope.insert(scope.end(), step.body.begin(), step.body.end());
      for (const int operand : inner.operands) {
        const TensorType* type = type_of(program, scope, operand);
        if (!type || *type != inner.types[0] || inner.results.size() != 1) continue;
        RandomProgram bypassed = program;
        auto& body = bypassed.steps[i].body;
        body.erase(body.begin() + static_cast<std::ptrdiff_t>(k));
        rename(bypassed, inner.results[0], operand);
        result.push_back(std::move(bypassed));
      }
    }
  }
  return result;
}

}  // namespace

RandomProgram shrink(RandomProgram program,
                     const std::function<bool(const RandomProgram&)>& fails) {
  for (bool found = true; found;) {
    found = false;
    for (const RandomProgram& candidate : smaller(program)) {
      RandomProgram live = without_dead(candidate);
      if (!fails(live)) continue;
      program = std::move(live);
      found = true;
      break;
    }
  }
  return program;
}

}  // namespace fluxion::testing
