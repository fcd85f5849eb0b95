#include "backends/vulkan/device.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string>

#include "backends/vulkan/features.h"
#include "backends/vulkan/own_device.h"
#include "backends/vulkan/pipeline_cache.h"
#include "engine/error.h"

namespace fluxion::vulkan_backend {

namespace {

std::string names_of(const std::vector<DeviceFacts>& all) {
  std::string text;
  for (std::size_t i = 0; i < all.size(); ++i)
    text += (i == 0 ? "" : ", ") + std::to_string(i) + ": " + all[i].name + " (" +
            std::string(to_string(all[i].kind)) + ")";
  return text;
}

}  // namespace

std::size_t choose_device(const std::vector<DeviceFacts>& all, const VulkanOptions& options) {
  if (all.empty()) throw DeviceError("vulkan: no driver offers a device");
  const auto usable = [&](std::size_t number) {
    if (number >= all.size())
      throw DeviceError("vulkan: there is no device " + std::to_string(number) + "; there are " +
                        names_of(all));
    if (!all[number].refused.empty())
      throw DeviceError("vulkan: '" + all[number].name + "' can't be used: " + all[number].refused);
    return number;
  };
  if (options.device) {
    if (*options.device < 0)
      throw DeviceError("vulkan: there is no device " + std::to_string(*options.device));
    return usable(static_cast<std::size_t>(*options.device));
  }
  if (const char* const named = std::getenv("FLUXION_VULKAN_DEVICE"); named && *named) {
    const std::string_view name = named;
    std::size_t number = 0;
    const auto [rest, error] = std::from_chars(named, named + name.size(), number);
    if (error == std::errc() && rest == named + name.size()) return usable(number);
    for (std::size_t i = 0; i < all.size(); ++i)
      if (all[i].name.find(name) != std::string::npos) return usable(i);
    throw DeviceError("vulkan: FLUXION_VULKAN_DEVICE is '" + std::string(name) +
                      "', which no device's name contains; there are " + names_of(all));
  }
  for (const DeviceKind kind :
       {DeviceKind::discrete, DeviceKind::integrated, DeviceKind::virtual_gpu, DeviceKind::other})
    for (std::size_t i = 0; i < all.size(); ++i)
      if (all[i].kind == kind && all[i].refused.empty()) return i;
  throw DeviceError("vulkan: there is no GPU that can be used, only " + names_of(all) +
                    "; a software device is used only if it is named, as in vulkan:0");
}

bool tunes(const VulkanOptions& options, const std::filesystem::path& folder,
           const DeviceFacts& facts) {
  if (options.tune) return *options.tune;
  const char* const variable = std::getenv("FLUXION_VULKAN_TUNE");
  const std::string_view wanted = variable ? variable : "";
  if (!wanted.empty() && wanted != "on" && wanted != "off")
    throw DeviceError("vulkan: FLUXION_VULKAN_TUNE is '" + std::string(wanted) +
                      "'; it may be on or off");
  if (!wanted.empty()) return wanted == "on";
  return facts.kind != DeviceKind::software && !folder.empty();
}

namespace {

std::unique_ptr<const Instance> instance_for(const DeviceOptions& options) {
  if (options.choice.own) return std::make_unique<const Instance>(*options.choice.own);
  return std::make_unique<const Instance>(InstanceOptions{
      .validate = static_cast<bool>(options.validation), .message = options.validation});
}

// What belongs to a device that never ends its work: it can be neither waited for nor destroyed,
// and stays until the process ends.
struct Abandoned {
  std::unique_ptr<const Instance> instance;
  std::unique_ptr<Queue> queue;
  std::unique_ptr<Memory> memory;
  std::unique_ptr<Pipelines> pipelines;
};
void abandon(Abandoned what) {
  static std::mutex mutex;
  static auto* const all = new std::vector<Abandoned>;
  std::lock_guard lock(mutex);
  all->push_back(std::move(what));
}

}  // namespace

LogicalDevice::LogicalDevice(const DeviceOptions& options)
    : options_(options), instance_(instance_for(options)) {
  if (is_own())
    take_own();
  else
    choose();
  apply_quirks(facts_);
  choose_kernels(facts_);
  if (options_.adjust) options_.adjust(facts_);
  try {
    if (!is_own()) create();
    const OwnVulkan own = options_.choice.own.value_or(OwnVulkan{});
    queue_ = std::make_unique<Queue>(device_, call_, facts_, options_.faults,
                                     QueueSharing{own.queue_index, own.lock, own.unlock});
    VkPhysicalDeviceMemoryProperties memory{};
    instance_->call().GetPhysicalDeviceMemoryProperties(physical_, &memory);
    memory_ = std::make_unique<Memory>(device_, call_, memory, facts_, *queue_,
                                       options_.choice.memory_budget, options_.faults);
    const std::filesystem::path folder = options_.choice.cache.value_or(default_cache_folder());
    Pipelines::Compiling told;  // of programs, not of the tiles that are tried
    if (options_.choice.compiling)
      told = [this](std::size_t done, std::size_t all) {
        if (!tuning_) options_.choice.compiling(done, all);
      };
    pipelines_ = std::make_unique<Pipelines>(device_, call_, facts_,
                                             CacheChoice{folder, options_.choice.cache_budget},
                                             options_.faults, told);
    read_factors(folder);
  } catch (...) {
    destroy();
    throw;
  }
}

LogicalDevice::~LogicalDevice() {
  if (queue_->silent()) {
    abandon({std::move(instance_), std::move(queue_), std::move(memory_), std::move(pipelines_)});
    return;
  }
  // To wait for an application's whole device would need all its queues.
  if (is_own())
    queue_->wait_until_idle();
  else
    call_.DeviceWaitIdle(device_);
  // What work in flight holds goes back to memory and pipelines; so the queue's work goes first.
  queue_->forget();
  destroy();
}

void LogicalDevice::destroy() {
  pipelines_.reset();
  memory_.reset();
  queue_.reset();
  if (!is_own() && device_ && call_.DestroyDevice) call_.DestroyDevice(device_, nullptr);
}

void LogicalDevice::choose() {
  std::vector<DeviceFacts> all;
  for (const VkPhysicalDevice device : instance_->devices())
    all.push_back(facts_of(*instance_, device));
  const std::size_t chosen = choose_device(all, options_.choice);
  physical_ = instance_->devices()[chosen];
  facts_ = all[chosen];
}

void LogicalDevice::take_own() {
  const OwnVulkan& own = *options_.choice.own;
  if (options_.choice.device)
    throw DeviceError(
        "vulkan: the application's own device is given, and the number of one to open: one of the "
        "two");
  const Enabled enabled(own);
  physical_ = instance_->devices().front();
  facts_ = facts_of(*instance_, physical_, &enabled);
  if (!facts_.refused.empty())
    throw DeviceError("vulkan: the application's own device '" + facts_.name +
                      "' can't be used: " + facts_.refused);
  device_ = static_cast<VkDevice>(own.device);
  call_ = load_device(instance_->call().GetDeviceProcAddr, device_);
}

void LogicalDevice::create() {
  const ShaderTarget& shaders = facts_.shaders;
  std::vector<const char*> extensions;
  DeviceFeatures features;
  features.basic.features.shaderInt16 = shaders.integer_16;
  features.storage_16.storageBuffer16BitAccess = shaders.storage_16;
  features.storage_8.storageBuffer8BitAccess = shaders.storage_8;
  features.small_types.shaderFloat16 = shaders.float_16;
  features.small_types.shaderInt8 = shaders.integer_8;
  features.timeline.timelineSemaphore = facts_.timeline_semaphore;
  features.subgroup_sizes.subgroupSizeControl = shaders.subgroup_size_control;
  features.subgroup_sizes.computeFullSubgroups = shaders.subgroup_size_control;
  features.link([&](bool any, std::uint32_t core, const char* extension) {
    if (any && facts_.api_version < core) extensions.push_back(extension);
    return any;
  });
  if (shaders.preserves_special_values && facts_.api_version < VK_API_VERSION_1_2)
    extensions.push_back(VK_KHR_SHADER_FLOAT_CONTROLS_EXTENSION_NAME);
  if (facts_.memory_budget) extensions.push_back(VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
  if (facts_.portability) extensions.push_back(portability_extension);

  const float priority = 0.5f;
  auto queue = structure<VkDeviceQueueCreateInfo>(VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO);
  queue.queueFamilyIndex = facts_.queue_family;
  queue.queueCount = 1;
  queue.pQueuePriorities = &priority;
  auto info = structure<VkDeviceCreateInfo>(VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO);
  info.pNext = &features.basic;
  info.queueCreateInfoCount = 1;
  info.pQueueCreateInfos = &queue;
  info.enabledExtensionCount = static_cast<std::uint32_t>(extensions.size());
  info.ppEnabledExtensionNames = extensions.data();
  check(instance_->call().CreateDevice(physical_, &info, nullptr, &device_), "open the device");
  call_.DestroyDevice = reinterpret_cast<PFN_vkDestroyDevice>(
      instance_->call().GetDeviceProcAddr(device_, "vkDestroyDevice"));
  call_ = load_device(instance_->call().GetDeviceProcAddr, device_);
}

void LogicalDevice::read_factors(const std::filesystem::path& folder) {
  tunes_ = tunes(options_.choice, folder, facts_);
  if (!tunes_) return;
  tuned_ = facts_.shaders;
  if (folder.empty()) return;
  factors_file_ = cache_file(folder, facts_, CacheKind::tiles);
  const auto data = read_cache(factors_file_, facts_, CacheKind::tiles);
  const auto factors = data ? decode_factors(*data) : std::nullopt;
  if (!factors) return;
  std::call_once(tuned_once_, [&] { tuned_.tile_factors = *factors; });
  tuned_ready_ = true;
}

const ShaderTarget& LogicalDevice::shaders(Backend& backend, bool large_product) {
  constexpr double seconds = 1;
  if (!tunes_ || (!large_product && !tuned_ready_)) return facts_.shaders;
  std::call_once(tuned_once_, [&] {
    struct Tuning {
      std::atomic<bool>& flag;
      explicit Tuning(std::atomic<bool>& flag) : flag(flag) { flag = true; }
      ~Tuning() { flag = false; }
    } const tuning(tuning_);
    try {
      {
        const TileTiming timing =
            options_.tile_timing ? *options_.tile_timing : timing_of(backend, shared_from_this());
        tuned_.tile_factors = measure_factors(facts_.shaders, timing, seconds);
      }
      memory_->trim();
      if (!factors_file_.empty())
        write_cache(factors_file_, encode_factors(tuned_.tile_factors), facts_, CacheKind::tiles);
    } catch (const OutOfMemory&) {  // what was to be run may need less
    }
    tuned_ready_ = true;
  });
  return tuned_;
}

void LogicalDevice::let_driver_free() {
  constexpr std::size_t many = 64;
  if (!facts_.frees_when_submitting) return;
  std::lock_guard lock(freed_mutex_);
  const std::size_t dropped = pipelines_->dropped();
  const std::uint64_t submitted = queue_->submitted();
  if (submitted != freed_at_point_) {
    freed_ = dropped;
    freed_at_point_ = submitted;
  }
  if (dropped - freed_ < many) return;
  freed_at_point_ = submit_once(
      *queue_, call_, [](VkCommandBuffer) {}, nullptr);
  freed_ = dropped;
}

std::optional<std::uint64_t> LogicalDevice::free_bytes() const {
  if (!facts_.memory_budget) return std::nullopt;
  auto budget = structure<VkPhysicalDeviceMemoryBudgetPropertiesEXT>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT);
  auto memory = structure<VkPhysicalDeviceMemoryProperties2>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2);
  memory.pNext = &budget;
  instance_->call().GetPhysicalDeviceMemoryProperties2(physical_, &memory);
  const std::uint32_t heap = memory_->heap();
  return budget.heapBudget[heap] - std::min(budget.heapBudget[heap], budget.heapUsage[heap]);
}

void LogicalDevice::note_slowness(double measured) {
  // Quickly up, slowly down: a slice that is too long is worse than one that is too short.
  const double before = slowness();
  const double weight = measured > before ? 0.5 : 0.1;
  slowness_.store(std::clamp(before + weight * (measured - before), 1e-4, 1e6),
                  std::memory_order_relaxed);
}

}  // namespace fluxion::vulkan_backend
