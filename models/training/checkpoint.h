// A training run on disk: everything that a run which stops needs to go on as if it had not, bit
// for bit, in one safetensors file.
//
//   tensors    parameters.NAME, m.NAME, v.NAME, ema.0.NAME, ema.1.NAME, .. and step, with
//              learned.NAME among the names where the method has parameters of its own;
//              method.TREE.NAME, what the method keeps;
//              loss_scale.scale, .finite and .skipped, where the loss is scaled
//   metadata   "fluxion.checkpoint": the configuration, what the data were, seconds of training so
//   far, what the next row of the log has so far, and settings of the program around it
//
// The position in the data needs no entry of its own: batches are a function of (seed, step).
// Frozen parameters follow from the configuration.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "models/training/log.h"
#include "models/training/trainer.h"

namespace fluxion {

struct CheckpointInfo {
  TrainingConfig config;
  // The data set, as far as it must be the same again.
  struct Data {
    std::string name;  // informative: a folder may have moved
    Shape sample_shape;
    std::int32_t classes = 0;
    std::vector<std::string> class_names;  // empty in older files: classes are known by number
    std::vector<std::string> class_marks;  // DataSet::class_marks; may be empty
    std::vector<std::int32_t> untrained_classes;  // that had no samples
    std::optional<std::int64_t> size;
    bool operator==(const Data&) const = default;
  } data;
  std::int64_t step = 0;        // updates done
  double seconds = 0;           // spent on them, over all parts of the run
  LogSums since_row = {};       // of the updates that are in no row of the log yet
  std::string settings = "{}";  // JSON text of the caller's own
  bool operator==(const CheckpointInfo&) const = default;
};

// Replaces the file in one piece: until the new one is on the disk, the old one stays. Throws
// IoError.
void write_checkpoint(const std::filesystem::path& path, const Trainer& trainer, double seconds,
                      const std::string& settings = "{}", const LogSums& since_row = {});

// The metadata, after the file's tensors have been compared by name and type with what they ask
// for. Throws IoError; FormatError for a file that is no checkpoint, a damaged one, or one of a
// method that the table lacks.
CheckpointInfo read_checkpoint_info(const std::filesystem::path& path,
                                    const MethodTable& methods = built_in_methods());

// Numbers the classes of `data` as the run does, by name. Throws Error that says how they differ
// where the data lack a class that the run had samples of or have one that it lacks, or where the
// content of classes has changed places.
void match_classes(DataSet& data, const CheckpointInfo& info);

// How resume_trainer takes classes: by name, or by number, whatever they are called now.
enum class ClassesBy { name, number };

// What a run may change of its optimiser when it goes on; empty: nothing.
struct ResumedRate {
  std::optional<double> learning_rate = {}, clip_norm = {};
};

// A trainer that goes on where the one that was written stopped. Throws FormatError for a damaged
// file, naming the tensor, one with numbers that are not finite among them, and Error where `data`
// can't be the data that the run was trained on, by shape, size and class names (match_classes
// brings data with the same classes in another order to those of the run).
Trainer resume_trainer(const std::filesystem::path& path, std::shared_ptr<const DataSet> data,
                       const Device& device, ClassesBy classes = ClassesBy::name,
                       const MethodTable& methods = built_in_methods(),
                       const ResumedRate& rate = {});

// The size of the tensors of such a file.
std::uint64_t checkpoint_bytes(const TrainingConfig& config);

}  // namespace fluxion
