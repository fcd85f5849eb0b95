#include "tests/backend/devices.h"

#include <algorithm>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "tests/backend/deferred_backend.h"
#include "tests/backend/tiny_backend.h"
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
Candidate Vulkan::make() {
  const std::optional<Device> device = software_vulkan();
  return device ? Candidate(Subject{*device}) : std::nullopt;
}
Candidate VulkanLeast::make() {
  const std::optional<Device> device =
      software_vulkan({.adjust = [](auto& facts) { facts = vulkan_backend::least_facts(facts); }});
  return device ? Candidate(Subject{*device}) : std::nullopt;
}
#else
Candidate Vulkan::make() { return std::nullopt; }
Candidate VulkanLeast::make() { return std::nullopt; }
#endif

}  // namespace fluxion::testing
