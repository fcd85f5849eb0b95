#include "engine/plan/lower.h"

#include <algorithm>
#include <map>
#include <set>

#include "engine/graph/op_names.h"
#include "engine/plan/tape_edit.h"
#include "engine/plan/view.h"

namespace fluxion::plan {

BufferId BufferNumbers::of(Value value) {
  numbers_.resize(graph_.nodes.size());
  auto& outputs = numbers_[value.node];
  outputs.resize(graph_[value].outputs.size());
  BufferId& number = outputs[static_cast<std::size_t>(value.output)];
  if (!number) number = values_.add(value);
  return number;
}

namespace {

// The dtype that a value has in a register.
DType register_dtype(DType dtype) {
  switch (dtype) {
    case DType::bf16:
    case DType::f16:
      return DType::f32;
    case DType::u8:
    case DType::i64:
      return DType::i32;
    default:
      return dtype;
  }
}

// Thrown and caught in this file, to start again with a finer iteration space.
struct NeedsSplit {
  AxisSplit split;
};
// Thrown where an index can't be followed: this operand must be copied to memory.
struct Stuck {
  Use use;
};

class TapeWriter {
 public:
  TapeWriter(const Graph& graph, const Group& group, BufferNumbers& buffers)
      : graph_(graph), group_(group), buffers_(buffers) {
    hosted_.insert(group.nodes.begin(), group.nodes.end());
    // Axes of the tape: kept ones first, then reduced ones, each in the order of the values' axes.
    Dims kept, reduced;
    for (std::size_t k = 0; k < group.space.sizes.size(); ++k)
      (group.space.reduced[k] ? reduced : kept).push_back(group.space.sizes[k]);
    space_.extents = kept;
    space_.extents.insert(space_.extents.end(), reduced.begin(), reduced.end());
    space_.reduced_axes = static_cast<std::int32_t>(reduced.size());
    std::size_t next_kept = 0, next_reduced = kept.size();
    for (const bool is_reduced : group.space.reduced)
      axes_.push_back(
          axis_affine(is_reduced ? next_reduced++ : next_kept++, space_.extents.size()));
  }

  Tape write() {
    for (int round = 0; round < 256; ++round) {
      try {
        return attempt();
      } catch (const NeedsSplit& needed) {
        for (Affine& axis : axes_) refine(axis, needed.split);
        refine(space_, needed.split);
      }
    }
    throw Stuck{trail_};
  }

 private:
  using Ranges = std::vector<AffineRange>;

  Tape attempt() {
    tape_ = Tape{};
    memo_.clear();
    first_ = {};
    tape_.extents = space_.extents;
    tape_.reduced_axes = space_.reduced_axes;
    for (const NodeId n : group_.stores) {
      const TensorType& type = graph_[n].outputs[0];
      const Point point = canonical(type.shape);
      std::int32_t value = emit({n, 0}, point, {});
      const Affine address = linear_address(point, type.shape, space_.extents.size());
      if (tape_.reduced_axes > 0 && squeeze(type.shape) == group_.space.sizes)
        value = widened(value);
      tape_.stores.push_back({value, buffers_.of({n, 0}).number, type.dtype, address});
    }
    tape_.streaming = tape_.reduced_axes > 0 && streams();
    tidy(tape_);
    return tape_;
  }

  // The point of a value of this shape for each point of the space. Fusion puts only values that
  // have one in the group.
  Point canonical(const Shape& shape) const {
    return canonical_point(group_.space, shape, axes_, space_.extents.size()).value();
  }

  std::int32_t push(TapeInstruction instruction) {
    tape_.instructions.push_back(instruction);
    return static_cast<std::int32_t>(tape_.instructions.size()) - 1;
  }

  bool wide_affine(const Affine& affine) const {
    return depends_on(affine, space_.extents.size() - static_cast<std::size_t>(space_.reduced_axes),
                      space_.extents.size());
  }
  bool narrow(const Affine& affine) const { return tape_.reduced_axes > 0 && !wide_affine(affine); }
  bool narrow(const std::vector<LoadGuard>& guards) const {
    return std::all_of(guards.begin(), guards.end(),
                       [&](const LoadGuard& guard) { return !wide_affine(guard.range.index); });
  }

