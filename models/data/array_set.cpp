#include "models/data/array_set.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "engine/error.h"
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

std::vector<std::string> names_for(const ArrayContent& content) {
  if (!content.class_names.empty() || content.labels.empty()) return content.class_names;
  return numbered_classes(1 + *std::max_element(content.labels.begin(), content.labels.end()));
}

class ArraySet : public DataSet {
 public:
  ArraySet(std::string name, Shape shape, ArrayContent content)
      : DataSet(std::move(name), std::move(shape), names_for(content), content.count),
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
  return std::make_unique<ArraySet>(std::move(name), std::move(shape), std::move(content));
}

}  // namespace fluxion
