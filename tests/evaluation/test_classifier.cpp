#include <cmath>
#include <limits>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/data/points.h"
#include "models/evaluation/classifier_cache.h"
#include "models/evaluation/train_classifier.h"
#include "models/files/npy.h"
#include "models/files/safetensors.h"
#include "models/layers/image.h"
#include "models/layers/layers.h"
#include "tests/catch.h"
#include "tests/evaluation/sets.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

const Device& device() {
  static const Device one = cpu({.threads = 2});
  return one;
}

Parameters random_parameters(const ClassifierInfo& info, std::uint64_t seed) {
  Parameters parameters;
  std::uint32_t number = 0;
  for (const auto& [name, shape] : classifier_parameters(info))
    parameters.emplace(name, normal(fold_in(random_key(seed, device()), number++), shape) * 0.1);
  for (const auto& [name, tensor] : parameters) eval(tensor);
  return parameters;
}

Classifier some_classifier() {
  ClassifierInfo info{.sample_shape = {8, 6, 1},
                      .classes = 3,
                      .data = "some",
                      .accuracy = 0.5,
                      .tested = 10,
                      .steps = 7};
  return {info, random_parameters(info, 1)};
}

EvaluationData glyphs(std::int64_t size) {
  return EvaluationData(make_data_set("glyphs", {.image_size = size}));
}

}  // namespace

TEST_CASE("the classifier of images is two convolutions of stride 2 and two linear layers",
          "[evaluation]") {
  for (const Shape& shape : {Shape{28, 28, 1}, Shape{9, 14, 3}, Shape{4, 5, 1}}) {
    const ClassifierInfo info{.sample_shape = shape, .classes = 4};
    const Parameters p = random_parameters(info, 2);
    const Tensor x = normal(random_key(3, device()), {2, shape[0], shape[1], shape[2]});
    Tensor h = x;
    for (const std::string name : {"conv1", "conv2"})
      h = relu(
          conv2d(h, p.at(name + ".weight"), {.stride = {2, 2}, .low = {2, 2}, .high = {2, 2}}) +
          p.at(name + ".bias"));
    const Tensor features = relu(linear(reshape(h, {2, -1}), p.at("fc1.weight"), p.at("fc1.bias")));
    const ClassifierOutput got = apply_classifier(p, x);
    CHECK(got.logits.shape() == Shape{2, 4});
    CHECK(max(abs(got.features - features)).item<float>() < 1e-5f);
    CHECK(max(abs(got.logits - linear(features, p.at("fc2.weight"), p.at("fc2.bias"))))
              .item<float>() < 1e-5f);
  }
}

TEST_CASE("a judge gives every sample the features and class that it would have alone",
          "[evaluation]") {
  const Judge judge(some_classifier());
  const SampleSet samples = gaussian(260, 48, 4);  // more than one chunk
  const Judge::Verdict all = judge(samples),
                       one = judge({std::span(samples.values).last(48), 1, 48});
  CHECK(all.classes.size() == 260);
  CHECK(all.view().count == 260);
  CHECK(all.classes.back() == one.classes.front());
  for (std::size_t k = 0; k < classifier_features; ++k)
    CHECK(std::abs(all.features[259 * classifier_features + k] - one.features[k]) < 1e-5f);
  CHECK_THROWS_AS(judge(gaussian(3, 47, 1)), ShapeError);
  SampleSet broken = samples;
  broken.row(3)[0] = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH(judge(broken), has_text("sample 3"));
}

TEST_CASE("a judge speaks in the numbers that it is given", "[evaluation]") {
  Classifier classifier = some_classifier();
  classifier.info.class_names = {"a", "b", "c"};
  classifier.info.class_marks = {"1", "", "3"};
  classifier.info.unseen = {1};
  const Judge own(classifier), other(classifier, {7, 5, -1});
  const SampleSet samples = gaussian(40, 48, 4);
  const std::vector<std::int32_t> before = own(samples).classes, after = other(samples).classes;
  for (std::size_t i = 0; i < before.size(); ++i)
    CHECK(after[i] == std::vector<std::int32_t>{7, 5, -1}[static_cast<std::size_t>(before[i])]);
  CHECK_FALSE(own.knows(1));
  CHECK(own.knows(0));
  CHECK_FALSE(other.knows(5));
  CHECK(other.knows(7));
  CHECK_THROWS_AS(Judge(classifier, {0, 1}), ShapeError);
  const ScratchFolder folder;
  write_classifier(folder / "c", classifier);
  CHECK(read_classifier(folder / "c", device()).info == classifier.info);
}

