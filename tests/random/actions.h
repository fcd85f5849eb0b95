// The table of what a random program can do: for each action how it is drawn and how it is built.
// Adding an op is adding an entry.
#pragma once

#include <functional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "tests/random/program.h"

namespace fluxion::testing {

// A value while a program is drawn. The tensor is a leafy graph that nobody evaluates: it tells
// types.
struct Known {
  int value = 0;
  Tensor tensor;
  double bound = 0;  // no element is larger in magnitude (floating values)
  int uses = 0;
};

// The state of drawing one program.
class Drawing {
 public:
  Drawing(Choices& choices, RandomProgram& program) : choices(choices), program(program) {}

  Choices& choices;
  RandomProgram& program;
  std::vector<Known> known;
  std::vector<Step>* steps =
      nullptr;    // where the next step goes: the program's, or a region's body
  int depth = 0;  // of regions around it

  // Values of a kind, preferring those without a user. `limit`: the largest magnitude wanted; a
  // larger value is squashed by a step of its own.
  int floating(double limit = 3);
  int boolean();
  int integer();
  int bits();
  int key();
  const Known& operator[](int value) const;
  const Tensor& tensor(int value) const { return (*this)[value].tensor; }
  double bound(int value) const { return (*this)[value].bound; }

  // A few small axes: `rank` of them, or as many as chance wants.
  Dims dims(std::int64_t rank = -1);
  int input(const TensorType& type);
  // Builds the step on what is known and appends it; the results get this bound. Returns the first
  // result.
  int append(Step step, double bound, int uses = 0);
  // Draws one step of the table.
  void step();

 private:
  int pick(DType dtype);
};

// What an action sees when it is built.
struct Scope {
  const Step& step;
  const std::vector<Tensor>& in;
  const BuildOptions& options;
  std::size_t* held = nullptr;  // how many of options.held were used

  DType floating() const { return options.floating; }
  std::int64_t number(std::size_t i) const { return step.numbers[i]; }
  // Operand i brought to this shape by movement alone: repeated or cut.
  Tensor fitted(std::size_t i, const Shape& shape) const;
  // Notes how far every element is from a kink.
  void margin(const Tensor& distance) const;
};

struct Action {
  std::string name;
  // Fills operands, numbers and shape and says the bound of the results; a negative one: not now.
  std::function<double(Drawing&, Step&)> draw;
  std::function<std::vector<Tensor>(const Scope&)> make;
  int weight = 2;
};

const std::vector<Action>& actions();
std::size_t action_named(const std::string& name);

// The parts of the table.
void add_elementwise_actions(std::vector<Action>& table);
void add_movement_actions(std::vector<Action>& table);
void add_index_actions(std::vector<Action>& table);
void add_fused_actions(std::vector<Action>& table);
void add_region_actions(std::vector<Action>& table);

// Whether no step is a custom_vjp, and whether some step is a region.
bool has_forward_mode(const std::vector<Step>& steps);
bool has_regions(const std::vector<Step>& steps);

// x cut or repeated to this shape.
Tensor fit(const Tensor& x, const Shape& shape);
// Elements in [0.25, 10] for x in [-3, 3], smooth; five ways.
Tensor positive(const Tensor& x, std::int64_t way);
// x plus a slope along one axis (-1: along all of them together), so that elements that were
// repeated differ.
Tensor ramped(const Tensor& x, std::int64_t axis);
// Runs steps on values by number.
void run_steps(const std::vector<Step>& steps, std::map<int, Tensor>& values,
               const BuildOptions& options, std::size_t* held);

}  // namespace fluxion::testing
