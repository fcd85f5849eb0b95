#include "engine/device.h"

#include "engine/error.h"
#include "engine/plan_cache.h"

namespace fluxion {

struct Device::State {
  State(std::unique_ptr<Backend> backend, std::size_t cached_plans)
      : backend(std::move(backend)), plans(cached_plans) {}
  std::unique_ptr<Backend> backend;
  PlanCache plans;  // dies before the backend that its executables use
};

Device::Device(std::unique_ptr<Backend> backend, std::size_t cached_plans)
    : state_(std::make_shared<State>(std::move(backend), cached_plans)) {}

Backend& Device::backend() const {
  if (!state_) throw DeviceError("Device: this handle holds no device; make one with cpu()");
  return *state_->backend;
}

PlanCache& Device::plans() const {
  if (!state_) throw DeviceError("Device: this handle holds no device; make one with cpu()");
  return state_->plans;
}

}  // namespace fluxion
