#include "backends/vulkan/driver_cache.h"

#include <utility>

#include "engine/error.h"

namespace fluxion::vulkan_backend {

namespace {

// To ask for the size may cost a walk through everything. A pipeline's data are seldom larger than
// a MiB, so after a few of them there can't be much more than before.
constexpr std::size_t usual_bytes = std::size_t{1} << 20;
constexpr std::size_t share_unasked = 16;  // of the limit

}  // namespace

DriverCache::Handle::Handle(VkDevice device, const DeviceFunctions& call,
                            std::span<const std::byte> data)
    : device_(device), call_(call) {
  auto info = structure<VkPipelineCacheCreateInfo>(VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO);
  info.initialDataSize = data.size();
  info.pInitialData = data.empty() ? nullptr : data.data();
  check(call_.CreatePipelineCache(device_, &info, nullptr, &cache_), "make a pipeline cache");
}

DriverCache::Handle::~Handle() { call_.DestroyPipelineCache(device_, cache_, nullptr); }

std::size_t DriverCache::Handle::bytes() const {
  std::size_t bytes = 0;
  return call_.GetPipelineCacheData(device_, cache_, &bytes, nullptr) == VK_SUCCESS ? bytes : 0;
}

std::vector<std::byte> DriverCache::Handle::data() const {
  std::vector<std::byte> data(bytes());
  std::size_t bytes = data.size();
  if (bytes == 0 || call_.GetPipelineCacheData(device_, cache_, &bytes, data.data()) != VK_SUCCESS)
    return {};
  data.resize(bytes);
  return data;
}

DriverCache::DriverCache(VkDevice device, const DeviceFunctions& call, std::size_t most_bytes,
                         std::span<const std::byte> data)
    : device_(device), call_(call), most_bytes_(most_bytes) {
  if (!data.empty() && data.size() <= most_bytes_) try {
      current_ = std::make_shared<const Handle>(device_, call_, data);
      warm_ = true;
    } catch (const Error&) {  // data that the driver does not take are as good as none
    }
  if (!current_) current_ = std::make_shared<const Handle>(device_, call_);
}

std::shared_ptr<const DriverCache::Handle> DriverCache::current() {
  std::lock_guard lock(mutex_);
  return current_;
}

void DriverCache::note_made(std::size_t shader_bytes) {
  std::shared_ptr<const Handle> full;
  bool too_many = false;
  {
    std::lock_guard lock(mutex_);
    ++made_;
    shader_bytes_ += shader_bytes;
    too_many = shader_bytes_ > most_bytes_;
    if (!too_many && made_ < most_bytes_ / share_unasked / usual_bytes) return;
    made_ = 0;
    full = current_;
  }
  if (!too_many && full->bytes() <= most_bytes_) return;
  try {
    auto fresh = std::make_shared<const Handle>(device_, call_);
    std::lock_guard lock(mutex_);
    // Another thread may have found the same.
    if (current_ != full) return;
    current_ = std::move(fresh);
    shader_bytes_ = 0;
  } catch (const Error&) {  // the full one does, until there is memory for another
  }
}

std::vector<std::byte> DriverCache::merged_with(std::span<const std::byte> saved) {
  const std::shared_ptr<const Handle> own = current();
  std::vector<std::byte> data;
  if (!saved.empty() && saved.size() <= most_bytes_) try {
      const Handle both(device_, call_, saved);
      const VkPipelineCache from = own->get();
      if (call_.MergePipelineCaches(device_, both.get(), 1, &from) == VK_SUCCESS)
        data = both.data();
    } catch (const Error&) {  // what was saved is lost, then
    }
  if (data.empty() || data.size() > most_bytes_) data = own->data();
  if (data.size() > most_bytes_) data.clear();
  return data;
}

}  // namespace fluxion::vulkan_backend
