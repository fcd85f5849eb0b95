#include "models/data/arrays.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "engine/error.h"
#include "engine/number_text.h"
#include "engine/platform/file.h"
#include "models/files/gz.h"
#include "models/files/npy.h"

namespace fluxion {

namespace {

constexpr std::int64_t most_classes = 1'000'000;
constexpr std::uint64_t largest_unpacked = std::uint64_t{1} << 34;
// An image so narrow, and higher than that, is rather a picture's channels.
constexpr std::int64_t narrow = 4, high = 8;

Shape sample_shape(const std::string& name, const Shape& shape) {
  const std::string expected =
      " (points have axes [count, dimensions], grey images [count, height, width], images [count, "
      "height, width, channels] with 1 or 3 channels)";
  if (shape.rank() < 2 || shape.rank() > 4)
    throw FormatError(name + ": an array of shape " + to_string(shape) + expected);
  if (shape.elements() == 0)
    throw FormatError(name + ": an empty array, " + to_string(shape) + expected);
  if (shape.rank() == 2) return {shape[1]};
  if (shape.rank() == 3 && shape[2] <= narrow && shape[0] >= high && shape[1] >= high)
    throw FormatError(name + ": an array of shape " + to_string(shape) +
                      " looks like one picture [height, width, channels]" + expected +
                      "; save array[None] for a set of one picture, array[..., None] for narrow "
                      "grey images");
  const std::int64_t channels = shape.rank() == 3 ? 1 : shape[3];
  if (channels != 1 && channels != 3) {
    const bool channels_first = shape[1] == 1 || shape[1] == 3;
    throw FormatError(name + ": images of shape " + to_string(shape) + expected +
                      (channels_first
                           ? "; the channels come first here: save array.transpose(0, 2, 3, 1)"
                       : channels == 4 ? "; transparency can't be trained on: save array[..., :3]"
                                       : ""));
  }
  return {shape[1], shape[2], channels};
}

template <class T>
T element(std::span<const std::byte> elements, std::size_t i) {
  T value;
  std::memcpy(&value, elements.data() + i * sizeof value, sizeof value);
  return value;
}

// Refuses what is not finite, and says what does not look like images in [-1, 1].
template <class T>
void check_floats(const std::string& name, std::span<const std::byte> elements,
                  std::int64_t per_sample, bool images, std::vector<std::string>& warnings) {
  T low = std::numeric_limits<T>::max(), high = std::numeric_limits<T>::lowest();
  for (std::size_t i = 0; i < elements.size() / sizeof(T); ++i) {
    const T value = element<T>(elements, i);
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

// Images whose bytes are all 0 or 1 are as good as black.
void check_levels(const std::string& name, std::span<const std::byte> levels,
                  std::vector<std::string>& warnings) {
  if (std::all_of(levels.begin(), levels.end(),
                  [](std::byte level) { return std::to_integer<int>(level) <= 1; }))
    warnings.push_back(name +
                       ": its whole numbers are all 0 or 1, and 0 to 255 is black to white: save "
                       "array * 255, or array != 0");
}

std::int64_t whole_number(const SourceArray& array, std::size_t i) {
  switch (array.type.dtype) {
    case DType::i64:
      return element<std::int64_t>(array.elements, i);
    case DType::i32:
      return element<std::int32_t>(array.elements, i);
    case DType::u32:
      return element<std::uint32_t>(array.elements, i);
    default:
      return element<std::uint8_t>(array.elements, i);
  }
}

// Whole numbers in 0..255 as bytes.
std::vector<std::uint8_t> levels_of(const std::string& name, const SourceArray& array) {
  const auto count = static_cast<std::size_t>(array.type.shape.elements());
  std::int64_t low = std::numeric_limits<std::int64_t>::max(),
               high = std::numeric_limits<std::int64_t>::min();
  for (std::size_t i = 0; i < count; ++i) {
    low = std::min(low, whole_number(array, i));
    high = std::max(high, whole_number(array, i));
  }
  if (low < 0 || high > 255)
    throw FormatError(name + ": its whole numbers go from " + std::to_string(low) + " to " +
                      std::to_string(high) +
                      "; images are 0 to 255 in whole numbers or -1 to 1 in floats: save (array - "
                      "low) / (high - low) * 2 - 1");
  std::vector<std::uint8_t> levels(count);
  for (std::size_t i = 0; i < count; ++i)
    levels[i] = static_cast<std::uint8_t>(whole_number(array, i));
  if (array.file) array.file->check_whole();
  return levels;
}

void check_whole_type(const std::string& name, const TensorType& type) {
  if (is_floating(type.dtype))
    throw FormatError(name + ": labels of type " + std::string(to_string(type.dtype)) +
                      " (whole numbers from 0: save labels.astype(int))");
}

SourceArray singles_of(const SourceArray& halves) {
  FileArray singles{{halves.type.shape, DType::f32}, {}};
  singles.bytes.resize(singles.type.bytes());
  for (std::size_t i = 0; i < singles.bytes.size() / sizeof(float); ++i) {
    const float value = to_f32(element<Float16>(halves.elements, i));
    std::memcpy(singles.bytes.data() + i * sizeof value, &value, sizeof value);
  }
  return SourceArray::of(std::move(singles));
}

}  // namespace

SourceArray SourceArray::of(FileArray array) {
  const auto kept = std::make_shared<const FileArray>(std::move(array));
  return {kept->type, kept->bytes, kept};
}

SourceArray npy_in(std::span<const std::byte> bytes, const std::shared_ptr<const void>& owner,
                   const std::string& name, std::optional<std::uint64_t> memory,
                   const WantedType& wanted) {
  NpyHeader header = parse_npy_header(bytes, name);
  if (wanted) wanted(header.type);
  if (!header.held_as_stored()) return SourceArray::of(parse_npy(bytes, name, memory));
  return {std::move(header.type), bytes.subspan(header.start), owner};
}

SourceArray open_npy(const std::filesystem::path& path, std::optional<std::uint64_t> memory,
                     const WantedType& wanted) {
  const auto file = std::make_shared<const MappedFile>(path);
  const std::string name = path.string();
  if (!is_gzip(file->bytes())) {
    SourceArray array = npy_in(file->bytes(), file, name, memory, wanted);
    file->check_whole();
    if (array.owner == file) array.file = file;
    return array;
  }
  const NpyHeader header =
      parse_npy_start(gunzip_prefix(file->bytes(), npy_start_bytes, name), name);
  const std::uint64_t size = header.file_bytes();
  if (size > largest_unpacked || size / largest_expansion > file->bytes().size())
    throw FormatError(name + ": " + std::to_string(file->bytes().size()) +
                      " compressed bytes can't hold the " + std::to_string(size) +
                      " of its header");
  if (wanted) wanted(header.type);
  require_memory(unpacking_bytes(size), name, memory);
  const auto unpacked =
      std::make_shared<const std::vector<std::byte>>(gunzip(file->bytes(), size, name));
  file->check_whole();
  return npy_in(*unpacked, unpacked, name, memory);
}

ArrayContent sample_content(const std::string& name, SourceArray array,
                            std::optional<std::uint64_t> memory) {
  ArrayContent content;
  content.sample_shape = sample_shape(name, array.type.shape);
  content.count = array.type.shape[0];
  const std::int64_t per_sample = content.sample_shape.elements();
  const bool images = content.sample_shape.rank() == 3;
  const auto count = static_cast<std::uint64_t>(array.type.shape.elements());
  if (array.type.dtype == DType::f16) {
    require_memory(count * sizeof(float), name, memory);
    array = singles_of(array);
  }
  switch (array.type.dtype) {
    case DType::f32:
      check_floats<float>(name, array.elements, per_sample, images, content.warnings);
      break;
    case DType::f64:
      check_floats<double>(name, array.elements, per_sample, images, content.warnings);
      break;
    case DType::u8:
      if (images) check_levels(name, array.elements, content.warnings);
      break;
    default: {
      if (!images)
        throw FormatError(name + ": points in elements of type " +
                          std::string(to_string(array.type.dtype)) +
                          " (<f2, <f4, <f8, or |u1 for bytes that become -1..1): save "
                          "array.astype(\"<f4\")");
      require_memory(count, name, memory);
      std::vector<std::uint8_t> levels = levels_of(name, array);
      if (array.type.dtype == DType::boolean) {
        for (std::uint8_t& level : levels) level = level != 0 ? 255 : 0;
      } else {
        check_levels(name, std::as_bytes(std::span(levels)), content.warnings);
      }
      return std::move(content).with(std::move(levels));
    }
  }
  if (array.file) {
    array.file->check_whole();
    content.check = [file = array.file] { file->check_whole(); };
  }
  content.dtype = array.type.dtype;
  content.elements = array.elements;
  content.owner = array.owner;
  return content;
}

bool looks_like_labels(const TensorType& type, std::int64_t count) {
  return !is_floating(type.dtype) && (type.shape == Shape{count} || type.shape == Shape{count, 1});
}

std::vector<std::int64_t> whole_numbers(const std::string& name, const SourceArray& array,
                                        std::optional<std::uint64_t> memory) {
  check_whole_type(name, array.type);
  const auto count = static_cast<std::size_t>(array.type.shape.elements());
  require_memory(count * sizeof(std::int64_t), name, memory);
  std::vector<std::int64_t> result(count);
  for (std::size_t i = 0; i < count; ++i) result[i] = whole_number(array, i);
  if (array.file) array.file->check_whole();
  return result;
}

WantedType labels_wanted(const std::string& name, std::int64_t count) {
  return [name, count](const TensorType& type) {
    const Shape& shape = type.shape;
    if (shape != Shape{count} && shape != Shape{count, 1})
      throw FormatError(name + ": " + std::to_string(count) + " samples need labels " +
                        to_string(Shape{count}) + ", got " + to_string(shape) +
                        (shape.rank() == 2 && shape[0] == count
                             ? "; one column a class? save labels.argmax(1)"
                             : "") +
                        " (--no-labels takes the samples without)");
    check_whole_type(name, type);
  };
}

std::vector<std::int32_t> labels_in(const std::string& name, const SourceArray& array,
                                    std::int64_t count, std::optional<std::uint64_t> memory) {
  labels_wanted(name, count)(array.type);
  const auto number = static_cast<std::size_t>(count);
  require_memory(number * sizeof(std::int32_t), name, memory);
  std::vector<std::int32_t> labels(number);
  for (std::size_t i = 0; i < number; ++i) {
    const std::int64_t value = whole_number(array, i);
    if (value < 0 || value >= most_classes)
      throw FormatError(name + ": label " + std::to_string(i) + " is " + std::to_string(value) +
                        " (0 to " + std::to_string(most_classes - 1) + ")");
    labels[i] = static_cast<std::int32_t>(value);
  }
  if (array.file) array.file->check_whole();
  return labels;
}

}  // namespace fluxion
