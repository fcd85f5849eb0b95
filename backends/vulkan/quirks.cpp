// Known driver bugs, and what is not used because of them.
#include "backends/vulkan/capabilities.h"

namespace fluxion::vulkan_backend {

namespace {

struct Quirk {
  std::uint32_t driver;  // VkDriverId; 0: any
  std::uint32_t vendor;  // 0: any
  std::uint32_t below;   // driver versions below this one; 0: all
  const char* reason;
  void (*apply)(DeviceFacts&);
};

void distrust_subgroups(DeviceFacts& facts) {
  facts.shaders.subgroup_size = 0;
  facts.shaders.subgroup_arithmetic = facts.shaders.subgroup_size_control = false;
}

void submit_to_free(DeviceFacts& facts) { facts.frees_when_submitting = true; }

constexpr std::uint32_t arm = 0x13b5, qualcomm = 0x5143;

constexpr Quirk quirks[] = {
    {0, arm, 0,
     "Mali: kernels by subgroups of 16 were wrong (llama.cpp#28637): subgroups are not used",
     distrust_subgroups},
    {0, qualcomm, 0,
     "Adreno: kernels by subgroups of 128 were wrong (llama.cpp#25734): subgroups are not used",
     distrust_subgroups},
    {VK_DRIVER_ID_MESA_LLVMPIPE, 0, 0,
     "llvmpipe: kernels that are dropped stay until work is submitted: where they are many, an "
     "empty submission frees them",
     submit_to_free},
};

}  // namespace

void apply_quirks(DeviceFacts& facts) {
  for (const Quirk& quirk : quirks) {
    if (quirk.driver != 0 && quirk.driver != facts.driver) continue;
    if (quirk.vendor != 0 && quirk.vendor != facts.vendor) continue;
    if (quirk.below != 0 && facts.driver_version >= quirk.below) continue;
    quirk.apply(facts);
    facts.quirks.emplace_back(quirk.reason);
  }
}

}  // namespace fluxion::vulkan_backend
