#include "models/data/npy_data.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "engine/error.h"
#include "engine/number_text.h"
#include "engine/platform/file.h"
#include "models/data/array_set.h"
#include "models/data/labels_beside.h"
#include "models/files/npy.h"

namespace fluxion {

namespace {

Shape sample_shape(const std::string& name, const Shape& shape) {
  const std::string expected =
      " (points have axes [count, dimensions], grey images [count, height, width], images [count, "
      "height, width, channels] with 1 or 3 channels)";
  if (shape.rank() < 2 || shape.rank() > 4)
    throw FormatError(name + ": an array of shape " + to_string(shape) + expected);
  if (shape.elements() == 0)
    throw FormatError(name + ": an empty array, " + to_string(shape) + expected);
  if (shape.rank() == 2) return {shape[1]};
  const std::int64_t channels = shape.rank() == 3 ? 1 : shape[3];
  if (channels != 1 && channels != 3) {
    const bool channels_first = shape[1] == 1 || shape[1] == 3;
    throw FormatError(
        name + ": images of shape " + to_string(shape) + expected +
        (channels_first ? "; the channels come first here: save array.transpose(0, 2, 3, 1)" : ""));
  }
  return {shape[1], shape[2], channels};
}

// Refuses what is not finite, and says what does not look like images in [-1, 1].
template <class T>
void check_values(const std::string& name, std::span<const std::byte> elements,
                  std::int64_t per_sample, bool images, std::vector<std::string>& warnings) {
  T low = std::numeric_limits<T>::max(), high = std::numeric_limits<T>::lowest();
  for (std::size_t i = 0; i < elements.size() / sizeof(T); ++i) {
    T value;
    std::memcpy(&value, elements.data() + i * sizeof value, sizeof value);
    if (!std::isfinite(static_cast<float>(value)))
      throw FormatError(name + ": element " + std::to_string(i) + ", of sample " +
                        std::to_string(static_cast<std::int64_t>(i) / per_sample) + ", is " +
                        number_text(value) + ", not a finite number in single precision");
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (images && (low < -1.5 || high > 1.5 || (low >= 0 && high > low)))
    warnings.push_back(name + ": its values go from " + number_text(low) + " to " +
                       number_text(high) +
                       "; floating-point images are taken as they are and should lie in [-1, 1]");
}

}  // namespace

std::unique_ptr<DataSet> npy_data(const std::filesystem::path& path,
                                  const DataSetOptions& options) {
  const std::string name = path.string();
  if (options.split == Split::test)
    throw NoTestPart("data set " + name +
                     ": one array has no held-out part; give the path of another");
  const auto file = std::make_shared<const MappedFile>(path);
  const NpyHeader header = parse_npy_header(file->bytes(), name);
  ArrayContent content;
  content.elements = file->bytes().subspan(header.start);
  content.owner = file;
  content.dtype = header.type.dtype;
  content.sample_shape = sample_shape(name, header.type.shape);
  content.count = header.type.shape[0];
  const std::int64_t per_sample = content.sample_shape.elements();
  const bool images = content.sample_shape.rank() == 3;
  if (content.dtype == DType::f32) {
    check_values<float>(name, content.elements, per_sample, images, content.warnings);
  } else if (content.dtype == DType::f64) {
    check_values<double>(name, content.elements, per_sample, images, content.warnings);
  } else if (content.dtype != DType::u8) {
    throw FormatError(name + ": elements of type " + std::string(to_string(content.dtype)) +
                      " (<f4, <f8 or |u1)");
  }
  if (options.labels)
    if (const std::filesystem::path labels = labels_beside(path, content.count); !labels.empty())
      content.labels = read_labels(labels, content.count);
  return array_set(name, std::move(content), options);
}

}  // namespace fluxion
