// When work that a device was given is done.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

namespace fluxion {

// Progress of one device. Work is numbered from 1 in the order in which the device took it, and a
// point is reached when all work up to it is done. A timeline outlives its backend: buffers and
// events hold it. Both functions may be called from several threads.
class Timeline {
 public:
  virtual ~Timeline() = default;
  // Never waits.
  virtual bool reached(std::uint64_t point) = 0;
  // Returns when the point is reached. Throws DeviceError, each time, if the device died before.
  virtual void wait(std::uint64_t point) = 0;
};

// A point of a device's timeline: copied freely, waited for by whoever needs what stands behind it.
class Event {
 public:
  Event() = default;  // done; all that a synchronous backend ever returns
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