TEST_CASE("class accuracy wants a label for each sample", "[evaluation]") {
  CHECK(class_accuracy({1, 2, 3, 4}, {1, 2, 0, 0}) == 0.5);
  CHECK_THROWS_AS(class_accuracy({1, 2}, {1}), ShapeError);
  CHECK_THROWS_AS(class_accuracy({}, {}), ShapeError);
}

TEST_CASE("a classifier comes back from its file, and others are refused", "[evaluation]") {
  const ScratchFolder folder;
  const Classifier written = some_classifier();
  write_classifier(folder / "good", written);
  const Classifier read = read_classifier(folder / "good", device());
  CHECK(read.info == written.info);
  for (const auto& [name, tensor] : written.parameters)
    CHECK(read.parameters.at(name).to_host<float>() == tensor.to_host<float>());

  const TensorFile file = load_tensors(folder / "good", device());
  const auto refused = [&](std::map<std::string, Tensor> tensors, Metadata metadata,
                           const char* says) {
    save_tensors(folder / "bad", tensors, metadata);
    INFO(says);
    CHECK_THROWS_AS(read_classifier(folder / "bad", device()), FormatError);
    CHECK_THROWS_WITH(read_classifier(folder / "bad", device()), has_text("bad") && has_text(says));
  };
  const auto with = [](auto map, const std::string& key, const auto& value) {
    map[key] = value;
    return map;
  };
  auto fewer = file.tensors;
  fewer.erase("fc1.bias");
  refused(fewer, file.metadata, "fc1.bias");
  refused(with(file.tensors, "extra", file.tensors.at("fc1.bias")), file.metadata, "extra");
  refused(with(file.tensors, "fc1.bias", file.tensors.at("fc2.bias")), file.metadata, "fc1.bias");
  refused(with(file.tensors, "fc1.bias", file.tensors.at("fc1.bias").to(DType::f64)), file.metadata,
          "f64");
  refused(file.tensors, {}, "metadata");
  const std::string text = file.metadata.at("fluxion.classifier");
  refused(file.tensors, with(file.metadata, "fluxion.classifier", std::string("{")),
          "not a classifier");
  refused(file.tensors, with(file.metadata, "fluxion.classifier", std::string("{\"classes\": 3}")),
          "not a classifier");
  for (const auto& [from, to] :
       {std::pair("\"classes\":3", "\"classes\":-3"),
        std::pair("\"classes\":3", "\"classes\":4000000000000"), std::pair("[8,6,1]", "[8,6]"),
        std::pair("[8,6,1]", "[4000000000,4000000000,1]")}) {
    std::string changed = text;
    REQUIRE(changed.find(from) != text.npos);
    changed.replace(changed.find(from), std::string(from).size(), to);
    refused(file.tensors, with(file.metadata, "fluxion.classifier", changed), "not a classifier");
  }
}

TEST_CASE("a classifier learns small digits, the same one each time", "[evaluation]") {
  const EvaluationData data = glyphs(8);
  const ClassifierTraining training{.steps = 60, .batch = 64, .tested = 300};
  std::int64_t last = 0;
  const Classifier a =
      train_classifier(data, training, device(), [&](std::int64_t step) { last = step; });
  const Classifier b = train_classifier(data, training, device());
  CHECK(last == 60);
  CHECK(a.info == b.info);
  CHECK(a.info.tested == 300);
  CHECK(a.info.accuracy > 0.5);  // chance is 0.1
  for (const auto& [name, tensor] : a.parameters)
    CHECK(tensor.to_host<float>() == b.parameters.at(name).to_host<float>());
  ClassifierTraining other = training;
  other.seed = 1;
  CHECK(train_classifier(data, other, device()).parameters.at("fc2.weight").to_host<float>() !=
        a.parameters.at("fc2.weight").to_host<float>());
}

