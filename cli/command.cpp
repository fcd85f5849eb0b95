#include "cli/command.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "backends/open_device.h"
#include "cli/progress.h"
#include "engine/error.h"
#include "engine/number_text.h"
#include "engine/platform/file.h"
#include "engine/platform/machine.h"
#include "engine/platform/usage.h"
#include "models/files/lower_case.h"
#include "models/layers/precision.h"
#include "models/model_file.h"
#include "models/samplers/sampler.h"

namespace fluxion::cli {

void add_device(const Parser& parser, CommonOptions& options) {
  const Check known{"", [](const std::string& text) -> std::string {
                      try {
                        parse_device_name(text);
                        return "";
                      } catch (const DeviceError& error) {
                        return error.what();
                      }
                    }};
  const Option device =
      parser.add_option("--device", options.device, "Where to compute: " + device_names())
          .check(known)
          .type_name("NAME")
          .show_default();
  parser
      .add_number("--threads", options.threads, whole(0, 4096),
                  "The same as --device cpu:T; 0: a thread for each core")
      .excludes(device)
      .type_name("T");
}

std::string device_name(const CommonOptions& options) {
  if (!options.threads) return options.device;
  return *options.threads == 0 ? "cpu" : "cpu:" + std::to_string(*options.threads);
}

namespace {

std::optional<std::uint64_t> limit_bytes(const CommonOptions& options) {
  constexpr double gibibyte = 1024.0 * 1024 * 1024;
  if (!options.memory_limit) return std::nullopt;
  return static_cast<std::uint64_t>(*options.memory_limit * gibibyte);
}

}  // namespace

Option add_memory_limit(const Parser& parser, CommonOptions& options) {
  return parser
      .add_number("--memory-limit", options.memory_limit,
                  real(1e-6, 1e6, Precision::double_precision),
                  "Use at most this much memory in GiB (default: what is free)")
      .type_name("G");
}

std::uint64_t free_memory(const CommonOptions& options) {
  const std::uint64_t free =
      available_memory_bytes().value_or(std::numeric_limits<std::uint64_t>::max());
  const std::optional<std::uint64_t> limit = limit_bytes(options);
  if (!limit) return free;
  const std::uint64_t held = resident_memory().value_or(ResidentMemory{}).own;
  return std::min(free, *limit - std::min(*limit, held));
}

std::uint64_t free_memory(const CommonOptions& options, const Device& device, std::uint64_t first) {
  const Backend& backend = device.backend();
  const std::uint64_t budget = backend.budget(), used = backend.in_use().total();
  const std::uint64_t of_device = budget - std::min(budget, used);
  if (!backend.capabilities().host_memory) return of_device;
  const std::uint64_t of_host = free_memory(options);
  return std::min(of_device, of_host - std::min(of_host, first));
}

Device open_device(const CommonOptions& options, const Streams& streams, bool quiet) {
  OpenOptions opening;
  if (const auto limit = limit_bytes(options)) opening.memory_budget = *limit;
  if (!quiet)
    opening.compiling = [progress = std::make_shared<CompilingProgress>(streams)](
                            std::size_t done, std::size_t all) { progress->show(done, all); };
  return fluxion::open_device(device_name(options), opening);
}

int host_threads(const CommonOptions& options) {
  return parse_device_name(device_name(options)).threads;
}

Range seeds() { return whole(0, std::numeric_limits<std::uint64_t>::max()); }
Range guidance_scales() { return real(-1000, 1000); }

Check precisions() {
  return {"{f32,bf16,f16,OPERANDS/TANGENTS/COTANGENTS}",
          [](const std::string& text) -> std::string {
            try {
              precision_from(text);
              return "";
            } catch (const FormatError& error) {
              return error.what();
            }
          }};
}

Option add_precision(const Parser& parser, std::string& precision) {
  return parser
      .add_option("--precision", precision,
                  "Of the network's products with weights, whatever it was trained in: f32, or "
                  "bf16 or f16 with factors rounded to 16 bits")
      .check(precisions())
      .type_name("P")
      .show_default();
}

void check_room_for_samples(const CommonOptions& options, const Shape& sample_shape,
                            std::int64_t count, std::int64_t batch, std::uint64_t beside) {
  const std::uint64_t needed = Sampler::host_bytes(sample_shape, count, batch) + beside,
                      free = free_memory(options);
  if (needed > free)
    throw OutOfMemory(
        grouped(count) + " samples of shape " + to_string(sample_shape) + ", in batches of " +
        grouped(std::min(batch, count)) + ", take " + bytes_text(needed) + " of memory" +
        (beside > 0 ? " with their noise and pictures, " : ", ") + bytes_text(free) + " are free");
}

void add_json(const Parser& parser, CommonOptions& options) {
  parser.add_flag("--json", options.json,
                  "Print the result as one JSON object; progress goes to standard error");
}

void check_files_differ(const std::string& command, const std::vector<NamedPath>& written,
                        const std::vector<NamedPath>& read) {
  for (std::size_t i = 0; i < written.size(); ++i) {
    const auto& [option, path] = written[i];
    std::error_code missing;
    const std::filesystem::file_status there = std::filesystem::status(path, missing);
    // Of a pipe or a terminal there is nothing to lose.
    if (path.empty() || (std::filesystem::exists(there) && std::filesystem::is_other(there)))
      continue;
    const auto check = [&](const NamedPath& other, const char* is) {
      if (!other.path.empty() &&
          (std::filesystem::equivalent(path, model_file(other.path), missing) ||
           path == other.path))
        throw Error(command + ": " + option + " " + path + " is " + is + " " + other.option +
                    " as well; name another one");
    };
    for (const NamedPath& each : read) check(each, "what is read as");
    for (std::size_t j = 0; j < i; ++j) check(written[j], "the file of");
  }
}

void check_picture_name(const std::string& option, const std::string& path,
                        const std::string& instead) {
  std::error_code missing;
  const std::filesystem::file_status there = std::filesystem::status(path, missing);
  if (path.empty() || (std::filesystem::exists(there) && std::filesystem::is_other(there))) return;
  const std::string ending = lower_case(std::filesystem::path(path).extension().string());
  for (const char* other :
       {".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".npy", ".npz", ".pdf"})
    if (ending == other)
      throw Error(option + " " + path + ": pictures are written as PNG; name the file .png" +
                  instead);
}

void check_can_be_written(const std::vector<NamedPath>& written) {
  for (const auto& [option, path] : written) {
    std::error_code unknown;
    // (Who reads a pipe would see its end when a first writer leaves.)
    if (path.empty() || std::filesystem::is_other(std::filesystem::status(path, unknown))) continue;
    try {
      ReplacementFile can_be_written{std::filesystem::path(path)};
    } catch (const IoError& error) {
      throw IoError(option + ": " + error.what());
    }
  }
}

void write_json(std::ostream& out, const nlohmann::json& object) {
  out << object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n" << std::flush;
}

std::string grouped(std::int64_t number) {
  std::string digits = std::to_string(number);
  const std::size_t first = digits[0] == '-' ? 1 : 0;
  for (std::size_t i = digits.size(); i > first + 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

std::string counted(std::int64_t count, const std::string& noun) {
  return grouped(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string bytes_text(std::uint64_t bytes) {
  static constexpr std::array units = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < units.size()) value /= 1024, ++unit;
  return fixed_text(value, unit == 0 ? 0 : 1) + " " + units[unit];
}

std::string clock_text(double seconds) {
  if (!std::isfinite(seconds)) return "?";
  const long long whole = std::llround(std::max(0.0, seconds));
  char text[48];
  if (whole >= 3600) {
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60,
                  whole % 60);
  } else {
    std::snprintf(text, sizeof text, "%lld:%02lld", whole / 60, whole % 60);
  }
  return text;
}

std::string printable(const std::string& text, std::size_t limit) {
  std::string result;
  unsigned char before = 0;
  for (const char character : text) {
    if (result.size() >= limit) return result + "...";
    const auto byte = static_cast<unsigned char>(character);
    const bool second_control_block =
        before == 0xc2 && byte >= 0x80 && byte < 0xa0;  // U+0080 .. U+009f in UTF-8
    before = byte;
    if (byte < 0x20 || byte == 0x7f || second_control_block) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", byte);
      result += escaped;
    } else {
      result += character;
    }
  }
  return result;
}

}  // namespace fluxion::cli
