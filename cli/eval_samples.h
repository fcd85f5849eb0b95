// The samples that `fluxion eval` judges: drawn of a model, or another program's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/data_options.h"
#include "cli/judged_classes.h"
#include "cli/progress.h"
#include "cli/sampler_choice.h"
#include "models/data/data_set.h"
#include "models/evaluation/evaluation.h"
#include "models/model_file.h"

namespace fluxion::cli {

struct EvalArguments : CommonOptions {
  EvalArguments() { data.data.clear(); }  // none: what the model was trained on
  DataOptions data;
  std::string model, samples, labels;
  std::vector<std::string> metrics;
  SamplerChoice sampler;
  std::optional<std::int64_t> count, batch, probes;
  std::optional<std::string> chosen_class, trace;
  double guidance = 1;
  std::uint64_t seed = 0;
  std::int64_t draws = 4;
  std::string precision = "f32";
  std::string classifier, neighbours;
  bool retrain = false, relabel = false;
};

// What is judged.
struct Samples {
  Shape shape = {};  // of one
  std::int64_t count = 0;
  std::vector<float> values = {};
  std::vector<std::int32_t> drawn = {};  // the class of each in the numbers of the model
  std::vector<std::int32_t> asked = {};  // and in those of the data; empty: none was asked for
  std::string what = {};                 // for people
  SampleView view() const { return {values, count, shape.elements()}; }
};

// What will be drawn, without values and classes.
Samples plan_samples(const EvalArguments& options, const Model& model);
// Each class in turn.
void ask(Samples& samples, const DrawnClasses& classes);
void draw_samples(const EvalArguments& options, const Model& model, const DataSet& data,
                  Samples& samples, ProgressLine& line);

// How many random probes of a Jacobian; 0: it is exact.
std::int64_t chosen_probes(const EvalArguments& options, const Shape& sample_shape);

// Throws Error, naming the sample, where a number that a model gives real samples is not finite.
// `values` holds as many for each of `count` samples, the first of them number `first`.
void check_finite(const EvalArguments& options, const std::string& metric,
                  const std::vector<double>& values, std::int64_t first, std::int64_t count);

// Another program's samples are a data set like any other, but taken in the order of the file, with
// the labels beside them.
Samples read_samples(const EvalArguments& options, const DataSet& set);
// The class that each of another program's samples was asked to be, in judged numbers: `beside` are
// those that lie with the samples.
std::vector<std::int32_t> asked_of(const EvalArguments& options, const DataSet& set,
                                   const std::vector<std::int32_t>& beside, std::int64_t count,
                                   const JudgedClasses& judged);

}  // namespace fluxion::cli
