#include "autograd/vmap.h"

#include "autograd/batching.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"

namespace fluxion {

namespace {

// x with axis `from` moved to position `to`, the others in their order.
Tensor moved(const Tensor& x, std::int64_t from, std::int64_t to) {
  if (from == to) return x;
  if (x.dtype() == DType::i64)
    throw DTypeError("vmap: " + to_string(x.type()) +
                     ": i64 is mapped along its first axis only; convert it to i32");
  Dims axes;
  for (std::int64_t axis = 0; axis < x.rank(); ++axis)
    if (axis != from) axes.push_back(axis);
  axes.insert(axes.begin() + to, from);
  return transpose(x, axes);
}

}  // namespace

MappedLeaves::MappedLeaves(const std::vector<Tensor>& values, const std::vector<MappedAxis>& axes,
                           const std::vector<std::size_t>& arguments) {
  const auto name = [&](std::size_t i) {
    return "argument " + std::to_string(arguments.empty() ? i : arguments[i]) + ", " +
           to_string(values[i].type());
  };
  std::optional<std::size_t> first;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Tensor& value = values[i];
    if (!value || !axes[i]) {
      tensors_.push_back(value);
      mapped_.emplace_back();
      continue;
    }
    const std::int64_t axis = *axes[i] < 0 ? *axes[i] + value.rank() : *axes[i];
    if (axis < 0 || axis >= value.rank())
      throw ShapeError("vmap: axis " + std::to_string(*axes[i]) + " is out of range for " +
                       name(i) + "; name another axis, or pass it as not_mapped");
    const std::int64_t size = value.shape()[axis];
    if (!first) {
      first = i;
      size_ = size;
    }
    if (size != size_)
      throw ShapeError("vmap: the mapped axes differ in size: " + std::to_string(size_) + " of " +
                       name(*first) + ", but " + std::to_string(size) + " of " + name(i));
    mapped_.push_back(moved(value, axis, 0));
    Dims one(mapped_.back().shape().begin() + 1, mapped_.back().shape().end());
    tensors_.push_back(make_leaf(Op::parameter, IndexAttributes{mapped_leaf},
                                 {Shape(std::move(one)), value.dtype()}, value.device()));
    scope_.add(tensors_.back());
  }
  if (!first)
    throw Error("vmap: no tensor of the arguments is mapped, so there is nothing to map over");
}

std::vector<BatchedLeaf> MappedLeaves::leaves() const {
  std::vector<BatchedLeaf> result;
  for (std::size_t i = 0; i < mapped_.size(); ++i)
    if (mapped_[i]) result.push_back({tensors_[i], mapped_[i]});
  return result;
}

std::vector<Tensor> MappedLeaves::batch(const std::vector<Tensor>& outputs,
                                        std::int64_t axis) const {
  // Nodes without a live leaf among their ancestors can't depend on ours.
  std::vector<Tensor> result = batch_graph(
      outputs, leaves(), size_, [](const Node& node) { return node.live_scope() != nullptr; });
  for (Tensor& each : result) {
    if (!each) continue;
    const std::int64_t position = axis < 0 ? axis + each.rank() : axis;
    if (position < 0 || position >= each.rank())
      throw ShapeError("vmap: out_axis " + std::to_string(axis) +
                       " is out of range for a result that becomes " + to_string(each.type()));
    each = moved(each, 0, position);
  }
  return result;
}

namespace detail {

MappedLeaves mapped_leaves(const std::vector<std::vector<Tensor>>& arguments,
                           const std::vector<MappedAxis>& in_axes) {
  if (!in_axes.empty() && in_axes.size() != arguments.size())
    throw Error("vmap: " + std::to_string(in_axes.size()) + " axes for " +
                std::to_string(arguments.size()) +
                " arguments; give each argument an axis or not_mapped, or none at all");
  std::vector<Tensor> values;
  std::vector<MappedAxis> axes;
  std::vector<std::size_t> owners;
  for (std::size_t k = 0; k < arguments.size(); ++k)
    for (const Tensor& value : arguments[k]) {
      values.push_back(value);
      axes.push_back(in_axes.empty() ? MappedAxis(0) : in_axes[k]);
      owners.push_back(k);
    }
  return MappedLeaves(values, axes, owners);
}

}  // namespace detail

}  // namespace fluxion
