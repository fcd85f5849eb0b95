// What `fluxion sample` draws from: a model, or a sampler file.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/sample_task.h"
#include "cli/sampler_choice.h"

namespace fluxion::cli {

struct SampleArguments : CommonOptions {
  std::string model;
  std::optional<std::int64_t> given_count;
  std::int64_t count = 64;  // of all samples, once `sample` has begun
  SamplerChoice sampler;
  std::string data;  // of --head-start; empty: what the model was trained on
  std::string chosen_class = "balanced";
  std::optional<double> guidance = {};  // empty: none, or what a sampler file says
  std::uint64_t seed = 0;
  std::int64_t batch = 64;
  std::string precision = "f32";
  int columns = 0, scale = 0;
  std::string out, npy;
  SampleTask task;
};

struct SampleSource {
  Shape shape;                        // of a sample
  std::vector<std::int32_t> classes;  // to draw, one after the other; empty: left open
  std::vector<std::string> class_names;
  nlohmann::json how;  // they are drawn, as PNG files keep it and `fluxion inspect` shows it
  std::function<std::vector<float>(const Sampler::Request& request)> draw;
  std::int64_t steps = 0;              // of a sample, that visits see; 0: they differ
  std::optional<BestSteps> best = {};  // where they lie, of --grid best
  std::function<double()> evaluations;
  std::function<std::size_t()> traces;
};

// Throws Error for what that file can't do: options that a sampler file fixed, a class that it does
// not know.
SampleSource sample_source(const SampleArguments& options, const Device& device);

}  // namespace fluxion::cli