  // An index that grows beyond reach on its way down to memory needs a copy on the way. Copying
  // below the first movement op makes the rest of the way shorter each time.
  Stuck too_far() const {
    if (!first_.user)
      throw Error("lowering: an index is beyond reach without any view; this is a planner error");
    return Stuck{first_};
  }

  std::int32_t apply(Op op, DType dtype, std::initializer_list<std::int32_t> operands,
                     bool force_wide = false) {
    TapeInstruction made{TapeCode::apply, op, dtype, tape_.reduced_axes > 0 && !force_wide, 0,
                         {-1, -1, -1}};
    std::size_t k = 0;
    for (const std::int32_t operand : operands) {
      made.operands[k++] = operand;
      made.narrow = made.narrow && tape_.instructions[static_cast<std::size_t>(operand)].narrow;
    }
    return push(made);
  }

  std::int32_t widened(std::int32_t value) {
    const TapeInstruction& instruction = tape_.instructions[static_cast<std::size_t>(value)];
    return instruction.narrow ? apply(Op::identity, instruction.dtype, {value}, true) : value;
  }

  // Loads from the memory of `value`, read as an array of shape `shape`.
  std::int32_t load(Value value, const Shape& shape, const Point& point, const Ranges& conditions) {
    return load(value, shape, point, conditions, register_dtype(graph_.type(value).dtype));
  }
  std::int32_t load(Value value, const Shape& shape, const Point& point, const Ranges& conditions,
                    DType into) {
    std::optional<GuardedAddress> place = guarded_address(point, shape, conditions, space_);
    if (!place) throw too_far();
    const DType dtype = graph_.type(value).dtype;
    const bool is_narrow = narrow(place->address) && narrow(place->guards);
    tape_.loads.push_back(
        {buffers_.of(value).number, dtype, std::move(place->address), std::move(place->guards)});
    return push({TapeCode::load,
                 Op::identity,
                 into,
                 is_narrow,
                 static_cast<std::int32_t>(tape_.loads.size()) - 1,
                 {-1, -1, -1}});
  }

  std::int32_t in_range(const AffineRange& range) {
    tape_.ranges.push_back(range);
    return push({TapeCode::in_range,
                 Op::identity,
                 DType::boolean,
                 narrow(range.index),
                 static_cast<std::int32_t>(tape_.ranges.size()) - 1,
                 {-1, -1, -1}});
  }

  std::int32_t number(double value, DType dtype) {  // 0, 1 or -1
    return push({TapeCode::literal,
                 Op::identity,
                 register_dtype(dtype),
                 tape_.reduced_axes > 0,
                 static_cast<std::int32_t>(value),
                 {-1, -1, -1}});
  }

  // The tape value of `value` at `point`. `conditions` guard its loads: the point may lie outside
  // of a padded operand.
  std::int32_t emit(Value value, Point point, const Ranges& conditions) {
    const auto first = first_;
    const std::int32_t result = follow_down(value, std::move(point), conditions);
    first_ = first;
    return result;
  }

