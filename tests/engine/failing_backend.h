// A backend that runs programs on another one and fails at a chosen kernel, after the kernels
// before it have written what they write.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>

#include "engine/device.h"
#include "engine/error.h"

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
      : Executable(program), program_(program), inner_(inner), plan_(plan) {}

  std::size_t workspace_bytes() const override {
    return static_cast<std::size_t>(program_.arena_bytes);
  }

 private:
  void run_checked(const Bindings& bindings, const RunOptions& options) override {
    ++plan_.ran;
    Program part = program_;
    const bool fails = plan_.kernel && *plan_.kernel < part.kernels.size();
    if (fails) part.kernels.resize(*plan_.kernel);
    inner_.compile(part)->run(bindings, options);
    if (!fails) return;
    if (!plan_.states_aftermath) plan_.fail();
    try {
      plan_.fail();
    } catch (...) {
      rethrow_stating(static_cast<std::int64_t>(*plan_.kernel) < program_.commit_point
                          ? Aftermath::nothing_written
                          : Aftermath::state_lost);
    }
  }

  Program program_;
  Backend& inner_;
  FailurePlan& plan_;
};

class FailingBackend : public Backend {
 public:
  FailingBackend(Device inner, FailurePlan& plan) : inner_(std::move(inner)), plan_(plan) {}
  const Capabilities& capabilities() const override { return inner_.backend().capabilities(); }
  std::shared_ptr<Buffer> allocate(std::size_t bytes) override {
    if (plan_.failed_allocations > 0) {
      --plan_.failed_allocations;
      throw OutOfMemory("the fake device is full");
    }
    return inner_.backend().allocate(bytes);
  }
  void upload(Buffer& to, std::span<const std::byte> from) override {
    inner_.backend().upload(to, from);
  }
  void download(Buffer& from, std::span<std::byte> to) override {
    inner_.backend().download(from, to);
  }
  std::unique_ptr<Executable> make_executable(const Program& program) override {
    ++plan_.compiled;
    return std::make_unique<FailingExecutable>(program, inner_.backend(), plan_);
  }

 private:
  Device inner_;
  FailurePlan& plan_;
};

}  // namespace fluxion::testing
