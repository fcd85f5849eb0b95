#include "backends/vulkan/recording.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "backends/vulkan/guards.h"
#include "backends/vulkan/hazards.h"
#include "engine/error.h"

namespace fluxion::vulkan_backend {

namespace {

// A guess of the device's speed, which measurements correct.
struct Speed {
  double flops, bytes, dispatch;  // per second, per second, seconds
};

Speed speed_of(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::discrete:
      return {1e12, 1e11, 5e-6};
    case DeviceKind::software:
      return {1e9, 1e9, 3e-5};
    default:
      return {1e10, 2e9, 1e-5};  // of the weakest: they also draw the screen
  }
}

double estimate(const Dispatch& dispatch, const Speed& speed) {
  return speed.dispatch +
         std::max(dispatch.flops / speed.flops, dispatch.moved_bytes / speed.bytes);
}

// A slice that takes this many times too long is recorded anew, shorter.
constexpr double tolerated = 3;
// What is measured is believed between these seconds.
constexpr double shortest_slice = 2e-4,
                 longest_slice = std::chrono::duration<double>(Queue::longest_silence).count();
constexpr int measured_runs = 4;

// Workgroups of a step: all, or some of a dispatch that takes too long for one submission, so that
// a driver's time limit is not reached and the screen is drawn in between.
struct Piece {
  std::size_t step = 0;
  std::array<std::uint32_t, 3> base{}, groups{};
  double seconds = 0;              // estimated
  bool divisible = false;          // into shorter ones
  bool first = true, last = true;  // of the step

  bool empty() const { return std::ranges::find(groups, 0u) != groups.end(); }
};

// An estimate may be far off; each part costs a submission.
constexpr std::uint32_t most_parts = 64;

// Along the axis with the most workgroups, in parts of at most `budget` seconds each if
// `most_parts` will do.
void divide(std::size_t step, const Dispatch& dispatch, double seconds, double budget,
            std::vector<Piece>& pieces) {
  Piece whole{.step = step, .groups = dispatch.groups, .seconds = seconds};
  const auto axis =
      static_cast<std::size_t>(std::ranges::max_element(whole.groups) - whole.groups.begin());
  const std::uint32_t groups = whole.groups[axis], most = std::min(groups, most_parts);
  if (whole.empty() || most == 1) {
    pieces.push_back(whole);
    return;
  }
  const auto parts =
      static_cast<std::uint32_t>(std::clamp<double>(std::ceil(seconds / budget), 1, most));
  whole.divisible = parts < most;
  for (std::uint32_t i = 0, begin = 0; i < parts; ++i) {
    const auto end = static_cast<std::uint32_t>(std::uint64_t{groups} * (i + 1) / parts);
    Piece piece = whole;
    piece.base[axis] = begin;
    piece.groups[axis] = end - begin;
    piece.seconds = seconds * (end - begin) / groups;
    piece.first = i == 0;
    piece.last = i + 1 == parts;
    pieces.push_back(piece);
    begin = end;
  }
}

// Where a binding lies.
Place place_of(const DispatchBinding& binding, const CallPlaces& places) {
  Place place;
  switch (binding.kind) {
    case BindingKind::buffer:
      place = places.buffers[static_cast<std::size_t>(binding.number)];
      break;
    case BindingKind::scratch:
      place = places.scratch;
      break;
    case BindingKind::scalars:
      place = places.scalars;
      break;
  }
  if (binding.bytes == 0 || place.block == 0) return places.nothing;
  place.offset += binding.offset;
  place.bytes = binding.bytes;
  return place;
}

}  // namespace

std::optional<double> slowness_shown(double seconds, double estimate, double slowness,
                                     double slice_seconds) {
  // Stamps out of order, and times that are more the stamps' than the slice's.
  if (seconds > longest_slice || seconds < shortest_slice) return std::nullopt;
  const double shown = seconds / estimate;
  // A slice that is no longer than it should be does no harm. It may have waited for others, and
  // only shows how fast the device is at least.
  if (seconds < slice_seconds && shown > slowness) return std::nullopt;
  return shown;
}

