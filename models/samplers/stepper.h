// A sampler as a value: what one step does, what it remembers, and which numbers change from step
// to step. Steps are graphs: solver.h compiles one and runs it over a grid.
#pragma once

#include <functional>
#include <tuple>
#include <utility>
#include <vector>

#include "models/samplers/time_grid.h"

namespace fluxion {

// A network with the labels of a batch.
struct LabelledPredictor {
  const Predictor& predictor;
  Tensor labels;

  Tensor operator()(Prediction wanted, const Tensor& z, const Tensor& t) const {
    return predictor(wanted, z, t, labels);
  }
  Tensor jump(const Tensor& z, const Tensor& t, const Tensor& r) const {
    return predictor.jump(z, t, r, labels);
  }
  // Two predictions by one call.
  std::pair<Tensor, Tensor> both(Prediction first, Prediction second, const Tensor& z,
                                 const Tensor& t) const;
};

struct StepInput {
  Tensor z;                     // [batch, ..]
  std::vector<Tensor> memory;   // of the steps before
  std::vector<Tensor> numbers;  // [] each, as Stepper::call gave them
  // N(0, I) of the shape of z: independent for each number of a draw within a step.
  std::function<Tensor(std::uint32_t draw)> noise;
};
struct StepOutput {
  Tensor z;
  std::vector<Tensor> memory = {};
  static auto members(auto& self) { return std::tie(self.z, self.memory); }
};

struct Stepper {
  // Each form of a step is compiled once: most samplers have one, some another for the last step.
  struct Call {
    int form = 0;
    std::vector<double> numbers = {};
  };

  // The path that it walks on, which may be another than the network's, and its stops.
  Path path = {};
  TimeGrid grid = {};
  bool draws_noise = false;
  // What it remembers before the first step, from where it begins and the noise in it; empty:
  // nothing.
  std::function<std::vector<Tensor>(const LabelledPredictor& network, const Tensor& z,
                                    const Tensor& noise)>
      start = {};
  // Step i, from grid[i] to grid[i + 1].
  std::function<Call(std::size_t i)> call = {};
  std::function<StepOutput(int form, const LabelledPredictor& network, const StepInput& input)>
      step = {};
  // Samplers with error control: which samples are still on their way, bool [batch]. Steps are
  // then repeated until none is, at most most_tries times.
  std::function<Tensor(const std::vector<Tensor>& memory)> unfinished = {};
  // And which of them never get there, bool [batch].
  std::function<Tensor(const std::vector<Tensor>& memory)> stuck = {};
  std::int64_t most_tries = 0;
  // Where visits see other states than those of the steps: all of them, [states, batch, ..], from
  // what the last step remembers.
  std::function<Tensor(const std::vector<Tensor>& memory)> shown = {};
};

// The sampler that the options describe. Throws Error as check(options) does.
Stepper make_stepper(const SamplerOptions& options);

}  // namespace fluxion
