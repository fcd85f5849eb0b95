#include "backends/vulkan/backend.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "backends/vulkan/program.h"
#include "backends/vulkan/tile_speed.h"
#include "backends/vulkan/vulkan.h"
#include "engine/error.h"
#include "engine/platform/machine.h"

namespace fluxion {
namespace vulkan_backend {
namespace {

constexpr std::size_t copied_at_once = std::size_t{1} << 23;

// Bytes on their way. Staging is free once they have arrived; if that is never known, once all work
// is done that was submitted.
class Copy : public Work {
 public:
  explicit Copy(Queue& queue) : queue_(queue) {}
  ~Copy() override {
    if (!arrived_)
      for (MemoryRange& range : staging) range.used_until(queue_.submitted());
  }
  void executed() noexcept override { arrived_ = true; }
  std::vector<MemoryRange> staging;

 private:
  Queue& queue_;
  bool arrived_ = false;
};

class Download final : public Copy {
 public:
  using Copy::Copy;
  void executed() noexcept override {
    for (std::size_t i = 0; i < to.size(); ++i)
      std::memcpy(to[i].data(), staging[i].place().host, to[i].size());
    Copy::executed();
  }
  std::vector<std::span<std::byte>> to;
};

// Throws DTypeError if a buffer of the program has a dtype that kernels can't hold.
void refuse_wide_dtypes(const Program& program) {
  for (const BufferSlot& slot : program.buffers) switch (slot.type.dtype) {
      case DType::f64:
      case DType::i64:
        throw DTypeError("vulkan: can't compute with " + std::string(to_string(slot.type.dtype)) +
                         ": convert to " + (slot.type.dtype == DType::f64 ? "f32" : "i32") +
                         ", or use the CPU");
      default:
        break;
    }
}

// Whether one of its matrix products takes long enough to be worth tuning for.
bool has_large_product(const Program& program) {
  constexpr double large = 256.0 * 256 * 256;
  return std::any_of(program.kernels.begin(), program.kernels.end(), [](const Kernel& kernel) {
    const auto* const product = std::get_if<ContractKernel>(&kernel);
    const auto number = [](std::int64_t x) { return static_cast<double>(x); };
    return product &&
           number(product->batch) * number(product->m) * number(product->n) * number(product->k) >=
               large;
  });
}

class VulkanBackend final : public Backend {
 public:
  explicit VulkanBackend(const DeviceOptions& options)
      : device_(std::make_shared<LogicalDevice>(options)),
        capabilities_(capabilities_of(device_->facts())) {}

  const std::shared_ptr<LogicalDevice>& device() const { return device_; }
  const Capabilities& capabilities() const override { return capabilities_; }

  using Backend::allocate;
  std::shared_ptr<Buffer> allocate(std::size_t bytes) override {
    device_->queue().check_alive();
    return std::make_shared<VulkanBuffer>(bytes, this, device_);
  }

  MemoryUse in_use() const override {
    device_->queue().collect();
    return device_->memory().in_use();
  }

  std::size_t budget() const override {
    const std::uint64_t taken = device_->memory().taken_bytes();
    std::uint64_t most = device_->memory().heap_bytes();
    if (const auto free = device_->free_bytes()) most = std::min(most, taken + *free);
    if (device_->facts().unified_memory)
      if (const auto free = available_memory_bytes()) most = std::min(most, taken + *free);
    return std::min<std::uint64_t>(most, device_->memory().budget());
  }

  void trim() override {
    device_->queue().collect();
    device_->memory().trim();
  }

  Event write(Buffer& to, std::span<const std::byte> from) override {
    Queue& queue = device_->queue();
    queue.check_alive();
    const Place& place = static_cast<VulkanBuffer&>(to).place();
    if (place.host && to.idle().done()) {
      std::memcpy(place.host, from.data(), from.size());
      return {};
    }
    std::uint64_t point = 0;
    try {
      for (std::size_t at = 0; at < from.size(); at += copied_at_once) {
        const std::size_t bytes = std::min(copied_at_once, from.size() - at);
        const auto upload = std::make_shared<Copy>(queue);
        upload->staging.push_back(device_->memory().staging(bytes));
        const Place& staging = upload->staging[0].place();
        std::memcpy(staging.host, from.data() + at, bytes);
        point = submit(
            [&](VkCommandBuffer commands) {
              record_copy(device_->call(), commands, staging, 0, place, at, bytes);
            },
            upload);
      }
    } catch (...) {
      if (point > 0) queue.wait_until_idle();  // the caller doesn't know that `to` is in use
      throw;
    }
    return {timeline_of(device_), point};
  }

