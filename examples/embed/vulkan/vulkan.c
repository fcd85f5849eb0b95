/* Draws one image into a buffer of its own VkDevice, copies it back after a semaphore, and writes
 * it as a PNG file:
 *
 *   vulkan GENERATOR.fxn OUT.png [SEED] */
#include <fluxion.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>

#include "../c/write_png.h"

#define MOST_EXTENSIONS 16

/* What the device is made with. A program of yours has more in it. */
typedef struct setup {
  VkPhysicalDeviceFeatures2 features;
  VkPhysicalDeviceVulkan11Features features_11;
  VkPhysicalDeviceVulkan12Features features_12;
  const char* extensions[MOST_EXTENSIONS];
  uint32_t extension_count;
} setup;

typedef struct memory {
  VkBuffer buffer;
  VkDeviceMemory memory;
} memory;

static int failed(VkResult result, const char* doing) {
  if (result == VK_SUCCESS) return 0;
  fprintf(stderr, "vulkan: can't %s: VkResult %d\n", doing, (int)result);
  return 1;
}

/* Enables what the runtime asks for, by name: here the features of Vulkan 1.0 to 1.2. What is not
 * required may be left off, as the rest is here. */
static void enable(void* data, const fluxion_vulkan_need* need) {
  static const struct {
    const char* name;
    size_t at;
  } known[] = {
      {"shaderInt16", offsetof(setup, features.features.shaderInt16)},
      {"storageBuffer16BitAccess", offsetof(setup, features_11.storageBuffer16BitAccess)},
      {"storageBuffer8BitAccess", offsetof(setup, features_12.storageBuffer8BitAccess)},
      {"shaderFloat16", offsetof(setup, features_12.shaderFloat16)},
      {"shaderInt8", offsetof(setup, features_12.shaderInt8)},
      {"timelineSemaphore", offsetof(setup, features_12.timelineSemaphore)},
  };
  setup* const to = data;
  size_t i;
  if (need->structure[0] == '\0') {
    /* Names live until this function returns: those of the headers live on. */
    if (strcmp(need->name, "VK_KHR_portability_subset") == 0)
      to->extensions[to->extension_count++] = "VK_KHR_portability_subset";
    return;
  }
  for (i = 0; i < sizeof known / sizeof known[0]; ++i)
    if (strcmp(need->name, known[i].name) == 0) {
      const VkBool32 on = VK_TRUE;
      memcpy((char*)to + known[i].at, &on, sizeof on);
    }
}

/* The first family of queues that compute, or the number of families. */
static uint32_t compute_family(VkPhysicalDevice physical) {
  VkQueueFamilyProperties families[32];
  uint32_t count = 32, i;
  vkGetPhysicalDeviceQueueFamilyProperties(physical, &count, families);
  for (i = 0; i < count; ++i)
    if (families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) break;
  return i;
}

static int make_memory(VkPhysicalDevice physical, VkDevice device, VkDeviceSize bytes,
                       VkBufferUsageFlags usage, VkMemoryPropertyFlags wanted, memory* made) {
  VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO};
  VkMemoryAllocateInfo allocation = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO};
  VkMemoryRequirements needs;
  VkPhysicalDeviceMemoryProperties properties;
  uint32_t type;
  info.size = bytes;
  info.usage = usage;
  if (failed(vkCreateBuffer(device, &info, NULL, &made->buffer), "make a buffer")) return 0;
  vkGetBufferMemoryRequirements(device, made->buffer, &needs);
  vkGetPhysicalDeviceMemoryProperties(physical, &properties);
  for (type = 0; type < properties.memoryTypeCount; ++type)
    if ((needs.memoryTypeBits >> type & 1) &&
        (properties.memoryTypes[type].propertyFlags & wanted) == wanted)
      break;
  allocation.allocationSize = needs.size;
  allocation.memoryTypeIndex = type;
  return type < properties.memoryTypeCount &&
         !failed(vkAllocateMemory(device, &allocation, NULL, &made->memory), "allocate memory") &&
         !failed(vkBindBufferMemory(device, made->buffer, made->memory, 0), "bind memory");
}

static void free_memory(VkDevice device, memory* made) {
  vkDestroyBuffer(device, made->buffer, NULL);
  vkFreeMemory(device, made->memory, NULL);
}

