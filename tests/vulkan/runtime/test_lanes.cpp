// Vulkan: the checks themselves - validation layer, guard bands - see what they are there for.
#include <mutex>

#include "backends/vulkan/backend.h"
#include "engine/error.h"
#include "tests/catch.h"
#include "tests/vulkan/run_work.h"
#include "tests/vulkan/runtime/small_kernels.h"

using namespace fluxion;
using namespace fluxion::testing;
using namespace fluxion::vulkan_backend;

namespace {

struct Messages {
  std::mutex mutex;
  std::string all;
  std::function<void(std::string_view)> listener() {
    return [this](std::string_view message) {
      std::lock_guard lock(mutex);
      all += std::string(message) + "\n";
    };
  }
};

// A device that is validated; empty if there is no driver or no layer.
std::optional<Device> validated(Messages& messages) {
  try {
    return software_vulkan({.validation = messages.listener()});
  } catch (const DeviceError& error) {
    WARN("skipped: " << error.what());
    return std::nullopt;
  }
}

}  // namespace

TEST_CASE("validation has nothing to say about calls, copies and programs", "[vulkan][lanes]") {
  Messages messages;
  {
    const std::optional<Device> device = validated(messages);
    if (!device) return;
    const Call call(*device, doubling_in_place(1000, 3), {counting(1000)});
    for (int i = 0; i < 3; ++i) call.submit();
    CHECK(is_doubled(call.read(0), 512));
    std::vector<double> seconds;
    RunOptions options;
    options.kernel_seconds = &seconds;
    call.run(options);
  }
  CHECK(messages.all == "");
}

TEST_CASE("validation sees a hazard: dispatches whose bindings hide that they write",
          "[vulkan][lanes]") {
  Messages messages;
  const std::optional<Device> device = validated(messages);
  if (!device) return;
  // y = 2 x, then z = 2 y; but the first claims that it does not write y.
  KernelWork work = doubling(1000);
  work.dispatches.push_back(work.dispatches[0]);
  work.dispatches[0].bindings[1].writes = false;
  work.dispatches[1].bindings[0].number = 1;
  work.dispatches[1].bindings[1].number = 2;
  const Call call(*device, work, {counting(1000), Words(1000), Words(1000)});
  call.run();
  CHECK_THAT(messages.all, has_text("SYNC-HAZARD"));
}

TEST_CASE("guard bands see a write beyond the end of a buffer", "[vulkan][lanes]") {
  Messages messages;
  const std::optional<Device> device = software_vulkan({.guards = messages.listener()});
  if (!device) return;
  {
    const Call call(*device, doubling(1000), {counting(1000), Words(1000)});
    call.run();
  }
  CHECK(messages.all == "");
  {
    KernelWork beyond = doubling(1000);
    beyond.dispatches[0].bindings[1].bytes = 3996;
    const Call call(*device, beyond, {counting(1000), Words(999)});
    call.run();
  }
  CHECK_THAT(messages.all, has_text("around a buffer of 3996 bytes"));
}
