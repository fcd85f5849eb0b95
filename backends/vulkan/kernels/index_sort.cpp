// Runs of up to 1,024 elements are sorted in shared memory by a bitonic network. Longer lines are
// then merged, run by run: each element finds its place by counting the elements of the other run
// that come before it. No pass depends on the order in which invocations run.
#include "backends/vulkan/kernels/index_sort.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "engine/divide.h"

namespace fluxion::vulkan_backend {

using spirv::SharedArray;
using spirv::Split;
using spirv::Value;

namespace {

constexpr std::int64_t longest_run = 1024;

// Items of shared memory, by key and then by position.
struct SharedItems {
  SharedArray keys, positions;

  // Puts the smaller of two items at `low`.
  void order(spirv::Module& m, Value low, Value high) const {
    const Value key = keys.load(low), other_key = keys.load(high);
    const Value position = positions.load(low), other_position = positions.load(high);
    const Value after = (key > other_key) | ((key == other_key) & (position > other_position));
    m.if_then(after, [&] {
      keys.store(low, other_key);
      keys.store(high, key);
      positions.store(low, other_position);
      positions.store(high, position);
    });
  }
};

// Sorts each aligned run of `run` items (a power of two) of `items`.
void sort_runs(spirv::Module& m, const SharedItems& shared, std::uint32_t items,
               std::uint32_t run) {
  const Value lane = m.local_index();
  const auto pairs = [&](const std::function<void(Value pair)>& body) {
    m.for_range(lane, m.u32(items / 2), m.invocations(), body);
    m.barrier();
  };
  const auto stages = static_cast<std::uint32_t>(std::countr_zero(run));
  m.for_range(
      m.u32(0), m.u32(stages), 1,
      [&](Value stage) {
        // Two sorted runs of 2^stage are one after the other: the second is read backwards.
        pairs([&](Value pair) {
          const Value block = (pair >> stage) << (stage + 1);
          const Value offset = pair - ((pair >> stage) << stage);
          const Value last = (m.u32(2) << stage) - 1;
          shared.order(m, block + offset, block + last - offset);
        });
        m.for_range(
            m.u32(0), stage, 1,
            [&](Value step) {
              const Value shift = stage - 1 - step;
              pairs([&](Value pair) {
                const Value low = ((pair >> shift) << shift) + pair;
                shared.order(m, low, low + (m.u32(1) << shift));
              });
            },
            spirv::Unroll::no);
      },
      spirv::Unroll::no);
}

// The sorted runs between passes, line after line.
struct Runs {
  DispatchBinding keys, positions;
};

std::function<StoreSorted(OpShader&)> store_to(const Runs& runs, std::int64_t length) {
  return [runs, length](OpShader& shader) {
    const spirv::Buffer keys = shader.writes(runs.keys, spirv::U32),
                        positions = shader.writes(runs.positions, spirv::U32);
    return [keys, positions, length](Value line, Value rank, Value key, Value position) {
      const Value at = line * length + rank;
      keys.store(at, key);
      positions.store(at, position);
    };
  };
}

void sort_blocks(OpWork& work, std::int64_t lines, std::int64_t length, std::int64_t run,
                 const std::function<LoadKey(OpShader&)>& load,
                 const std::function<StoreSorted(OpShader&)>& store) {
  // Short lines share a workgroup, each padded to a power of two; a long one is many blocks.
  const std::int64_t blocks = ceil_div(length, run);
  std::int64_t items = run;
  while (blocks == 1 && items < 2 * work.group_size() && items < run * lines) items *= 2;
  const std::int64_t lines_at_once = items / run;
  const std::int64_t groups = blocks > 1 ? lines * blocks : ceil_div(lines, lines_at_once);
  const auto invocations =
      static_cast<std::uint32_t>(std::clamp<std::int64_t>(items / 2, 1, work.group_size()));

  OpShader shader(work, "sort", groups, invocations);
  spirv::Module& m = shader.module();
  const LoadKey key_at = load(shader);
  const StoreSorted store_at = store(shader);
  const auto item_count = static_cast<std::uint32_t>(items);
  const SharedItems shared{m.shared(spirv::U32, item_count), m.shared(spirv::U32, item_count)};
  shader.for_each_group([&](Value group) {
    const Split block = split(group, static_cast<std::uint32_t>(blocks));
    const auto for_each = [&](const std::function<void(Value, Value, Value)>& body) {
      m.for_range(m.local_index(), m.u32(item_count), invocations, [&](Value item) {
        const Split place = split(item, static_cast<std::uint32_t>(run));
        const Value line = block.quotient * lines_at_once + place.quotient;
        body(item, line, block.remainder * run + place.remainder);
      });
    };
    const auto exists = [&](Value line, Value position) {
      return (line < lines) & (position < length);
    };
    for_each([&](Value item, Value line, Value position) {
      // Padding comes last: it has the largest key, and a larger position than all elements.
      const Value key = m.choose(
          exists(line, position), [&] { return key_at(line, position); },
          [&] { return m.u32(~0u); });
      shared.keys.store(item, key);
      shared.positions.store(item, position);
    });
    m.barrier();
    sort_runs(m, shared, item_count, static_cast<std::uint32_t>(run));
    for_each([&](Value item, Value line, Value rank) {
      m.if_then(exists(line, rank),
                [&] { store_at(line, rank, shared.keys.load(item), shared.positions.load(item)); });
    });
  });
  const double stages = std::countr_zero(static_cast<std::uint64_t>(run));
  const double all = static_cast<double>(lines) * static_cast<double>(length);
  shader.finish(all * stages * stages, 16 * all);
}

void merge_runs(OpWork& work, std::int64_t lines, std::int64_t length, std::int64_t run,
                const Runs& from, const std::function<StoreSorted(OpShader&)>& store) {
  OpShader shader(work, "merge", Items{lines * length});
  const spirv::Buffer keys = shader.reads(from.keys, spirv::U32),
                      positions = shader.reads(from.positions, spirv::U32);
  const StoreSorted store_at = store(shader);
  shader.for_each_item([&](Value item) {
    const Split element = split(item, static_cast<std::uint32_t>(length));
    const Split place = split(element.remainder, static_cast<std::uint32_t>(run));
    const Value is_second = (place.quotient & 1) != 0;
    const Value other = min((place.quotient ^ 1) * run, length);
    const Value other_end = min(other + static_cast<std::uint32_t>(run), length);
    const Value key = keys.load(item);
    // Equal keys: those of the first run come first.
    const Value before = keys_before(keys, element.quotient * length + other, other_end - other,
                                     run, key, is_second);
    const Value rank = (place.quotient >> 1) * (2 * run) + place.remainder + before;
    store_at(element.quotient, rank, key, positions.load(item));
  });
  const double all = static_cast<double>(lines) * static_cast<double>(length);
  shader.finish(all * std::countr_zero(static_cast<std::uint64_t>(run)), 32 * all);
}

}  // namespace

Value keys_before(const spirv::Buffer& keys, Value first, Value count, std::int64_t most, Value key,
                  Value inclusive) {
  spirv::Module& m = key.module();
  const auto steps = static_cast<std::uint32_t>(std::bit_width(static_cast<std::uint64_t>(most)));
  // In [low, high] is the answer.
  const std::vector<Value> found = m.loop(
      m.u32(0), m.u32(steps), 1, {m.u32(0), count},
      [&](Value, const std::vector<Value>& range) -> std::vector<Value> {
        const Value low = range[0], high = range[1], open = low < high;
        const Value middle = (low + high) >> 1;
        const Value at = m.choose(
            open, [&] { return keys.load(first + middle); }, [&] { return m.u32(0); });
        const Value before = (at < key) | (inclusive & (at == key));
        return {select(open & before, middle + 1, low), select(open & !before, middle, high)};
      },
      spirv::Unroll::no);
  return found[0];
}

void sort_lines(OpWork& work, std::int64_t lines, std::int64_t length,
                const std::function<LoadKey(OpShader&)>& load,
                const std::function<StoreSorted(OpShader&)>& store) {
  const std::int64_t most_shared =
      static_cast<std::int64_t>(std::bit_floor(work.target().shared_bytes / 8));
  const std::int64_t longest = std::min(longest_run, most_shared);
  if (length <= longest) {
    const auto run = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(length)));
    return sort_blocks(work, lines, length, run, load, store);
  }
  Runs from{work.scratch(lines * length), work.scratch(lines * length)};
  Runs to = from;
  if (2 * longest < length) to = {work.scratch(lines * length), work.scratch(lines * length)};
  sort_blocks(work, lines, length, longest, load, store_to(from, length));
  for (std::int64_t run = longest; run < length; run *= 2) {
    const bool last = 2 * run >= length;
    merge_runs(work, lines, length, run, from, last ? store : store_to(to, length));
    std::swap(from, to);
  }
}