  Event read(std::span<const Transfer> transfers) override {
    Queue& queue = device_->queue();
    queue.check_alive();
    const bool in_place = std::all_of(transfers.begin(), transfers.end(), [](const Transfer& each) {
      return each.to.empty() ||
             (static_cast<VulkanBuffer*>(each.from)->place().host && each.from->written().done());
    });
    if (in_place) {
      for (const Transfer& each : transfers)
        if (!each.to.empty())
          std::memcpy(each.to.data(), static_cast<VulkanBuffer*>(each.from)->place().host,
                      each.to.size());
      return {};
    }
    const auto download = std::make_shared<Download>(queue);
    std::vector<const Place*> places;
    for (const Transfer& each : transfers) {
      if (each.to.empty()) continue;
      places.push_back(&static_cast<VulkanBuffer*>(each.from)->place());
      download->staging.push_back(device_->memory().staging(each.to.size()));
      download->to.push_back(each.to);
    }
    const std::uint64_t point = submit(
        [&](VkCommandBuffer commands) {
          for (std::size_t i = 0; i < places.size(); ++i)
            record_copy(device_->call(), commands, *places[i], 0, download->staging[i].place(), 0,
                        download->to[i].size());
        },
        download);
    return {timeline_of(device_), point};
  }

  std::unique_ptr<Executable> make_executable(const Program& program) override {
    refuse_wide_dtypes(program);
    device_->queue().check_alive();
    const ShaderTarget& shaders = device_->shaders(*this, has_large_product(program));
    const auto make = [&](const ShaderTarget& target) {
      return vulkan_backend::make_executable(device_, *this, program,
                                             lower(program, capabilities_.storage, target));
    };
    try {
      return make(shaders);
    } catch (const DeviceError& refused) {
      // A driver that can't compile one of the kernels may well take their short forms.
      if (refused.aftermath() == Aftermath::device_dead || shaders.short_code) throw;
    }
    ShaderTarget shorter = shaders;
    shorter.short_code = true;
    return make(shorter);
  }

 private:
  template <class Record>
  std::uint64_t submit(const Record& record, const std::shared_ptr<Work>& work) {
    return submit_once(device_->queue(), device_->call(), record, work);
  }

  const std::shared_ptr<LogicalDevice> device_;
  const Capabilities capabilities_;
};

}  // namespace

Device open(const DeviceOptions& options) {
  return Device(std::make_unique<VulkanBackend>(options));
}

const std::shared_ptr<LogicalDevice>& logical_device(const Device& device) {
  const auto* backend = dynamic_cast<const VulkanBackend*>(&device.backend());
  if (!backend) throw DeviceError("'" + device.name() + "' is no Vulkan device");
  return backend->device();
}

std::unique_ptr<Executable> compile(const Device& device, const Program& program,
                                    std::vector<KernelWork> work) {
  return make_executable(logical_device(device), device.backend(), program, std::move(work));
}

}  // namespace vulkan_backend

std::vector<VulkanTileSpeed> vulkan_tile_speeds(const Device& device, double seconds) {
  using namespace vulkan_backend;
  std::vector<VulkanTileSpeed> result;
  if (!dynamic_cast<const VulkanBackend*>(&device.backend())) return result;
  for (const TileSpeed& each : tile_speeds(device, seconds))
    result.push_back({to_string(each.tile), each.flops_per_second});
  return result;
}

Device vulkan(const VulkanOptions& options) { return vulkan_backend::open({.choice = options}); }

std::vector<VulkanDeviceInfo> vulkan_devices() {
  using namespace vulkan_backend;
  const Instance instance;
  std::vector<DeviceFacts> all;
  for (const VkPhysicalDevice device : instance.devices()) {
    all.push_back(facts_of(instance, device));
    apply_quirks(all.back());
    choose_kernels(all.back());
  }
  std::optional<std::size_t> preferred;
  try {
    preferred = choose_device(all, {});
  } catch (const DeviceError&) {  // none
  }
  std::vector<VulkanDeviceInfo> result;
  for (const DeviceFacts& facts : all)
    result.push_back(
        {facts.name, facts.driver_name + (facts.driver_info.empty() ? "" : " ") + facts.driver_info,
         std::string(to_string(facts.kind)), facts.memory_bytes, listed(facts), facts.quirks,
         facts.refused, preferred == result.size()});
  return result;
}

}  // namespace fluxion
