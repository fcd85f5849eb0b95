#include "models/data/pair_set.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/error.h"
#include "models/json_text.h"

namespace fluxion {
namespace {

using nlohmann::json;

constexpr const char* pairs_key = "fluxion.pairs";
constexpr const char* first_file = "pairs-00000-of-";
constexpr int pairs_version = 1;
constexpr std::int64_t most_pairs = std::int64_t{1} << 40,
                       most_pair_elements = std::int64_t{1} << 31;

std::string pairs_place(std::int64_t file, std::int64_t files) {
  char name[64];
  std::snprintf(name, sizeof name, "pairs-%05lld-of-%05lld.safetensors",
                static_cast<long long>(file), static_cast<long long>(files));
  return name;
}

json pairs_to_json(const PairsInfo& info) {
  return {{"version", pairs_version},
          {"count", info.count},
          {"per_file", info.per_file},
          {"sample_shape", info.sample_shape.dims()},
          {"teacher", info.teacher},
          {"sampler", info.sampler},
          {"seed", info.seed},
          {"dataset", info.dataset},
          {"class_names", info.class_names},
          {"class_marks", info.class_marks}};
}

PairsInfo pairs_from_json(const json& object) {
  if (const int version = json_member<int>(object, "version"); version != pairs_version)
    throw FormatError("version " + std::to_string(version) + " of pairs is not 1");
  PairsInfo info{.count = json_member<std::int64_t>(object, "count"),
                 .per_file = json_member<std::int64_t>(object, "per_file"),
                 .sample_shape = {},
                 .teacher = json_member<std::string>(object, "teacher"),
                 .sampler = json_member<std::string>(object, "sampler"),
                 .seed = json_member<std::uint64_t>(object, "seed"),
                 .dataset = json_member<std::string>(object, "dataset"),
                 .class_names = json_member<std::vector<std::string>>(object, "class_names"),
                 .class_marks = json_member<std::vector<std::string>>(object, "class_marks")};
  if (info.count < 1 || info.count > most_pairs || info.per_file < 1 || info.per_file > most_pairs)
    throw FormatError(std::to_string(info.count) + " pairs, " + std::to_string(info.per_file) +
                      " in a file");
  const auto dims = json_member<Dims>(object, "sample_shape");
  std::int64_t elements = 1;
  for (const std::int64_t size : dims) {
    if (size < 1 || size > most_pair_elements / elements)
      throw FormatError("a sample shape of " + to_string(dims));
    elements *= size;
  }
  if (dims.size() != 1 && dims.size() != 3)
    throw FormatError("samples of shape " + to_string(dims) + ", which are no points or images");
  info.sample_shape = Shape(dims);
  if (!info.class_marks.empty() && info.class_marks.size() != info.class_names.size())
    throw FormatError(std::to_string(info.class_marks.size()) + " marks of " +
                      std::to_string(info.class_names.size()) + " classes");
  return info;
}

std::filesystem::path first_of(const std::filesystem::path& folder) {
  std::error_code failure;
  std::filesystem::directory_iterator entry(folder, failure);
  for (; !failure && entry != std::filesystem::directory_iterator(); entry.increment(failure)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(first_file) && name.ends_with(".safetensors")) return entry->path();
  }
  return {};
}

class PairSet : public DataSet {
 public:
  PairSet(const PairsInfo& info, std::vector<std::unique_ptr<SafetensorsFile>> files)
      : DataSet(info.dataset, info.sample_shape, info.class_names, info.count),
        info_(info),
        files_(std::move(files)) {
    for (const auto& file : files_) {
      noise_.push_back(file->find("noise")->bytes);
      samples_.push_back(file->find("sample")->bytes);
      if (info.class_names.empty()) continue;
      const std::span<const std::byte> labels = file->find("label")->bytes;
      const std::size_t before = labels_.size();
      labels_.resize(before + labels.size() / sizeof(std::int32_t));
      std::memcpy(&labels_[before], labels.data(), labels.size());
    }
  }

  bool has_noise() const override { return true; }

 protected:
  std::int32_t sample(std::uint64_t, std::uint64_t index, std::span<float> x) const override {
    load(samples_, index, x);
    return labels_.empty() ? 0 : labels_[index];
  }
  void noise(std::uint64_t index, std::span<float> e) const override { load(noise_, index, e); }
  void check_read() const override {
    for (const auto& file : files_) file->check_whole();
  }
  std::vector<std::int32_t> stored_labels() const override { return labels_; }
  // Those of the data that the teacher saw.
  std::vector<std::string> stored_marks() const override { return info_.class_marks; }

 private:
  void load(const std::vector<std::span<const std::byte>>& parts, std::uint64_t index,
            std::span<float> to) const {
    const auto per_file = static_cast<std::uint64_t>(info_.per_file);
    std::memcpy(to.data(), parts[index / per_file].data() + (index % per_file) * to.size_bytes(),
                to.size_bytes());
  }

  PairsInfo info_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<std::span<const std::byte>> noise_, samples_;
  std::vector<std::int32_t> labels_;
};

}  // namespace

