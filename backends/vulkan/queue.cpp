#include "backends/vulkan/queue.h"

#include <algorithm>
#include <array>
#include <utility>

#include "engine/error.h"

namespace fluxion::vulkan_backend {

// Lives as long as somebody waits for it.
class Queue::Fence {
 public:
  Fence(VkDevice device, const DeviceFunctions& call) : device_(device), call_(call) {
    const auto info = structure<VkFenceCreateInfo>(VK_STRUCTURE_TYPE_FENCE_CREATE_INFO);
    check(call_.CreateFence(device_, &info, nullptr, &fence_), "make a fence");
  }
  ~Fence() { call_.DestroyFence(device_, fence_, nullptr); }
  Fence(const Fence&) = delete;
  Fence& operator=(const Fence&) = delete;
  VkFence get() const { return fence_; }
  VkResult status() const { return call_.GetFenceStatus(device_, fence_); }
  VkResult wait(std::uint64_t nanoseconds) const {
    return call_.WaitForFences(device_, 1, &fence_, VK_TRUE, nanoseconds);
  }

 private:
  const VkDevice device_;
  const DeviceFunctions& call_;
  VkFence fence_ = VK_NULL_HANDLE;
};

Queue::Queue(VkDevice device, const DeviceFunctions& call, const DeviceFacts& facts,
             std::shared_ptr<Faults> faults, QueueSharing sharing)
    : device_(device),
      call_(call),
      faults_(std::move(faults)),
      family_(facts.queue_family),
      sharing_(std::move(sharing)),
      ring_(most_in_flight) {
  call_.GetDeviceQueue(device_, family_, sharing_.index, &queue_);
  if (!facts.timeline_semaphore || !call_.WaitSemaphores || !call_.GetSemaphoreCounterValue) return;
  auto type = structure<VkSemaphoreTypeCreateInfo>(VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO);
  type.semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE;
  auto info = structure<VkSemaphoreCreateInfo>(VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO);
  info.pNext = &type;
  check(call_.CreateSemaphore(device_, &info, nullptr, &semaphore_), "make a semaphore");
}

Queue::~Queue() {
  forget();
  for (const auto& once : once_) call_.DestroyCommandPool(device_, once->pool, nullptr);
  if (semaphore_) call_.DestroySemaphore(device_, semaphore_, nullptr);
}

void Queue::forget() {
  std::vector<Pending> all;
  {
    std::lock_guard lock(pending_mutex_);
    all.swap(ring_);
    count_ = 0;
  }
}

// ---- progress

std::uint64_t Queue::completed() {
  if (faults_ && faults_->silent) return done();
  if (semaphore_) {
    std::uint64_t value = 0;
    check(call_.GetSemaphoreCounterValue(device_, semaphore_, &value), "ask for progress");
    if (faults_ && faults_->runaway) value = ~std::uint64_t{0};
    // After a reset some drivers report success and the largest value. (What is being submitted may
    // be done before its point is known.)
    if (value > submitted() + 1) throw DeviceError("its timeline left its range");
    // Others only know of a reset once they are made to ask: a wait does, for what has passed, too.
    if (value >= ring_[first_].point) check(wait_for(value, 0), "ask for progress");
    return value;
  }
  std::uint64_t value = done();
  for (std::size_t i = 0; i < count_; ++i) {
    const Pending& pending = ring_[(first_ + i) % ring_.size()];
    const VkResult result = pending.fence->status();
    if (result == VK_NOT_READY) break;
    check(result, "ask for progress");
    value = pending.point;
  }
  return value;
}

void Queue::collect() {
  if (dead_) return;
  std::lock_guard lock(pending_mutex_);
  // Whoever learned meanwhile that the device is lost frees what works would write to.
  if (dead_ || count_ == 0) return;
  std::uint64_t value = 0;
  try {
    value = completed();
  } catch (const Error& error) {
    die(error.what());
    return;
  }
  while (count_ > 0 && ring_[first_].point <= value) {
    Pending& pending = ring_[first_];
    if (pending.last && pending.work) pending.work->executed();
    pending.work.reset();
    pending.fence.reset();
    done_.store(pending.point, std::memory_order_release);
    first_ = (first_ + 1) % ring_.size();
    --count_;
  }
}

bool Queue::reached(std::uint64_t point) {
  if (done() >= point) return true;
  collect();
  return done() >= point;
}

VkResult Queue::wait_for(std::uint64_t point, std::uint64_t nanoseconds) const {
  auto info = structure<VkSemaphoreWaitInfo>(VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO);
  info.semaphoreCount = 1;
  info.pSemaphores = &semaphore_;
  info.pValues = &point;
  return call_.WaitSemaphores(device_, &info, nanoseconds);
}

VkResult Queue::wait_slice_for(std::uint64_t point) {
  if (faults_ && faults_->wait.due()) return VK_ERROR_DEVICE_LOST;
  if (faults_ && faults_->silent) return VK_TIMEOUT;
  const std::uint64_t nanoseconds =
      static_cast<std::uint64_t>(std::chrono::nanoseconds(wait_slice).count());
  if (semaphore_) return wait_for(point, nanoseconds);
  std::shared_ptr<Fence> oldest;
  {
    std::lock_guard lock(pending_mutex_);
    if (count_ == 0 || done() >= point) return VK_SUCCESS;
    oldest = ring_[first_].fence;
  }
  return oldest->wait(nanoseconds);
}

void Queue::wait(std::uint64_t point) {
  std::chrono::seconds silent{0};
  for (;;) {
    if (done() >= point) return;
    collect();
    const std::uint64_t before = done();
    if (before >= point) return;
    check_alive();
    const VkResult result = wait_slice_for(point);
    if (result == VK_SUCCESS) continue;
    if (result != VK_TIMEOUT) {
      die("waiting failed: " + vulkan_backend::to_string(result));
      throw_dead();
    }
    collect();
    silent = done() == before ? silent + wait_slice : std::chrono::seconds{0};
    if (silent >= longest_silence) {
      silent_ = true;
      die("it made no progress for " + std::to_string(silent.count()) + " s");
      throw_dead();
    }
  }
}

void Queue::wait_until_idle() noexcept {
  try {
    wait(submitted());
  } catch (...) {  // a dead device does nothing more
  }
}

void Queue::die(std::string_view why) {
  std::lock_guard lock(death_mutex_);
  if (dead_) return;
  death_ = why;
  dead_ = true;
}

void Queue::check_alive() const {
  if (dead_) throw_dead();
}

void Queue::throw_dead() const {
  // The caller frees what its works write to: no other thread may still be executing one.
  { const std::lock_guard none_executes(pending_mutex_); }
  std::string why;
  {
    std::lock_guard lock(death_mutex_);
    why = death_;
  }
  DeviceError error(
      "vulkan: the device was lost (" + why +
      "); what it held is gone: open it again, and go on from the last state that was "
      "saved or read back");
  error.state_aftermath(Aftermath::device_dead);
  throw error;
}

// ---- submission

OnceCommands* Queue::begin_once() {
  OnceCommands* once = nullptr;
  {
    std::lock_guard lock(pending_mutex_);
    const std::uint64_t reached = done();
    const auto found =
        std::find_if(resting_.begin(), resting_.end(),
                     [&](const OnceCommands* each) { return each->busy_until <= reached; });
    if (found != resting_.end()) {
      once = *found;
      resting_.erase(found);
    }
  }
  if (!once) {
    auto made = std::make_unique<OnceCommands>();
    auto pool = structure<VkCommandPoolCreateInfo>(VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO);
    pool.flags = VK_COMMAND_POOL_CREATE_TRANSIENT_BIT;
    pool.queueFamilyIndex = family_;
    check(call_.CreateCommandPool(device_, &pool, nullptr, &made->pool), "make a command pool");
    auto info =
        structure<VkCommandBufferAllocateInfo>(VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO);
    info.commandPool = made->pool;
    info.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
    info.commandBufferCount = 1;
    const VkResult result = call_.AllocateCommandBuffers(device_, &info, &made->commands);
    if (result != VK_SUCCESS) {
      call_.DestroyCommandPool(device_, made->pool, nullptr);
      throw_failure(result, "make a command buffer");
    }
    once = made.get();
    std::lock_guard lock(pending_mutex_);
    once_.push_back(std::move(made));
    resting_.reserve(once_.size());  // so that give_back() can't fail
  }
  try {
    check(call_.ResetCommandPool(device_, once->pool, 0), "reset a command pool");
    auto begin = structure<VkCommandBufferBeginInfo>(VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO);
    begin.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
    check(call_.BeginCommandBuffer(once->commands, &begin), "begin a command buffer");
  } catch (...) {
    give_back(once);
    throw;
  }
  return once;
}

void Queue::give_back(OnceCommands* once) noexcept {
  std::lock_guard lock(pending_mutex_);
  resting_.push_back(once);
}

void Queue::submit_one(std::span<const VkCommandBuffer> commands, const std::shared_ptr<Work>& work,
                       bool last, const Semaphores& semaphores) {
  // Only submit() adds, and it holds submit_mutex_: room that is there stays.
  for (;;) {
    std::uint64_t oldest = 0;
    {
      std::lock_guard lock(pending_mutex_);
      if (count_ < ring_.size()) break;
      oldest = ring_[first_].point;
    }
    wait(oldest);
  }
  const std::uint64_t point = submitted() + 1;
  auto info = structure<VkSubmitInfo>(VK_STRUCTURE_TYPE_SUBMIT_INFO);
  info.commandBufferCount = static_cast<std::uint32_t>(commands.size());
  info.pCommandBuffers = commands.data();
  auto values =
      structure<VkTimelineSemaphoreSubmitInfo>(VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO);
  std::shared_ptr<Fence> fence;
  const std::array signalled{semaphore_, semaphores.signal};
  const std::array signalled_values{point, semaphores.signal_value};
  constexpr VkPipelineStageFlags everything = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
  if (semaphore_) {
    values.signalSemaphoreValueCount = semaphores.signal ? 2 : 1;
    values.pSignalSemaphoreValues = signalled_values.data();
    info.pNext = &values;
    info.signalSemaphoreCount = values.signalSemaphoreValueCount;
    info.pSignalSemaphores = signalled.data();
    if (semaphores.wait) {
      values.waitSemaphoreValueCount = info.waitSemaphoreCount = 1;
      values.pWaitSemaphoreValues = &semaphores.wait_value;
      info.pWaitSemaphores = &semaphores.wait;
      info.pWaitDstStageMask = &everything;
    }
  } else {
    fence = std::make_shared<Fence>(device_, call_);
  }
  if (faults_ && faults_->before_submit) faults_->before_submit();
  VkResult result = VK_ERROR_DEVICE_LOST;
  if (faults_ && faults_->refuse.due()) {
    result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
  } else if (!faults_ || !faults_->submit.due()) {
    struct Locked {
      const QueueSharing& sharing;
      explicit Locked(const QueueSharing& sharing) : sharing(sharing) {
        if (sharing.lock) sharing.lock();
      }
      ~Locked() {
        if (sharing.unlock) sharing.unlock();
      }
    } const locked(sharing_);
    result = call_.QueueSubmit(queue_, 1, &info, fence ? fence->get() : VkFence{});
  }
  if (result != VK_SUCCESS) {
    if (result == VK_ERROR_DEVICE_LOST) {
      die("a submission failed: " + vulkan_backend::to_string(result));
      throw_dead();
    }
    throw_failure(result, "submit work");
  }
  std::lock_guard lock(pending_mutex_);
  ring_[(first_ + count_) % ring_.size()] = {point, work, last, std::move(fence)};
  ++count_;
  submitted_.store(point, std::memory_order_release);
}

void Queue::wait_to_continue(const Stop& stop, std::size_t slice, std::size_t slices) {
  if (slice == 0 || slice >= stop.slices || !stop.token.stop_possible()) return;
  wait(submitted() - 1);
  if (!stop.token.stop_requested()) return;
  // What was submitted still uses the call's buffers.
  wait(submitted());
  Cancelled stopped("vulkan: stopped before part " + std::to_string(slice + 1) + " of " +
                    std::to_string(slices));
  stopped.state_aftermath(Aftermath::nothing_written);
  throw stopped;
}

std::uint64_t Queue::submit(OnceCommands* first, std::span<const VkCommandBuffer> slices,
                            const std::shared_ptr<Work>& work, const Semaphores& semaphores,
                            const Stop& stop) {
  struct Returned {
    Queue* queue;
    OnceCommands* once;
    ~Returned() {
      if (once) queue->give_back(once);
    }
  } returned{this, first};
  if (first) check(call_.EndCommandBuffer(first->commands), "end a command buffer");
  if ((semaphores.wait || semaphores.signal) && !semaphore_)
    throw DeviceError("vulkan: the device has no timeline semaphores to wait for or to signal");
  std::lock_guard lock(submit_mutex_);
  check_alive();
  std::size_t sent = 0;
  // Those of submission `sent`: the first one waits, the last one signals.
  const auto of = [&](bool last) {
    Semaphores some = semaphores;
    if (sent > 0) some.wait = VK_NULL_HANDLE;
    if (!last) some.signal = VK_NULL_HANDLE;
    return some;
  };
  try {
    if (first || slices.empty()) {
      std::array<VkCommandBuffer, 2> both{};
      std::size_t count = 0;
      if (first) both[count++] = first->commands;
      if (!slices.empty()) both[count++] = slices[0];
      const bool last = slices.size() <= 1;
      submit_one(std::span(both).first(count), work, last, of(last));
      sent = 1;
      if (first) first->busy_until = submitted();
    }
    for (; sent < slices.size(); ++sent) {
      wait_to_continue(stop, sent, slices.size());
      const bool last = sent + 1 == slices.size();
      submit_one(slices.subspan(sent, 1), work, last, of(last));
    }
  } catch (...) {
    // What was submitted uses memory that the caller doesn't know to be in use.
    if (sent > 0) wait_until_idle();
    rethrow_stating(sent == 0 ? Aftermath::nothing_written : Aftermath::state_lost);
  }
  return submitted();
}

// ---- barriers

namespace {

void record_barrier(const DeviceFunctions& call, VkCommandBuffer commands,
                    VkPipelineStageFlags before, VkAccessFlags written, VkPipelineStageFlags after,
                    VkAccessFlags used) {
  auto barrier = structure<VkMemoryBarrier>(VK_STRUCTURE_TYPE_MEMORY_BARRIER);
  barrier.srcAccessMask = written;
  barrier.dstAccessMask = used;
  call.CmdPipelineBarrier(commands, before, after, 0, 1, &barrier, 0, nullptr, 0, nullptr);
}

constexpr VkPipelineStageFlags working =
    VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
constexpr VkAccessFlags writing = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
constexpr VkAccessFlags reading = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_TRANSFER_READ_BIT;

}  // namespace

void record_full_barrier(const DeviceFunctions& call, VkCommandBuffer commands) {
  record_barrier(call, commands, working, writing, working, reading | writing);
}

void record_host_barrier(const DeviceFunctions& call, VkCommandBuffer commands) {
  record_barrier(call, commands, working, writing, VK_PIPELINE_STAGE_HOST_BIT,
                 VK_ACCESS_HOST_READ_BIT);
}

}  // namespace fluxion::vulkan_backend
