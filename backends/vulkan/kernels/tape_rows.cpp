#include "backends/vulkan/kernels/tape_rows.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "backends/vulkan/kernels/row_reduction.h"
#include "backends/vulkan/kernels/tape_emitter.h"
#include "engine/divide.h"
#include "engine/graph/op_names.h"
#include "engine/program/affines.h"

namespace fluxion::vulkan_backend {

using namespace spirv;

namespace {

// Units that one round of a loop takes: their loads are under way together.
std::uint32_t units_of_round(const RowPlan& plan) { return plan.width == 8 ? 2 : 4; }

// The coordinates of unit `index`: of the first of its `width` neighbours on the last axis.
std::vector<Value> unit_coordinates(Value index, Dims extents, std::uint32_t width) {
  if (extents.empty()) return {};
  extents.back() /= width;
  std::vector<Value> coordinates = coordinates_of(index, extents);
  coordinates.back() = coordinates.back() * width;
  return coordinates;
}

// One shader of a row reduction.
class RowShader {
 public:
  RowShader(const Tape& tape, const TapeStages& stages, const RowPlan& plan,
            const LoweringContext& context, RowLanes lanes, const char* name)
      : stages_(stages),
        plan_(plan),
        context_(context),
        lanes_(lanes),
        tape_(plan.across ? rows_last(tape) : tape),
        module_(context.target, name, {lanes.slots * lanes.lanes, 1, 1}),
        bindings_(context),
        reduction_(module_, lanes) {
    const auto outer = static_cast<std::ptrdiff_t>(tape.extents.size()) - tape.reduced_axes;
    row_extents_.assign(tape.extents.begin(), tape.extents.begin() + outer);
    unit_extents_.assign(tape.extents.begin() + outer, tape.extents.end());
  }

  // All passes of rows, or - with splits - the reductions of parts of rows, into scratch.
  void emit_passes(Dispatch& dispatch) {
    Module& m = module_;
    begin(dispatch, std::uint64_t{plan_.splits});
    Value first = m.u32(0), end = m.u32(plan_.units);
    if (plan_.splits > 1) {
      const std::uint32_t chunk = ceil_div(plan_.units, plan_.splits);
      first = min(part_ * chunk, m.u32(plan_.units));
      end = min(first + chunk, m.u32(plan_.units));
    }
    if (plan_.unrolled)
      add_emitters(plan_.unrolled);
    else
      add_emitters(context_.target.short_code ? 1 : units_of_round(plan_));
    const bool compensated = plan_.unrolled == 0;  // kept elements are few
    for (std::size_t pass = 0; pass < stages_.passes; ++pass) {
      prepare(pass);
      start_pass(pass, compensated);
      if (plan_.unrolled)
        run_unrolled(pass);
      else
        run_loop(pass, first, end);
      finish_pass(pass);
    }
    if (plan_.splits == 1) store_rows();
  }

  // The second dispatch of split rows: combines the parts, and stores what rows give.
  void emit_combination(Dispatch& dispatch) {
    Module& m = module_;
    begin(dispatch, 1);
    add_emitters(1);
    start_pass(0, true);
    const spirv::Buffer partial = scratch(true);
    const std::size_t together = values_at_once();
    m.for_range(lane_, m.u32(plan_.splits), lanes_.lanes, [&](Value each) {
      for (std::size_t i = 0; i < accumulators_.size(); i += together) {
        const Value values = partial.load(scratch_index(i, each));
        for (std::size_t k = 0; k < together; ++k)
          accumulators_[i + k].add(
              bitcast(types_[i + k], part(values, static_cast<std::uint32_t>(k))));
      }
    });
    finish_reductions(0);
    store_rows();
  }

  std::int64_t scratch_bytes() const {
    return std::int64_t{4} * static_cast<std::int64_t>(stages_.reductions[0].size()) *
           values_per_row() * plan_.splits * plan_.rows;
  }

  Shader finish(Dispatch& dispatch) {
    dispatch.bindings = bindings_.list();
    Shader shader = module_.finish();
    shader.bindings = static_cast<std::uint32_t>(dispatch.bindings.size());
    return shader;
  }