  std::int32_t follow_down(Value value, Point point, const Ranges& conditions) {
    while (true) {
      const Key key{value, flat(point, conditions)};
      if (const auto found = memo_.find(key); found != memo_.end()) return found->second;
      const GraphNode& node = graph_[value];
      const DType dtype = graph_.type(value).dtype;
      std::int32_t result = -1;
      switch (info(node.op).op_class) {
        case OpClass::leaf:
          if (node.op == Op::constant) {
            result = node.scalar >= 0
                         ? push({TapeCode::scalar,
                                 Op::identity,
                                 register_dtype(dtype),
                                 tape_.reduced_axes > 0,
                                 node.scalar,
                                 {-1, -1, -1}})
                         : number(std::get<ValueAttributes>(node.attributes).value, dtype);
          } else if (node.op == Op::iota) {
            const Affine index =
                point[static_cast<std::size_t>(std::get<AxisAttributes>(node.attributes).axis)];
            tape_.indices.push_back(index);
            result = push({TapeCode::index,
                           Op::identity,
                           register_dtype(dtype),
                           narrow(index),
                           static_cast<std::int32_t>(tape_.indices.size()) - 1,
                           {-1, -1, -1}});
          } else {
            result = load(value, graph_.type(value).shape, point, conditions);
          }
          break;
        case OpClass::movement: {
          trail_ = {value.node, 0};
          if (!first_.user) first_ = trail_;
          if (node.op == Op::pad || node.op == Op::concat) {
            result = emit_pieces(node, point, conditions);
            break;
          }
          const Value input = node.inputs[0];
          if (node.op == Op::reshape && loaded(input)) {
            result = load(input, graph_.type(value).shape, point, conditions);
            break;
          }
          Step step = follow(node, graph_.type(input).shape, 0, point, space_);
          if (step.outcome == Step::Outcome::split) throw NeedsSplit{step.split};
          if (step.outcome == Step::Outcome::impossible) throw Stuck{trail_};
          if (step.outcome == Step::Outcome::too_far) throw too_far();
          value = input;
          point = std::move(step.point);
          continue;
        }
        case OpClass::elementwise:
          if (!hosted_.contains(value.node)) {
            result = load(value, graph_.type(value).shape, point, conditions);
            break;
          }
          // No register holds a 64-bit integer: the load converts it.
          if (node.op == Op::convert && graph_.type(node.inputs[0]).dtype == DType::i64) {
            result = load(node.inputs[0], graph_.type(node.inputs[0]).shape, point, conditions,
                          register_dtype(dtype));
            break;
          }
          result = emit_elementwise(node, point, conditions);
          break;
        case OpClass::reduction:
          if (!hosted_.contains(value.node)) {
            result = load(value, graph_.type(value).shape, point, conditions);
            break;
          }
          if (node.outputs[0].shape.elements() > 0 &&
              linear_address(point, node.outputs[0].shape, space_.extents.size()) !=
                  linear_address(canonical(node.outputs[0].shape), node.outputs[0].shape,
                                 space_.extents.size()))
            throw Stuck{trail_};
          {
            first_ = {};
            const std::int32_t operand =
                widened(emit(node.inputs[0], canonical(graph_.type(node.inputs[0]).shape), {}));
            result = push(
                {TapeCode::reduce, node.op, register_dtype(dtype), true, 0, {operand, -1, -1}});
          }
          break;
        default:
          result = load(value, graph_.type(value).shape, point, conditions);
          break;
      }
      memo_.emplace(key, result);
      return result;
    }
  }

  bool loaded(Value value) const {
    const OpClass op_class = info(graph_[value].op).op_class;
    if (op_class == OpClass::movement) return false;
    if (op_class == OpClass::leaf) return graph_[value].op == Op::parameter;
    return !hosted_.contains(value.node);
  }

  std::int32_t emit_elementwise(const GraphNode& node, const Point& point,
                                const Ranges& conditions) {
    std::vector<std::int32_t> operands;
    for (const Value input : node.inputs) operands.push_back(emit(input, point, conditions));
    if (node.op == Op::identity) return operands[0];  // the store makes the copy
    // Bytes, 64-bit integers and 16-bit floats exist in memory only: loads and stores convert.
    if (node.op == Op::convert &&
        (node.outputs[0].dtype == DType::u8 || node.outputs[0].dtype == DType::i64) &&
        graph_.type(node.inputs[0]).dtype != DType::boolean)
      return operands[0];
    if (node.op == Op::convert && register_dtype(graph_.type(node.inputs[0]).dtype) == DType::f32 &&
        register_dtype(node.outputs[0].dtype) == DType::f32)
      return operands[0];
    const DType dtype = register_dtype(node.outputs[0].dtype);
    const auto of = [&](std::size_t i) { return operands[i]; };
    switch (operands.size()) {
      case 1:
        return apply(node.op, dtype, {of(0)});
      case 2:
        return apply(node.op, dtype, {of(0), of(1)});
      default:
        return apply(node.op, dtype, {of(0), of(1), of(2)});
    }
  }

