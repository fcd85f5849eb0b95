// A backend that runs programs on another one and fails at a chosen kernel, after the kernels
// before it have written what they write.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>

#include "engine/device.h"
#include "engine/error.h"
#include "tests/backend/passing_backend.h"

namespace fluxion::testing {

// When the next runs fail, and with what.
struct FailurePlan {
  std::optional<std::size_t> kernel;  // the one that fails; none: nothing fails
  std::function<void()> fail = [] { throw DeviceError("the fake device failed"); };
  // Whether the backend says how far it came, as it should.
  bool states_aftermath = true;
  int failed_allocations = 0;  // of buffers, that are to fail next
  int compiled = 0, ran = 0;
};

class FailingExecutable : public Executable {
 public:
  FailingExecutable(const Program& program, Backend& inner, FailurePlan& plan)
      : Executable(program, inner), program_(program), inner_(inner), plan_(plan) {}

  std::size_t workspace_bytes() const override {
    return static_cast<std::size_t>(program_.arena_bytes);
  }

 private:
  Event start(const Bindings& bindings, const RunOptions& options) override {
    ++plan_.ran;
    Program part = program_;
    const bool fails = plan_.kernel && *plan_.kernel < part.kernels.size();
    if (fails) part.kernels.resize(*plan_.kernel);
    inner_.make_executable(part)->run(bindings, options);
    if (!fails) return {};
    if (!plan_.states_aftermath) plan_.fail();
    try {
      plan_.fail();
    } catch (...) {
      rethrow_stating(static_cast<std::int64_t>(*plan_.kernel) < program_.commit_point
                          ? Aftermath::nothing_written
                          : Aftermath::state_lost);
    }
    return {};
  }

  Program program_;
  Backend& inner_;
  FailurePlan& plan_;
};

class FailingBackend : public PassingBackend {
 public:
  FailingBackend(Device inner, FailurePlan& plan) : PassingBackend(std::move(inner)), plan_(plan) {}
  using Backend::allocate;
  std::shared_ptr<Buffer> allocate(std::size_t bytes) override {
    if (plan_.failed_allocations > 0) {
      --plan_.failed_allocations;
      throw OutOfMemory("the fake device is full");
    }
    return PassingBackend::allocate(bytes);
  }
  std::unique_ptr<Executable> make_executable(const Program& program) override {
    ++plan_.compiled;
    return std::make_unique<FailingExecutable>(program, inner(), plan_);
  }

 private:
  FailurePlan& plan_;
};

}  // namespace fluxion::testing
