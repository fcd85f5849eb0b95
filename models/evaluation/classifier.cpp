#include "models/evaluation/classifier.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "models/files/safetensors.h"
#include "models/json_text.h"
#include "models/layers/image.h"
#include "models/layers/layers.h"

namespace fluxion {

namespace {

using nlohmann::json;

constexpr const char* metadata_key = "fluxion.classifier";
constexpr std::int64_t judged_at_a_time = 250;

bool is_image(const ClassifierInfo& info) { return info.sample_shape.rank() == 3; }

// The convolutions: of stride 2, padded so that each leaves half of every size, rounded up.
constexpr std::int64_t kernel = 5, stride = 2, border = kernel / 2;
std::int64_t half(std::int64_t size) { return (size + 1) / 2; }

Tensor convolution(const Parameters& parameters, const std::string& name, const Tensor& x) {
  const ConvolutionOptions options{
      .stride = {stride, stride}, .low = {border, border}, .high = {border, border}};
  return relu(conv2d(x, parameter(parameters, name + ".weight"), options) +
              parameter(parameters, name + ".bias"));
}
Tensor dense(const Parameters& parameters, const std::string& name, const Tensor& x) {
  return linear(x, parameter(parameters, name + ".weight"), parameter(parameters, name + ".bias"));
}

json to_json(const ClassifierInfo& info) {
  json result = {{"sample_shape", info.sample_shape.dims()},
                 {"classes", info.classes},
                 {"data", info.data},
                 {"accuracy", info.accuracy},
                 {"tested", info.tested},
                 {"steps", info.steps}};
  if (!info.class_names.empty()) result["class_names"] = info.class_names;
  if (!info.class_marks.empty()) result["class_marks"] = info.class_marks;
  if (!info.unseen.empty()) result["unseen"] = info.unseen;
  return result;
}

ClassifierInfo info_from(const json& object) {
  ClassifierInfo info;
  const Dims dims = json_member<Dims>(object, "sample_shape");
  for (const std::int64_t size : dims)
    if (size < 0) throw FormatError("a sample shape of " + to_string(dims));
  info.sample_shape = Shape(dims);
  info.classes = json_member<std::int64_t>(object, "classes");
  info.class_names = json_member_or<std::vector<std::string>>(object, "class_names", {});
  info.class_marks = json_member_or<std::vector<std::string>>(object, "class_marks", {});
  info.unseen = json_member_or<std::vector<std::int32_t>>(object, "unseen", {});
  std::erase_if(info.unseen,
                [&](std::int32_t number) { return number < 0 || number >= info.classes; });
  info.data = json_member<std::string>(object, "data");
  info.accuracy = json_member<double>(object, "accuracy");
  if (!(info.accuracy >= 0 && info.accuracy <= 1))
    throw FormatError("accuracy must be from 0 to 1, is " + number_text(info.accuracy));
  info.tested = json_member<std::int64_t>(object, "tested");
  info.steps = json_member<std::int64_t>(object, "steps");
  return info;
}

}  // namespace

std::map<std::string, Shape> classifier_parameters(const ClassifierInfo& info) {
  constexpr std::int64_t largest = 1024;
  const Shape& shape = info.sample_shape;
  const auto in_range = [&](std::int64_t least) {
    return std::all_of(shape.begin(), shape.end(),
                       [&](std::int64_t size) { return size >= least && size <= largest; });
  };
  if (!(shape.rank() == 1 && in_range(1)) &&
      !(shape.rank() == 3 && in_range(1) && shape[0] >= 4 && shape[1] >= 4 && shape[2] <= 4))
    throw ShapeError("classifier: samples of shape " + to_string(shape) +
                     " are neither images [height, width, channels] nor points [dim]");
  if (info.classes < 2 || info.classes > 100'000)
    throw ShapeError("classifier: needs at least 2 classes, got " + std::to_string(info.classes));
  if (!info.class_names.empty() && std::ssize(info.class_names) != info.classes)
    throw ShapeError("classifier: " + std::to_string(info.class_names.size()) + " names for " +
                     std::to_string(info.classes) + " classes");
  std::map<std::string, Shape> shapes = {{"fc2.weight", {info.classes, classifier_features}},
                                         {"fc2.bias", {info.classes}}};
  std::int64_t inputs = classifier_features;
  if (is_image(info)) {
    shapes.merge(std::map<std::string, Shape>{{"conv1.weight", {5, 5, shape[2], 16}},
                                              {"conv1.bias", {16}},
                                              {"conv2.weight", {5, 5, 16, 32}},
                                              {"conv2.bias", {32}}});
    inputs = half(half(shape[0])) * half(half(shape[1])) * 32;
  } else {
    shapes.merge(std::map<std::string, Shape>{{"fc0.weight", {classifier_features, shape[0]}},
                                              {"fc0.bias", {classifier_features}}});
  }
  shapes.merge(std::map<std::string, Shape>{{"fc1.weight", {classifier_features, inputs}},
                                            {"fc1.bias", {classifier_features}}});
  return shapes;
}

ClassifierOutput apply_classifier(const Parameters& parameters, const Tensor& x) {
  Tensor h = x;
  if (x.rank() == 4) {
    h = convolution(parameters, "conv2", convolution(parameters, "conv1", h));
    h = reshape(h, {x.size(0), -1});
  } else {
    h = relu(dense(parameters, "fc0", h));
  }
  const Tensor features = relu(dense(parameters, "fc1", h));
  return {features, dense(parameters, "fc2", features)};
}

void write_classifier(const std::filesystem::path& path, const Classifier& classifier) {
  save_tensors(path, classifier.parameters,
               {{metadata_key,
                 to_json(classifier.info).dump(-1, ' ', false, json::error_handler_t::replace)}});
}

Classifier read_classifier(const std::filesystem::path& path, const Device& device) {
  const auto refuse = [&](const std::string& why) {
    throw FormatError(path.string() + ": not a classifier of this program: " + why);
  };
  const SafetensorsFile file(path);
  const auto text = file.metadata().find(metadata_key);
  if (text == file.metadata().end()) refuse(std::string("its metadata lacks ") + metadata_key);
  Classifier classifier;
  std::map<std::string, Shape> shapes;
  try {
    classifier.info = info_from(parse_json(text->second, metadata_key));
    shapes = classifier_parameters(classifier.info);
  } catch (const Error& error) {
    refuse(error.what());
  }
  for (const SafetensorsEntry& entry : file.entries())
    if (!shapes.contains(entry.name)) refuse("it has no parameter \"" + entry.name + "\"");
  for (const auto& [name, shape] : shapes) {
    const SafetensorsEntry* const entry = file.find(name);
    if (!entry) refuse("\"" + name + "\" is missing");
    if (entry->dtype != DType::f32 || entry->shape != shape)
      refuse("\"" + name + "\" is " + to_string(*entry) + ", should be " +
             to_string(TensorType{shape, DType::f32}));
    classifier.parameters.emplace(name,
                                  Tensor::from_bytes(entry->bytes, {shape, DType::f32}, device));
  }
  file.check_content();
  file.check_whole();
  return classifier;
}

struct Judge::State {
  using Apply = std::function<std::pair<Tensor, Tensor>(const Tensor& x)>;
  Classifier classifier;
  std::vector<std::int32_t> number_of;
  Compiled<Apply> apply;

  std::int32_t number(std::int32_t own) const {
    return number_of.empty() ? own : number_of.at(static_cast<std::size_t>(own));
  }
};

Judge::Judge(Classifier classifier, std::vector<std::int32_t> number_of) {
  if (classifier.parameters.empty()) throw Error("classifier: no parameters");
  if (!number_of.empty() && std::ssize(number_of) != classifier.info.classes)
    throw ShapeError("classifier: " + std::to_string(number_of.size()) + " numbers for " +
                     std::to_string(classifier.info.classes) + " classes");
  State::Apply apply = [parameters = classifier.parameters](const Tensor& x) {
    const ClassifierOutput output = apply_classifier(parameters, x);
    return std::pair(output.features, argmax(output.logits, -1));
  };
  state_ = std::make_shared<const State>(
      State{std::move(classifier), std::move(number_of), compile(std::move(apply))});
}

const ClassifierInfo& Judge::info() const { return state_->classifier.info; }

bool Judge::knows(std::int32_t number) const {
  return std::ranges::none_of(info().unseen,
                              [&](std::int32_t own) { return state_->number(own) == number; });
}

Judge::Verdict Judge::operator()(const SampleView& samples) const {
  check_samples(samples, 1, "classifier");
  const Shape& shape = info().sample_shape;
  if (samples.dim != shape.elements())
    throw ShapeError("classifier: judges samples of shape " + to_string(shape) + ", these have " +
                     std::to_string(samples.dim) + " numbers each");
  const Device device = state_->classifier.parameters.begin()->second.device();
  const auto dim = static_cast<std::size_t>(samples.dim);
  Dims dims = shape.dims();
  dims.insert(dims.begin(), judged_at_a_time);
  std::vector<float> chunk(static_cast<std::size_t>(judged_at_a_time) * dim);
  Verdict verdict;
  for (std::int64_t begin = 0; begin < samples.count; begin += judged_at_a_time) {
    const auto used = static_cast<std::size_t>(std::min(judged_at_a_time, samples.count - begin));
    // What the last chunk lacks is filled with what the one before held: one compiled function
    // serves all.
    std::copy_n(samples.values.begin() + begin * samples.dim, used * dim, chunk.begin());
    const auto [features, classes] = state_->apply(Tensor::from(chunk, Shape(dims), device));
    const std::vector<float> values = features.to_host<float>();
    const std::vector<std::int32_t> numbers = classes.to_host<std::int32_t>();
    verdict.features.insert(
        verdict.features.end(), values.begin(),
        values.begin() + static_cast<std::ptrdiff_t>(used) * classifier_features);
    for (std::size_t i = 0; i < used; ++i) verdict.classes.push_back(state_->number(numbers[i]));
  }
  return verdict;
}

double class_accuracy(const std::vector<std::int32_t>& classes,
                      const std::vector<std::int32_t>& asked) {
  if (classes.size() != asked.size() || classes.empty())
    throw ShapeError("class accuracy: " + std::to_string(asked.size()) + " labels for " +
                     std::to_string(classes.size()) + " samples");
  std::size_t right = 0;
  for (std::size_t i = 0; i < classes.size(); ++i) right += classes[i] == asked[i];
  return static_cast<double>(right) / static_cast<double>(classes.size());
}

}  // namespace fluxion
