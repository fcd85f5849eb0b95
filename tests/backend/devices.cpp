#include "tests/backend/devices.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <string>
#include <string_view>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/error.h"
#include "tests/backend/deferred_backend.h"
#include "tests/backend/tiny_backend.h"
#include "tests/catch.h"
#include "tests/cpu/targets.h"
#if FLUXION_WITH_VULKAN
#include "tests/vulkan/run_work.h"
#endif

namespace fluxion::testing {

namespace {

Candidate on_target(std::int64_t target) {
  const auto targets = hwy::SupportedAndGeneratedTargets();
  if (std::find(targets.begin(), targets.end(), target) == targets.end()) return std::nullopt;
  const auto choose = [](std::int64_t chosen) {
    hwy::SetSupportedTargetsForTest(chosen);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  };
  choose(target);
  const std::shared_ptr<void> setting(nullptr, [choose](void*) { choose(0); });
  return Subject{cpu({.threads = 2}), setting};
}

}  // namespace

Candidate Reference::make() { return Subject{reference()}; }
Candidate Cpu::make() { return Subject{cpu()}; }
Candidate CpuOneThread::make() { return Subject{cpu({.threads = 1})}; }
Candidate CpuThreeThreads::make() { return Subject{cpu({.threads = 3})}; }
Candidate CpuSse4::make() { return on_target(HWY_SSE4); }
Candidate CpuAvx2::make() { return on_target(HWY_AVX2); }
Candidate CpuAvx512::make() { return on_target(HWY_AVX3); }
Candidate DeferredCpu::make() { return Subject{deferred(cpu({.threads = 2}))}; }
Candidate DeferredCpuUntilWaited::make() {
  return Subject{deferred(cpu({.threads = 1}), {.runs = RunsWork::when_waited_for})};
}
Candidate DeferredReference::make() { return Subject{deferred(reference())}; }
Candidate Tiny::make() { return Subject{tiny()}; }
Candidate DeferredTiny::make() { return Subject{deferred(tiny())}; }
#if FLUXION_WITH_VULKAN

namespace {

// What a device's checks have to say; fails the test that it belongs to.
struct Complaints {
  ~Complaints() {
    INFO(all);
    CHECK(all.empty());
  }
  std::mutex mutex;
  std::string all;
};

std::string_view chosen_check() {
  const char* const chosen = std::getenv("FLUXION_TEST_VULKAN");
  return chosen ? chosen : "";
}

// FLUXION_TEST_VULKAN_DEVICE=vulkan or vulkan:N tests that device; else it is a software one, if
// there is one. FLUXION_TEST_VULKAN=validate has the validation layer look on, =guards surrounds
// memory with guard bands.
Candidate checked_vulkan(vulkan_backend::DeviceOptions options) {
  const std::string_view check = chosen_check();
  std::shared_ptr<Complaints> complaints;
  if (!check.empty()) {
    complaints = std::make_shared<Complaints>();
    const auto listen = [complaints](std::string_view message) {
      std::lock_guard lock(complaints->mutex);
      complaints->all += std::string(message) + "\n";
    };
    if (check == "validate") options.validation = listen;
    if (check == "guards") options.guards = listen;
  }
  if (const char* const named = std::getenv("FLUXION_TEST_VULKAN_DEVICE")) {
    const std::string name = named;
    if (name != "vulkan" && !name.starts_with("vulkan:"))
      throw Error("FLUXION_TEST_VULKAN_DEVICE is '" + name + "', not vulkan or vulkan:N");
    if (name != "vulkan") options.choice.device = std::stoi(name.substr(7));
    options.choice.cache.emplace();
    return Subject{vulkan_backend::open(options), complaints};
  }
  const std::optional<Device> device = software_vulkan(options);
  return device ? Candidate(Subject{*device, complaints}) : std::nullopt;
}

}  // namespace

Candidate Vulkan::make() { return checked_vulkan({}); }
Candidate VulkanShort::make() { return checked_vulkan({.adjust = vulkan_backend::choose_kernels}); }
Candidate VulkanLeast::make() {
  // Guard bands need memory that the host sees.
  const bool guards = chosen_check() == "guards";
  return checked_vulkan({.adjust = [=](vulkan_backend::DeviceFacts& facts) {
    const bool unified = facts.unified_memory;
    facts = vulkan_backend::least_facts(facts);
    if (guards) facts.unified_memory = unified;
  }});
}
#else
Candidate Vulkan::make() { return std::nullopt; }
Candidate VulkanShort::make() { return std::nullopt; }
Candidate VulkanLeast::make() { return std::nullopt; }
#endif

}  // namespace fluxion::testing
