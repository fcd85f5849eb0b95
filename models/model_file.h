// A trained model in one safetensors file: the parameters under their public names, and everything
// needed to use them as JSON metadata.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "models/networks/network.h"
#include "models/paths/wrapping.h"

namespace fluxion {

// Guidance that a model was trained with: its samples are guided already.
struct TrainedGuidance {
  double omega = 1, kappa = 0;
  bool operator==(const TrainedGuidance&) const = default;
};

// How samples are drawn of a model where nobody says how: a sampler by name (sampler_kind_from),
// and its number of steps.
struct DefaultSampling {
  std::string sampler = "meanflow";
  std::int64_t steps = 1;
  bool operator==(const DefaultSampling&) const = default;
};

// What is usual for networks with this prediction: one step for average velocities, fifty of
// Euler's for others.
DefaultSampling usual_sampling(Prediction prediction);

struct ModelInfo {
  NetworkConfig network;
  // The training method by name, and its options as JSON text; informative: a file says all that
  // drawing samples needs, and a program that lacks the method can read it.
  std::string method, method_options = "{}";
  // What the network predicts, on which path, and how its output becomes that.
  Prediction prediction = Prediction::average_velocity;
  Path path = {};
  Wrapping wrapping = Wrapping::none;
  DefaultSampling sampling = {};
  std::optional<TrainedGuidance> guidance;
  // How noise and data were paired: "" (independently), "exact", "sinkhorn", "pairs" of a teacher,
  // "source" (independently, but the noise is none), or not at all: "flow", any that takes data to
  // noise. Where they were not independent, the
  // velocity says nothing of the score of what is on the way.
  std::string coupling;
  // The built-in set of points that its flow begins in (models/data/source_set.h); "": standard
  // normal noise.
  std::string source;
  bool open_class = true;  // where there are classes: samples without one were trained, too
  std::string dataset;     // informative
  std::vector<std::string> class_names;  // may be empty: classes are known by number alone
  // DataSet::class_marks of the data that it was trained on; may be empty.
  std::vector<std::string> class_marks;
  // Classes that training had no sample of, in order: their rows hold what they began with.
  std::vector<std::int32_t> untrained_classes;
  bool ema = true;                     // the parameters are a moving average
  std::optional<double> ema_decay;     // its decay, where known
  std::int64_t step = 0;               // updates done
  std::optional<Precision> precision;  // that training computed products in, where known
  bool operator==(const ModelInfo&) const = default;
};

struct Model {
  ModelInfo info;
  Parameters parameters;
};

// What a network of such a model predicts, with its parameters bound: as samplers take it.
Predictor predictor(const ModelInfo& info, const Velocity& network);

// Writes to a temporary name, flushes, renames. Throws FormatError if the parameters are not those
// of the network, IoError if the system refuses.
void write_model(const std::filesystem::path& path, const Model& model);

// Every parameter's name and shape is checked against the configuration in the file. Throws
// FormatError naming the key, what it is and what it should be; so does a name of a network, a
// prediction or a sampler that this version does not know. Floating parameters of other types are
// converted to `dtype`.
// `path` may be the folder of a training run: its model.safetensors.
Model read_model(const std::filesystem::path& path, const Device& device, DType dtype = DType::f32);
// The file that read_model reads: `path`, or model.safetensors in that folder.
std::filesystem::path model_file(const std::filesystem::path& path);
// Throws IoError for a folder that holds no model.safetensors.
void check_holds_model(const std::filesystem::path& path);
// The metadata alone.
ModelInfo read_model_info(const std::filesystem::path& path);

// Throws FormatError unless `parameters` has exactly the names and shapes of `network`.
void check_parameters(const NetworkConfig& network, const Parameters& parameters,
                      const std::string& where);

// The classes that samples are drawn of where none is asked for: all but the untrained ones.
std::vector<std::int32_t> trained_classes(const ModelInfo& info);
// The data set by name: of a path the last part, since what is passed on should not tell where its
// author keeps data.
std::string data_name(const ModelInfo& info);
// The class that `text` asks for, by name or, where names are no numbers, by number. Throws Error,
// with the classes that there are, for one that the model lacks or was not trained on.
std::int32_t class_of(const ModelInfo& info, const std::string& text);

// Throws Error if samples without a class can't be drawn: the model has classes, and training never
// left one open, so that the null class is a row that holds what it began with.
void check_open_class(const ModelInfo& info);

// Throws Error, with the reason, if samples of this model can't be guided with that scale (1:
// none): the model has no classes, its null class was not trained, or its guidance was trained in.
void check_guidance(const ModelInfo& info, double scale);

}  // namespace fluxion
