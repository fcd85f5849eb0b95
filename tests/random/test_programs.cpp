// Some hundreds of random programs; fluxion-random checks them by the thousand.
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "tests/backend/tiny_backend.h"
#include "tests/catch.h"
#include "tests/random/plan_only.h"
#include "tests/random/survey.h"
#if FLUXION_WITH_VULKAN
#include "tests/vulkan/run_work.h"
#endif

using namespace fluxion;
using namespace fluxion::testing;

TEST_CASE("random programs agree on every backend and under every transform", "[random]") {
  constexpr std::uint64_t seed = 20260;
  const CheckDevices devices{reference(), cpu({1})};
  Survey survey;
  for (std::uint64_t number = 0; number < 250; ++number) {
    RandomProgram program = numbered_program(seed, number);
    const CheckResult result = place_and_check(program, devices);
    survey.add(program, result);
    if (result.failure.empty()) continue;
    const RandomProgram small = smallest_failing(program, devices, {});
    FAIL_CHECK("program " << number << " of seed " << seed << ": " << result.failure
                          << "\nmade smaller:\n"
                          << to_string(small));
  }
  INFO(survey.text());
  CHECK(survey.programs >= 225);
  CHECK(survey.unconditioned <= 2);
  CHECK(survey.median_nodes() >= 25);
  CHECK(survey.rare(0.01) == "");
}

TEST_CASE("random programs run on a device whose kernels hold next to nothing", "[random]") {
  constexpr std::uint64_t seed = 20261;
  const CheckDevices devices{reference(), tiny()};
  for (std::uint64_t number = 0; number < 80; ++number) {
    RandomProgram program = numbered_program(seed, number);
    const CheckResult result = place_and_check(program, devices);
    if (result.failure.empty()) continue;
    const RandomProgram small = smallest_failing(program, devices, {});
    FAIL_CHECK("program " << number << " of seed " << seed << ": " << result.failure
                          << "\nmade smaller:\n"
                          << to_string(small));
  }
}

#if FLUXION_WITH_VULKAN
TEST_CASE("random programs agree on Vulkan", "[random][vulkan]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) {
    WARN("skipped: there is no software device");
    return;
  }
  constexpr std::uint64_t seed = 20263;
  const CheckDevices devices{reference(), *device};
  for (std::uint64_t number = 0; number < 12; ++number) {
    RandomProgram program = numbered_program(seed, number);
    const CheckResult result = place_and_check(program, devices);
    CHECK(result.failure.empty());
    if (!result.failure.empty())
      FAIL_CHECK("program " << number << " of seed " << seed << ": " << result.failure);
  }
}
#endif

TEST_CASE("random programs of very large tensors can be planned", "[random][large]") {
  constexpr std::uint64_t seed = 20262;
  const Device device = cpu({1});
  int over_2_20 = 0, over_2_31 = 0;
  for (std::uint64_t number = 0; number < 300; ++number) {
    const LargePlan plan =
        plan_large_program(seed, number, mixed_scale(number), device.backend().capabilities());
    over_2_20 += plan.points > (std::int64_t{1} << 20) ? 1 : 0;
    over_2_31 += plan.points > (std::int64_t{1} << 31) ? 1 : 0;
    if (!plan.failure.empty())
      FAIL_CHECK("large program " << number << " of seed " << seed << ": " << plan.failure << "\n"
                                  << plan.graph);
  }
  CHECK(over_2_20 >= 150);
  CHECK(over_2_31 >= 30);
}

TEST_CASE("a seed gives one program for ever, bytes give one too", "[random]") {
  CHECK(to_string(numbered_program(1, 2)) == to_string(numbered_program(1, 2)));
  CHECK(to_string(numbered_program(1, 2)) != to_string(numbered_program(1, 3)));
  const std::vector<std::uint8_t> bytes{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4};
  Choices first(bytes), second(bytes), none(std::span<const std::uint8_t>{});
  CHECK(to_string(draw_program(first)) == to_string(draw_program(second)));
  CHECK_NOTHROW(draw_program(none));
}

TEST_CASE("a failing program is made as small as it gets", "[random]") {
  // It "fails" where there are a matmul and a tanh.
  const auto fails = [](const RandomProgram& program) {
    const std::string text = to_string(program);
    return text.find("matmul") != std::string::npos && text.find("tanh") != std::string::npos;
  };
  int tried = 0;
  for (std::uint64_t number = 0; number < 200 && tried < 5; ++number) {
    const RandomProgram program = numbered_program(3, number);
    if (!fails(program)) continue;
    ++tried;
    const RandomProgram small = shrink(program, fails);
    INFO(to_string(small));
    // The two, and at most three between them that fit their shapes and dtypes to each other.
    CHECK(small.steps.size() <= 5);
    CHECK(fails(small));
    CHECK_NOTHROW(build(small, make_inputs(small, reference(), DType::f64)));
  }
  CHECK(tried == 5);
}
