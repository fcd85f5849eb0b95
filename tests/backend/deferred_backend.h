// A device with a memory and a time of its own, made of another one. What it is given runs later,
// on a thread of its own or when somebody waits for it; its memory can't be read by the host, holds
// rubbish when it is new, and keeps elements in another form. So a wait, a size or a conversion
// that the engine forgets shows as wrong numbers.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/device.h"

namespace fluxion::testing {

// What the device was asked for, in order.
struct DeviceLog {
  enum class Kind { write, submit, read, wait };
  struct Entry {
    Kind kind;
    std::uint64_t point;  // of the timeline: what was started, or waited for
    bool operator==(const Entry&) const = default;
  };

  void add(Kind kind, std::uint64_t point) {
    std::lock_guard lock(mutex);
    entries.push_back({kind, point});
  }
  std::vector<Entry> take() {
    std::lock_guard lock(mutex);
    return std::exchange(entries, {});
  }

  std::mutex mutex;
  std::vector<Entry> entries;
};
std::string to_string(const std::vector<DeviceLog::Entry>& entries);

enum class RunsWork { on_a_thread, when_waited_for };

struct DeferredOptions {
  RunsWork runs = RunsWork::on_a_thread;
  // Booleans and u8 as u32, 16-bit floats as f32, 16 bytes at once; else as the inner device.
  bool wide_storage = true;
  std::shared_ptr<DeviceLog> log = nullptr;
  std::uint64_t dies_at = 0;  // the point at which the device is lost; 0: never
};

// Its kernels run on `inner`, whose memory the host can read.
Device deferred(const Device& inner, const DeferredOptions& options = {});

}  // namespace fluxion::testing
