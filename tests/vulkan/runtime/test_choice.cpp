// Vulkan: which device is opened, what it is taken to be able to do, and what is said if there is
// none.
#include <cstdlib>

#include "backends/open_device.h"
#include "backends/vulkan/backend.h"
#include "engine/error.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/vulkan/run_work.h"
#include "tests/vulkan/runtime/environment.h"

using namespace fluxion;
using namespace fluxion::testing;
using namespace fluxion::vulkan_backend;

namespace {

DeviceFacts named(const char* name, DeviceKind kind, const char* refused = "") {
  DeviceFacts facts;
  facts.name = name;
  facts.kind = kind;
  facts.refused = refused;
  return facts;
}

}  // namespace

TEST_CASE("a discrete GPU is preferred, then an integrated one", "[vulkan][choice]") {
  const Environment no_choice("FLUXION_VULKAN_DEVICE", nullptr);
  const DeviceFacts software = named("lavapipe", DeviceKind::software),
                    integrated = named("Iris", DeviceKind::integrated),
                    discrete = named("Radeon", DeviceKind::discrete),
                    old = named("GeForce", DeviceKind::discrete, "its driver is too old");
  CHECK(choose_device({software, integrated, discrete}, {}) == 2);
  CHECK(choose_device({software, integrated, old}, {}) == 1);
  CHECK(choose_device({discrete, discrete}, {}) == 0);
  CHECK(choose_device({software, integrated}, {.device = 0}) == 0);
  CHECK_THROWS_WITH(choose_device({software, old}, {}), has_text("0: lavapipe (software)"));
  CHECK_THROWS_WITH(choose_device({software}, {.device = 1}), has_text("no device 1"));
  CHECK_THROWS_WITH(choose_device({software}, {.device = -1}), has_text("no device -1"));
  CHECK_THROWS_WITH(choose_device({old}, {.device = 0}), has_text("too old"));
  CHECK_THROWS_AS(choose_device({}, {}), DeviceError);
}

TEST_CASE("the environment chooses a device by number or by a part of its name",
          "[vulkan][choice]") {
  const std::vector<DeviceFacts> all = {named("Radeon RX", DeviceKind::discrete),
                                        named("llvmpipe (LLVM 15)", DeviceKind::software)};
  {
    const Environment number("FLUXION_VULKAN_DEVICE", "1");
    CHECK(choose_device(all, {}) == 1);
    CHECK(choose_device(all, {.device = 0}) == 0);  // what the program asks for comes first
  }
  {
    const Environment name("FLUXION_VULKAN_DEVICE", "llvmpipe");
    CHECK(choose_device(all, {}) == 1);
  }
  {
    const Environment name("FLUXION_VULKAN_DEVICE", "GeForce");
    CHECK_THROWS_WITH(choose_device(all, {}), has_text("GeForce") && has_text("0: Radeon RX"));
  }
  const Environment number("FLUXION_VULKAN_DEVICE", "7");
  CHECK_THROWS_WITH(choose_device(all, {}), has_text("no device 7"));
}

TEST_CASE("without a loader or a driver the CPU is what there is", "[vulkan][choice]") {
  const auto says_why = [](const char* why) {
    CHECK_THAT(message_of<DeviceError>([] { open_device("vulkan"); }), has_text(why));
    CHECK_THAT(message_of<DeviceError>([] { open_device("vulkan:0"); }), has_text(why));
    const DeviceList list = list_devices();
    CHECK(list.devices.size() == 1);
    CHECK_THAT(list.without_vulkan, has_text(why));
  };
  {
    const Environment loader("FLUXION_VULKAN_LIBRARY", "/nowhere/libvulkan.so.1");
    says_why("loader can't be opened");
  }
  const Environment files("VK_DRIVER_FILES", "/nowhere/driver.json");
  const Environment old_files("VK_ICD_FILENAMES", "/nowhere/driver.json");
  says_why("driver");
}

TEST_CASE("known driver bugs are worked around, and said", "[vulkan][choice]") {
  DeviceFacts mali = named("Mali-G78", DeviceKind::integrated);
  mali.vendor = 0x13b5;
  mali.shaders.subgroup_size = 16;
  mali.shaders.subgroup_arithmetic = mali.shaders.subgroup_size_control = true;
  apply_quirks(mali);
  CHECK(mali.shaders.subgroup_size == 0);
  CHECK_FALSE(mali.shaders.subgroup_size_control);
  CHECK_FALSE(mali.shaders.subgroup_arithmetic);  // which is what kernels use
  REQUIRE(mali.quirks.size() == 1);
  CHECK_THAT(mali.quirks[0], has_text("Mali"));
  DeviceFacts other = named("Radeon", DeviceKind::discrete);
  other.vendor = 0x1002;
  other.shaders.subgroup_size = 64;
  other.shaders.subgroup_arithmetic = true;
  apply_quirks(other);
  CHECK(other.shaders.subgroup_size == 64);
  CHECK(other.shaders.subgroup_arithmetic);
  CHECK(other.quirks.empty());
}

