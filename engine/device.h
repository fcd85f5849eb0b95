// Device: a handle that owns a backend and the cache of plans made for it. Copies share both.
#pragma once

#include <memory>
#include <string>

#include "engine/backend.h"

namespace fluxion {

class PlanCache;

class Device {
 public:
  Device() = default;  // no device; for default-constructed tensors only
  explicit Device(std::unique_ptr<Backend> backend, std::size_t cached_plans = 256);

  // Throw DeviceError if this handle holds no device.
  Backend& backend() const;
  PlanCache& plans() const;
  const std::string& name() const { return backend().capabilities().name; }
  const CostModel& costs() const { return backend().capabilities().costs; }
  explicit operator bool() const { return state_ != nullptr; }
  bool operator==(const Device&) const = default;  // the same device, not an equal one

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace fluxion