Recording::Recording(LogicalDevice& device, std::shared_ptr<const Steps> steps,
                     const CallPlaces& places, RecordedFor purpose)
    : device_(device), call_(device.call()), steps_(std::move(steps)) {
  const auto& faults = device_.options().faults;
  if (faults && faults->recording.due())
    throw_failure(VK_ERROR_OUT_OF_HOST_MEMORY, "record a program");
  try {
    auto pool = structure<VkCommandPoolCreateInfo>(VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO);
    pool.queueFamilyIndex = device_.facts().queue_family;
    check(call_.CreateCommandPool(device_.handle(), &pool, nullptr, &pool_), "make a command pool");
    make_descriptors(places);
    record(places, purpose);
    device_.note_recording();
  } catch (...) {
    destroy();
    throw;
  }
}

Recording::~Recording() { destroy(); }

void Recording::destroy() {
  if (queries_) call_.DestroyQueryPool(device_.handle(), queries_, nullptr);
  if (descriptors_) call_.DestroyDescriptorPool(device_.handle(), descriptors_, nullptr);
  if (pool_) call_.DestroyCommandPool(device_.handle(), pool_, nullptr);
}

void Recording::make_descriptors(const CallPlaces& places) {
  std::vector<VkDescriptorSetLayout> layouts;
  std::uint32_t count = 0;
  for (const Step& step : steps_->all) {
    layouts.push_back(step.pipeline->layout().bindings);
    count += step.pipeline->bindings();
  }
  if (layouts.empty()) return;
  const VkDescriptorPoolSize size{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, std::max(count, 1u)};
  auto pool = structure<VkDescriptorPoolCreateInfo>(VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO);
  pool.maxSets = static_cast<std::uint32_t>(layouts.size());
  pool.poolSizeCount = 1;
  pool.pPoolSizes = &size;
  check(call_.CreateDescriptorPool(device_.handle(), &pool, nullptr, &descriptors_),
        "make a descriptor pool");
  auto info =
      structure<VkDescriptorSetAllocateInfo>(VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO);
  info.descriptorPool = descriptors_;
  info.descriptorSetCount = static_cast<std::uint32_t>(layouts.size());
  info.pSetLayouts = layouts.data();
  sets_.resize(layouts.size());
  check(call_.AllocateDescriptorSets(device_.handle(), &info, sets_.data()),
        "make descriptor sets");
  const bool guarded = static_cast<bool>(device_.options().guards);
  std::vector<VkDescriptorBufferInfo> buffers;
  buffers.reserve(count);
  std::vector<VkWriteDescriptorSet> writes;
  writes.reserve(layouts.size());
  for (std::size_t i = 0; i < steps_->all.size(); ++i) {
    const Dispatch& dispatch = steps_->all[i].dispatch;
    if (dispatch.bindings.empty()) continue;
    auto write = structure<VkWriteDescriptorSet>(VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET);
    write.dstSet = sets_[i];
    write.descriptorCount = static_cast<std::uint32_t>(dispatch.bindings.size());
    write.descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
    write.pBufferInfo = buffers.data() + buffers.size();
    for (const DispatchBinding& binding : dispatch.bindings) {
      const Place place = place_of(binding, places);
      // Into the guard: a driver that drops what lies beyond the binding would hide a write there.
      const std::int64_t guard =
          guarded && binding.bytes > 0 && binding.kind == BindingKind::buffer && !place.imported()
              ? guard_bytes
              : 0;
      buffers.push_back({place.buffer, static_cast<VkDeviceSize>(place.offset),
                         static_cast<VkDeviceSize>(place.bytes + guard)});
    }
    writes.push_back(write);
  }
  call_.UpdateDescriptorSets(device_.handle(), static_cast<std::uint32_t>(writes.size()),
                             writes.data(), 0, nullptr);
}

void Recording::stamp(std::uint32_t query) {
  call_.CmdWriteTimestamp(slices_.back(), VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, queries_, query);
}

