// When submitted work is done.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

namespace fluxion {

// Progress of one device. The device numbers its work from 1 in submission order; a point is
// reached when all work up to that number is done. Buffers and events hold the timeline, so it
// outlives its backend. Several threads may call both functions.
class Timeline {
 public:
  virtual ~Timeline() = default;
  // Never waits.
  virtual bool reached(std::uint64_t point) = 0;
  // Returns when the point is reached. If the device died first, every call throws DeviceError.
  virtual void wait(std::uint64_t point) = 0;
};

// A point of a device's timeline, cheap to copy: wait for it before using what the work produces.
class Event {
 public:
  Event() = default;  // done; a synchronous backend returns no other
  Event(std::shared_ptr<Timeline> timeline, std::uint64_t point)
      : timeline_(point == 0 ? nullptr : std::move(timeline)), point_(point) {}

  bool done() const { return !timeline_ || timeline_->reached(point_); }
  void wait() const {
    if (timeline_) timeline_->wait(point_);
  }
  std::uint64_t point() const { return timeline_ ? point_ : 0; }  // 0: done when it was made

 private:
  std::shared_ptr<Timeline> timeline_;
  std::uint64_t point_ = 0;
};

}  // namespace fluxion
