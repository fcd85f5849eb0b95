// What `fluxion eval` measures: samples of a generator against a data set, every number beside the
// one that the data themselves would get.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/data/data_set.h"
#include "models/evaluation/classifier.h"

namespace fluxion {

// Real samples to compare with: a reference that is held out where the set has a test part, and
// fresh draws that play the part of a perfect generator. Reference and draws never share a sample
// of a finite set; of an endless one they have seeds of their own.
class EvaluationData {
 public:
  // `test` may be empty: a finite set is then divided, the first half of a fixed permutation being
  // the reference. The labels of both are numbers of the training set's classes; throws Error for a
  // test part with a class that the training set lacks.
  explicit EvaluationData(std::shared_ptr<const DataSet> train,
                          std::shared_ptr<const DataSet> test = nullptr);

  const DataSet& train() const { return *train_; }
  bool held_out() const { return held_out_; }  // the reference is no part of the training data

  HostBatch reference(std::int64_t count) const;  // fewer if there are fewer
  std::optional<std::int64_t> reference_size() const { return reference_.count; }  // empty: endless
  HostBatch fresh(std::int64_t count, std::int64_t draw) const;  // draw below draws(count)
  std::int64_t draws(std::int64_t count, std::int64_t most)
      const;  // disjoint draws of that size, at most `most`; 0 if the set is too small for one
  SampleView view(const HostBatch& batch) const;
  // Bytes of a batch of so many, which may be more than there could be.
  double batch_bytes(std::int64_t count) const;
  // Batches for a classifier, which never share a sample with the reference: of the training set,
  // or of the half that is not the reference.
  HostBatch training(std::int64_t count, std::uint64_t seed, std::uint64_t step) const;
  std::optional<std::int64_t> training_size() const { return fresh_.count; }  // empty: endless
  // The classes that training() has no sample of, in order. Where only drawing tells: none.
  std::vector<std::int32_t> unseen_classes() const;

 private:
  struct Part {
    std::shared_ptr<const DataSet> set;
    std::uint64_t seed = 0;
    std::int64_t begin = 0;
    std::optional<std::int64_t> count;         // empty: endless
    std::vector<std::int32_t> number_of = {};  // of the set's classes; empty: their own
    HostBatch read(std::int64_t from, std::int64_t count) const;
  };
  std::shared_ptr<const DataSet> train_;
  Part reference_, fresh_;
  bool held_out_ = true;
};

// A number, and what it is for real samples in place of the generated ones: the noise floor, which
// no generator can be told from.
struct Measurement {
  std::string name;
  double value = 0;
  std::optional<double> floor = {};  // mean over `draws`
  double spread = 0;                 // standard deviation over them, 0 for one
  std::int64_t draws = 0;
  std::int64_t floor_count =
      0;  // samples of each, where the data have too few for as many as were generated: fewer
  bool lower_is_better = true;
  std::optional<double> large_floor =
      {};  // Frechet distances, which shrink as samples grow: the floor of `large_draw` samples
  std::int64_t large_draw = 0;
  std::string note = {};           // one line for people
  std::vector<double> parts = {};  // modes: the share of each
};

struct EvaluationOptions {
  std::vector<std::string> metrics;  // names from metric_names()
  std::int64_t draws = 4;            // for the noise floors; 0: no floor
  std::int64_t reference = 10'000;  // samples of the reference of `frechet` and `classifier`; other
                                    // metrics take as many as there are samples
  int threads = 0;
};

struct MetricName {
  std::string name, summary;
};
const std::vector<MetricName>& metric_names();
// Those that suit the data: with a judge classifier, frechet and recall; points otherwise get
// sliced-wasserstein, energy, mmd and, where the set's modes are known, modes.
std::vector<std::string> default_metrics(const DataSet& data, bool with_judge);
// Whether a metric measures a model instead of samples (cli/eval_model.h): evaluate_samples knows
// none of these.
bool is_of_model(const std::string& metric);
// Whether a metric needs the judge of this data set.
bool needs_judge(const std::string& metric, const DataSet& data);

// Throws Error for a metric that these data can't have: an unknown name, or modes that are not
// known.
void check_metrics(const std::vector<std::string>& metrics, const DataSet& data);

// Throws ShapeError where a metric needs more generated samples than `count`, or more real ones
// than the data have, and Error where mmd needs some that differ, as evaluate_samples does: for
// those who would train a judge or draw samples first.
void check_counts(const std::vector<std::string>& metrics, std::int64_t count,
                  const EvaluationData& data);

// Bytes that evaluate_samples takes beside `count` samples: the real ones, a fresh draw and what
// distances are computed of. (The classifier's batches are small.)
double evaluation_bytes(const EvaluationOptions& options, std::int64_t count,
                        const EvaluationData& data);

// Minus the mean log density, in nats, that a built-in set's own distribution gives to points: what
// no model's likelihood is above, but for chance. Empty where the density is not known.
std::optional<double> known_surprise(const DataSet& data, const SampleView& points);

// Told, in words, what is being computed.
using EvaluationProgress = std::function<void(const std::string& doing)>;

// Samples [count, ..sample_shape] against the data. asked: the class that each sample was asked to
// be, or empty if none was. judge: for metrics that need one, else may be null. Throws ShapeError
// for samples that do not fit the data, Error for a metric that can't be had (unknown, no judge, no
// classes, no known modes) or samples with numbers that are not finite.
std::vector<Measurement> evaluate_samples(const SampleView& samples,
                                          const std::vector<std::int32_t>& asked,
                                          const EvaluationData& data, const Judge* judge,
                                          const EvaluationOptions& options,
                                          const EvaluationProgress& progress = {});

}  // namespace fluxion
