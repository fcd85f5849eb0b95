/* The runtime library as a C99 program sees it. */
#include "tests/embed/c_caller.h"

#include <string.h>

#include "embed/fluxion.h"

static int count_devices(void* data) {
  return ++*(int*)data;
}
static void each_device(void* data, const fluxion_device_info* info) {
  if (info->name[0] != '\0') count_devices(data);
}

int draw_in_c(const void* bytes, size_t size, float* samples, size_t capacity, char* message) {
  fluxion_error error;
  fluxion_device* device = NULL;
  fluxion_generator* generator = NULL;
  fluxion_device_options options = FLUXION_DEVICE_OPTIONS;
  fluxion_info info = FLUXION_INFO;
  fluxion_memory memory = FLUXION_MEMORY;
  fluxion_request request = FLUXION_REQUEST;
  int devices = 0, ok;

  options.kernel_cache = "";
  request.seed = 21;
  request.count = 2;
  ok = fluxion_list_devices(each_device, &devices, &error) == FLUXION_OK && devices > 0 &&
       fluxion_device_open("cpu:1", &options, &device, &error) == FLUXION_OK &&
       fluxion_generator_open_memory(device, bytes, size, &generator, &error) == FLUXION_OK &&
       fluxion_generator_info(generator, &info, &error) == FLUXION_OK &&
       fluxion_generate(generator, &request, samples, capacity, &error) == FLUXION_OK &&
       fluxion_device_memory(device, &memory, &error) == FLUXION_OK && memory.in_use > 0;
  strcpy(message, error.message);
  fluxion_generator_close(generator);
  fluxion_device_close(device);
  return ok;
}