TEST_CASE("without a test part a classifier is tested on what it has not seen", "[evaluation]") {
  // Labels that nothing tells: who knows more than half of them has seen them.
  class Coins : public DataSet {
   public:
    Coins() : DataSet("coins", {8}, 2, 400) {}

   protected:
    std::int32_t sample(std::uint64_t, std::uint64_t position, std::span<float> x) const override {
      RandomSequence random(5, position);
      for (float& value : x) value = random.normal();
      return static_cast<std::int32_t>(random.below(2));
    }
  };
  const EvaluationData data(std::make_shared<Coins>());
  const Classifier coins = train_classifier(
      data, {.steps = 150, .batch = 64, .learning_rate = 1e-2, .tested = 1000}, device());
  CHECK(coins.info.tested == 200);
  CHECK(std::abs(coins.info.accuracy - 0.5) < 0.12);  // over three deviations
  const HostBatch seen = data.training(200, 0, 0);
  CHECK(class_accuracy(Judge(coins)(data.view(seen)).classes, seen.labels) > 0.9);
}

TEST_CASE("a classifier of few samples is trained for fewer steps", "[evaluation]") {
  class Zeros : public DataSet {
   public:
    explicit Zeros(std::int64_t size) : DataSet("zeros", {2}, 2, size) {}

   protected:
    std::int32_t sample(std::uint64_t, std::uint64_t, std::span<float>) const override { return 0; }
  };
  const auto steps = [](std::int64_t train, std::int64_t test) {
    const auto set = std::make_shared<Zeros>(train);
    return usual_training(test > 0 ? EvaluationData(set, std::make_shared<Zeros>(test))
                                   : EvaluationData(set))
        .steps;
  };
  CHECK(steps(8, 9) == 100);
  CHECK(steps(256, 9) == 200);
  CHECK(steps(512, 0) == 200);  // the other half is the reference
  CHECK(steps(1'280, 9) == 1'000);
  CHECK(steps(60'000, 0) == 1'000);
  CHECK(usual_training(glyphs(8)).steps == 1'000);
}

TEST_CASE("training a classifier needs labels, and can be stopped", "[evaluation]") {
  CHECK_THROWS_WITH(train_classifier(EvaluationData(eight_gaussians()), {}, device()),
                    has_text("labels"));
  std::stop_source stop;
  stop.request_stop();
  CHECK_THROWS_AS(train_classifier(glyphs(8), {}, device(), {}, stop.get_token()), Cancelled);
}

TEST_CASE("the cache tells data sets apart", "[evaluation]") {
  const auto eight = make_data_set("glyphs", {.image_size = 8}),
             ten = make_data_set("glyphs", {.image_size = 10});
  CHECK(classifier_file_name(*eight) ==
        classifier_file_name(*make_data_set("glyphs", {.image_size = 8})));
  CHECK(classifier_file_name(*eight) != classifier_file_name(*ten));
  CHECK(classifier_file_name(*eight) != classifier_file_name(*eight, true));
  CHECK(classifier_file_name(*eight).rfind("glyphs-", 0) == 0);
  const auto renamed = make_data_set("glyphs", {.image_size = 8});
  renamed->number_classes({"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "ten"});
  CHECK(classifier_file_name(*eight) != classifier_file_name(*renamed));
}

TEST_CASE("a set has one classifier, however its path is written", "[evaluation]") {
  const ScratchFolder folder;
  const std::filesystem::path set = folder / "set.npy";
  write_npy(set, std::vector<float>(8 * 8 * 3, 0.5f), {3, 8, 8, 1});
  const std::string name = classifier_file_name(*make_data_set(set.string()));
  CHECK(name.rfind("set.npy-", 0) == 0);
  for (const std::filesystem::path& other :
       {folder.path() / "." / "set.npy",
        folder.path() / ".." / folder.path().filename() / "set.npy",
        std::filesystem::relative(set)})
    CHECK(classifier_file_name(*make_data_set(other.string())) == name);
}
