// The few functions of Highway that are not in its headers, for a program that runs where no
// libhwy.so is (FLUXION_PORTABLE; Debian has no static one): which instruction sets the processor
// has. Declared and documented in hwy/targets.h.
#include <hwy/targets.h>

#include <atomic>

namespace hwy {

namespace {

std::atomic<std::int64_t> disabled{0}, pretended{0};

// The instructions that Highway counts to each target, and that the system saves their registers.
std::int64_t found() {
  std::int64_t targets = HWY_STATIC_TARGET;
#if HWY_ARCH_X86
  __builtin_cpu_init();
  const auto has = [&](bool all, std::int64_t target) {
    if (all) targets |= target;
    return all;
  };
  const bool ssse3 = has(__builtin_cpu_supports("ssse3"), HWY_SSSE3);
  const bool sse4 =
      has(ssse3 && __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("sse4.2") &&
              __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("aes"),
          HWY_SSE4);
  const bool avx2 = has(sse4 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                            __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                            __builtin_cpu_supports("f16c"),
                        HWY_AVX2);
  has(avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512cd"),
      HWY_AVX3);
#endif
  return targets;
}

}  // namespace

std::int64_t SupportedTargets() {
  static const std::int64_t real = found();
  const std::int64_t mock = pretended.load(), all = (mock != 0 ? mock : real) & ~disabled.load();
  return all != 0 ? all : HWY_STATIC_TARGET;
}

void DisableTargets(std::int64_t targets) {
  disabled = targets;
  GetChosenTarget().DeInit();
}

void SetSupportedTargetsForTest(std::int64_t targets) {
  pretended = targets;
  GetChosenTarget().DeInit();
}

ChosenTarget& GetChosenTarget() {
  static ChosenTarget chosen;
  return chosen;
}

}  // namespace hwy
