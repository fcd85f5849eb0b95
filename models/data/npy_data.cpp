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
#include "models/files/npy.h"

namespace fluxion {

namespace {

constexpr std::int64_t most_classes = 1'000'000;

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

template <class T>
std::vector<std::int32_t> labels_of(const std::string& name, std::span<const std::byte> elements) {
  std::vector<std::int32_t> result;
  for (std::size_t i = 0; i < elements.size() / sizeof(T); ++i) {
    T value;
    std::memcpy(&value, elements.data() + i * sizeof value, sizeof value);
    if (std::cmp_less(value, 0) || std::cmp_greater_equal(value, most_classes))
      throw FormatError(name + ": label " + std::to_string(i) + " is " + std::to_string(value) +
                        " (0 to " + std::to_string(most_classes - 1) + ")");
    result.push_back(static_cast<std::int32_t>(value));
  }
  return result;
}

std::vector<std::int32_t> read_labels(const std::filesystem::path& path, std::int64_t count) {
  const MappedFile file(path);
  const std::string name = path.string();
  const NpyHeader header = parse_npy_header(file.bytes(), name);
  if (header.type.shape != Shape{count})
    throw FormatError(name + ": " + std::to_string(count) + " samples need labels " +
                      to_string(Shape{count}) + ", got " + to_string(header.type.shape));
  const auto elements = file.bytes().subspan(header.start);
  const auto whole = [&](std::vector<std::int32_t> labels) {
    file.check_whole();
    return labels;
  };
  switch (header.type.dtype) {
    case DType::i64:
      return whole(labels_of<std::int64_t>(name, elements));
    case DType::i32:
      return whole(labels_of<std::int32_t>(name, elements));
    case DType::u32:
      return whole(labels_of<std::uint32_t>(name, elements));
    case DType::u8:
      return whole(labels_of<std::uint8_t>(name, elements));
    default:
      throw FormatError(name + ": labels of type " + std::string(to_string(header.type.dtype)) +
                        " (whole numbers: <i8, <i4, <u4 or |u1)");
  }
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
  content.check = [file] { file->check_whole(); };
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
  file->check_whole();
  std::filesystem::path labels = path;
  labels.replace_extension(".labels.npy");
  std::error_code error;
  if (options.labels && std::filesystem::exists(labels, error))
    content.labels = read_labels(labels, content.count);
  return array_set(name, std::move(content), options);
}

}  // namespace fluxion