/* Copies `from` to `to` once the semaphore has value 1, and gives it value 2. */
static int copy_back(VkDevice device, VkQueue queue, VkCommandPool pool, const memory* from,
                     const memory* to, VkDeviceSize bytes, VkSemaphore semaphore) {
  const uint64_t drawn = 1, copied = 2, a_minute = 60000000000u;
  const VkPipelineStageFlags stage = VK_PIPELINE_STAGE_TRANSFER_BIT;
  const VkBufferCopy region = {0, 0, bytes};
  VkCommandBufferAllocateInfo allocation = {.sType =
                                                VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO};
  VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
  VkMemoryBarrier barrier = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER};
  VkTimelineSemaphoreSubmitInfo values = {.sType =
                                              VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO};
  VkSubmitInfo submit = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO};
  VkSemaphoreWaitInfo wait = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO};
  VkCommandBuffer commands;
  allocation.commandPool = pool;
  allocation.commandBufferCount = 1;
  if (failed(vkAllocateCommandBuffers(device, &allocation, &commands), "make commands")) return 0;
  vkBeginCommandBuffer(commands, &begin);
  vkCmdCopyBuffer(commands, from->buffer, to->buffer, 1, &region);
  barrier.srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT;
  barrier.dstAccessMask = VK_ACCESS_HOST_READ_BIT;
  vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0, 1,
                       &barrier, 0, NULL, 0, NULL);
  vkEndCommandBuffer(commands);
  values.waitSemaphoreValueCount = values.signalSemaphoreValueCount = 1;
  values.pWaitSemaphoreValues = &drawn;
  values.pSignalSemaphoreValues = &copied;
  submit.pNext = &values;
  submit.waitSemaphoreCount = submit.commandBufferCount = submit.signalSemaphoreCount = 1;
  submit.pWaitSemaphores = submit.pSignalSemaphores = &semaphore;
  submit.pWaitDstStageMask = &stage;
  submit.pCommandBuffers = &commands;
  wait.semaphoreCount = 1;
  wait.pSemaphores = &semaphore;
  wait.pValues = &copied;
  return !failed(vkQueueSubmit(queue, 1, &submit, VK_NULL_HANDLE), "submit a copy") &&
         !failed(vkWaitSemaphores(device, &wait, a_minute), "wait for the copy");
}

/* Draws into `image`, and writes what was copied to `host`. */
static int draw(const fluxion_vulkan* vulkan, const char* generator_path, const char* path,
                uint64_t seed) {
  const VkDevice device = vulkan->device;
  const VkPhysicalDevice physical = vulkan->physical_device;
  fluxion_error error;
  fluxion_device* runtime = NULL;
  fluxion_generator* generator = NULL;
  fluxion_info info = FLUXION_INFO;
  fluxion_request request = FLUXION_REQUEST;
  fluxion_vulkan_target target = FLUXION_VULKAN_TARGET;
  VkSemaphoreTypeCreateInfo type = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO};
  VkSemaphoreCreateInfo semaphore_info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO};
  VkCommandPoolCreateInfo pool_info = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
  VkSemaphore semaphore = VK_NULL_HANDLE;
  VkCommandPool pool = VK_NULL_HANDLE;
  VkQueue queue;
  memory image = {VK_NULL_HANDLE, VK_NULL_HANDLE}, host = {VK_NULL_HANDLE, VK_NULL_HANDLE};
  void* mapped = NULL;
  uint8_t* pixels = NULL;
  int done = 0;

  if (fluxion_device_from_vulkan(vulkan, NULL, &runtime, &error) != FLUXION_OK ||
      fluxion_generator_open(runtime, generator_path, &generator, &error) != FLUXION_OK ||
      fluxion_generator_info(generator, &info, &error) != FLUXION_OK)
    goto said;
  if (info.channels == 0) {
    fprintf(stderr, "vulkan: %s draws no images\n", generator_path);
    goto end;
  }
  type.semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE;
  semaphore_info.pNext = &type;
  pool_info.queueFamilyIndex = vulkan->queue_family;
  target.size = (uint64_t)info.elements * sizeof(float);
  target.usage = VK_BUFFER_USAGE_TRANSFER_DST_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT;
  if (failed(vkCreateSemaphore(device, &semaphore_info, NULL, &semaphore), "make a semaphore") ||
      failed(vkCreateCommandPool(device, &pool_info, NULL, &pool), "make a command pool") ||
      !make_memory(physical, device, target.size, target.usage, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
                   &image) ||
      !make_memory(physical, device, target.size, VK_BUFFER_USAGE_TRANSFER_DST_BIT,
                   VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
                   &host) ||
      failed(vkMapMemory(device, host.memory, 0, VK_WHOLE_SIZE, 0, &mapped), "map memory"))
    goto end;

  /* The call returns while the image is being drawn: the semaphore says when it is there. */
  request.seed = seed;
  target.buffer = (uint64_t)image.buffer;
  target.signal_semaphore = (uint64_t)semaphore;
  target.signal_value = 1;
  if (fluxion_generate_to_vulkan(generator, &request, &target, &error) != FLUXION_OK) goto said;
  vkGetDeviceQueue(device, vulkan->queue_family, vulkan->queue_index, &queue);
  if (!copy_back(device, queue, pool, &image, &host, target.size, semaphore)) goto end;

  pixels = malloc((size_t)info.elements);
  if (!pixels) goto end;
  for (int64_t i = 0; i < info.elements; ++i) {
    const float level = (((const float*)mapped)[i] + 1) * 127.5f;
    pixels[i] = level > 0 ? (uint8_t)((level < 255 ? level : 255) + 0.5f) : 0;
  }
  done = write_png(path, pixels, (size_t)info.width, (size_t)info.height, (int)info.channels);
  if (!done) fprintf(stderr, "vulkan: can't write %s\n", path);
  goto end;

