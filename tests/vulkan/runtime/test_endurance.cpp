// Vulkan: what must hold the thousandth time, too.
#include <cmath>
#include <memory>

#include "engine/platform/usage.h"
#include "tests/catch.h"
#include "tests/failing_new.h"
#include "tests/vulkan/run_work.h"
#include "tests/vulkan/runtime/small_kernels.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// Opens a device, computes and closes it, again and again.
void open_and_close(int cycles) {
  if (!software_device()) return;
  const auto once = [] {
    const std::optional<Device> device = software_vulkan();
    REQUIRE(device);
    CHECK(is_doubled(run_work(*device, doubling(64), {counting(64), Words(64)})[1]));
  };
  for (int i = 0; i < 10; ++i) once();
  const std::uint64_t before = resident_memory().value_or(ResidentMemory{}).now;
  for (int i = 0; i < cycles; ++i) once();
  const std::uint64_t after = resident_memory().value_or(ResidentMemory{}).now;
  // A loader that leaks some kilobytes a time is not ours to mend; a device is megabytes.
  const auto allowed = static_cast<std::uint64_t>(cycles) * 20000 + (8u << 20);
  INFO(before << " bytes, then " << after);
  CHECK(after < before + allowed);
}

}  // namespace

TEST_CASE("devices are opened and closed a hundred times", "[vulkan][endurance]") {
  open_and_close(100);
}

TEST_CASE("devices are opened and closed a thousand times", "[.][vulkan-long]") {
  open_and_close(1000);
}

TEST_CASE("a call that is replayed allocates nothing", "[vulkan][endurance]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) return;
  const Call plain(*device, doubling_in_place(1000, 1), {counting(1000)});
  const Call scalars(*device, scalars_to(0), {Words(4)}, {1.5});
  for (const Call* call : {&plain, &scalars}) {
    for (int i = 0; i < 20; ++i) call->run();
    for (int i = 0; i < 20; ++i) {
      Event event;
      bool allocated = false;
      {
        const FailingAllocation none(0);
        event = call->submit();
        allocated = none.failed();
      }
      CHECK_FALSE(allocated);
      event.wait();
    }
  }
  CHECK(is_doubled(plain.read(0), std::ldexp(1.0f, 40)));
}
