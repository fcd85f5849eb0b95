// How maps and row reductions are cut, without a device.
#include "backends/vulkan/kernels/tape_emitter.h"
#include "backends/vulkan/kernels/tape_rows.h"
#include "engine/graph/op_names.h"
#include "tests/catch.h"
#include "tests/vulkan/valid_spirv.h"

namespace {

using namespace fluxion;
using namespace fluxion::vulkan_backend;

// The sum over the last `reduced` axes of a contiguous tensor, or of one whose memory has these
// strides.
Tape sum_of_rows(const Dims& extents, std::int32_t reduced, Dims strides = {}) {
  Tape tape;
  tape.extents = extents;
  tape.reduced_axes = reduced;
  tape.streaming = true;
  Dims row_strides(extents.size(), 0);
  std::int64_t elements = 1, rows = 1;
  if (strides.empty()) {
    strides.resize(extents.size());
    for (std::size_t axis = extents.size(); axis-- > 0; elements *= extents[axis])
      strides[axis] = elements;
  }
  for (std::size_t axis = extents.size() - static_cast<std::size_t>(reduced); axis-- > 0;) {
    row_strides[axis] = rows;
    rows *= extents[axis];
  }
  tape.loads.push_back({0, DType::f32, {0, strides}, {}});
  tape.instructions.push_back({TapeCode::load, Op::identity, DType::f32, false, 0, {-1, -1, -1}});
  tape.instructions.push_back({TapeCode::reduce, Op::sum, DType::f32, true, 0, {0, -1, -1}});
  tape.stores.push_back({1, 1, DType::f32, {0, row_strides}});
  return tape;
}

KernelWork lowered(const Tape& tape) {
  Program program;
  std::int64_t elements = 1;
  for (const std::int64_t extent : tape.extents) elements *= extent;
  for (std::int64_t i = 0; i < 2; ++i)
    program.buffers.push_back({BufferKind::output, {{elements}, DType::f32}, i, 0});
  const Storage storage;
  const ShaderTarget target;
  const KernelWork work = lower_tape({tape}, {program, storage, target});
  fluxion::testing::require_valid(work, target);
  return work;
}

TEST_CASE("axes through which addresses run on are one axis", "[vulkan][tape]") {
  const Tape contiguous = simplified(sum_of_rows({4, 5, 6, 7}, 2));
  CHECK(contiguous.extents == Dims{20, 42});
  CHECK(contiguous.reduced_axes == 1);
  // Of the row of one element one axis stays.
  const Tape ones = simplified(sum_of_rows({1, 5, 1, 1}, 2));
  CHECK(ones.extents == Dims{5, 1});
  CHECK(ones.reduced_axes == 1);
  // A transposed operand keeps its axes apart.
  CHECK(simplified(sum_of_rows({4, 5, 6}, 1, {1, 4, 20})).extents == Dims{4, 5, 6});
}

TEST_CASE("rows go to lanes by where their memory is and how many they are", "[vulkan][tape]") {
  const auto plan_of = [](const Tape& tape) {
    const Tape ordered = ordered_for_memory(simplified(tape));
    return plan_rows(ordered, stages_of(ordered), {}, {});
  };
  // Many short rows: several a workgroup. Few rows: all lanes on each.
  CHECK(plan_of(sum_of_rows({100000, 32}, 1)).slots > 1);
  CHECK(plan_of(sum_of_rows({4, 4096}, 1)).slots == 1);
  // Across the memory, neighbouring invocations read neighbouring rows.
  const RowPlan across = plan_of(sum_of_rows({384, 4000}, 1, {1, 384}));
  CHECK(across.across);
  CHECK(across.width == 4);
  CHECK(across.splits > 1);
  // One very long row is cut in parts; a second dispatch combines them.
  CHECK(plan_of(sum_of_rows({1, 1 << 20}, 1)).splits > 1);
  const KernelWork parts = lowered(sum_of_rows({1, 1 << 20}, 1));
  REQUIRE(parts.dispatches.size() == 2);
  CHECK(parts.scratch_bytes > 0);
  CHECK(lowered(sum_of_rows({512, 512}, 1)).dispatches.size() == 1);
  CHECK(lowered(sum_of_rows({0, 512}, 1)).dispatches.empty());
}

TEST_CASE("more workgroups than an axis holds are folded over two", "[vulkan][tape]") {
  ShaderTarget target;
  target.max_groups = 100;
  CHECK(folded_groups(100, target) == std::array<std::uint32_t, 3>{100, 1, 1});
  const auto folded = folded_groups(101, target);
  CHECK(folded == std::array<std::uint32_t, 3>{51, 2, 1});
}

}  // namespace
