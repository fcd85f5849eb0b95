#include "backends/open_device.h"

#include <charconv>
#include <string>

#include "backends/cpu/cpu.h"
#include "engine/error.h"
#if FLUXION_WITH_REFERENCE
#include "backends/reference/reference.h"
#endif
#if FLUXION_WITH_VULKAN
#include "backends/vulkan/vulkan.h"
#endif

namespace fluxion {

namespace {

constexpr int most_threads = 4096, most_devices = 256;

[[noreturn]] void throw_unknown(std::string_view name) {
  throw DeviceError("there is no device '" + std::string(name) + "'; there are " + device_names());
}

#if FLUXION_WITH_VULKAN

Device open_vulkan(const DeviceName& wanted, const OpenOptions& options) {
  return vulkan({.device = wanted.number,
                 .cache = options.kernel_cache,
                 .compiling = options.compiling,
                 .memory_budget = options.memory_budget});
}

void list_vulkan(DeviceList& list) {
  try {
    int number = 0;
    for (const VulkanDeviceInfo& info : vulkan_devices())
      list.devices.push_back({"vulkan:" + std::to_string(number++), info.name, info.kind,
                              info.driver, info.memory_bytes, info.capabilities, info.quirks,
                              info.refused, info.preferred});
    if (number == 0) list.without_vulkan = "no driver offers a device";
  } catch (const DeviceError& error) {
    list.without_vulkan = error.what();
  }
}

std::vector<ListedTileSpeed> vulkan_tiles(const Device& device, double seconds) {
  std::vector<ListedTileSpeed> list;
  for (const VulkanTileSpeed& each : vulkan_tile_speeds(device, seconds))
    list.push_back({each.tile, each.flops_per_second});
  return list;
}

#else

constexpr const char* no_vulkan = "this build of fluxion has no Vulkan backend";

Device open_vulkan(const DeviceName&, const OpenOptions&) {
  throw DeviceError(std::string("vulkan: ") + no_vulkan +
                    " (it was built with FLUXION_VULKAN=OFF)");
}
void list_vulkan(DeviceList& list) { list.without_vulkan = no_vulkan; }
std::vector<ListedTileSpeed> vulkan_tiles(const Device&, double) { return {}; }

#endif

#if FLUXION_WITH_REFERENCE
constexpr bool with_reference = true;
#else
constexpr bool with_reference = false;
Device reference() { return {}; }  // its name is refused before
#endif

}  // namespace

std::string device_names() {
  return "cpu (a thread for each core), cpu:1 (one thread), cpu:N (N threads, at most " +
         std::to_string(most_threads) +
         "), vulkan (the first discrete GPU, else the first integrated one), vulkan:N (GPU N of " +
         (with_reference
              ? "`fluxion devices`), and reference (op by op in double precision, slowly)"
              : "the list of devices)");
}

DeviceName parse_device_name(std::string_view name) {
  const std::size_t colon = name.find(':');
  DeviceName result{std::string(name.substr(0, colon))};
  const bool is_cpu = result.backend == "cpu", is_vulkan = result.backend == "vulkan";
  if (!is_cpu && !is_vulkan && !(with_reference && result.backend == "reference"))
    throw_unknown(name);
  if (colon == std::string_view::npos) return result;
  const std::string_view text = name.substr(colon + 1);
  const char* const end = text.data() + text.size();
  int number = 0;
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || rest != end) throw_unknown(name);
  if (is_cpu && number >= 1 && number <= most_threads) {
    result.threads = number;
  } else if (is_vulkan && number >= 0 && number < most_devices) {
    result.number = number;
  } else {
    throw_unknown(name);
  }
  return result;
}

Device open_device(std::string_view name, const OpenOptions& options) {
  const DeviceName wanted = parse_device_name(name);
  if (wanted.backend == "cpu")
    return cpu({.threads = wanted.threads, .memory_budget = options.memory_budget});
  return wanted.backend == "vulkan" ? open_vulkan(wanted, options) : reference();
}

std::vector<ListedTileSpeed> list_tile_speeds(const Device& device, double seconds) {
  return vulkan_tiles(device, seconds);
}

DeviceList list_devices() {
  DeviceList list;
  list.devices.push_back({"cpu", cpu().name(), "processor", "", 0, {}, {}, "", true});
  list_vulkan(list);
  return list;
}

}  // namespace fluxion