 private:
  // Across, an invocation holds the reductions of `width` rows.
  std::uint32_t values_per_row() const { return plan_.across ? plan_.width : 1; }

  // Of which so many are written to scratch at once.
  std::uint32_t values_at_once() const { return std::min(values_per_row(), 4u); }

  // Where partial value `number` of one part of a row lies in scratch: of each reduction, those of
  // all parts and rows, of which an invocation's neighbours lie together.
  Value scratch_index(std::size_t number, Value part) {
    const std::size_t of_row = values_per_row();
    const auto first = static_cast<std::uint32_t>(number / of_row) * plan_.splits,
               within = static_cast<std::uint32_t>(number % of_row / values_at_once());
    return ((part + first) * plan_.rows + row_) * (values_per_row() / values_at_once()) + within;
  }
  spirv::Buffer scratch(bool reads) {
    const Type type{Scalar::u32, static_cast<std::uint8_t>(values_at_once())};
    return module_.buffer(bindings_.scratch(scratch_bytes(), reads, !reads), type);
  }

  // Which row this invocation works on, and which part of it.
  void begin(Dispatch& dispatch, std::uint64_t parts) {
    Module& m = module_;
    const std::uint64_t row_groups = ceil_div(plan_.rows, lanes_.slots),
                        groups = row_groups * parts;
    dispatch.groups = folded_groups(groups, context_.target);
    Value group = m.workgroup_id(0);
    if (dispatch.groups[1] > 1) group = group + m.workgroup_id(1) * dispatch.groups[0];
    part_ = m.u32(0);
    if (parts > 1) {
      const Split both = split(group, static_cast<std::uint32_t>(parts));
      group = both.quotient;
      part_ = both.remainder;
    }
    lane_ = lanes_.lane(m);
    row_ = group * lanes_.slots + lanes_.slot(m);
    active_ = m.boolean(true);
    const std::uint64_t launched =
        std::uint64_t{dispatch.groups[0]} * dispatch.groups[1] * lanes_.slots;
    if (launched != std::uint64_t{plan_.rows} * parts) {
      // Barriers are for all: what has no row does the last one again, and stores nothing.
      active_ = row_ < plan_.rows;
      row_ = min(row_, m.u32(plan_.rows - 1));
    }
    row_coordinates_ = unit_coordinates(row_, row_extents_, plan_.across ? plan_.width : 1);
  }

  std::vector<Value> coordinates(std::vector<Value> unit) const {
    std::vector<Value> all;
    const std::vector<Value>& first = plan_.across ? unit : row_coordinates_;
    const std::vector<Value>& last = plan_.across ? row_coordinates_ : unit;
    all.insert(all.end(), first.begin(), first.end());
    all.insert(all.end(), last.begin(), last.end());
    return all;
  }

  void add_emitters(std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
      emitters_.push_back(std::make_unique<TapeEmitter>(module_, bindings_, tape_, plan_.width));
      emitters_.back()->move_to_row(
          coordinates(std::vector<Value>(unit_extents_.size(), module_.u32(0))));
    }
  }

  void set_for_all(std::int32_t instruction, Value value, std::uint32_t lane) {
    for (const auto& emitter : emitters_) emitter->set_value(instruction, value, lane);
  }

  // Computes what is constant along the row and is used by the elements of pass `pass`, here where
  // it is in scope for its loop. Not earlier: what is alive across barriers costs registers. (And
  // llvmpipe with LLVM 15 loses some of it: a tanh that was computed before two barriers was stored
  // as another number.) But loads come before the first store, which may take over their memory.
  void prepare(std::size_t pass) {
    const auto compute = [&](std::int32_t number) {
      for (std::uint32_t lane = 0; lane < plan_.width; ++lane)
        set_for_all(number, emitters_[0]->value(number, lane), lane);
    };
    if (pass == 0 && plan_.splits == 1)
      for (std::size_t i = 0; i < tape_.instructions.size(); ++i)
        if (stages_.used[i] && tape_.instructions[i].narrow &&
            tape_.instructions[i].code == TapeCode::load)
          compute(static_cast<std::int32_t>(i));
    std::vector<std::int32_t> wanted;
    for (const std::int32_t reduction : stages_.reductions[pass])
      wanted.push_back(tape_.instructions[static_cast<std::size_t>(reduction)].operands[0]);
    if (pass == stages_.store_pass)
      for (const std::int32_t store : stages_.wide_stores)
        wanted.push_back(tape_.stores[static_cast<std::size_t>(store)].value);
    std::vector<bool> seen(tape_.instructions.size());
    while (!wanted.empty()) {
      const std::int32_t number = wanted.back();
      wanted.pop_back();
      if (number < 0 || seen[static_cast<std::size_t>(number)]) continue;
      seen[static_cast<std::size_t>(number)] = true;
      const TapeInstruction& instruction = tape_.instructions[static_cast<std::size_t>(number)];
      if (!instruction.narrow)
        wanted.insert(wanted.end(), instruction.operands.begin(), instruction.operands.end());
      else if (instruction.code != TapeCode::reduce)
        compute(number);
    }
  }

