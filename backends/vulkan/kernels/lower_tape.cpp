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
// A contiguous map of at least this many points takes several at a time, though some remain.
constexpr std::int64_t least_points = 64;

KernelWork lower_map(const Tape& tape, const LoweringContext& context) {
  KernelWork work;
  std::int64_t points = 1;
  for (const std::int64_t extent : tape.extents) points *= extent;
  if (points == 0) return work;

  // Invocation i takes `width` points while i < wholes, and then one.
  Tape body = tape;
  std::int64_t remaining = 0;
  std::uint32_t width = 1;
  for (const std::uint32_t wide : {8u, 4u}) {
    if (context.target.short_code) break;
    if (wide == 8 && tape.instructions.size() > most_instructions_of_eights) continue;
    body.extents = tape.extents;
    remaining = tape.extents.size() == 1 && points >= least_points ? points % wide : 0;
    if (remaining > 0) body.extents[0] = points - remaining;
    if (!TapeEmitter::gains_from(body, wide, context.storage)) continue;
    width = wide;
    break;
  }
  if (width == 1) remaining = 0;
  const std::int64_t wholes = width > 1 ? (points - remaining) / width : 0;
  const std::int64_t invocations = width > 1 ? wholes + remaining : points;

  const std::uint32_t group =
      std::min({map_group, context.target.max_invocations, context.target.max_local_size[0]});
  Dispatch dispatch;
  dispatch.groups =
      folded_groups(static_cast<std::uint64_t>(ceil_div(invocations, group)), context.target);
  estimate(tape, context, dispatch);

  Module m(context.target,
           width == 8   ? "map of eights"
           : width == 4 ? "map of fours"
                        : "map",
           {group, 1, 1});
  ShaderBindings bindings(context);
  Value number = m.workgroup_id(0);
  if (dispatch.groups[1] > 1) number = number + m.workgroup_id(1) * dispatch.groups[0];
  const Value index = number * group + m.local_index();
  const bool exact =
      static_cast<std::int64_t>(dispatch.groups[0]) * dispatch.groups[1] * group == invocations;
  TapeEmitter one(m, bindings, tape, 1);
  m.if_then(exact ? m.boolean(true) : index < static_cast<std::uint32_t>(invocations), [&] {
    if (width == 1) return one.emit(coordinates_of(index, tape.extents));
    TapeEmitter several(m, bindings, body, width);
    const auto emit_several = [&] {
      Dims extents = body.extents;
      extents.back() /= width;
      std::vector<Value> coordinates = coordinates_of(index, extents);
      coordinates.back() = coordinates.back() * width;
      several.emit(std::move(coordinates));
    };
    if (remaining == 0) return emit_several();
    m.if_else(index < static_cast<std::uint32_t>(wholes), emit_several,
              [&] { one.emit({index + static_cast<std::uint32_t>((width - 1) * wholes)}); });
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
