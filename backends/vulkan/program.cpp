#include "backends/vulkan/program.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>

#include "backends/vulkan/guards.h"
#include "engine/divide.h"
#include "engine/error.h"
#include "engine/program/blocks.h"

namespace fluxion::vulkan_backend {

namespace {

constexpr std::int64_t place_step = 256;
std::int64_t up(std::int64_t bytes) { return round_up(bytes, place_step); }

// A scalar as kernels read it.
struct ScalarWords {
  float f32;
  std::int32_t i32;
  std::uint32_t u32, boolean;
};
static_assert(sizeof(ScalarWords) == 16);

template <class Integer>
Integer saturated(double value) {
  if (std::isnan(value)) return 0;
  constexpr double low = std::numeric_limits<Integer>::min(),
                   high = std::numeric_limits<Integer>::max();
  return static_cast<Integer>(std::clamp(value, low, high));
}

ScalarWords words_of(double value) {
  return {static_cast<float>(value), saturated<std::int32_t>(value),
          saturated<std::uint32_t>(value), value != 0 ? 1u : 0u};
}

// What lies in the workspace behind the program's arena, and how much of it there is.
struct Workspace {
  std::int64_t scratch_at = 0, scratch = 0;
  std::int64_t scalars_at = 0, scalars = 0;
  std::int64_t nothing_at = 0, nothing = 0;
  std::int64_t bytes = 0;
};

// Places one after another, none of which lies in two blocks of `block` bytes.
class Places {
 public:
  Places(std::int64_t end, std::int64_t block) : end_(up(end)), block_(block) {}
  // The offset of the next one.
  std::int64_t next(std::int64_t bytes) {
    bytes = up(bytes);
    const std::int64_t begin = within_block(end_, bytes, block_);
    end_ = begin + bytes;
    return begin;
  }
  std::int64_t end() const { return end_; }

 private:
  std::int64_t end_, block_;
};

Workspace workspace_of(std::int64_t arena, std::int64_t scalars, std::span<const KernelWork> work,
                       std::int64_t block) {
  Workspace space;
  bool empty_bindings = false;
  for (const KernelWork& kernel : work) {
    space.scratch = std::max(space.scratch, up(kernel.scratch_bytes));
    for (const Dispatch& dispatch : kernel.dispatches)
      for (const DispatchBinding& binding : dispatch.bindings)
        empty_bindings = empty_bindings || binding.bytes == 0;
  }
  space.scalars = up(scalars * static_cast<std::int64_t>(sizeof(ScalarWords)));
  space.nothing = empty_bindings ? place_step : 0;
  Places places(arena, block);
  space.scratch_at = places.next(space.scratch);
  space.scalars_at = places.next(space.scalars);
  space.nothing_at = places.next(space.nothing);
  space.bytes = places.end();
  return space;
}

// The contract of kernel.h. A breach is a bug of an emitter; it must not reach the driver.
void check_work(const KernelWork& work, const Program& program, const Storage& storage,
                const DeviceFacts& facts) {
  for (const Dispatch& dispatch : work.dispatches) {
    if (dispatch.shader >= work.shaders.size()) throw Error("vulkan: a dispatch has no shader");
    const Shader& shader = work.shaders[dispatch.shader];
    const auto require = [&](bool holds, const std::string& what) {
      if (!holds) throw Error("vulkan: the kernel '" + shader.name + "' is malformed: " + what);
    };
    require(dispatch.bindings.size() == shader.bindings, "the number of its bindings");
    require(dispatch.push.size() * 4 == shader.push_bytes, "its push constants");
    for (const std::uint32_t groups : dispatch.groups)
      require(groups <= facts.shaders.max_groups, std::to_string(groups) +
                                                      " workgroups on one axis, at most " +
                                                      std::to_string(facts.shaders.max_groups));
    for (const DispatchBinding& binding : dispatch.bindings) {
      std::int64_t room = 0;
      switch (binding.kind) {
        case BindingKind::buffer: {
          require(binding.number >= 0 &&
                      static_cast<std::size_t>(binding.number) < program.buffers.size(),
                  "the number of a buffer");
          const BufferSlot& slot = program.buffers[static_cast<std::size_t>(binding.number)];
          room = static_cast<std::int64_t>(bytes_of(slot.type, storage));
          break;
        }
        case BindingKind::scratch:
          room = work.scratch_bytes;
          break;
        case BindingKind::scalars:
          room = up(program.scalars * static_cast<std::int64_t>(sizeof(ScalarWords)));
          break;
      }
      require(binding.offset >= 0 && binding.bytes >= 0 && binding.offset <= room &&
                  binding.bytes <= room - binding.offset,
              "bytes " + std::to_string(binding.offset) + " to " +
                  std::to_string(binding.offset + binding.bytes) + " of a buffer of " +
                  std::to_string(room));
      require(binding.offset % facts.binding_alignment == 0 && binding.bytes % 4 == 0,
              "the alignment of a binding");
      require(binding.bytes <= facts.max_binding_bytes,
              "a binding of " + std::to_string(binding.bytes) + " bytes");
    }
  }
}

// The times of a call's kernels, once it is done.
class TimedCall final : public Work {
 public:
  TimedCall(std::shared_ptr<Recording> recording, std::vector<double>& seconds, bool stamped)
      : recording_(std::move(recording)), seconds_(seconds), stamped_(stamped) {}
  void executed() noexcept override {
    if (stamped_) {
      recording_->read_times(seconds_);
    } else if (!seconds_.empty()) {
      seconds_.back() = std::chrono::duration<double>(Clock::now() - start_).count();
    }
  }

