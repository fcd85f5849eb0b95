// Vulkan: compiled kernels on disk.
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "backends/vulkan/backend.h"
#include "backends/vulkan/pipeline_cache.h"
#include "tests/catch.h"
#include "tests/files/scratch.h"
#include "tests/vulkan/run_work.h"
#include "tests/vulkan/runtime/small_kernels.h"

using namespace fluxion;
using namespace fluxion::testing;
using namespace fluxion::vulkan_backend;

namespace {

DeviceFacts some_device() {
  DeviceFacts facts;
  facts.vendor = 0x1002;
  facts.device = 7;
  facts.driver = 3;
  facts.driver_version = 22;
  facts.cache_uuid[3] = 9;
  return facts;
}

// What a driver would give: its own header, then anything.
std::vector<std::byte> drivers_data(const DeviceFacts& facts) {
  VkPipelineCacheHeaderVersionOne own{};
  own.headerSize = sizeof(own);
  own.headerVersion = VK_PIPELINE_CACHE_HEADER_VERSION_ONE;
  own.vendorID = facts.vendor;
  own.deviceID = facts.device;
  std::copy(facts.cache_uuid.begin(), facts.cache_uuid.end(), own.pipelineCacheUUID);
  std::vector<std::byte> data(sizeof(own) + 101, std::byte{5});
  std::memcpy(data.data(), &own, sizeof(own));
  return data;
}

void write_file(const std::filesystem::path& file, const std::vector<std::byte>& bytes) {
  std::ofstream(file, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

std::optional<Device> caching_in(const ScratchFolder& folder) {
  DeviceOptions options;
  options.choice.cache = folder.path();
  return software_vulkan(options);
}

}  // namespace

TEST_CASE("a cache file is what the driver gave, for the same device and driver only",
          "[vulkan][cache]") {
  const DeviceFacts facts = some_device();
  const std::vector<std::byte> data = drivers_data(facts), file = encode_cache(data, facts);
  CHECK(decode_cache(file, facts) == data);
  for (auto change :
       {+[](DeviceFacts& other) { ++other.vendor; }, +[](DeviceFacts& other) { ++other.device; },
        +[](DeviceFacts& other) { ++other.driver; },
        +[](DeviceFacts& other) { ++other.driver_version; },
        +[](DeviceFacts& other) { ++other.cache_uuid[15]; }}) {
    DeviceFacts other = facts;
    change(other);
    CHECK_FALSE(decode_cache(file, other));
  }
}

TEST_CASE("a cache file with any byte changed, or cut anywhere, is ignored", "[vulkan][cache]") {
  const DeviceFacts facts = some_device();
  const std::vector<std::byte> file = encode_cache(drivers_data(facts), facts);
  for (std::size_t i = 0; i < file.size(); ++i) {
    std::vector<std::byte> changed = file;
    changed[i] ^= std::byte{64};
    CHECK_FALSE(decode_cache(changed, facts));
    CHECK_FALSE(decode_cache(std::span(file).first(i), facts));
  }
  std::vector<std::byte> longer = file;
  longer.push_back(std::byte{0});
  CHECK_FALSE(decode_cache(longer, facts));
  // Ours, but not the driver's.
  CHECK_FALSE(decode_cache(encode_cache(std::vector<std::byte>(200), facts), facts));
}

TEST_CASE("a device finds what an earlier one has compiled, and survives a damaged file",
          "[vulkan][cache]") {
  const ScratchFolder folder;
  std::filesystem::path file;
  DeviceFacts facts;
  const auto run = [&](const Device& device) {
    CHECK(is_doubled(run_work(device, doubling(1000), {counting(1000), Words(1000)})[1]));
  };
  {
    const std::optional<Device> device = caching_in(folder);
    if (!device) return;
    facts = logical_device(*device)->facts();
    file = cache_file(folder.path(), facts);
    CHECK_FALSE(logical_device(*device)->pipelines().counts().warm);
    run(*device);
  }
  REQUIRE(std::filesystem::exists(file));
  {
    const std::optional<Device> device = caching_in(folder);
    CHECK(logical_device(*device)->pipelines().counts().warm);
    run(*device);
  }
  const auto size = std::filesystem::file_size(file);
  std::filesystem::resize_file(file, size / 2);
  {
    const std::optional<Device> device = caching_in(folder);
    CHECK_FALSE(logical_device(*device)->pipelines().counts().warm);
    run(*device);
  }
  CHECK(std::filesystem::file_size(file) >= size / 2);
  write_file(file, std::vector<std::byte>(1000, std::byte{0xff}));
  {
    const std::optional<Device> device = caching_in(folder);
    CHECK_FALSE(logical_device(*device)->pipelines().counts().warm);
    run(*device);
  }
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);

  // What earlier drivers of the device have left goes in time.
  DeviceFacts earlier = facts;
  ++earlier.cache_uuid[0];
  const std::filesystem::path old = cache_file(folder.path(), earlier);
  ++earlier.cache_uuid[0];
  const std::filesystem::path recent = cache_file(folder.path(), earlier);
  ++earlier.device;
  const std::filesystem::path other = cache_file(folder.path(), earlier);
  const auto now = std::filesystem::file_time_type::clock::now();
  for (const std::filesystem::path& each : {old, recent, other}) write_file(each, {});
  for (const std::filesystem::path& each : {old, other})
    std::filesystem::last_write_time(each, now - std::chrono::hours(24 * 91));
  REQUIRE(write_cache(file, {}, facts));
  CHECK_FALSE(std::filesystem::exists(old));
  CHECK(std::filesystem::exists(recent));
  CHECK(std::filesystem::exists(other));
}

TEST_CASE("devices that write one cache at once leave a whole one", "[vulkan][cache]") {
  const ScratchFolder folder;
  if (!software_device()) return;
  std::vector<std::thread> writers;
  std::atomic<int> wrong{0};
  for (int i = 0; i < 3; ++i)
    writers.emplace_back([&, i] {
      for (int round = 0; round < 3; ++round) {
        const std::optional<Device> device = caching_in(folder);
        const auto count = static_cast<std::uint32_t>(100 + 10 * i + round);
        if (!is_doubled(run_work(*device, doubling(count), {counting(count), Words(count)})[1]))
          ++wrong;
      }
    });
  for (std::thread& writer : writers) writer.join();
  CHECK(wrong == 0);
  CHECK(logical_device(*caching_in(folder))->pipelines().counts().warm);
}

TEST_CASE("a folder that can't be written costs nothing but time", "[vulkan][cache]") {
  DeviceOptions options;
  options.choice.cache = "/proc/nowhere";
  const std::optional<Device> device = software_vulkan(options);
  if (!device) return;
  CHECK(is_doubled(run_work(*device, doubling(1000), {counting(1000), Words(1000)})[1]));
  CHECK_NOTHROW(logical_device(*device)->pipelines().save());
}