void Recording::begin_slice() {
  auto info =
      structure<VkCommandBufferAllocateInfo>(VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO);
  info.commandPool = pool_;
  info.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
  info.commandBufferCount = 1;
  VkCommandBuffer commands = VK_NULL_HANDLE;
  check(call_.AllocateCommandBuffers(device_.handle(), &info, &commands), "make a command buffer");
  slices_.push_back(commands);
  estimates_.push_back(0);
  auto begin = structure<VkCommandBufferBeginInfo>(VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO);
  begin.flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT;  // several calls may be in flight
  check(call_.BeginCommandBuffer(commands, &begin), "begin a command buffer");
  record_full_barrier(call_, commands);
}

void Recording::end_slice(bool last) {
  if (last) record_host_barrier(call_, slices_.back());
  check(call_.EndCommandBuffer(slices_.back()), "end a command buffer");
}

void Recording::record(const CallPlaces& places, RecordedFor purpose) {
  const bool timing = purpose == RecordedFor::timing;
  const Speed speed = speed_of(device_.facts().kind);
  const double budget = device_.options().slice_seconds / device_.slowness();

  std::vector<Piece> pieces;
  pieces.reserve(steps_->all.size());
  for (std::size_t i = 0; i < steps_->all.size(); ++i) {
    const Dispatch& dispatch = steps_->all[i].dispatch;
    divide(i, dispatch, estimate(dispatch, speed), budget, pieces);
  }
  // Where slices begin.
  std::vector<std::size_t> starts{0};
  double seconds = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (seconds > 0 && seconds + pieces[i].seconds > budget) {
      starts.push_back(i);
      seconds = 0;
    }
    seconds += pieces[i].seconds;
  }
  starts.push_back(pieces.size());
  const std::size_t slice_count = starts.size() - 1;

  // Two stamps around each slice, or around each kernel.
  if (device_.facts().timestamp_bits > 0) {
    query_count_ = static_cast<std::uint32_t>(2 * (timing ? steps_->kernels : slice_count));
    auto info = structure<VkQueryPoolCreateInfo>(VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO);
    info.queryType = VK_QUERY_TYPE_TIMESTAMP;
    info.queryCount = query_count_;
    check(call_.CreateQueryPool(device_.handle(), &info, nullptr, &queries_), "make a query pool");
  }

  Hazards hazards;
  slices_.reserve(slice_count);
  for (std::size_t slice = 0; slice < slice_count; ++slice) {
    const Piece& first = pieces[starts[slice]];
    divisible_.push_back(starts[slice + 1] - starts[slice] > 1 || first.divisible);
    const std::size_t kernel = steps_->all[first.step].kernel;
    const bool begins =
        first.first && (first.step == 0 || steps_->all[first.step - 1].kernel != kernel);
    if (kernel < steps_->commit_point || (begins && kernel == steps_->commit_point))
      stoppable_ = slice + 1;
  }
  for (std::size_t slice = 0; slice < slice_count; ++slice) {
    begin_slice();
    const VkCommandBuffer commands = slices_.back();
    hazards.barrier();
    if (queries_ && timing && slice == 0)
      call_.CmdResetQueryPool(commands, queries_, 0, query_count_);
    if (queries_ && !timing) {
      const auto first = static_cast<std::uint32_t>(2 * slice);
      call_.CmdResetQueryPool(commands, queries_, first, 2);
      stamp(first);
    }
    const Pipeline* bound = nullptr;
    for (std::size_t i = starts[slice]; i < starts[slice + 1]; ++i) {
      const Piece& piece = pieces[i];
      const std::size_t number = piece.step;
      const Step& step = steps_->all[number];
      const Dispatch& dispatch = step.dispatch;
      const bool first_of_kernel =
          piece.first && (number == 0 || steps_->all[number - 1].kernel != step.kernel);
      const bool last_of_kernel = piece.last && (number + 1 == steps_->all.size() ||
                                                 steps_->all[number + 1].kernel != step.kernel);
      bool waits = timing && first_of_kernel;
      for (const DispatchBinding& binding : dispatch.bindings)
        waits = waits || hazards.conflicts(place_of(binding, places), binding.writes);
      if (waits) {
        record_full_barrier(call_, commands);
        hazards.barrier();
        ++counts_.barriers;
      }
      for (const DispatchBinding& binding : dispatch.bindings)
        hazards.note(place_of(binding, places), binding.reads, binding.writes);
      const auto query = static_cast<std::uint32_t>(2 * step.kernel);
      if (queries_ && timing && first_of_kernel) stamp(query);
      if (!piece.empty()) {
        const VkPipelineLayout layout = step.pipeline->layout().layout;
        if (step.pipeline.get() != bound)
          call_.CmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, step.pipeline->handle());
        bound = step.pipeline.get();
        call_.CmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout, 0, 1,
                                    &sets_[number], 0, nullptr);
        if (step.pipeline->push_bytes() > 0)
          call_.CmdPushConstants(commands, layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                                 step.pipeline->push_bytes(), dispatch.push.data());
        const auto& [x, y, z] = piece.base;
        const auto& [width, height, depth] = piece.groups;
        // (Synchronisation validation knows only the first of these.)
        if (piece.first && piece.last)
          call_.CmdDispatch(commands, width, height, depth);
        else
          call_.CmdDispatchBase(commands, x, y, z, width, height, depth);
        ++counts_.dispatches;
      }
      if (queries_ && timing && last_of_kernel) stamp(query + 1);
      estimates_.back() += piece.seconds;
    }
    if (queries_ && !timing) stamp(static_cast<std::uint32_t>(2 * slice + 1));
    end_slice(slice + 1 == slice_count);
  }
  counts_.slices = slices_.size();
}

