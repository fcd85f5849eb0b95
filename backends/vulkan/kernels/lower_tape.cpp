// Maps: every point of the iteration space by itself.
#include <algorithm>

#include "backends/vulkan/kernel.h"
#include "backends/vulkan/kernels/tape_emitter.h"
#include "backends/vulkan/kernels/tape_rows.h"
#include "engine/divide.h"

namespace fluxion::vulkan_backend {

using namespace spirv;

namespace {

constexpr std::uint32_t map_group = 128;
// A contiguous map of at least this many points takes four at a time, though some remain.
constexpr std::int64_t least_fours = 64;

KernelWork lower_map(const Tape& tape, const LoweringContext& context) {
  KernelWork work;
  std::int64_t points = 1;
  for (const std::int64_t extent : tape.extents) points *= extent;
  if (points == 0) return work;

  // Invocation i takes four points while i < fours, and then one.
  Tape body = tape;
  std::int64_t remaining = 0;
  const bool may_take_four = !context.target.short_code;
  bool by_fours = may_take_four && TapeEmitter::gains_from_four(tape);
  if (may_take_four && !by_fours && tape.extents.size() == 1 && points >= least_fours) {
    remaining = points % 4;
    body.extents[0] -= remaining;
    by_fours = TapeEmitter::gains_from_four(body);
  }
  const std::int64_t fours = by_fours ? (points - remaining) / 4 : 0;
  const std::int64_t invocations = by_fours ? fours + remaining : points;

  const std::uint32_t group =
      std::min({map_group, context.target.max_invocations, context.target.max_local_size[0]});
  Dispatch dispatch;
  dispatch.groups =
      folded_groups(static_cast<std::uint64_t>(ceil_div(invocations, group)), context.target);
  estimate(tape, context, dispatch);

  Module m(context.target, by_fours ? "map of fours" : "map", {group, 1, 1});
  ShaderBindings bindings(context);
  Value number = m.workgroup_id(0);
  if (dispatch.groups[1] > 1) number = number + m.workgroup_id(1) * dispatch.groups[0];
  const Value index = number * group + m.local_index();
  const bool exact =
      static_cast<std::int64_t>(dispatch.groups[0]) * dispatch.groups[1] * group == invocations;
  TapeEmitter one(m, bindings, tape, 1);
  m.if_then(exact ? m.boolean(true) : index < static_cast<std::uint32_t>(invocations), [&] {
    if (!by_fours) return one.emit(coordinates_of(index, tape.extents));
    TapeEmitter four(m, bindings, body, 4);
    const auto emit_four = [&] {
      Dims extents = body.extents;
      extents.back() /= 4;
      std::vector<Value> coordinates = coordinates_of(index, extents);
      coordinates.back() = coordinates.back() * 4;
      four.emit(std::move(coordinates));
    };
    if (remaining == 0) return emit_four();
    m.if_else(index < static_cast<std::uint32_t>(fours), emit_four,
              [&] { one.emit({index + static_cast<std::uint32_t>(3 * fours)}); });
  });
  dispatch.bindings = bindings.list();
  Shader shader = m.finish();
  shader.bindings = static_cast<std::uint32_t>(dispatch.bindings.size());
  work.shaders.push_back(std::move(shader));
  work.dispatches.push_back(std::move(dispatch));
  return work;
}

}  // namespace

KernelWork lower_tape(const TapeKernel& kernel, const LoweringContext& context) {
  const Tape tape = ordered_for_memory(simplified(kernel.tape));
  return tape.reduced_axes > 0 ? lower_rows(tape, context) : lower_map(tape, context);
}

}  // namespace fluxion::vulkan_backend
