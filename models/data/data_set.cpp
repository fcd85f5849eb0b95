#include "models/data/data_set.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "engine/error.h"
#include "models/data/cifar10.h"
#include "models/data/data_file.h"
#include "models/data/glyphs.h"
#include "models/data/idx_images.h"
#include "models/data/image_folder.h"
#include "models/data/pair_set.h"
#include "models/data/points.h"
#include "models/data/random.h"

namespace fluxion {

namespace {

// Keeps the draw of a flip apart from what the samples themselves draw.
constexpr std::uint32_t flip_purpose = 0x666c6970u;

void mirror(std::span<float> image, const Shape& shape) {
  const auto width = static_cast<std::size_t>(shape[1]),
             channels = static_cast<std::size_t>(shape[2]);
  for (std::size_t row = 0; row < image.size(); row += width * channels)
    for (std::size_t left = 0, right = width - 1; left < right; ++left, --right)
      std::swap_ranges(image.begin() + static_cast<std::ptrdiff_t>(row + left * channels),
                       image.begin() + static_cast<std::ptrdiff_t>(row + (left + 1) * channels),
                       image.begin() + static_cast<std::ptrdiff_t>(row + right * channels));
}

}  // namespace

DataSet::DataSet(std::string name, Shape sample_shape, std::vector<std::string> class_names,
                 std::optional<std::int64_t> size)
    : name_(std::move(name)),
      sample_shape_(std::move(sample_shape)),
      class_names_(std::move(class_names)),
      size_(size) {
  for (std::string& one : class_names_) one = class_text(one);
}

DataSet::DataSet(std::string name, Shape sample_shape, std::int32_t classes,
                 std::optional<std::int64_t> size)
    : DataSet(std::move(name), std::move(sample_shape), numbered_classes(classes), size) {}

std::vector<std::string> DataSet::warnings() const {
  const std::lock_guard lock(warnings_mutex_);
  return warnings_;
}

void DataSet::warn(std::string line) const {
  const std::lock_guard lock(warnings_mutex_);
  warnings_.push_back(std::move(line));
}

std::vector<std::int32_t> DataSet::labels() const {
  if (class_names_.empty()) return {};
  std::vector<std::int32_t> result = stored_labels();
  if (!number_of_.empty())
    for (std::int32_t& label : result)
      if (label >= 0) label = number_of_[static_cast<std::size_t>(label)];
  return result;
}

std::vector<std::int64_t> DataSet::class_sizes() const {
  const std::vector<std::int32_t> labels = this->labels();
  if (labels.empty()) return {};
  std::vector<std::int64_t> sizes(class_names_.size());
  for (const std::int32_t label : labels)
    if (label >= 0) ++sizes[static_cast<std::size_t>(label)];
  return sizes;
}

std::vector<std::int32_t> DataSet::classes_without_samples() const {
  const std::vector<std::int64_t> sizes = class_sizes();
  std::vector<std::int32_t> result;
  for (std::size_t i = 0; i < sizes.size(); ++i)
    if (sizes[i] == 0) result.push_back(static_cast<std::int32_t>(i));
  return result;
}

std::vector<std::string> DataSet::class_marks() const {
  if (class_names_.empty()) return {};
  const std::vector<std::string> stored = stored_marks();
  if (number_of_.empty()) return stored;
  std::vector<std::string> marks(stored.empty() ? 0 : class_names_.size());
  for (std::size_t i = 0; i < stored.size(); ++i)
    marks[static_cast<std::size_t>(number_of_[i])] = stored[i];
  return marks;
}

void DataSet::number_classes(const std::vector<std::string>& names) {
  if (names == class_names_) return;
  const std::vector<std::int32_t> places = places_of(class_names_, names);
  if (std::find(places.begin(), places.end(), -1) != places.end())
    throw Error("data set " + name_ + ": holds other classes than these: " +
                class_difference("it", class_names_, "the list", names));
  if (number_of_.empty()) {
    number_of_ = places;
  } else {
    for (std::int32_t& number : number_of_) number = places[static_cast<std::size_t>(number)];
  }
  class_names_ = names;
}

void DataSet::drop_labels() {
  labels_dropped_ = true;
  class_names_.clear();
}

void DataSet::flip_at_random() {
  if (!is_image()) throw Error("data set " + name_ + ": holds points, which can't be flipped");
  if (has_noise())
    throw Error("data set " + name_ + ": holds pairs of noise and sample, which flips would part");
  flips_ = true;
}

void DataSet::noise(std::uint64_t, std::span<float>) const {
  throw Error("data set " + name_ + ": holds no noise");
}

HostBatch DataSet::batch(std::int64_t count, std::uint64_t seed, std::uint64_t step) const {
  if (count < 0)
    throw Error("data set " + name_ + ": a batch of " + std::to_string(count) + " samples");
  const auto samples = static_cast<std::size_t>(count);
  const auto elements = static_cast<std::size_t>(sample_shape_.elements());
  HostBatch batch{std::vector<float>(samples * elements), std::vector<std::int32_t>(samples)};
  if (has_noise()) batch.noise.resize(batch.x.size());
  for (std::size_t i = 0; i < samples; ++i) {
    const std::uint64_t position = step * samples + i;
    std::uint64_t index = position;
    if (size_) {
      const auto size = static_cast<std::uint64_t>(*size_);
      index = permuted(position % size, size, seed, position / size);
    }
    const auto x = std::span(batch.x).subspan(i * elements, elements);
    const std::int32_t label = sample(seed, index, x);
    if (has_noise()) noise(index, std::span(batch.noise).subspan(i * elements, elements));
    batch.labels[i] = labels_dropped_      ? 0
                      : number_of_.empty() ? label
                                           : number_of_[static_cast<std::size_t>(label)];
    if (flips_ && RandomSequence(seed, position, flip_purpose).below(2) == 1)
      mirror(x, sample_shape_);
  }
  check_read();
  return batch;
}

namespace {

struct BuiltIn {
  DataSetDescription description;
  bool image;
  std::unique_ptr<DataSet> (*make)(const DataSetOptions& options);
};

const std::vector<BuiltIn>& built_ins() {
  static const std::vector<BuiltIn> table = {
      {{"8gaussians", "eight Gaussians on a circle"},
       false,
       [](const DataSetOptions&) { return eight_gaussians(); }},
      {{"8gaussians-torchcfm", "the same, wider, as TorchCFM draws it"},
       false,
       [](const DataSetOptions&) { return eight_gaussians_torchcfm(); }},
      {{"moons", "two half circles"}, false, [](const DataSetOptions&) { return moons(); }},
      {{"checkerboard", "eight cells of a 4 x 4 board"},
       false,
       [](const DataSetOptions&) { return checkerboard(); }},
      {{"pinwheel", "five blurred arms"}, false, [](const DataSetOptions&) { return pinwheel(); }},
      {{"2spirals", "two spirals"}, false, [](const DataSetOptions&) { return two_spirals(); }},
      {{"swissroll", "a rolled-up band"},
       false,
       [](const DataSetOptions&) { return swiss_roll(); }},
      {{"circles", "two circles"}, false, [](const DataSetOptions&) { return circles(); }},
      {{"rings", "four circles"}, false, [](const DataSetOptions&) { return rings(); }},
      {{"cos", "a wave, a curve without width"},
       false,
       [](const DataSetOptions&) { return cosine(); }},
      {{"line", "a straight line, without width"},
       false,
       [](const DataSetOptions&) { return line(); }},
      {{"glyphs", "handwritten-looking digits drawn by code, 10 classes"},
       true,
       [](const DataSetOptions& options) {
         return glyphs(options.image_size == 0 ? 28 : options.image_size);
       }},
  };
  return table;
}

}  // namespace

const std::vector<DataSetDescription>& built_in_data_sets() {
  static const std::vector<DataSetDescription> descriptions = [] {
    std::vector<DataSetDescription> result;
    for (const BuiltIn& row : built_ins()) result.push_back(row.description);
    return result;
  }();
  return descriptions;
}

void check_image_options(const std::string& data_set, std::int64_t size, std::int64_t channels) {
  if (size < 0 || size > 4096)
    throw Error("data set " + data_set + ": an image size of " + std::to_string(size) +
                " (1 to 4096, or 0 for the set's own)");
  if (channels != 0 && channels != 1 && channels != 3)
    throw Error("data set " + data_set + ": " + std::to_string(channels) +
                " channels (1 for grey or 3 for RGB, or 0 for the set's own)");
}

namespace {

// What a folder holds if it is one folder and nothing else that is not hidden; else an empty path.
std::filesystem::path only_folder_in(const std::filesystem::path& folder) {
  std::filesystem::path result;
  std::error_code error;
  std::filesystem::directory_iterator place(folder, error);
  for (; !error && place != std::filesystem::directory_iterator(); place.increment(error)) {
    if (place->path().filename().native().starts_with('.')) continue;
    std::error_code unknown;
    if (!result.empty() || place->is_symlink(unknown) || !place->is_directory(unknown)) return {};
    result = place->path();
  }
  return result;
}

std::unique_ptr<DataSet> find_data_set(const std::string& name_or_path,
                                       const DataSetOptions& options) {
  for (const BuiltIn& row : built_ins()) {
    if (row.description.name != name_or_path) continue;
    if (!row.image && options.image_size != 0)
      throw Error("data set " + name_or_path + ": holds points, which have no image size");
    std::unique_ptr<DataSet> set = row.make(options);
    if (options.channels != 0 && (!row.image || set->sample_shape()[2] != options.channels))
      throw Error("data set " + name_or_path + ": " + (row.image ? "is grey" : "holds points") +
                  ", without " + std::to_string(options.channels) + " channels");
    return set;
  }
  std::error_code error;
  const std::filesystem::path path = name_or_path;
  if (std::filesystem::is_directory(path, error)) {
    for (std::filesystem::path folder = path; !folder.empty(); folder = only_folder_in(folder)) {
      if (is_idx_folder(folder)) return idx_images(folder, options);
      if (is_cifar10_folder(folder)) return cifar10(folder, options);
    }
    if (is_pairs_folder(path)) return pair_set(path, options);
    check_known_folders(path);
    return image_folder(path, options);
  }
  if (std::filesystem::exists(path, error)) return data_file(path, options);
  std::string names;
  for (const BuiltIn& row : built_ins())
    names += (names.empty() ? "" : ", ") + row.description.name;
  throw Error(
      "no data set \"" + name_or_path + "\": neither a built-in name (" + names +
      ") nor the path of a folder of images, a .npy or .npz file, an IDX file, or a folder with "
      "MNIST's or CIFAR-10's files or with pairs");
}

}  // namespace

std::unique_ptr<DataSet> make_data_set(const std::string& name_or_path,
                                       const DataSetOptions& options) {
  std::unique_ptr<DataSet> set = find_data_set(name_or_path, options);
  if (options.flip) set->flip_at_random();
  if (!options.labels) set->drop_labels();
  return set;
}

}  // namespace fluxion
