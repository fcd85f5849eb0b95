// index_add and scatter_add. One invocation sums what arrives at an element, in order, and rounds
// once: results don't depend on the order in which invocations run.
#include "backends/vulkan/kernels/index_op.h"
#include "backends/vulkan/kernels/index_sort.h"

namespace fluxion::vulkan_backend {

using spirv::Split;
using spirv::Value;

namespace {

// Where a line has few updates, each element looks at all of them; else they are sorted by their
// destination first, which is more dispatches.
bool are_few(std::int64_t elements, std::int64_t updates) {
  constexpr std::int64_t always = 16, most = 256, most_looks = std::int64_t{1} << 26;
  return updates <= always || (updates <= most && elements <= most_looks / updates);
}

// The two ops differ in where an update's index lies: all lines of index_add share one line of
// indices.
struct Additions {
  AxisView base;
  std::int64_t updates = 0;  // of a line
  bool shared_indices = false;
  std::int64_t index_lines() const { return shared_indices ? 1 : base.lines(); }
};

// An element of the result.
struct Destination {
  Value outer, k, inner;
};

Destination destination_of(const AxisView& base, Value item) {
  const Split row = split(item, static_cast<std::uint32_t>(base.inner));
  const Split place = split(row.quotient, static_cast<std::uint32_t>(base.axis));
  return {place.quotient, place.remainder, row.remainder};
}

// Emits the sum of each element of the result: its base and the updates that `for_each_arrival`
// names by their places along the axis.
using ForEachArrival =
    std::function<void(const Destination&, const std::function<void(Value update)>& add)>;
void sum_elements(OpWork& work, const Additions& additions, OpShader& shader,
                  const ForEachArrival& for_each_arrival) {
  const AxisView& base = additions.base;
  const spirv::Type type = work.computed(work.kernel().input_types[0].dtype);
  const spirv::Buffer start = shader.reads(work.input(0), type),
                      updates = shader.reads(work.input(2), type),
                      result = shader.writes(work.output(), type);
  const AxisView of_updates{base.outer, additions.updates, base.inner};
  shader.for_each_item([&](Value item) {
    const Destination to = destination_of(base, item);
    RunningSum sum(start.load(item));
    for_each_arrival(to, [&](Value update) {
      sum.add(updates.load(element_of(of_updates, to.outer, update, to.inner)));
    });
    result.store(item, sum.rounded());
  });
}

void add_few(OpWork& work, const Additions& additions, const std::string& name) {
  const AxisView& base = additions.base;
  OpShader shader(work, name, Items{base.elements()});
  spirv::Module& m = shader.module();
  const spirv::Buffer indices = shader.reads(work.input(1), spirv::I32);
  const AxisView of_indices{base.outer, additions.updates, base.inner};
  sum_elements(work, additions, shader, [&](const Destination& to, const auto& add) {
    m.for_range(m.u32(0), m.u32(static_cast<std::uint32_t>(additions.updates)), 1,
                [&](Value update) {
                  const Value at = additions.shared_indices
                                       ? update
                                       : element_of(of_indices, to.outer, update, to.inner);
                  m.if_then(clamped_index(indices, at, base.axis) == to.k, [&] { add(update); });
                });
  });
  const double looks =
      static_cast<double>(base.elements()) * static_cast<double>(additions.updates);
  shader.finish(looks, 8.0 * static_cast<double>(base.elements()) + 4 * looks);
}

void add_many(OpWork& work, const Additions& additions, const std::string& name) {
  const AxisView& base = additions.base;
  const std::int64_t lines = additions.index_lines(), updates = additions.updates;
  const AxisView of_indices{additions.shared_indices ? 1 : base.outer, updates,
                            additions.shared_indices ? 1 : base.inner};
  const DispatchBinding keys = work.scratch(lines * updates), order = work.scratch(lines * updates);
  sort_lines(
      work, lines, updates,
      [&](OpShader& shader) -> LoadKey {
        const spirv::Buffer indices = shader.reads(work.input(1), spirv::I32);
        return [=](Value line, Value position) {
          const Split place = split(line, static_cast<std::uint32_t>(of_indices.inner));
          return clamped_index(indices,
                               element_of(of_indices, place.quotient, position, place.remainder),
                               base.axis);
        };
      },
      [&](OpShader& shader) -> StoreSorted {
        const spirv::Buffer sorted = shader.writes(keys, spirv::U32),
                            positions = shader.writes(order, spirv::U32);
        return [=](Value line, Value rank, Value key, Value position) {
          sorted.store(line * updates + rank, key);
          positions.store(line * updates + rank, position);
        };
      });

  OpShader shader(work, name, Items{base.elements()});
  spirv::Module& m = shader.module();
  const spirv::Buffer sorted = shader.reads(keys, spirv::U32),
                      positions = shader.reads(order, spirv::U32);
  sum_elements(work, additions, shader, [&](const Destination& to, const auto& add) {
    const Value first =
        additions.shared_indices ? m.u32(0) : (to.outer * base.inner + to.inner) * updates;
    const Value all = m.u32(static_cast<std::uint32_t>(updates));
    const Value begin = keys_before(sorted, first, all, updates, to.k, m.boolean(false));
    const Value end = keys_before(sorted, first, all, updates, to.k, m.boolean(true));
    m.for_range(begin, end, 1, [&](Value rank) { add(positions.load(first + rank)); });
  });
  const double moved = 8.0 * static_cast<double>(base.elements()) +
                       8.0 * static_cast<double>(base.lines()) * static_cast<double>(updates);
  shader.finish(moved, moved);
}

void add_updates(OpWork& work, const Additions& additions, const std::string& name) {
  if (additions.base.elements() == 0) return;
  if (additions.updates == 0) return lower_after(work);  // a copy of the base
  are_few(additions.base.elements(), additions.updates) ? add_few(work, additions, name)
                                                        : add_many(work, additions, name);
}

}  // namespace

// out = base; out[o, indices[k], i] += updates[o, k, i].
void lower_index_add(OpWork& work) {
  const OpKernel& kernel = work.kernel();
  const AxisView base = axis_view(kernel.input_types[0].shape, axis_of(kernel));
  add_updates(work, {base, kernel.input_types[1].shape.elements(), true}, "index add");
}

// out = base; out[o, indices[o, k, i], i] += updates[o, k, i].
void lower_scatter_add(OpWork& work) {
  const OpKernel& kernel = work.kernel();
  const AxisView base = axis_view(kernel.input_types[0].shape, axis_of(kernel));
  const AxisView updates = axis_view(kernel.input_types[1].shape, axis_of(kernel));
  add_updates(work, {base, updates.axis, false}, "scatter add");
}

}  // namespace fluxion::vulkan_backend