  // Padding and concatenation: each element is read from one of the operands, or is padding.
  std::int32_t emit_pieces(const GraphNode& node, const Point& point, const Ranges& conditions) {
    const DType dtype = node.outputs[0].dtype;
    std::int32_t result = -1;
    std::int64_t start = 0;
    const NodeId pieces = trail_.user;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      trail_ = {pieces, static_cast<std::int32_t>(i)};
      if (first_.user == pieces) first_ = trail_;
      const Shape& operand = graph_.type(node.inputs[i]).shape;
      Step step = follow(node, operand, start, point, space_);
      if (step.outcome == Step::Outcome::too_far) throw too_far();
      const Ranges ranges = in_operand(node, operand, start, point);
      Ranges inner = conditions;
      inner.insert(inner.end(), ranges.begin(), ranges.end());
      const std::int32_t piece = emit(node.inputs[i], std::move(step.point), inner);
      // A guarded load is zero outside of its operand. simplify() replaced padding with other
      // values by a choice.
      if (node.op == Op::pad &&
          tape_.instructions[static_cast<std::size_t>(piece)].code == TapeCode::load)
        return piece;
      if (node.op == Op::concat) {
        start += operand[std::get<AxisAttributes>(node.attributes).axis];
        if (result < 0) {  // the first piece needs no test: later pieces override it
          result = piece;
          continue;
        }
      } else if (result < 0) {
        result = number(0, dtype);
      }
      const std::int32_t outside = result;
      result = piece;
      for (const AffineRange& range : ranges)
        result = apply(Op::where, register_dtype(dtype), {in_range(range), result, outside});
    }
    return result;
  }

  // Whether no wide value depends on a reduction.
  bool streams() const {
    std::vector<bool> tainted;
    for (const TapeInstruction& instruction : tape_.instructions) {
      bool depends = instruction.code == TapeCode::reduce;
      for (const std::int32_t operand : instruction.operands) {
        if (operand < 0 || !tainted[static_cast<std::size_t>(operand)]) continue;
        if (!instruction.narrow || instruction.code == TapeCode::reduce) return false;
        depends = true;
      }
      tainted.push_back(depends);
    }
    return true;
  }

  struct Key {
    Value value;
    Dims where;
    bool operator<(const Key& other) const {
      return std::tie(value, where) < std::tie(other.value, other.where);
    }
  };
  static Dims flat(const Point& point, const Ranges& conditions) {
    Dims result;
    const auto add = [&](const Affine& affine) {
      result.push_back(affine.constant);
      result.insert(result.end(), affine.coefficients.begin(), affine.coefficients.end());
    };
    for (const Affine& affine : point) add(affine);
    for (const AffineRange& condition : conditions) {
      result.push_back(condition.low);
      result.push_back(condition.high);
      add(condition.index);
    }
    return result;
  }

  const Graph& graph_;
  const Group& group_;
  BufferNumbers& buffers_;
  std::set<NodeId> hosted_;
  IterationSpace space_;
  std::vector<Affine> axes_;  // the axes of the group's space as functions of the tape's axes
  Tape tape_;
  std::map<Key, std::int32_t> memo_;
  // The last and the first movement operand on the way down from a stored or reduced value.
  Use trail_, first_;
};

}  // namespace

std::optional<Tape> lower_group(const Graph& graph, const Group& group, BufferNumbers& buffers,
                                std::vector<Use>& stuck) {
  try {
    return TapeWriter(graph, group, buffers).write();
  } catch (const Stuck& found) {
    stuck.push_back(found.use);
    return std::nullopt;
  }
}

