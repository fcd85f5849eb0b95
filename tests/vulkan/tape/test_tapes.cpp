// Maps and row reductions on a Vulkan device against a plain interpreter in f64, with and without
// what devices may lack.
#include <cmath>
#include <limits>

#include "backends/vulkan/backend.h"
#include "backends/vulkan/kernels/tape_emitter.h"
#include "backends/vulkan/kernels/tape_rows.h"
#include "engine/graph/op_names.h"
#include "tests/catch.h"
#include "tests/tape_cases.h"
#include "tests/vulkan/op/devices.h"
#include "tests/vulkan/run_work.h"
#include "tests/vulkan/valid_spirv.h"

namespace {

using namespace fluxion;
using namespace fluxion::testing;
namespace vk = fluxion::vulkan_backend;

// Runs the tape on `buffers` in place, as a kernel by itself.
void run_on(const Device& device, const TapeCase& test, std::vector<Bytes>& buffers) {
  std::vector<DType> dtypes(buffers.size(), DType::u8);
  for (const TapeLoad& load : test.tape.loads)
    dtypes[static_cast<std::size_t>(load.buffer)] = load.dtype;
  for (const TapeStore& store : test.tape.stores)
    dtypes[static_cast<std::size_t>(store.buffer)] = store.dtype;
  Backend& backend = device.backend();
  Program program;
  std::vector<std::shared_ptr<Buffer>> memory;
  std::vector<Buffer*> outputs;
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    const TensorType type{{static_cast<std::int64_t>(buffers[i].size / size_of(dtypes[i]))},
                          dtypes[i]};
    program.buffers.push_back({BufferKind::output, type, static_cast<std::int64_t>(i), 0});
    program.outputs.push_back(type);
    program.donations.push_back(-1);
    memory.push_back(backend.allocate(type));
    outputs.push_back(memory.back().get());
    backend.upload(*outputs.back(), dtypes[i], {buffers[i].data.get(), buffers[i].size});
  }
  program.scalars = static_cast<std::int32_t>(test.scalars.size());
  const vk::ShaderTarget& target = vk::logical_device(device)->facts().shaders;
  vk::KernelWork work =
      vk::lower_tape({test.tape}, {program, backend.capabilities().storage, target});
  require_valid(work, target);
  vk::compile(device, program, {std::move(work)})->run({{}, outputs, test.scalars}, {});
  for (std::size_t i = 0; i < buffers.size(); ++i)
    backend.download(*outputs[i], dtypes[i], {buffers[i].data.get(), buffers[i].size});
}

void check_on_devices(const TapeCase& test) {
  std::vector<Bytes> want = test.buffers;
  run_oracle(test.tape, want, test.scalars);
  if (op_devices().empty()) WARN("skipped: no software device");
  for (const OpDevice& each : op_devices()) {
    INFO(each.name);
    std::vector<Bytes> got = test.buffers;
    run_on(each.device, test, got);
    check_buffers(test.tape, got, want, test.tolerance);
  }
}

TEST_CASE("random maps agree with the plain interpreter on Vulkan", "[vulkan][tape]") {
  for (std::uint32_t seed = 0; seed < 60; ++seed) {
    INFO("seed " << seed);
    check_on_devices(random_tape(seed, DType::f32, false, false));
  }
}

TEST_CASE("random reductions agree with the plain interpreter on Vulkan", "[vulkan][tape]") {
  for (std::uint32_t seed = 1000; seed < 1120; ++seed) {
    INFO("seed " << seed);
    check_on_devices(random_tape(seed, DType::f32, true, false));
  }
}

}  // namespace
