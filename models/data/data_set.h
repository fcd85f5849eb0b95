// Data sets: where training batches come from.
//
// A data set is a pure function of (seed, position): batch number `step` holds the samples at positions step*count .. step*count + count - 1. A run
// that stops and resumes at a step sees the same data bit for bit, and nothing needs to be saved but the step.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/shape.h"

namespace fluxion {

struct HostBatch {
  std::vector<float> x;              // [count, sample shape..]; images NHWC in [-1, 1]
  std::vector<std::int32_t> labels;  // [count]; all 0 where the set is unlabelled
};

class DataSet {
 public:
  virtual ~DataSet() = default;

  const std::string& name() const { return name_; }
  const Shape& sample_shape() const { return sample_shape_; }  // [2] for points, [height, width, channels] for images
  bool is_image() const { return sample_shape_.rank() == 3; }
  std::int32_t classes() const { return classes_; }           // 0: unlabelled
  std::optional<std::int64_t> size() const { return size_; }  // empty: endless

  // Finite sets are gone through in epochs, each in an order of its own. Safe from several threads at once.
  HostBatch batch(std::int64_t count, std::uint64_t seed, std::uint64_t step) const;

 protected:
  DataSet(std::string name, Shape sample_shape, std::int32_t classes, std::optional<std::int64_t> size);
  // Writes one sample and returns its label. Endless sets: `position` is the position asked for; finite sets: the index of the sample.
  virtual std::int32_t sample(std::uint64_t seed, std::uint64_t position, std::span<float> x) const = 0;

 private:
  std::string name_;
  Shape sample_shape_;
  std::int32_t classes_;
  std::optional<std::int64_t> size_;
};

enum class Split { train, test };

struct DataSetOptions {
  std::int64_t image_size = 0;  // height and width; 0: the set's own (glyphs: 28)
  Split split = Split::train;   // of sets on disk
};

// A built-in set by name, or a set on disk by path: a folder with MNIST's IDX files (plain or .gz), or an IDX image file with its labels beside it.
// Throws Error listing the built-in names and the files looked for; IoError, FormatError for a damaged file.
std::unique_ptr<DataSet> make_data_set(const std::string& name_or_path, const DataSetOptions& options = {});

struct DataSetDescription {
  std::string name, summary;
};
const std::vector<DataSetDescription>& built_in_data_sets();

}  // namespace fluxion
