// Vulkan: word of how a compilation goes on, and programs that are ready before their first call.
#include <mutex>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "engine/graph/ops.h"
#include "engine/warm_up.h"
#include "tests/catch.h"
#include "tests/vulkan/run_work.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

struct HeardCompiling {
  std::mutex mutex;
  std::vector<std::pair<std::size_t, std::size_t>> all;  // done, of how many

  VulkanOptions options() {
    VulkanOptions options;
    options.compiling = [this](std::size_t done, std::size_t of) {
      const std::lock_guard lock(mutex);
      all.emplace_back(done, of);
    };
    return options;
  }
};

// Two kernels: a product, and a sum of what it gives.
Tensor two_kernels(const Tensor& x) { return sum(matmul(x, x)); }

}  // namespace

TEST_CASE("a device says how many kernels are compiled, of those that were not before",
          "[vulkan][compiling]") {
  HeardCompiling heard;
  const std::optional<Device> device = software_vulkan({.choice = heard.options()});
  if (!device) return;
  const Tensor x = full({8, 8}, 0.5, DType::f32, *device);
  eval(x);
  heard.all.clear();
  CHECK(two_kernels(x).item<float>() == 128);
  REQUIRE(heard.all.size() >= 3);
  const std::size_t all = heard.all.size() - 1;
  for (std::size_t i = 0; i <= all; ++i)
    CHECK(heard.all[i] == std::pair<std::size_t, std::size_t>(i, all));
  heard.all.clear();
  CHECK(two_kernels(x).item<float>() == 128);
  CHECK(heard.all.empty());
}

TEST_CASE("a function that was warmed up compiles nothing at its first call",
          "[vulkan][compiling]") {
  HeardCompiling heard;
  const std::optional<Device> device = software_vulkan({.choice = heard.options()});
  if (!device) return;
  const Tensor x = full({8, 8}, 0.5, DType::f32, *device);
  eval(x);
  const auto f = compile([](const Tensor& at) { return two_kernels(at); });
  heard.all.clear();
  warm_up(f, x);
  CHECK_FALSE(heard.all.empty());
  heard.all.clear();
  CHECK(f(x).item<float>() == 128);
  CHECK(heard.all.empty());
  CHECK(f.traces() == 1);
}

TEST_CASE("what listens to a compilation may end it", "[vulkan][compiling]") {
  VulkanOptions options;
  bool stop = false;
  options.compiling = [&](std::size_t done, std::size_t) {
    if (stop && done == 1) throw Cancelled("enough");
  };
  const std::optional<Device> device = software_vulkan({.choice = options});
  if (!device) return;
  const Tensor x = full({8, 8}, 0.5, DType::f32, *device);
  eval(x);
  stop = true;
  CHECK_THROWS_AS(two_kernels(x).item<float>(), Cancelled);
  stop = false;
  CHECK(two_kernels(x).item<float>() == 128);
}
