// What happens when an allocation on the host fails: never an abort, never a half-taken call.
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/failing_new.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

Tensor filled_square(float value, const Device& device, std::int64_t size = 16) {
  return Tensor::from(std::vector<float>(static_cast<std::size_t>(size * size), value),
                      {size, size}, device);
}

}  // namespace

TEST_CASE("whichever allocation of a compiled call fails, nothing is lost",
          "[engine][donation][memory]") {
  for (const Device& device : {cpu({.threads = 1}), reference()}) {
    INFO(device.name());
    // New at each round: the first call allocates what later ones keep.
    const bool first_call = GENERATE(true, false);
    long failures = 0;
    for (long allowed = 0;; ++allowed) {
      CAPTURE(allowed, first_call);
      const auto step = compile(
          [](const std::vector<Tensor>& state, const Tensor& x) {
            const Tensor g = matmul(x, state[0]);
            return std::vector<Tensor>{state[0] - 0.5 * g, state[1] + g, state[1]};
          },
          {.donate = {0}});
      const std::vector<Tensor> state{filled_square(1, device), filled_square(2, device)};
      const Tensor x = filled_square(3, device);
      step.program(state, x);
      if (!first_call) step(std::vector{filled_square(1, device), filled_square(2, device)}, x);
      std::vector<Tensor> result;
      std::optional<Aftermath> aftermath;
      bool failed = false, ours = true;
      {
        const FailingAllocation failing(allowed);
        try {
          result = step(state, x);
        } catch (const Error& error) {
          aftermath = error.aftermath();
        } catch (const std::bad_alloc&) {
          ours = false;  // before the call was prepared: looking up its signature
        }
        failed = failing.failed();
      }
      if (!result.empty()) {
        CHECK(result[0].to_host<float>()[0] == -23);
        CHECK(result[2].to_host<float>()[0] == 2);
      } else {
        ++failures;
        if (ours) CHECK(aftermath == Aftermath::nothing_written);
        CHECK(state[0].to_host<float>()[0] == 1);
        CHECK(state[1].to_host<float>()[0] == 2);
      }
      if (!failed) break;
    }
    CHECK(failures > 10);
  }
}

TEST_CASE("memory is given back without an allocation that could fail", "[engine][memory]") {
  for (const Device& device : {cpu({.threads = 1}), reference()}) {
    INFO(device.name());
    Tensor buffer = filled_square(1, device);
    Tensor chain = filled_square(1, device, 1);
    for (int i = 0; i < 1000; ++i) chain = chain + chain;
    {
      const FailingAllocation failing(0);
      chain = Tensor();
    }
    {
      const FailingAllocation failing(0);
      buffer = Tensor();
    }
    CHECK(filled_square(2, device).to_host<float>()[0] == 2);
  }
}
