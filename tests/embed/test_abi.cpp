// The layout of the structures that programs were compiled with. Members are added at the end;
// until version 1.0 a change here goes with a change of the minor version.
#include <cstddef>

#include "tests/embed/handles.h"

TEST_CASE("structures keep their layout", "[embed][abi]") {
  if (sizeof(void*) != 8) return;
  CHECK(sizeof(fluxion_status) == 4);
  CHECK(sizeof(fluxion_error) == 1024);
  CHECK(offsetof(fluxion_error, message) == 4);

  CHECK(offsetof(fluxion_device_info, name) == 8);
  CHECK(offsetof(fluxion_device_info, description) == 16);
  CHECK(offsetof(fluxion_device_info, kind) == 24);
  CHECK(offsetof(fluxion_device_info, driver) == 32);
  CHECK(offsetof(fluxion_device_info, refused) == 40);
  CHECK(offsetof(fluxion_device_info, memory_bytes) == 48);
  CHECK(offsetof(fluxion_device_info, preferred) == 56);
  CHECK(sizeof(fluxion_device_info) == 64);

  CHECK(offsetof(fluxion_device_options, memory_budget) == 8);
  CHECK(offsetof(fluxion_device_options, kernel_cache) == 16);
  CHECK(sizeof(fluxion_device_options) == 24);

  CHECK(offsetof(fluxion_memory, in_use) == 8);
  CHECK(offsetof(fluxion_memory, kept) == 16);
  CHECK(offsetof(fluxion_memory, peak) == 24);
  CHECK(offsetof(fluxion_memory, budget) == 32);
  CHECK(sizeof(fluxion_memory) == 40);

  CHECK(offsetof(fluxion_info, name) == 8);
  CHECK(offsetof(fluxion_info, shape) == 16);
  CHECK(offsetof(fluxion_info, rank) == 24);
  CHECK(offsetof(fluxion_info, elements) == 32);
  CHECK(offsetof(fluxion_info, height) == 40);
  CHECK(offsetof(fluxion_info, width) == 48);
  CHECK(offsetof(fluxion_info, channels) == 56);
  CHECK(offsetof(fluxion_info, classes) == 64);
  CHECK(offsetof(fluxion_info, class_names) == 72);
  CHECK(offsetof(fluxion_info, usual_classes) == 80);
  CHECK(offsetof(fluxion_info, usual_class_count) == 88);
  CHECK(offsetof(fluxion_info, open_class) == 96);
  CHECK(offsetof(fluxion_info, steps) == 104);
  CHECK(offsetof(fluxion_info, evaluations) == 112);
  CHECK(offsetof(fluxion_info, weights) == 120);
  CHECK(offsetof(fluxion_info, free_guidance) == 128);
  CHECK(offsetof(fluxion_info, guidance) == 136);
  CHECK(sizeof(fluxion_info) == 144);

  CHECK(offsetof(fluxion_request, seed) == 8);
  CHECK(offsetof(fluxion_request, first) == 16);
  CHECK(offsetof(fluxion_request, count) == 24);
  CHECK(offsetof(fluxion_request, classes) == 32);
  CHECK(offsetof(fluxion_request, batch) == 40);
  CHECK(offsetof(fluxion_request, progress) == 48);
  CHECK(offsetof(fluxion_request, progress_data) == 56);
  CHECK(offsetof(fluxion_request, cancel) == 64);
  CHECK(offsetof(fluxion_request, noise) == 72);
  CHECK(offsetof(fluxion_request, set_guidance) == 80);
  CHECK(offsetof(fluxion_request, guidance) == 88);
  CHECK(sizeof(fluxion_request) == 96);

  CHECK(offsetof(fluxion_vulkan, get_instance_proc_addr) == 8);
  CHECK(offsetof(fluxion_vulkan, instance) == 16);
  CHECK(offsetof(fluxion_vulkan, physical_device) == 24);
  CHECK(offsetof(fluxion_vulkan, api_version) == 32);
  CHECK(offsetof(fluxion_vulkan, queue_family) == 36);
  CHECK(offsetof(fluxion_vulkan, queue_index) == 40);
  CHECK(offsetof(fluxion_vulkan, queue_is_unshared) == 44);
  CHECK(offsetof(fluxion_vulkan, lock) == 48);
  CHECK(offsetof(fluxion_vulkan, unlock) == 56);
  CHECK(offsetof(fluxion_vulkan, lock_data) == 64);
  CHECK(offsetof(fluxion_vulkan, device) == 72);
  CHECK(offsetof(fluxion_vulkan, device_info) == 80);
  CHECK(sizeof(fluxion_vulkan) == 88);

  CHECK(offsetof(fluxion_vulkan_need, name) == 8);
  CHECK(offsetof(fluxion_vulkan_need, structure) == 16);
  CHECK(offsetof(fluxion_vulkan_need, required) == 24);
  CHECK(sizeof(fluxion_vulkan_need) == 32);

  CHECK(offsetof(fluxion_vulkan_target, buffer) == 8);
  CHECK(offsetof(fluxion_vulkan_target, offset) == 16);
  CHECK(offsetof(fluxion_vulkan_target, size) == 24);
  CHECK(offsetof(fluxion_vulkan_target, usage) == 32);
  CHECK(offsetof(fluxion_vulkan_target, wait_semaphore) == 40);
  CHECK(offsetof(fluxion_vulkan_target, wait_value) == 48);
  CHECK(offsetof(fluxion_vulkan_target, signal_semaphore) == 56);
  CHECK(offsetof(fluxion_vulkan_target, signal_value) == 64);
  CHECK(sizeof(fluxion_vulkan_target) == 72);
}