 private:
  using Clock = std::chrono::steady_clock;
  const std::shared_ptr<Recording> recording_;
  std::vector<double>& seconds_;
  const bool stamped_;
  const Clock::time_point start_ = Clock::now();
};

class VulkanExecutable final : public Executable {
 public:
  VulkanExecutable(std::shared_ptr<LogicalDevice> device, const Backend& owner,
                   const Program& program, std::vector<KernelWork> work)
      : Executable(program, owner),
        device_(std::move(device)),
        slots_(program.buffers),
        scalars_(static_cast<std::size_t>(program.scalars)),
        block_bytes_(device_->facts().block_bytes()),
        space_(workspace_of(program.arena_bytes, program.scalars, work, block_bytes_)) {
    const Storage& storage = owner.capabilities().storage;
    for (const BufferSlot& slot : slots_)
      slot_bytes_.push_back(static_cast<std::int64_t>(bytes_of(slot.type, storage)));
    if (device_->options().guards) {
      // Each temporary has a place of its own, between guards.
      Places places(0, block_bytes_);
      for (std::size_t i = 0; i < slots_.size(); ++i)
        if (slots_[i].kind == BufferKind::temporary)
          slots_[i].offset = places.next(slot_bytes_[i] + 2 * guard_bytes) + guard_bytes;
      space_ = workspace_of(places.end(), program.scalars, work, block_bytes_);
    }
    const DeviceFacts& facts = device_->facts();
    if (static_cast<std::uint64_t>(space_.bytes) > device_->memory().heap_bytes())
      throw OutOfMemory("vulkan: the program's temporaries take " + std::to_string(space_.bytes) +
                        " bytes; the device's memory has " +
                        std::to_string(device_->memory().heap_bytes()));
    if (const std::int64_t most = std::max(space_.scratch, space_.scalars); most > block_bytes_)
      throw OutOfMemory("vulkan: a kernel's workspace takes " + std::to_string(most) +
                        " bytes; the device allocates at most " + std::to_string(block_bytes_) +
                        " at once");
    std::vector<const Shader*> shaders;
    for (const KernelWork& kernel : work) {
      check_work(kernel, program, storage, facts);
      for (const Shader& shader : kernel.shaders) shaders.push_back(&shader);
    }
    const auto pipelines = device_->pipelines().make(shaders);
    device_->let_driver_free();
    auto steps = std::make_shared<Steps>();
    steps->kernels = program.kernels.size();
    steps->commit_point = static_cast<std::size_t>(program.commit_point);
    std::size_t first = 0;
    for (std::size_t k = 0; k < work.size(); ++k) {
      for (Dispatch& dispatch : work[k].dispatches) {
        const auto& pipeline = pipelines[first + dispatch.shader];
        steps->all.push_back({std::move(dispatch), pipeline, k});
      }
      first += work[k].shaders.size();
    }
    steps_ = std::move(steps);
    key_.reserve(static_cast<std::size_t>(ceil_div(space_.bytes, block_bytes_)) +
                 program.inputs.size() + program.outputs.size());
    words_.resize(scalars_);
  }

  std::size_t workspace_bytes() const override { return static_cast<std::size_t>(space_.bytes); }

  RecordingCounts counts() const {
    std::lock_guard lock(mutex_);
    return cached_.empty() ? RecordingCounts{} : cached_.front().recording->counts();
  }

 private:
  // Where the memory lies that a recording was made for.
  struct Key {
    std::uint64_t block;
    std::int64_t offset;
    bool operator==(const Key&) const = default;
  };
  struct Cached {
    std::vector<Key> key;
    std::shared_ptr<Recording> recording;
  };
  static constexpr std::size_t most_cached = 8;

