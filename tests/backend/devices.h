// The devices that the conformance suite runs on. A backend joins with a struct and a word in
// FLUXION_EVERY_DEVICE; then each promise of docs/backends.md is a test of it, by name.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "engine/device.h"

namespace fluxion::testing {

struct Subject {
  Device device;
  std::shared_ptr<void> setting = nullptr;  // undone with the subject
};
using Candidate = std::optional<Subject>;  // empty: does not run on this machine

struct Reference {
  static Candidate make();
};
struct Cpu {  // as many threads as there are processors, the best instruction set
  static Candidate make();
};
struct CpuOneThread {
  static Candidate make();
};
struct CpuThreeThreads {
  static Candidate make();
};
struct CpuSse4 {
  static Candidate make();
};
struct CpuAvx2 {
  static Candidate make();
};
struct CpuAvx512 {
  static Candidate make();
};
struct DeferredCpu {  // tests/backend/deferred_backend.h
  static Candidate make();
};
struct DeferredCpuUntilWaited {
  static Candidate make();
};
struct DeferredReference {
  static Candidate make();
};
struct Tiny {  // tests/backend/tiny_backend.h
  static Candidate make();
};
struct DeferredTiny {  // other limits, another storage and a time of its own
  static Candidate make();
};
// On the software device of tests/vulkan/run_work.h.
struct Vulkan {
  static Candidate make();
};
struct VulkanShort {  // with the short code of software devices; the others have a GPU's kernels
  static Candidate make();
};
struct VulkanLeast {  // no more than every Vulkan device offers
  static Candidate make();
};

#define FLUXION_EVERY_DEVICE                                                               \
  Reference, Cpu, CpuOneThread, CpuThreeThreads, CpuSse4, CpuAvx2, CpuAvx512, DeferredCpu, \
      DeferredCpuUntilWaited, DeferredReference, Tiny, DeferredTiny, Vulkan, VulkanShort,  \
      VulkanLeast

}  // namespace fluxion::testing

// PROMISE("text", tags) { ... subject ... }: a test case for every device, named "text - Device".
#define FLUXION_PROMISE_(function, text, tags)                                     \
  static void function([[maybe_unused]] const fluxion::testing::Subject& subject); \
  TEMPLATE_TEST_CASE(text, "[backend]" tags, FLUXION_EVERY_DEVICE) {               \
    if (const fluxion::testing::Candidate subject = TestType::make())              \
      function(*subject);                                                          \
    else                                                                           \
      WARN("skipped: this machine does not run it");                               \
  }                                                                                \
  static void function([[maybe_unused]] const fluxion::testing::Subject& subject)
#define FLUXION_PROMISE_NAME_2(number) promise_##number
#define FLUXION_PROMISE_NAME(number) FLUXION_PROMISE_NAME_2(number)
#define PROMISE(text, tags) FLUXION_PROMISE_(FLUXION_PROMISE_NAME(__COUNTER__), text, tags)
