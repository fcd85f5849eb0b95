#include "models/evaluation/classifier_cache.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <span>

#include "models/data/checksum.h"

namespace fluxion {

namespace {

// Raised whenever a classifier trained now would differ from one trained before.
constexpr int version = 2;
constexpr std::int64_t samples_in_checksum = 256;

}  // namespace

std::filesystem::path classifier_cache() {
  for (const auto& [variable, below] : {std::pair("XDG_CACHE_HOME", "fluxion/classifiers"),
                                        std::pair("HOME", ".cache/fluxion/classifiers")})
    // A path that depends on where one is is ignored, as the XDG specification asks.
    if (const char* const folder = std::getenv(variable);
        folder && std::filesystem::path(folder).is_absolute())
      return std::filesystem::path(folder) / below;
  return {};
}

std::string classifier_file_name(const DataSet& data, bool half) {
  Checksum checksum;
  std::vector<std::int64_t> numbers = data.sample_shape().dims();
  for (const std::int64_t number :
       {std::int64_t{version}, std::int64_t{data.classes()}, data.size().value_or(-1)})
    numbers.push_back(number);
  if (half) numbers.push_back(2);
  checksum.add(numbers);
  for (const std::string& name : data.class_names()) {
    checksum.add(std::as_bytes(std::span(name)));
    checksum.add(std::vector<std::uint8_t>{0});
  }
  const HostBatch some = data.batch(samples_in_checksum, 0, 0);
  checksum.add(some.x);
  checksum.add(some.labels);

  // A folder has one name however it is spelt: "mnist", "data/mnist/", ".".
  std::error_code missing;
  std::filesystem::path path = std::filesystem::canonical(data.name(), missing);
  if (missing) path = data.name();
  std::string name = path.filename().string().substr(0, 40);
  std::replace_if(
      name.begin(), name.end(),
      [](unsigned char c) { return !std::isalnum(c) && c != '-' && c != '.'; }, '_');
  return name + "-" + checksum.text() + ".safetensors";
}

}  // namespace fluxion
