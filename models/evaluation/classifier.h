// The judge of generated samples: a small classifier, and the features before its last layer.
//
//   images [height, width, channels]:
//     conv 5x5 stride 2, 16 -> ReLU -> conv 5x5 stride 2, 32 -> ReLU -> linear 64 -> ReLU ->
//     linear classes
//   points [dim]:
//     linear 64 -> ReLU -> linear 64 -> ReLU -> linear classes
//
// (LeCun et al. 1998 is where the first comes from: "LeNet" below.) Training it is in
// train_classifier.h.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "models/evaluation/sample_view.h"
#include "models/networks/parameters.h"

namespace fluxion {

// Everything about a classifier but its numbers.
struct ClassifierInfo {
  Shape sample_shape;                         // [height, width, channels], sizes 4 and up, or [dim]
  std::int64_t classes = 0;                   // 2 and up
  std::vector<std::string> class_names = {};  // empty in older files: known by number alone
  std::vector<std::string> class_marks = {};  // DataSet::class_marks; may be empty
  std::vector<std::int32_t> unseen = {};      // classes that training had no sample of, in order
  std::string data = {};                      // what it was trained on; informative
  double accuracy = 0;                        // on `tested` samples that it was not trained on
  std::int64_t tested = 0;
  std::int64_t steps = 0;  // of training
  bool operator==(const ClassifierInfo&) const = default;
};

constexpr std::int64_t classifier_features = 64;

// Every parameter's name and shape. Throws ShapeError for samples or classes that no classifier can
// have.
std::map<std::string, Shape> classifier_parameters(const ClassifierInfo& info);

// x [batch, ..sample_shape] -> features [batch, 64], the ReLU outputs before the last layer, and
// logits [batch, classes].
struct ClassifierOutput {
  Tensor features, logits;
  static auto members(auto& self) { return std::tie(self.features, self.logits); }
};
ClassifierOutput apply_classifier(const Parameters& parameters, const Tensor& x);

struct Classifier {
  ClassifierInfo info;
  Parameters parameters;
};

// One safetensors file. Reading checks every name, shape and type: FormatError says what is wrong.
void write_classifier(const std::filesystem::path& path, const Classifier& classifier);
Classifier read_classifier(const std::filesystem::path& path, const Device& device);

// A classifier at work on samples in host memory.
class Judge {
 public:
  // number_of: what each class of the classifier is called in verdicts, -1 for none of those that
  // are asked for; empty: by its own number.
  explicit Judge(Classifier classifier, std::vector<std::int32_t> number_of = {});

  const ClassifierInfo& info() const;
  // Whether a sample can be judged to be of that class, in the numbers of verdicts: training saw
  // one.
  bool knows(std::int32_t number) const;

  struct Verdict {
    std::vector<float> features;        // [count, 64]
    std::vector<std::int32_t> classes;  // [count], the class with the largest logit
    SampleView view() const {
      return {features, static_cast<std::int64_t>(classes.size()), classifier_features};
    }
  };
  // Throws ShapeError for samples of another size, Error for numbers that are not finite.
  Verdict operator()(const SampleView& samples) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

// Share of samples whose class is the one asked for. Throws ShapeError unless there is one label a
// sample.
double class_accuracy(const std::vector<std::int32_t>& classes,
                      const std::vector<std::int32_t>& asked);

}  // namespace fluxion