said:
  fprintf(stderr, "vulkan: %s\n", error.message);
end:
  free(pixels);
  /* The runtime's handles first: they use the VkDevice. */
  fluxion_generator_close(generator);
  fluxion_device_close(runtime);
  vkDeviceWaitIdle(device);
  free_memory(device, &image);
  free_memory(device, &host);
  vkDestroyCommandPool(device, pool, NULL);
  vkDestroySemaphore(device, semaphore, NULL);
  return done;
}

int main(int argc, char** argv) {
  const float priority = 0.5f;
  VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO};
  VkInstanceCreateInfo instance_info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO};
  VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO};
  VkDeviceCreateInfo device_info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO};
  VkPhysicalDevice devices[16];
  uint32_t count = 16, i;
  VkInstance instance;
  VkDevice device;
  fluxion_error error;
  fluxion_vulkan vulkan = FLUXION_VULKAN;
  setup chosen;
  char* end = NULL;
  const uint64_t seed = argc > 3 ? strtoull(argv[3], &end, 10) : 0;
  int done = 0;

  if (argc < 3 || (end && (end == argv[3] || *end != '\0'))) {
    fprintf(stderr, "usage: vulkan GENERATOR.fxn OUT.png [SEED]\n");
    return 2;
  }
  application.apiVersion = VK_API_VERSION_1_2;
  instance_info.pApplicationInfo = &application;
  if (failed(vkCreateInstance(&instance_info, NULL, &instance), "make an instance")) return 1;
  vulkan.get_instance_proc_addr = (void (*)(void))vkGetInstanceProcAddr;
  vulkan.instance = instance;
  vulkan.api_version = application.apiVersion;
  vulkan.queue_is_unshared = 1; /* this program has one thread */

  /* The first device that the runtime can use, with what it asks for. */
  error.message[0] = '\0';
  if (vkEnumeratePhysicalDevices(instance, &count, devices) < 0) count = 0;
  for (i = 0; i < count && !vulkan.device; ++i) {
    VkPhysicalDeviceProperties properties;
    vkGetPhysicalDeviceProperties(devices[i], &properties);
    if (properties.apiVersion < VK_API_VERSION_1_2) continue;
    memset(&chosen, 0, sizeof chosen);
    chosen.features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
    chosen.features.pNext = &chosen.features_11;
    chosen.features_11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
    chosen.features_11.pNext = &chosen.features_12;
    chosen.features_12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    vulkan.physical_device = devices[i];
    if (fluxion_vulkan_needs(&vulkan, enable, &chosen, &error) != FLUXION_OK) continue;
    queue.queueFamilyIndex = vulkan.queue_family = compute_family(devices[i]);
    queue.queueCount = 1;
    queue.pQueuePriorities = &priority;
    device_info.pNext = &chosen.features;
    device_info.queueCreateInfoCount = 1;
    device_info.pQueueCreateInfos = &queue;
    device_info.enabledExtensionCount = chosen.extension_count;
    device_info.ppEnabledExtensionNames = chosen.extensions;
    if (failed(vkCreateDevice(devices[i], &device_info, NULL, &device), "make a device")) continue;
    fprintf(stderr, "vulkan: on %s\n", properties.deviceName);
    vulkan.device = device;
    vulkan.device_info = &device_info;
  }
  if (vulkan.device) {
    done = draw(&vulkan, argv[1], argv[2], seed);
    vkDestroyDevice(device, NULL);
  } else {
    fprintf(stderr, "vulkan: there is no device to draw with. %s\n", error.message);
  }
  vkDestroyInstance(instance, NULL);
  return done ? 0 : 1;
}