// Stable; NaN comes last in both directions.
void lower_argsort(OpWork& work) {
  const OpKernel& kernel = work.kernel();
  const auto& attributes = std::get<SortAttributes>(kernel.attributes);
  const DType dtype = kernel.input_types[0].dtype;
  const AxisView x = axis_view(kernel.input_types[0].shape, attributes.axis);
  work.computed(dtype);
  if (x.elements() == 0) return;
  const auto element = [x](Value line, Value k) {
    const Split place = split(line, static_cast<std::uint32_t>(x.inner));
    return element_of(x, place.quotient, k, place.remainder);
  };
  sort_lines(
      work, x.lines(), x.axis,
      [&](OpShader& shader) -> LoadKey {
        const spirv::Buffer values = shader.reads(work.input(0), spirv::U32);
        return [=, descending = attributes.descending](Value line, Value position) {
          const Value bits = values.load(element(line, position));
          return descending ? descending_key(dtype, bits) : ordered_key(dtype, bits);
        };
      },
      [&](OpShader& shader) -> StoreSorted {
        const spirv::Buffer order = shader.writes(work.output(), spirv::U32);
        return [=](Value line, Value rank, Value, Value position) {
          order.store(element(line, rank), position);
        };
      });
}

}  // namespace fluxion::vulkan_backend
