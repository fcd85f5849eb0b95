#include "models/data/array_set.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "engine/error.h"
#include "models/data/checksum.h"
#include "models/images/levels.h"
#include "models/images/resize.h"

namespace fluxion {

namespace {

Shape shape_for(const std::string& name, const Shape& stored, const DataSetOptions& options) {
  check_image_options(name, options.image_size, options.channels);
  if (stored.rank() == 3)
    return {options.image_size != 0 ? options.image_size : stored[0],
            options.image_size != 0 ? options.image_size : stored[1],
            options.channels != 0 ? options.channels : stored[2]};
  if (options.image_size != 0 || options.channels != 0)
    throw Error("data set " + name + ": holds points, which have no image size and no channels");
  return stored;
}

// A class is a name that has samples: labels become numbers of those.
void keep_classes_with_samples(ArrayContent& content) {
  if (content.labels.empty()) return;
  std::vector<std::int32_t> number_of(
      static_cast<std::size_t>(1 + *std::max_element(content.labels.begin(), content.labels.end())),
      -1);
  for (const std::int32_t label : content.labels) number_of[static_cast<std::size_t>(label)] = 0;
  std::vector<std::string> kept, left_out;
  for (std::size_t label = 0; label < std::max(number_of.size(), content.class_names.size());
       ++label) {
    const bool has_samples = label < number_of.size() && number_of[label] == 0;
    if (has_samples) number_of[label] = static_cast<std::int32_t>(kept.size());
    if (label < content.class_names.size()) {
      (has_samples ? kept : left_out).push_back(content.class_names[label]);
    } else if (has_samples) {
      kept.push_back(std::to_string(label));
    }
  }
  for (std::int32_t& label : content.labels) label = number_of[static_cast<std::size_t>(label)];
  content.class_names = std::move(kept);
  if (!left_out.empty())
    content.warnings.push_back("there is no sample of class " + class_list(left_out) +
                               ": left out");
}

class ArraySet : public DataSet {
 public:
  ArraySet(std::string name, Shape shape, ArrayContent content)
      : DataSet(std::move(name), std::move(shape), content.class_names, content.count),
        content_(std::move(content)),
        stored_(static_cast<std::size_t>(content_.sample_shape.elements())) {
    for (const std::string& line : content_.warnings) warn(line);
    const Shape& from = content_.sample_shape;
    const bool resized =
        is_image() && (from[0] != sample_shape()[0] || from[1] != sample_shape()[1]);
    if (resized) resize_.emplace(from[0], from[1], sample_shape()[0]);
  }

 protected:
  std::int32_t sample(std::uint64_t, std::uint64_t position, std::span<float> x) const override {
    const std::int32_t label = content_.labels.empty() ? 0 : content_.labels[position];
    if (content_.sample_shape == sample_shape()) {
      load(position, x);
    } else {
      const std::int64_t from_channels = content_.sample_shape[2], channels = sample_shape()[2];
      std::vector<float> values(stored_);
      load(position, values);
      if (resize_) {
        std::vector<float> resized(x.size() / static_cast<std::size_t>(channels) *
                                   static_cast<std::size_t>(from_channels));
        (*resize_)(values, from_channels, resized);
        values = std::move(resized);
      }
      convert_channels(values, from_channels, x, channels);
      if (content_.dtype == DType::u8)
        for (float& value : x) value = to_byte(value);
    }
    if (content_.dtype == DType::u8)
      for (float& value : x) value = from_level(value);
    return label;
  }
  void check_read() const override {
    if (content_.check) content_.check();
  }

  std::vector<std::int32_t> stored_labels() const override { return content_.labels; }
  std::vector<std::string> stored_marks() const override {
    std::vector<std::string> marks(content_.class_names.size());
    const std::size_t bytes = stored_ * size_of(content_.dtype);
    for (std::size_t i = 0; i < content_.labels.size(); ++i) {
      std::string& mark = marks[static_cast<std::size_t>(content_.labels[i])];
      if (!mark.empty()) continue;
      Checksum checksum;
      checksum.add(content_.elements.subspan(i * bytes, bytes));
      mark = checksum.text();
    }
    return marks;
  }

 private:
  // As stored.
  void load(std::uint64_t position, std::span<float> values) const {
    const std::byte* const from =
        content_.elements.data() + position * stored_ * size_of(content_.dtype);
    if (content_.dtype == DType::f32) {
      std::memcpy(values.data(), from, values.size_bytes());
    } else if (content_.dtype == DType::f64) {
      for (std::size_t i = 0; i < values.size(); ++i) {
        double value = 0;
        std::memcpy(&value, from + i * sizeof value, sizeof value);
        values[i] = static_cast<float>(value);
      }
    } else {
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<float>(std::to_integer<int>(from[i]));
    }
  }

  ArrayContent content_;
  std::size_t stored_;  // elements of a sample
  std::optional<SquareResize> resize_;
};

}  // namespace

ArrayContent ArrayContent::with(std::vector<std::uint8_t> values) && {
  const auto kept = std::make_shared<const std::vector<std::uint8_t>>(std::move(values));
  elements = std::as_bytes(std::span(*kept));
  owner = kept;
  return std::move(*this);
}

std::unique_ptr<DataSet> array_set(std::string name, ArrayContent content,
                                   const DataSetOptions& options) {
  Shape shape = shape_for(name, content.sample_shape, options);
  keep_classes_with_samples(content);
  return std::make_unique<ArraySet>(std::move(name), std::move(shape), std::move(content));
}

}  // namespace fluxion