std::vector<std::uint64_t> Recording::stamps(std::uint32_t count) const noexcept try {
  // The value, and whether it is there.
  std::vector<std::array<std::uint64_t, 2>> raw(count);
  const VkResult result = call_.GetQueryPoolResults(
      device_.handle(), queries_, 0, count, raw.size() * sizeof(raw[0]), raw.data(), sizeof(raw[0]),
      VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WITH_AVAILABILITY_BIT);
  if (result != VK_SUCCESS && result != VK_NOT_READY) return {};
  std::vector<std::uint64_t> ticks(count);
  const std::uint32_t bits = device_.facts().timestamp_bits;
  const std::uint64_t mask = bits >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1;
  for (std::uint32_t i = 0; i + 1 < count; i += 2)
    if (raw[i][1] && raw[i + 1][1]) ticks[i / 2] = (raw[i + 1][0] - raw[i][0]) & mask;
  ticks.resize(count / 2);
  return ticks;
} catch (...) {  // out of memory: nothing is measured
  return {};
}

void Recording::executed() noexcept {
  // Stamps are those of one call only if no other one is on its way.
  if (--in_flight_ > 0 || !queries_ || measured_ >= measured_runs) return;
  ++measured_;
  const std::vector<std::uint64_t> ticks = stamps(query_count_);
  if (ticks.size() != estimates_.size()) return;
  for (std::size_t i = 0; i < ticks.size(); ++i) {
    const double seconds = static_cast<double>(ticks[i]) * device_.facts().timestamp_seconds;
    const double wanted = device_.options().slice_seconds;
    const auto shown = slowness_shown(seconds, estimates_[i], device_.slowness(), wanted);
    if (!shown) continue;
    device_.note_slowness(*shown);
    if (divisible_[i] && seconds > tolerated * wanted) too_coarse_ = true;
  }
}

void Recording::read_times(std::span<double> seconds) const noexcept {
  const std::vector<std::uint64_t> ticks = stamps(query_count_);
  for (std::size_t i = 0; i < ticks.size() && i < seconds.size(); ++i)
    seconds[i] = static_cast<double>(ticks[i]) * device_.facts().timestamp_seconds;
}

}  // namespace fluxion::vulkan_backend