  Event start(const Bindings& bindings, const RunOptions& options) override try {
    Queue& queue = device_->queue();
    queue.check_alive();
    if (options.kernel_seconds) options.kernel_seconds->assign(steps_->kernels, 0);
    if (steps_->all.empty()) return {};
    std::shared_ptr<Arena> arena;
    if (space_.bytes > 0) arena = device_->memory().arena(workspace_bytes());
    std::lock_guard lock(mutex_);
    const std::shared_ptr<Recording> recording =
        options.kernel_seconds
            ? std::make_shared<Recording>(*device_, steps_, places_of(bindings, arena.get()),
                                          RecordedFor::timing)
            : recording_for(bindings, arena.get());
    std::shared_ptr<Work> work = recording;
    if (options.kernel_seconds)
      work = std::make_shared<TimedCall>(recording, *options.kernel_seconds,
                                         device_->facts().timestamp_bits > 0);
    OnceCommands* const first = scalars_ > 0 ? write_scalars(bindings, *arena) : nullptr;
    if (!options.kernel_seconds) recording->submitting();
    const bool guarded = arena && device_->options().guards;
    std::uint64_t point = 0;
    try {
      if (guarded) {
        queue.wait(queue.submitted());
        for (const MemoryRange& block : arena->blocks()) fill_guarded(block.place());
      }
      point = queue.submit(first, recording->slices(), work, {},
                           {options.cancel, recording->stoppable()});
    } catch (...) {
      if (!options.kernel_seconds) recording->not_submitted();
      if (arena) arena->used_until(queue.submitted());
      throw;
    }
    if (arena) arena->used_until(point);
    if (guarded) {
      queue.wait(point);
      check_guards(*arena);
    }
    return {timeline_of(device_), point};
  } catch (...) {
    rethrow_stating(Aftermath::nothing_written);
  }

  static const Place& place_of_buffer(const Buffer* buffer) {
    return static_cast<const VulkanBuffer*>(buffer)->place();
  }

  CallPlaces places_of(const Bindings& bindings, const Arena* arena) const {
    CallPlaces places;
    const auto within = [&](std::int64_t offset, std::int64_t bytes) {
      return arena ? arena->place(offset, bytes) : Place{};
    };
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      const BufferSlot& slot = slots_[i];
      const auto index = static_cast<std::size_t>(slot.index);
      switch (slot.kind) {
        case BufferKind::input:
          places.buffers.push_back(place_of_buffer(bindings.inputs[index]));
          break;
        case BufferKind::output:
          places.buffers.push_back(place_of_buffer(bindings.outputs[index]));
          break;
        case BufferKind::temporary:
          places.buffers.push_back(within(slot.offset, slot_bytes_[i]));
          break;
      }
    }
    places.scratch = within(space_.scratch_at, space_.scratch);
    places.scalars = within(space_.scalars_at, space_.scalars);
    places.nothing = within(space_.nothing_at, space_.nothing);
    return places;
  }

  // Whether nothing was written around the temporaries.
  void check_guards(const Arena& arena) const {
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      if (slots_[i].kind != BufferKind::temporary) continue;
      const Place guarded =
          arena.place(slots_[i].offset - guard_bytes, up(slot_bytes_[i]) + 2 * guard_bytes);
      if (!guards_are_whole(guarded, guard_bytes, guard_bytes + slot_bytes_[i]))
        device_->options().guards("bytes around temporary " + std::to_string(i) + " of " +
                                  std::to_string(slot_bytes_[i]) + " bytes were written");
    }
  }

  // `mutex_` is held.
  std::shared_ptr<Recording> recording_for(const Bindings& bindings, const Arena* arena) {
    key_.clear();
    if (arena)
      for (const MemoryRange& block : arena->blocks())
        key_.push_back({block.place().block, block.place().offset});
    for (const auto& buffers : {bindings.inputs, bindings.outputs})
      for (const Buffer* buffer : buffers)
        key_.push_back({place_of_buffer(buffer).block, place_of_buffer(buffer).offset});
    const auto found = std::find_if(cached_.begin(), cached_.end(),
                                    [&](const Cached& each) { return each.key == key_; });
    if (found != cached_.end()) {
      if (!found->recording->too_coarse()) {
        std::rotate(cached_.begin(), found, found + 1);
        return cached_.front().recording;
      }
      cached_.erase(found);
    }
    auto made = std::make_shared<Recording>(*device_, steps_, places_of(bindings, arena),
                                            RecordedFor::replay);
    if (cached_.size() == most_cached) cached_.pop_back();
    cached_.insert(cached_.begin(), {key_, made});
    return made;
  }

