// Fuzz target: bytes are the decisions of a random program (tests/random/program.h), which is
// built, planned, run, differentiated and batched.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "tests/random/check.h"

using namespace fluxion;
using namespace fluxion::testing;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // Fresh ones now and then: a device keeps the plans of the programs it saw.
  static CheckDevices devices;
  static unsigned seen = 0;
  if (seen++ % 64 == 0) devices = {reference(), cpu({1})};
  Choices choices(std::span(data, size));
  RandomProgram program = draw_program(choices);
  // No finite differences: sanitizers make everything slow, and what they need is the code that
  // runs.
  const CheckResult result = place_and_check(
      program, devices,
      {.differences = false, .second_order = size % 4 == 0, .batching = size % 4 == 1});
  if (result.failure.empty()) return 0;
  std::fprintf(stderr, "%s\n%s", result.failure.c_str(), to_string(program).c_str());
  std::abort();
}
