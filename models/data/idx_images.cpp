#include "models/data/idx_images.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "models/files/idx.h"

namespace fluxion {

namespace {

// Averages over the area that each output pixel covers: no aliasing when shrinking, blocks with blended seams when growing.
std::vector<std::uint8_t> resample(const std::uint8_t* image, std::int64_t rows, std::int64_t columns, std::int64_t size) {
  std::vector<std::uint8_t> result(static_cast<std::size_t>(size * size));
  const auto overlap = [size](std::int64_t output, std::int64_t input, std::int64_t inputs) {
    const double scale = static_cast<double>(inputs) / static_cast<double>(size);
    const double low = std::max(static_cast<double>(output) * scale, static_cast<double>(input));
    const double high = std::min(static_cast<double>(output + 1) * scale, static_cast<double>(input + 1));
    return std::max(0.0, high - low);
  };
  for (std::int64_t y = 0; y < size; ++y)
    for (std::int64_t x = 0; x < size; ++x) {
      double sum = 0, weight = 0;
      for (std::int64_t v = y * rows / size; v <= std::min(rows - 1, (y + 1) * rows / size); ++v)
        for (std::int64_t u = x * columns / size; u <= std::min(columns - 1, (x + 1) * columns / size); ++u) {
          const double area = overlap(y, v, rows) * overlap(x, u, columns);
          sum += area * image[v * columns + u];
          weight += area;
        }
      result[static_cast<std::size_t>(y * size + x)] = static_cast<std::uint8_t>(std::lround(sum / weight));
    }
  return result;
}

class IdxImages : public DataSet {
 public:
  IdxImages(std::string name, std::int64_t count, std::int64_t rows, std::int64_t columns, std::int32_t classes, std::vector<std::uint8_t> pixels,
            std::vector<std::uint8_t> labels)
      : DataSet(std::move(name), {rows, columns, 1}, classes, count), pixels_(std::move(pixels)), labels_(std::move(labels)) {}

 protected:
  std::int32_t sample(std::uint64_t, std::uint64_t position, std::span<float> x) const override {
    const std::uint8_t* const pixels = pixels_.data() + position * x.size();
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(pixels[i]) / 127.5f - 1.0f;
    return labels_.empty() ? 0 : labels_[position];
  }

 private:
  std::vector<std::uint8_t> pixels_, labels_;
};

// The first of these that is there; else IoError with the whole list, or an empty path where the file is optional.
std::filesystem::path first_of(const std::vector<std::filesystem::path>& candidates, bool optional) {
  std::string tried;
  for (const std::filesystem::path& candidate : candidates) {
    std::error_code error;
    if (std::filesystem::is_regular_file(candidate, error)) return candidate;
    tried += "\n  " + candidate.string();
  }
  if (optional) return {};
  throw IoError("reading images: none of these files is there:" + tried);
}

}  // namespace

std::unique_ptr<DataSet> idx_images(const std::filesystem::path& path, const DataSetOptions& options) {
  std::filesystem::path image_file = path, label_file;
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    const std::string part = options.split == Split::train ? "train" : "t10k";
    const auto names = [&](const std::string& kind) {
      std::vector<std::filesystem::path> result;
      for (const char* ending : {"", ".gz"}) result.push_back(path / (part + "-" + kind + "-ubyte" + ending));
      return result;
    };
    image_file = first_of(names("images-idx3"), false);
    label_file = first_of(names("labels-idx1"), false);
  } else {
    std::string labels = path.filename().string();
    const std::string from = "images-idx3", to = "labels-idx1";
    if (const auto at = labels.find(from); at != labels.npos) {
      labels.replace(at, from.size(), to);
      const std::string bare = labels.ends_with(".gz") ? labels.substr(0, labels.size() - 3) : labels;
      label_file = first_of({path.parent_path() / bare, path.parent_path() / (bare + ".gz")}, true);
    }
  }

  IdxArray images = read_idx(image_file);
  if (images.shape.rank() != 3)
    throw FormatError(image_file.string() + ": images have axes [count, rows, columns], this file has " + to_string(images.shape));
  const std::int64_t count = images.shape[0], rows = images.shape[1], columns = images.shape[2];
  if (count == 0 || rows == 0 || columns == 0) throw FormatError(image_file.string() + ": holds no images: " + to_string(images.shape));
  std::vector<std::uint8_t> labels;
  std::int32_t classes = 0;
  if (!label_file.empty()) {
    IdxArray array = read_idx(label_file);
    if (array.shape != Shape{count})
      throw FormatError(label_file.string() + ": " + std::to_string(count) + " images need labels " + to_string(Shape{count}) + ", got " +
                        to_string(array.shape));
    labels = std::move(array.values);
    classes = 1 + *std::max_element(labels.begin(), labels.end());
  }

  const std::int64_t size = options.image_size;
  if (size < 0 || size > 4096)
    throw Error("data set " + path.string() + ": an image size of " + std::to_string(size) + " (1 to 4096, or 0 for the file's own)");
  if (size == 0 || (size == rows && size == columns))
    return std::make_unique<IdxImages>(path.string(), count, rows, columns, classes, std::move(images.values), std::move(labels));
  std::vector<std::uint8_t> resized;
  resized.reserve(static_cast<std::size_t>(count * size * size));
  for (std::int64_t i = 0; i < count; ++i) {
    const std::vector<std::uint8_t> image = resample(images.values.data() + i * rows * columns, rows, columns, size);
    resized.insert(resized.end(), image.begin(), image.end());
  }
  return std::make_unique<IdxImages>(path.string(), count, size, size, classes, std::move(resized), std::move(labels));
}

}  // namespace fluxion
