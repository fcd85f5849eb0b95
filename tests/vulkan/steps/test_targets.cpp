// The kernels of whole steps for devices that no test machine has.
#include "backends/vulkan/kernel.h"
#include "models/benchmark/benchmark.h"
#include "tests/catch.h"
#include "tests/vulkan/run_work.h"

using namespace fluxion;
using namespace fluxion::testing;

TEST_CASE("no kernel of a step depends on the size of subgroups", "[vulkan][steps]") {
  namespace vk = vulkan_backend;
  const std::optional<Device> device = software_vulkan();
  if (!device) return;
  const NetworkConfig network = DitConfig{.image_size = 8,
                                          .channels = 1,
                                          .patch_size = 2,
                                          .hidden_size = 16,
                                          .depth = 1,
                                          .num_heads = 2,
                                          .num_classes = 3,
                                          .frequency_embedding_size = 16};
  const Benchmark benchmark(BenchmarkTask::meanflow, network, 2, *device);
  const Program& program = benchmark.program();
  const Storage& storage = device->backend().capabilities().storage;
  vk::ShaderTarget any = vk::logical_device(*device)->facts().shaders;
  any.subgroup_arithmetic = true;
  any.subgroup_size = 0;
  REQUIRE(program.kernels.size() > 20);
  for (const Kernel& kernel : program.kernels) {
    const vk::KernelWork want = vk::lower(kernel, {program, storage, any});
    for (const std::uint32_t size : {8, 16, 32, 64, 128}) {
      vk::ShaderTarget target = any;
      target.subgroup_size = size;
      target.subgroup_size_control = true;
      const vk::KernelWork got = vk::lower(kernel, {program, storage, target});
      INFO(want.shaders.front().name << ", subgroups of " << size);
      CHECK(got.shaders == want.shaders);
      CHECK(got.dispatches == want.dispatches);
    }
  }
}
