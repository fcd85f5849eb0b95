// What stop_gradient saves: MeanFlow's target is made of the tangent pass, and the backward pass
// keeps nothing of it.
#include "backends/cpu/cpu.h"
#include "models/benchmark/benchmark.h"
#include "tests/catch.h"

using namespace fluxion;

TEST_CASE("a MeanFlow step of dit28 needs hardly more memory than a flow-matching step",
          "[models][memory]") {
  const Device device = cpu();
  const BenchmarkNetwork& network = benchmark_network("dit28");
  const auto arena_mib = [&](BenchmarkTask task) {
    return static_cast<double>(
               Benchmark(task, network.config, 64, device).memory_report().arena_bytes) /
           (1 << 20);
  };
  const double flow_matching = arena_mib(BenchmarkTask::flow_matching);
  const double all = arena_mib(BenchmarkTask::meanflow),
               subset = arena_mib(BenchmarkTask::meanflow_subset);
  INFO("arena in MiB: flow matching " << flow_matching << ", MeanFlow " << all
                                      << ", tangent on a quarter of the rows " << subset);
  CHECK(flow_matching <= 200);
  CHECK(all <= 1.2 * flow_matching);
  CHECK(subset <= 1.2 * flow_matching);
}
