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
  CHECK(sizeof(fluxion_info) == 128);

  CHECK(offsetof(fluxion_request, seed) == 8);
  CHECK(offsetof(fluxion_request, first) == 16);
  CHECK(offsetof(fluxion_request, count) == 24);
  CHECK(offsetof(fluxion_request, classes) == 32);
  CHECK(offsetof(fluxion_request, batch) == 40);
  CHECK(offsetof(fluxion_request, progress) == 48);
  CHECK(offsetof(fluxion_request, progress_data) == 56);
  CHECK(offsetof(fluxion_request, cancel) == 64);
  CHECK(offsetof(fluxion_request, noise) == 72);
  CHECK(sizeof(fluxion_request) == 80);
}
