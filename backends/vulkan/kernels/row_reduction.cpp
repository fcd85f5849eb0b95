#include "backends/vulkan/kernels/row_reduction.h"

#include <bit>
#include <limits>

#include "backends/vulkan/spirv/math.h"
#include "engine/graph/op_names.h"

namespace fluxion::vulkan_backend {

using namespace spirv;

namespace {

std::uint32_t log2_of_power(std::uint32_t power) {
  return static_cast<std::uint32_t>(std::countr_zero(power));
}

// Numbers whose order as u32 is that of f32, so that subgroup instructions, which lose NaN, can be
// used: NaN is the largest for max, the smallest for min.
Value ordered_key(Op op, Value x) {
  Module& m = x.module();
  const Value bits = bitcast(U32, x);
  const Value flip = select((bits >> 31) != 0, m.u32(0xFFFFFFFFu), m.u32(0x80000000u));
  return select(is_nan(x), m.u32(op == Op::max ? 0xFFFFFFFFu : 0u), bits ^ flip);
}
Value from_ordered_key(Value key) {
  Module& m = key.module();
  const Value flip = select((key >> 31) != 0, m.u32(0x80000000u), m.u32(0xFFFFFFFFu));
  return bitcast(F32, key ^ flip);
}

// Values of one batch in shared memory at once.
constexpr std::size_t most_shared_values = 8;

}  // namespace

Value neutral_value(Module& module, Op op, Type type) {
  if (op == Op::sum) return module.constant(type, 0);
  if (type == F32) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    return module.f32(op == Op::max ? -infinity : infinity);
  }
  if (type == I32) return module.constant(type, op == Op::max ? 0x80000000u : 0x7FFFFFFFu);
  return module.u32(op == Op::max ? 0u : 0xFFFFFFFFu);
}

Value combined(Op op, Value a, Value b) {
  return op == Op::sum ? a + b : op == Op::max ? maximum(a, b) : minimum(a, b);
}

// ---- one invocation

Accumulator::Accumulator(Module& module, Op op, Type type, bool compensated)
    : op_(op),
      compensated_(compensated && op == Op::sum && type == F32),
      value_(module.variable(neutral_value(module, op, type))) {
  if (compensated_) lost_ = module.variable(module.f32(0));
}

void Accumulator::add(Value value) const {
  const Value before = value_.get(), after = combined(op_, before, value);
  value_.set(after);
  if (!compensated_) return;
  // What the addition rounded off, exactly: D. E. Knuth, "The Art of Computer Programming", 4.2.2.
  const Value of_value = after - before;
  lost_.set(lost_.get() + ((before - (after - of_value)) + (value - of_value)));
}

Value Accumulator::total() const {
  const Value value = value_.get();
  if (!compensated_) return value;
  // After an overflow or an infinity the errors are no numbers.
  const Value lost = lost_.get();
  return select(is_finite(lost), value + lost, value);
}

// ---- a workgroup

Value RowLanes::slot(Module& module) const {
  const Value index = module.local_index();
  if (slots == 1) return module.u32(0);
  return slots_first ? index & (slots - 1) : index >> log2_of_power(lanes);
}

Value RowLanes::lane(Module& module) const {
  const Value index = module.local_index();
  if (lanes == 1) return module.u32(0);
  return slots_first ? index >> log2_of_power(slots) : index & (lanes - 1);
}

std::vector<Value> LaneReduction::reduce(const std::vector<LaneValue>& values) {
  std::vector<Value> results;
  for (std::size_t begin = 0; begin < values.size(); begin += most_shared_values) {
    const std::size_t count = std::min(most_shared_values, values.size() - begin);
    const std::vector<Value> some = reduce_some(std::span(values).subspan(begin, count));
    results.insert(results.end(), some.begin(), some.end());
  }
  return results;
}

std::vector<Value> LaneReduction::reduce_some(std::span<const LaneValue> values) {
  if (lanes_.lanes == 1) {
    std::vector<Value> results;
    for (const LaneValue& each : values) results.push_back(each.value);
    return results;
  }
  // Others may still read what the last call left.
  if (used_) module_.barrier();
  used_ = true;
  return lanes_.slots == 1 && module_.target().subgroup_arithmetic ? by_subgroups(values)
                                                                   : by_tree(values);
}

const SharedArray& LaneReduction::shared(std::size_t number) {
  while (shared_.size() <= number)
    shared_.push_back(module_.shared(U32, lanes_.slots * lanes_.lanes));
  return shared_[number];
}

std::vector<Value> LaneReduction::by_subgroups(std::span<const LaneValue> values) {
  Module& m = module_;
  std::vector<Value> partial;
  for (const LaneValue& each : values) {
    const bool keyed = each.op != Op::sum && each.value.type() == F32;
    const SubgroupReduction reduction = each.op == Op::sum   ? SubgroupReduction::add
                                        : each.op == Op::max ? SubgroupReduction::max
                                                             : SubgroupReduction::min;
    const Value own = keyed ? ordered_key(each.op, each.value) : each.value;
    const Value all = m.subgroup_reduce(reduction, own);
    partial.push_back(keyed ? from_ordered_key(all) : all);
  }
  m.if_then(m.subgroup_lane() == 0, [&] {
    for (std::size_t i = 0; i < values.size(); ++i)
      shared(i).store(m.subgroup_id(), bitcast(U32, partial[i]));
  });
  m.barrier();
  std::vector<Value> initial;
  for (const LaneValue& each : values)
    initial.push_back(neutral_value(m, each.op, each.value.type()));
  return m.loop(m.u32(0), m.subgroup_count(), 1, initial,
                [&](Value k, const std::vector<Value>& so_far) {
                  std::vector<Value> next;
                  for (std::size_t i = 0; i < values.size(); ++i)
                    next.push_back(combined(values[i].op, so_far[i],
                                            bitcast(values[i].value.type(), shared(i).load(k))));
                  return next;
                });
}

std::vector<Value> LaneReduction::by_tree(std::span<const LaneValue> values) {
  Module& m = module_;
  const Value index = m.local_index(), lane = lanes_.lane(m);
  const std::uint32_t stride = lanes_.slots_first ? lanes_.slots : 1;
  const auto at = [&](std::size_t i, Value where) {
    return bitcast(values[i].value.type(), shared(i).load(where));
  };
  for (std::size_t i = 0; i < values.size(); ++i)
    shared(i).store(index, bitcast(U32, values[i].value));
  for (std::uint32_t half = lanes_.lanes / 2; half > 0; half /= 2) {
    m.barrier();
    m.if_then(lane < half, [&] {
      for (std::size_t i = 0; i < values.size(); ++i)
        shared(i).store(index, bitcast(U32, combined(values[i].op, at(i, index),
                                                     at(i, index + half * stride))));
    });
  }
  m.barrier();
  const Value first = lanes_.slots_first ? lanes_.slot(m) : lanes_.slot(m) * lanes_.lanes;
  std::vector<Value> results;
  for (std::size_t i = 0; i < values.size(); ++i) results.push_back(at(i, first));
  return results;
}

}  // namespace fluxion::vulkan_backend
