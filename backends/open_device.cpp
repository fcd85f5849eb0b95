#include "backends/open_device.h"

#include <charconv>
#include <string>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/error.h"

namespace fluxion {

namespace {

constexpr int most_threads = 4096;

[[noreturn]] void throw_unknown(std::string_view name) {
  throw DeviceError("there is no device '" + std::string(name) + "'; there are " + device_names());
}

}  // namespace

std::string device_names() {
  return "cpu (a thread for each core), cpu:1 (one thread), cpu:N (N threads, at most " +
         std::to_string(most_threads) + "), and reference (op by op in double precision, slowly)";
}

DeviceName parse_device_name(std::string_view name) {
  const std::size_t colon = name.find(':');
  DeviceName result{std::string(name.substr(0, colon))};
  if (result.backend != "cpu" && result.backend != "reference") throw_unknown(name);
  if (colon == std::string_view::npos) return result;
  const std::string_view number = name.substr(colon + 1);
  const char* const end = number.data() + number.size();
  const auto [rest, error] = std::from_chars(number.data(), end, result.threads);
  if (result.backend != "cpu" || error != std::errc() || rest != end || result.threads < 1 ||
      result.threads > most_threads)
    throw_unknown(name);
  return result;
}

Device open_device(std::string_view name) {
  const DeviceName wanted = parse_device_name(name);
  return wanted.backend == "cpu" ? cpu({.threads = wanted.threads}) : reference();
}

}  // namespace fluxion