std::int64_t PairsInfo::pairs_in(std::int64_t file) const {
  return std::min(per_file, count - file * per_file);
}

std::uint64_t PairsInfo::bytes_of(std::int64_t file) const {
  const auto row = static_cast<std::uint64_t>(2 * sample_shape.elements()) * sizeof(float) +
                   (class_names.empty() ? 0 : sizeof(std::int32_t));
  return static_cast<std::uint64_t>(pairs_in(file)) * row;
}

std::string pairs_file_name(const PairsInfo& info, std::int64_t file) {
  return pairs_place(file, info.files());
}

Metadata pairs_metadata(const PairsInfo& info, std::int64_t file) {
  json object = pairs_to_json(info);
  object["file"] = file;
  return {{pairs_key, object.dump(-1, ' ', false, json::error_handler_t::replace)}};
}

PairsInfo pairs_info_of(const SafetensorsFile& file, const std::string& where) {
  const auto found = file.metadata().find(pairs_key);
  if (found == file.metadata().end())
    throw FormatError(where + ": holds no pairs: its metadata has no '" + std::string(pairs_key) +
                      "'");
  const json object = parse_json(found->second, where + ": its pairs");
  try {
    if (!object.is_object()) throw FormatError("no JSON object");
    return pairs_from_json(object);
  } catch (const Error& error) {
    throw FormatError(where + ": its metadata of pairs: " + error.what());
  }
}

void check_pairs_file(const SafetensorsFile& file, const PairsInfo& info, std::int64_t number,
                      const std::string& where) {
  if (pairs_info_of(file, where) != info)
    throw FormatError(where + ": holds pairs of another teacher, number or sampler than these");
  const json object = parse_json(file.metadata().at(pairs_key), where);
  if (json_member_or(object, "file", std::int64_t{-1}) != number)
    throw FormatError(where + ": is not part " + std::to_string(number) + " of its pairs");
  const std::int64_t rows = info.pairs_in(number);
  const auto require = [&](const char* name, const TensorType& type) {
    const SafetensorsEntry* entry = file.find(name);
    if (!entry) throw FormatError(where + ": '" + name + "' is missing");
    if (entry->dtype != type.dtype || entry->shape != type.shape)
      throw FormatError(where + ": '" + name + "' is " + to_string(*entry) + " but must be " +
                        to_string(type));
    return entry;
  };
  const Shape all = with_leading_axis(rows, info.sample_shape);
  for (const char* name : {"noise", "sample"}) {
    const SafetensorsEntry* entry = require(name, {all, DType::f32});
    for (std::size_t at = 0; at < entry->bytes.size(); at += sizeof(float)) {
      float value = 0;
      std::memcpy(&value, entry->bytes.data() + at, sizeof value);
      if (!std::isfinite(value))
        throw FormatError(where + ": '" + name + "' holds a number that is not finite");
    }
  }
  const std::size_t tensors = info.class_names.empty() ? 2 : 3;
  if (tensors == 3) {
    const SafetensorsEntry* entry = require("label", {Shape{rows}, DType::i32});
    for (std::size_t at = 0; at < entry->bytes.size(); at += sizeof(std::int32_t)) {
      std::int32_t label = 0;
      std::memcpy(&label, entry->bytes.data() + at, sizeof label);
      if (label < 0 || label >= std::ssize(info.class_names))
        throw FormatError(where + ": label " + std::to_string(label) + " of " +
                          std::to_string(info.class_names.size()) + " classes");
    }
  }
  if (file.entries().size() != tensors)
    throw FormatError(where + ": holds tensors that are no part of pairs");
  file.check_content();
  file.check_whole();
}

bool is_pairs_folder(const std::filesystem::path& folder) { return !first_of(folder).empty(); }

std::unique_ptr<DataSet> pair_set(const std::filesystem::path& folder,
                                  const DataSetOptions& options) {
  const std::string name = "data set " + folder.string();
  if (options.image_size != 0 || options.channels != 0 || options.flip)
    throw Error(name +
                ": holds pairs of noise and sample, which are taken as they are: no image size, "
                "channels or flips");
  if (options.split == Split::test)
    throw NoTestPart(name + ": holds pairs, which have no test part");
  const std::filesystem::path first = first_of(folder);
  if (first.empty()) throw IoError(name + ": holds no pairs");
  const PairsInfo info = pairs_info_of(SafetensorsFile(first), first.string());
  std::vector<std::unique_ptr<SafetensorsFile>> files;
  for (std::int64_t i = 0; i < info.files(); ++i) {
    const std::filesystem::path path = folder / pairs_file_name(info, i);
    std::error_code missing;
    if (!std::filesystem::exists(path, missing))
      throw IoError(name + ": has not all of its pairs: " + path.filename().string() +
                    " is missing; the command that makes them goes on where it stopped");
    files.push_back(std::make_unique<SafetensorsFile>(path));
    check_pairs_file(*files.back(), info, i, path.string());
    if (options.progress) options.progress(i + 1, info.files());
  }
  return std::make_unique<PairSet>(info, std::move(files));
}

}  // namespace fluxion