namespace {

// Follows a matrix operand down to memory. Its last `matrix_axes` axes are the rows and columns, or
// the rows if it is one axis.
ContractOperand lower_operand(const Graph& graph, Value value, BufferNumbers& buffers,
                              std::size_t matrix_axes = 2) {
  const Shape& shape = graph.type(value).shape;
  const auto rank = static_cast<std::size_t>(shape.rank());
  IterationSpace space{shape.dims(), 0};
  std::vector<std::size_t> owner;  // per iteration axis: the operand axis that it is part of
  for (std::size_t k = 0; k < rank; ++k) owner.push_back(k);
  Point start;
  for (std::size_t k = 0; k < rank; ++k) start.push_back(axis_affine(k, rank));
  for (int round = 0; round < 256; ++round) {
    Value at = value;
    Point point = start;
    std::optional<AxisSplit> split;
    std::optional<Affine> address;
    while (!address && !split) {
      const GraphNode& node = graph[at];
      if (info(node.op).op_class != OpClass::movement) {
        address = linear_address(point, graph.type(at).shape, space.extents.size());
        break;
      }
      const Value input = node.inputs[0];
      if (node.op == Op::reshape && info(graph[input].op).op_class != OpClass::movement) {
        address = linear_address(point, graph.type(at).shape, space.extents.size());
        at = input;
        break;
      }
      Step step = follow(node, graph.type(input).shape, 0, point, space);
      if (step.outcome == Step::Outcome::impossible || step.outcome == Step::Outcome::too_far)
        throw Error("matmul: an operand's view does not fold; this is a planner error");
      if (step.outcome == Step::Outcome::split) split = step.split;
      point = std::move(step.point);
      if (!split) at = input;
    }
    if (split) {
      for (Affine& affine : start) refine(affine, *split);
      refine(space, *split);
      owner.insert(owner.begin() + static_cast<std::ptrdiff_t>(split->axis) + 1,
                   owner[split->axis]);
      continue;
    }
    ContractOperand operand;
    operand.buffer = buffers.of(at).number;
    operand.offset = address->constant;
    for (std::size_t k = 0; k < space.extents.size(); ++k) {
      if (space.extents[k] == 1) continue;
      OperandAxis& axis = owner[k] + matrix_axes < rank    ? operand.batch
                          : owner[k] + matrix_axes == rank ? operand.rows
                                                           : operand.columns;
      // Merge digits that continue one another in memory.
      if (!axis.sizes.empty() &&
          axis.strides.back() == address->coefficients[k] * space.extents[k]) {
        axis.sizes.back() *= space.extents[k];
        axis.strides.back() = address->coefficients[k];
      } else {
        axis.sizes.push_back(space.extents[k]);
        axis.strides.push_back(address->coefficients[k]);
      }
    }
    return operand;
  }
  throw Error("matmul: an operand's view does not fold; this is a planner error");
}

}  // namespace

ContractKernel lower_contraction(const Graph& graph, NodeId n, BufferNumbers& buffers) {
  const GraphNode& node = graph[n];
  const Shape &shape = node.outputs[0].shape, &lhs = graph.type(node.inputs[0]).shape;
  ContractKernel kernel;
  kernel.lhs = graph.type(node.inputs[0]).dtype;
  kernel.rhs = graph.type(node.inputs[1]).dtype;
  kernel.accumulate = std::get<ContractAttributes>(node.attributes).accumulate;
  const std::int64_t rank = shape.rank();
  for (std::int64_t axis = 0; axis < rank - 2; ++axis) kernel.batch *= shape[axis];
  kernel.m = shape[rank - 2];
  kernel.n = shape[rank - 1];
  kernel.k = lhs[rank - 1];
  kernel.terms.push_back({lower_operand(graph, node.inputs[0], buffers),
                          lower_operand(graph, node.inputs[1], buffers), 0});
  // The trivial epilogue stores the result; the store rounds it to 16 bits where asked.
  Tape& tape = kernel.epilogue;
  tape.extents = {kernel.batch, kernel.m, kernel.n};
  tape.instructions.push_back(
      {TapeCode::result, Op::identity, kernel.accumulate, false, 0, {-1, -1, -1}});
  tape.stores.push_back({0,
                         buffers.of({n, 0}).number,
                         node.outputs[0].dtype,
                         {0, {kernel.m * kernel.n, kernel.n, 1}}});
  return kernel;
}

OpKernel lower_op(const Graph& graph, NodeId n, BufferNumbers& buffers) {
  const GraphNode& node = graph[n];
  OpKernel kernel{node.op, node.attributes, {}, {}, {}, node.outputs, {}};
  const bool views = info(node.op).op_class == OpClass::fused;
  // An op kernel names a run-time scalar by its number.
  if (node.scalar >= 0) kernel.attributes = IndexAttributes{node.scalar};
  for (const Value input : node.inputs) {
    kernel.input_types.push_back(graph.type(input));
    if (views) {
      // Only the cotangent of lse has fewer axes than the output: a row per token.
      const bool row = graph.type(input).shape.rank() < node.outputs[0].shape.rank();
      kernel.views.push_back(lower_operand(graph, input, buffers, row ? 1 : 2));
      kernel.inputs.push_back(kernel.views.back().buffer);
    } else {
      const bool moves = info(node.op).op_class == OpClass::movement;
      kernel.inputs.push_back(buffers.of(moves ? input : peel_reshapes(graph, input)).number);
    }
  }
  for (std::size_t k = 0; k < node.outputs.size(); ++k)
    kernel.outputs.push_back(buffers.of({n, static_cast<std::int32_t>(k)}).number);
  return kernel;
}

}  // namespace fluxion::plan
