// Decides how a row reduction runs.
#include <algorithm>
#include <bit>

#include "backends/vulkan/kernels/tape_emitter.h"
#include "backends/vulkan/kernels/tape_limits.h"
#include "backends/vulkan/kernels/tape_rows.h"
#include "engine/divide.h"
#include "engine/graph/op_names.h"
#include "engine/program/affines.h"

namespace fluxion::vulkan_backend {

namespace {

constexpr std::uint32_t workgroup = 128;
// Invocations that keep a large device busy.
constexpr std::uint64_t busy = 65536;
// Units of a row that one lane should at least take, before rows are split over workgroups.
constexpr std::uint32_t units_per_split_lane = 16;

std::int64_t product_of(const Dims& extents, std::size_t begin, std::size_t end) {
  std::int64_t product = 1;
  for (std::size_t axis = begin; axis < end; ++axis) product *= extents[axis];
  return product;
}

// How many of the tape's memory operands have neighbours along the axis as neighbours in memory.
int contiguous_operands(const Tape& tape, std::size_t axis) {
  if (tape.extents[axis] <= 1) return 0;
  int count = 0;
  for (const TapeLoad& load : tape.loads) count += load.address.coefficients[axis] == 1;
  for (const TapeStore& store : tape.stores) count += store.address.coefficients[axis] == 1;
  return count;
}

// Moves the axis among [begin, end) with the most contiguous operands to the end of the range.
void move_contiguous_last(Tape& tape, std::size_t begin, std::size_t end) {
  if (end - begin < 2) return;
  std::size_t best = end - 1;
  for (std::size_t axis = begin; axis < end; ++axis)
    if (contiguous_operands(tape, axis) > contiguous_operands(tape, best)) best = axis;
  if (best == end - 1) return;
  const auto move = [&](Dims& dims) {
    std::rotate(dims.begin() + static_cast<std::ptrdiff_t>(best),
                dims.begin() + static_cast<std::ptrdiff_t>(best) + 1,
                dims.begin() + static_cast<std::ptrdiff_t>(end));
  };
  move(tape.extents);
  for_each_affine(tape, [&](Affine& affine) { move(affine.coefficients); });
}

}  // namespace

KernelLimits tape_limits(const ShaderTarget&) {
  KernelLimits limits;
  limits.index_bits = 32;
  limits.max_row_elements = 65536;
  return limits;
}

TapeStages stages_of(const Tape& tape) {
  TapeStages stages;
  const std::size_t count = tape.instructions.size();
  stages.stage.assign(count, 0);
  stages.used.assign(count, false);
  for (const TapeStore& store : tape.stores)
    stages.used[static_cast<std::size_t>(store.value)] = true;
  for (std::size_t i = count; i-- > 0;)
    if (stages.used[i])
      for (const std::int32_t operand : tape.instructions[i].operands)
        if (operand >= 0) stages.used[static_cast<std::size_t>(operand)] = true;
  for (std::size_t i = 0; i < count; ++i) {
    const TapeInstruction& instruction = tape.instructions[i];
    int stage = 0;
    for (const std::int32_t operand : instruction.operands)
      if (operand >= 0) stage = std::max(stage, stages.stage[static_cast<std::size_t>(operand)]);
    if (instruction.code == TapeCode::reduce) {
      if (stages.used[i]) {
        const auto pass = static_cast<std::size_t>(stage);
        if (stages.reductions.size() <= pass) stages.reductions.resize(pass + 1);
        stages.reductions[pass].push_back(static_cast<std::int32_t>(i));
      }
      ++stage;
    }
    stages.stage[i] = stage;
  }
  for (std::size_t i = 0; i < tape.stores.size(); ++i) {
    const auto value = static_cast<std::size_t>(tape.stores[i].value);
    if (tape.instructions[value].narrow) {
      stages.narrow_stores.push_back(static_cast<std::int32_t>(i));
      continue;
    }
    stages.wide_stores.push_back(static_cast<std::int32_t>(i));
    stages.store_pass = std::max(stages.store_pass, static_cast<std::size_t>(stages.stage[value]));
  }
  stages.passes = stages.reductions.size();
  if (!stages.wide_stores.empty()) {
    stages.passes = std::max(stages.passes, stages.store_pass + 1);
    stages.store_pass = stages.passes - 1;
  }
  stages.reductions.resize(stages.passes);
  return stages;
}

Tape ordered_for_memory(const Tape& tape) {
  Tape ordered = tape;
  const std::size_t outer = tape.extents.size() - static_cast<std::size_t>(tape.reduced_axes);
  move_contiguous_last(ordered, 0, outer);
  move_contiguous_last(ordered, outer, tape.extents.size());
  return ordered;
}

Tape rows_last(const Tape& tape) {
  Tape turned = tape;
  const auto outer = static_cast<std::ptrdiff_t>(tape.extents.size()) - tape.reduced_axes;
  const auto turn = [&](Dims& dims) {
    std::rotate(dims.begin(), dims.begin() + outer, dims.end());
  };
  turn(turned.extents);
  for_each_affine(turned, [&](Affine& affine) { turn(affine.coefficients); });
  turned.reduced_axes = 0;
  return turned;
}

RowPlan plan_rows(const Tape& tape, const TapeStages& stages, const ShaderTarget& target,
                  const Storage& storage) {
  RowPlan plan;
  const std::size_t axes = tape.extents.size(),
                    outer = axes - static_cast<std::size_t>(tape.reduced_axes);
  const std::int64_t rows = product_of(tape.extents, 0, outer),
                     elements = product_of(tape.extents, outer, axes);
  const std::uint32_t size =
      std::min({workgroup, target.max_invocations, target.max_local_size[0]});
  const std::uint32_t group = std::bit_floor(size);

  plan.across = outer > 0 && rows >= 16 &&
                contiguous_operands(tape, outer - 1) > contiguous_operands(tape, axes - 1);
  const std::size_t fast = plan.across ? outer - 1 : axes - 1;
  if (!target.short_code && tape.extents[fast] > 0 && tape.extents[fast] % 4 == 0 &&
      contiguous_operands(tape, fast) > 0) {
    plan.width = 4;
    // (Across, a lane has eight running values of each reduction, and there are fewer lanes.)
    std::size_t reductions = 0;
    for (const auto& each : stages.reductions) reductions += each.size();
    if (tape.instructions.size() <= most_instructions_of_eights &&
        (!plan.across ||
         (reductions <= 2 && static_cast<std::uint64_t>(rows * elements) >= 4 * busy)) &&
        TapeEmitter::gains_from(plan.across ? rows_last(tape) : tape, 8, storage))
      plan.width = 8;
  }
  plan.rows = static_cast<std::uint32_t>(plan.across ? rows / plan.width : rows);
  plan.units = static_cast<std::uint32_t>(plan.across ? elements : elements / plan.width);

  if (plan.across) {
    plan.slots = std::min(32u, group);
    // Rows that are many need no lanes beside each other.
    while (plan.slots < group && (plan.rows >= busy / group * plan.slots * 2 ||
                                  group / plan.slots > std::max(plan.units, 1u)))
      plan.slots *= 2;
    plan.lanes = group / plan.slots;
  } else {
    // Four units a lane, or fewer where rows are few.
    plan.lanes = std::min(
        group, std::bit_ceil(std::max(ceil_div(plan.units, plan.width == 8 ? 2u : 4u), 1u)));
    while (plan.lanes < group && plan.lanes < plan.units &&
           std::uint64_t{plan.rows} * plan.lanes < busy)
      plan.lanes *= 2;
    plan.slots = group / plan.lanes;
  }

  const std::uint32_t groups = ceil_div(plan.rows, plan.slots);
  const std::uint32_t per_lane = ceil_div(plan.units, plan.lanes);
  if (stages.passes == 1 && !stages.reductions[0].empty() && groups > 0 &&
      std::uint64_t{groups} * group < busy / 2 && per_lane >= 4 * units_per_split_lane)
    plan.splits =
        std::min({static_cast<std::uint32_t>(ceil_div(busy, std::uint64_t{groups} * group)),
                  ceil_div(per_lane, units_per_split_lane), 256u});

  // (Values of a lane's units are all alive at once.)
  const std::size_t instructions = std::max<std::size_t>(tape.instructions.size(), 1);
  const std::uint32_t most_units = plan.width == 8 ? 2 : plan.width == 4 ? 4 : 8;
  if (!target.short_code && plan.splits == 1 && per_lane <= most_units &&
      per_lane * plan.width * instructions <= 1024)
    plan.unrolled = per_lane;
  return plan;
}

std::array<std::uint32_t, 3> folded_groups(std::uint64_t groups, const ShaderTarget& target) {
  const std::uint64_t high = ceil_div(groups, target.max_groups);
  if (high <= 1) return {static_cast<std::uint32_t>(groups), 1, 1};
  return {static_cast<std::uint32_t>(ceil_div(groups, high)), static_cast<std::uint32_t>(high), 1};
}

void estimate(const Tape& tape, const LoweringContext& context, Dispatch& dispatch) {
  const auto points = static_cast<double>(product_of(tape.extents, 0, tape.extents.size()));
  for (const TapeInstruction& instruction : tape.instructions)
    if (!instruction.narrow)
      dispatch.flops += points * (is_transcendental(instruction.op) ? 20 : 1);
  const auto moved = [&](std::int32_t buffer) {
    const TensorType& type = context.program.buffers[static_cast<std::size_t>(buffer)].type;
    const auto elements = static_cast<double>(std::max<std::int64_t>(type.shape.elements(), 1));
    return std::min(points, elements) * static_cast<double>(bytes_of(type, context.storage)) /
           elements;
  };
  for (const TapeLoad& load : tape.loads) dispatch.moved_bytes += moved(load.buffer);
  for (const TapeStore& store : tape.stores) dispatch.moved_bytes += moved(store.buffer);
}

}  // namespace fluxion::vulkan_backend