TEST_CASE("limits and storage follow from what a device can do", "[vulkan][choice]") {
  DeviceFacts facts = named("any", DeviceKind::discrete);
  facts.max_storage_buffers = 16;
  facts.max_binding_bytes = 1 << 27;
  facts.shaders.storage_16 = true;
  Capabilities some = capabilities_of(facts);
  CHECK(some.limits.max_buffers == 14);  // beside scratch and scalars
  CHECK(some.limits.alignment == 256);
  CHECK(some.limits.index_bits == 32);
  CHECK(some.limits.max_binding_bytes == 1 << 27);
  CHECK_FALSE(some.f64);
  CHECK(some.storage.kept(DType::boolean) == DType::u32);
  CHECK(some.storage.kept(DType::u8) == DType::u32);
  CHECK(some.storage.kept(DType::bf16) == DType::bf16);
  CHECK(some.storage.together() == 4);
  facts.shaders.storage_16 = false;
  facts.shaders.storage_8 = true;
  some = capabilities_of(facts);
  CHECK(some.storage.kept(DType::u8) == DType::u8);
  CHECK(some.storage.kept(DType::f16) == DType::f32);
  const DeviceFacts least = least_facts(facts);
  CHECK_NOTHROW(require_least(capabilities_of(least).limits, "least"));
  CHECK(least.shaders == ShaderTarget());
}

namespace {

constexpr VkMemoryPropertyFlags local = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
                                visible = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                          VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
                                cached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;

struct Heap {
  std::uint64_t mebibytes;
  bool local;
  std::vector<VkMemoryPropertyFlags> types;
};

VkPhysicalDeviceMemoryProperties memory_of(const std::vector<Heap>& heaps) {
  VkPhysicalDeviceMemoryProperties memory{};
  for (const Heap& heap : heaps) {
    for (const VkMemoryPropertyFlags flags : heap.types)
      memory.memoryTypes[memory.memoryTypeCount++] = {flags, memory.memoryHeapCount};
    memory.memoryHeaps[memory.memoryHeapCount++] = {
        heap.mebibytes << 20,
        heap.local ? VkMemoryHeapFlags{VK_MEMORY_HEAP_DEVICE_LOCAL_BIT} : VkMemoryHeapFlags{}};
  }
  return memory;
}

}  // namespace

TEST_CASE("buffers come from most of an integrated device's memory, not from a window of it",
          "[vulkan][choice]") {
  const std::uint32_t all = ~std::uint32_t{0};
  // As AMD's driver for Windows has it: 512 MiB set aside, half of the machine's, and a window.
  const auto window = memory_of({{256, true, {local}},
                                 {8192, false, {visible, visible | cached}},
                                 {256, true, {local | visible}}});
  REQUIRE(is_unified(window, DeviceKind::integrated));
  CHECK(buffer_types(window, all, true) == std::vector<std::uint32_t>{2, 1, 3});
  // Most of it set aside: as on a discrete device.
  const auto aside =
      memory_of({{65536, true, {local}}, {8192, false, {visible}}, {256, true, {local | visible}}});
  CHECK_FALSE(is_unified(aside, DeviceKind::integrated));
  CHECK(buffer_types(aside, all, false).front() == 0);
  // One heap for all.
  const auto shared =
      memory_of({{16384, true, {local, local | visible, local | visible | cached}}});
  CHECK(is_unified(shared, DeviceKind::integrated));
  CHECK(buffer_types(shared, all, true).front() == 2);
  // A small card in a large machine keeps to its own memory.
  const auto card = memory_of({{2048, true, {local}}, {65536, false, {visible, visible | cached}}});
  CHECK_FALSE(is_unified(card, DeviceKind::discrete));
  CHECK(buffer_types(card, all, false).front() == 0);
}

TEST_CASE("memory that wants a feature of its own is left alone", "[vulkan][choice]") {
  const VkMemoryPropertyFlags coherent = VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD,
                              uncached = VK_MEMORY_PROPERTY_DEVICE_UNCACHED_BIT_AMD;
  const auto memory = memory_of(
      {{8192, true, {local | coherent | uncached, local, local | coherent}},
       {8192, false, {visible | coherent, visible | VK_MEMORY_PROPERTY_PROTECTED_BIT, visible}}});
  CHECK(buffer_types(memory, ~std::uint32_t{0}, false) == std::vector<std::uint32_t>{1, 5});
  CHECK(buffer_types(memory, ~std::uint32_t{0}, true) == std::vector<std::uint32_t>{5});
}