  // Calls before this one may still read theirs: so they are written in the queue's order.
  OnceCommands* write_scalars(const Bindings& bindings, const Arena& arena) {
    for (std::size_t i = 0; i < scalars_; ++i) words_[i] = words_of(bindings.scalars[i]);
    OnceCommands* const once = device_->queue().begin_once();
    const DeviceFunctions& call = device_->call();
    record_full_barrier(call, once->commands);
    const Place to = arena.place(space_.scalars_at, space_.scalars);
    constexpr std::size_t most = 65536 / sizeof(ScalarWords);  // of one command
    for (std::size_t i = 0; i < scalars_; i += most) {
      const std::size_t count = std::min(most, scalars_ - i);
      const auto at = static_cast<std::int64_t>(i * sizeof(ScalarWords));
      call.CmdUpdateBuffer(once->commands, to.buffer, static_cast<VkDeviceSize>(to.offset + at),
                           count * sizeof(ScalarWords), words_.data() + i);
    }
    return once;
  }

  const std::shared_ptr<LogicalDevice> device_;
  std::vector<BufferSlot> slots_;
  std::vector<std::int64_t> slot_bytes_;
  const std::size_t scalars_;
  const std::int64_t block_bytes_;
  Workspace space_;
  std::shared_ptr<const Steps> steps_;

  mutable std::mutex mutex_;
  std::vector<Cached> cached_;  // the last used first
  std::vector<Key> key_;
  std::vector<ScalarWords> words_;
};

}  // namespace

// ---- VulkanBuffer

std::shared_ptr<Timeline> timeline_of(const std::shared_ptr<LogicalDevice>& device) {
  return {device, &device->queue()};
}

VulkanBuffer::VulkanBuffer(std::size_t bytes, const Backend* owner,
                           std::shared_ptr<LogicalDevice> device)
    : Buffer(bytes, owner, timeline_of(device)), device_(std::move(device)) {
  if (bytes == 0) return;
  const bool guarded = static_cast<bool>(device_->options().guards);
  const std::int64_t guard = guarded ? guard_bytes : 0;
  if (bytes > no_limit / 2)
    throw OutOfMemory("vulkan: can't allocate " + std::to_string(bytes) + " bytes for a buffer");
  range_ = device_->memory().buffer(bytes + 2 * static_cast<std::size_t>(guard));
  place_ = part(range_.place(), guard, range_.place().bytes - 2 * guard);
  // The host must wait for its former owner's work.
  if (range_.busy_until() > 0) note_read({timeline_of(device_), range_.busy_until()});
  if (!guarded) return;
  device_->queue().wait(range_.busy_until());
  fill_guarded(range_.place());
}

VulkanBuffer::VulkanBuffer(const Place& imported, const Backend* owner,
                           std::shared_ptr<LogicalDevice> device)
    : Buffer(static_cast<std::size_t>(imported.bytes), owner, timeline_of(device)),
      device_(std::move(device)),
      place_(imported) {}

VulkanBuffer::~VulkanBuffer() {
  if (place_.imported()) {
    device_->memory().release(place_);
    return;
  }
  range_.used_until(idle().point());
  if (!device_->options().guards || place_.block == 0) return;
  try {
    idle().wait();
  } catch (const Error&) {  // a dead device writes no more
  }
  if (!guards_are_whole(range_.place(), guard_bytes,
                        guard_bytes + static_cast<std::int64_t>(bytes())))
    device_->options().guards("bytes around a buffer of " + std::to_string(bytes()) +
                              " bytes were written");
}

// ---- programs

std::vector<KernelWork> lower(const Program& program, const Storage& storage,
                              const ShaderTarget& target) {
  const LoweringContext context{program, storage, target};
  std::vector<KernelWork> work(program.kernels.size());
  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto lower_some = [&] {
    for (std::size_t k = next++; k < work.size(); k = next++) {
      try {
        work[k] = lower(program.kernels[k], context);
      } catch (...) {
        std::lock_guard lock(failure_mutex);
        if (!failure) failure = std::current_exception();
        next = work.size();
      }
    }
  };
  constexpr std::size_t worth_a_thread = 8;
  const std::size_t threads = std::min<std::size_t>(
      {work.size() / worth_a_thread + 1, 8, std::max(1u, std::thread::hardware_concurrency())});
  {
    std::vector<std::jthread> others;
    try {
      for (std::size_t t = 1; t < threads; ++t) others.emplace_back(lower_some);
    } catch (const std::system_error&) {  // no more threads: those that there are do it
    }
    lower_some();
  }
  if (failure) std::rethrow_exception(failure);
  return work;
}

std::unique_ptr<Executable> make_executable(std::shared_ptr<LogicalDevice> device,
                                            const Backend& owner, const Program& program,
                                            std::vector<KernelWork> work) {
  return std::make_unique<VulkanExecutable>(std::move(device), owner, program, std::move(work));
}

RecordingCounts recorded(const Executable& executable) {
  const auto* ours = dynamic_cast<const VulkanExecutable*>(&executable);
  return ours ? ours->counts() : RecordingCounts{};
}

}  // namespace fluxion::vulkan_backend
