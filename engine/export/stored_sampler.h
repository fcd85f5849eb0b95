// A sampler in a file (.fxn): what draws samples from a trained network, without the network's
// code. It holds graphs, weights and the numbers of each step; every device plans the graphs for
// itself, for a batch of any size. docs/sampler-files.md states the bytes.
//
//   z = scale * noise                                           [batch, ..sample], N(0, I)
//   memory = start(weights.., z, labels)                        if there is a start
//   for each step:
//     z, memory.. = forms[step.form](weights.., z, memory.., step.numbers.., draws.., labels)
//   samples = z
#pragma once

#include <memory>
#include <optional>

#include "engine/export/batched_graph.h"

namespace fluxion {

// How the elements of a weight, f32 in every graph, lie in a file.
//   f32, f16, bf16   as such, little-endian
//   int8             blocks of 32 elements in row-major order, the last one filled with zeros: an
//                    f16 scale s, then 32 signed bytes q; an element is s q
enum class WeightEncoding { f32, f16, bf16, int8 };
std::string to_string(WeightEncoding encoding);
WeightEncoding weight_encoding_from(const std::string& name);  // throws FormatError

// The bytes of these elements. Throws Error for an element that is not finite, or too large for the
// encoding.
std::vector<std::byte> encoded(std::span<const float> values, WeightEncoding encoding);
// How many bytes that many elements take.
std::uint64_t encoded_bytes(std::uint64_t elements, WeightEncoding encoding);

struct StoredWeight {
  std::string name;  // its key in the model file
  Shape shape;
  WeightEncoding encoding = WeightEncoding::f32;
  std::span<const std::byte> bytes;  // of StoredSampler::storage

  std::vector<float> values() const;        // row-major
  void copy_to(std::span<float> to) const;  // the same into `to`, one for each element
};

struct StoredStep {
  std::int32_t form = 0;        // which of the forms
  std::vector<double> numbers;  // its scalar inputs
  bool operator==(const StoredStep&) const = default;
};

// One graph of a sampler. Its inputs, in this order, and all f32 but the labels: the weights; "z"
// [batch, ..sample]; of a form, each memory as the start and the forms return it; of a form, its
// steps' numbers, [] each; each draw, N(0, I) of the shape of z; if there are classes, "labels",
// i32 [batch]. Its outputs: of a form, "z"; then each memory.
struct StoredForm {
  BatchedGraph graph;
  // Numbers of its draws: the noise of draw d of step i is that of the key
  // fold_in(fold_in(step_key, i), d), see engine/export/sample_noise.h.
  std::vector<std::uint32_t> draws;
};

struct StoredSampler {
  std::string name;    // of what it was trained on; may be empty
  std::string origin;  // how it was made, for people and their programs; may be empty
  Shape sample_shape;
  // 0: samples have no class. Otherwise labels are 0 .. classes - 1, and `classes` leaves it open.
  std::int64_t classes = 0;
  std::vector<std::string> class_names;     // empty, or one for each class
  std::vector<std::int32_t> usual_classes;  // to draw in turn where none is asked for
  bool open_class = false;                  // whether the class can be left open
  double evaluations = 0;                   // of the network, for each sample

  std::vector<StoredWeight> weights;
  double scale = 1;
  std::vector<StoredForm> forms;
  std::vector<StoredForm> start;  // none or one
  std::vector<StoredStep> steps;
  // Where there is one, whoever draws may choose the scale of guidance: the last number of every
  // step is the scale, and this is what the steps say.
  std::optional<double> guidance;

  std::shared_ptr<const void> storage;  // what the weights' bytes are part of
};

// Throws Error, which says what is wrong, unless all parts fit each other and every graph is sound.
void check(const StoredSampler& sampler);
// Throws Error unless every step of a batch of this size takes what the one before it returns.
// Files that `check` accepts can fail it: it is checked there for the smallest two sizes alone.
void check(const StoredSampler& sampler, std::int64_t batch);

// Convert to the bytes of a file and back. parse_sampler checks all that `check` does; the
// weights refer to `bytes`, which `owner`, kept as storage, has to hold. Throws FormatError. It
// uses memory proportional to the number of bytes.
std::vector<std::byte> serialise(const StoredSampler& sampler);
StoredSampler parse_sampler(std::span<const std::byte> bytes, std::shared_ptr<const void> owner);

// Whether these bytes begin as a sampler file does.
bool is_sampler_file(std::span<const std::byte> bytes);

// Write a file, under a temporary name that is then renamed, and map one. Throw IoError, and
// FormatError with the path.
void save_sampler(const std::filesystem::path& path, const StoredSampler& sampler);
StoredSampler load_sampler(const std::filesystem::path& path);

}  // namespace fluxion
