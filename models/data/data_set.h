// Data sets: where training batches come from.
//
// A data set is a pure function of (seed, position): batch number `step` holds the samples at
// positions step*count .. step*count + count - 1. A run that stops and resumes at a step sees the
// same data bit for bit, and nothing needs to be saved but the step.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/graph/shape.h"
#include "models/data/class_names.h"

namespace fluxion {

struct HostBatch {
  std::vector<float> x;              // [count, sample shape..]; images NHWC in [-1, 1]
  std::vector<std::int32_t> labels;  // [count]; all 0 where the set is unlabelled
  std::vector<float> noise = {};     // [count, sample shape..], that x goes with; empty: any
};

class DataSet {
 public:
  virtual ~DataSet() = default;

  const std::string& name() const { return name_; }
  const Shape& sample_shape() const {
    return sample_shape_;
  }  // [2] for points, [height, width, channels] for images
  bool is_image() const { return sample_shape_.rank() == 3; }
  std::int32_t classes() const {
    return static_cast<std::int32_t>(class_names_.size());
  }  // 0: unlabelled
  const std::vector<std::string>& class_names() const {
    return class_names_;
  }  // in UTF-8; numbers where the set has no names for them
  std::optional<std::int64_t> size() const { return size_; }  // empty: endless
  // Whether each sample goes with noise of its own, which batches hold.
  virtual bool has_noise() const { return false; }

  // Each class that a set on disk opens with has a sample: a name without one is left out, with a
  // warning. Later one may lose them, to damage that only decoding shows.
  //
  // The class of each sample of a finite set, by its place on disk; -1: it turned out damaged, and
  // another stands in for it. Empty for endless sets, without classes, and where only drawing
  // tells.
  std::vector<std::int32_t> labels() const;
  // How many samples each class has; empty where labels() is.
  std::vector<std::int64_t> class_sizes() const;
  std::vector<std::int32_t> classes_without_samples() const;
  // A checksum of each class's first sample as it is stored, by which what was renamed is known
  // again; "": not known. Empty where labels() is.
  std::vector<std::string> class_marks() const;

  // What was left out or looks wrong, a line each: files that are no images, images that can't be
  // read, ... Damage that only decoding shows is added when a batch meets it, so there may be more
  // of them at the end of a run.
  std::vector<std::string> warnings() const;

  // Finite sets are gone through in epochs, each in an order of its own. Safe from several threads
  // at once.
  HostBatch batch(std::int64_t count, std::uint64_t seed, std::uint64_t step) const;

  // The memory that samples may take as they are asked for, on top of what the set holds already.
  virtual std::uint64_t bytes_to_come() const { return 0; }

  // From now on labels are numbers among `names`, by name; names that the set lacks are classes
  // without samples. Throws Error unless its own names are all there.
  void number_classes(const std::vector<std::string>& names);
  // From now on every label is 0, and there are no classes.
  void drop_labels();
  // From now on each image of a batch is mirrored left to right with probability 1/2, by (seed,
  // position). Throws Error unless these are images.
  void flip_at_random();

 protected:
  DataSet(std::string name, Shape sample_shape, std::int32_t classes,
          std::optional<std::int64_t> size);
  DataSet(std::string name, Shape sample_shape, std::vector<std::string> class_names,
          std::optional<std::int64_t> size);
  // Writes one sample and returns its label. Endless sets: `position` is the position asked for;
  // finite sets: the index of the sample.
  virtual std::int32_t sample(std::uint64_t seed, std::uint64_t position,
                              std::span<float> x) const = 0;
  // The noise of the sample at that index, of sets that have it.
  virtual void noise(std::uint64_t index, std::span<float> e) const;
  // labels() and class_marks() in the classes that `sample` speaks of.
  virtual std::vector<std::int32_t> stored_labels() const { return {}; }
  virtual std::vector<std::string> stored_marks() const { return {}; }
  // Called after the samples of a batch were written; throws where they can't be believed.
  virtual void check_read() const {}
  void warn(std::string line) const;

 private:
  std::string name_;
  Shape sample_shape_;
  std::vector<std::string> class_names_;
  std::optional<std::int64_t> size_;
  std::vector<std::int32_t> number_of_;  // of a stored class; empty: its own
  bool labels_dropped_ = false, flips_ = false;
  mutable std::mutex warnings_mutex_;
  mutable std::vector<std::string> warnings_;
};

enum class Split { train, test };

// The set has no test part: nothing is damaged, there is none.
class NoTestPart : public Error {
 public:
  using Error::Error;
};

struct DataSetOptions {
  std::int64_t image_size = 0;  // height and width; 0: the set's own (glyphs: 28)
  Split split = Split::train;   // of sets on disk; what is drawn by code has no end, and another
                                // seed is a held-out set
  std::int64_t channels = 0;    // of images: 1 (grey) or 3 (RGB); 0: the set's own
  bool flip = false;            // mirror images at random
  bool labels = true;           // false: leave the classes out
  // Of images in a folder: number them in the order of sort_by_number (models/data/image_list.h),
  // not by name in byte order.
  bool by_number = false;
  // Told, from the calling thread, how many of a folder's files have been looked at.
  std::function<void(std::int64_t done, std::int64_t total)> progress = {};
  // Bytes that decoded images may take, beyond which they are decoded again in every epoch; empty:
  // half of the memory that is free, or of the limit.
  std::optional<std::uint64_t> memory = {};
  // Bytes that unpacking an array, or decoding a picture, may take; more is refused with
  // OutOfMemory. Empty: what is free.
  std::optional<std::uint64_t> memory_limit = {};
};

// Throws Error unless images of this size and with so many channels (0: the set's own) can be made.
void check_image_options(const std::string& data_set, std::int64_t size, std::int64_t channels);

// A built-in set by name, or a set on disk by path (docs/data.md says what is read).
// Throws Error listing the built-in names, or where the set has no such size or channels,
// NoTestPart where it has no test part; IoError, FormatError for a damaged file.
std::unique_ptr<DataSet> make_data_set(const std::string& name_or_path,
                                       const DataSetOptions& options = {});

struct DataSetDescription {
  std::string name, summary;
};
const std::vector<DataSetDescription>& built_in_data_sets();

}  // namespace fluxion