  void start_pass(std::size_t pass, bool compensated) {
    accumulators_.clear();
    types_.clear();
    for (const std::int32_t number : stages_.reductions[pass]) {
      const TapeInstruction& reduce = tape_.instructions[static_cast<std::size_t>(number)];
      for (std::uint32_t lane = 0; lane < values_per_row(); ++lane) {
        types_.push_back(register_type(reduce.dtype));
        accumulators_.emplace_back(module_, reduce.op, types_.back(), compensated);
      }
    }
  }

  // Adds the emitter's unit to the running values, and stores its wide values in the last pass.
  void visit(TapeEmitter& emitter, std::size_t pass, Value valid) {
    std::size_t next = 0;
    for (const std::int32_t number : stages_.reductions[pass]) {
      const TapeInstruction& reduce = tape_.instructions[static_cast<std::size_t>(number)];
      const std::int32_t operand = reduce.operands[0];
      const auto counted = [&](Value value) {
        return select(valid, value, neutral_value(module_, reduce.op, value.type()));
      };
      if (plan_.across) {
        for (std::uint32_t lane = 0; lane < plan_.width; ++lane)
          accumulators_[next++].add(counted(emitter.value(operand, lane)));
        continue;
      }
      // A tree over the neighbours.
      std::vector<Value> sums;
      for (std::uint32_t lane = 0; lane < plan_.width; ++lane)
        sums.push_back(emitter.value(operand, lane));
      for (; sums.size() > 1; sums.resize(sums.size() / 2))
        for (std::size_t i = 0; i < sums.size() / 2; ++i)
          sums[i] = combined(reduce.op, sums[2 * i], sums[2 * i + 1]);
      accumulators_[next++].add(counted(sums[0]));
    }
    if (pass == stages_.store_pass && !stages_.wide_stores.empty())
      module_.if_then(valid & active_, [&] { emitter.store(stages_.wide_stores); });
  }

  void run_unrolled(std::size_t pass) {
    Module& m = module_;
    for (std::uint32_t k = 0; k < plan_.unrolled; ++k) {
      const bool whole = (k + 1) * lanes_.lanes <= plan_.units;
      const Value unit = lane_ + k * lanes_.lanes;
      const Value valid = whole ? m.boolean(true) : unit < plan_.units;
      if (pass == 0)
        emitters_[k]->move_to(
            coordinates(unit_coordinates(whole ? unit : min(unit, m.u32(plan_.units - 1)),
                                         unit_extents_, plan_.across ? 1 : plan_.width)));
      visit(*emitters_[k], pass, valid);
    }
  }

  void run_loop(std::size_t pass, Value first, Value end) {
    Module& m = module_;
    const auto visit_unit = [&](TapeEmitter& emitter, Value unit) {
      emitter.move_to(
          coordinates(unit_coordinates(unit, unit_extents_, plan_.across ? 1 : plan_.width)));
      visit(emitter, pass, m.boolean(true));
    };
    const std::uint32_t together = units_of_round(plan_), round = together * lanes_.lanes;
    Value rest = first;
    if (emitters_.size() > 1 && plan_.units / plan_.splits >= 2 * round &&
        tape_.instructions.size() <= 64) {
      const Value rounds = (end - first) / m.u32(round);
      // (Unrolled further, the values of too many units would be alive at once.)
      m.for_range(
          m.u32(0), rounds, 1,
          [&](Value i) {
            for (std::uint32_t k = 0; k < together; ++k)
              visit_unit(*emitters_[k], first + i * round + (lane_ + k * lanes_.lanes));
          },
          Unroll::no);
      rest = first + rounds * round;
    }
    m.for_range(rest + lane_, end, lanes_.lanes,
                [&](Value unit) { visit_unit(*emitters_[0], unit); });
  }

  std::vector<Value> reduced_over_lanes(std::size_t pass) {
    std::vector<LaneValue> values;
    std::size_t next = 0;
    for (const std::int32_t number : stages_.reductions[pass])
      for (std::uint32_t lane = 0; lane < values_per_row(); ++lane)
        values.push_back({tape_.instructions[static_cast<std::size_t>(number)].op,
                          accumulators_[next++].total()});
    return reduction_.reduce(values);
  }

  void finish_reductions(std::size_t pass) {
    const std::vector<Value> totals = reduced_over_lanes(pass);
    std::size_t next = 0;
    for (const std::int32_t number : stages_.reductions[pass])
      for (std::uint32_t lane = 0; lane < values_per_row(); ++lane)
        set_for_all(number, totals[next++], lane);
  }

  void finish_pass(std::size_t pass) {
    if (plan_.splits == 1) return finish_reductions(pass);
    Module& m = module_;
    const std::vector<Value> totals = reduced_over_lanes(pass);
    const spirv::Buffer partial = scratch(false);
    m.if_then((lane_ == 0) & active_, [&] {
      const std::size_t together = values_at_once();
      for (std::size_t i = 0; i < totals.size(); i += together) {
        std::vector<Value> bits;
        for (std::size_t k = 0; k < together; ++k) bits.push_back(bitcast(U32, totals[i + k]));
        partial.store(scratch_index(i, part_), compose(bits));
      }
    });
  }

  void store_rows() {
    if (stages_.narrow_stores.empty()) return;
    module_.if_then((lane_ == 0) & active_, [&] { emitters_[0]->store(stages_.narrow_stores); });
  }

  const TapeStages& stages_;
  const RowPlan& plan_;
  const LoweringContext& context_;
  const RowLanes lanes_;
  const Tape tape_;
  Dims row_extents_, unit_extents_;
  Module module_;
  ShaderBindings bindings_;
  LaneReduction reduction_;
  std::vector<std::unique_ptr<TapeEmitter>> emitters_;
  std::vector<Accumulator> accumulators_;
  std::vector<Type> types_;
  std::vector<Value> row_coordinates_;
  Value part_, lane_, row_, active_;
};

}  // namespace

KernelWork lower_rows(const Tape& tape, const LoweringContext& context) {
  const TapeStages stages = stages_of(tape);
  const RowPlan plan = plan_rows(tape, stages, context.target, context.storage);
  KernelWork work;
  if (plan.rows == 0) return work;
  Dispatch dispatch;
  estimate(tape, context, dispatch);
  RowShader rows(tape, stages, plan, context, {plan.slots, plan.lanes, plan.across},
                 plan.splits > 1 ? "rows in parts" : "rows");
  rows.emit_passes(dispatch);
  work.shaders.push_back(rows.finish(dispatch));
  work.dispatches.push_back(dispatch);
  if (plan.splits == 1) return work;

  // Few parts of each row: many rows a workgroup, neighbours side by side.
  const std::uint32_t group = plan.slots * plan.lanes;
  RowLanes lanes;
  lanes.lanes = std::min(group, std::bit_ceil(plan.splits));
  while (lanes.lanes > 4 && group / lanes.lanes < std::min(plan.rows, 32u)) lanes.lanes /= 2;
  lanes.slots = group / lanes.lanes;
  lanes.slots_first = true;
  RowShader combination(tape, stages, plan, context, lanes, "parts of rows");
  Dispatch second;
  second.shader = 1;
  combination.emit_combination(second);
  work.scratch_bytes = combination.scratch_bytes();
  second.flops = second.moved_bytes = static_cast<double>(work.scratch_bytes);
  work.shaders.push_back(combination.finish(second));
  work.dispatches.push_back(second);
  return work;
}

}  // namespace fluxion::vulkan_backend
