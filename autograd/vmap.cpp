#include "autograd/vmap.h"

#include "autograd/batching.h"
#include "autograd/linearize.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"

namespace fluxion {

namespace {

// x with axis `from` moved to position `to`, the others in their order. `name` is for errors.
Tensor moved(const Tensor& x, std::int64_t from, std::int64_t to, const std::string& name,
             const std::optional<Location>& where) {
  if (from == to) return x;
  if (x.dtype() == DType::i64)
    throw DTypeError("vmap: " + name + ": i64 is mapped along its first axis only; convert it to " +
                     "i32" + place(where));
  Dims axes;
  for (std::int64_t axis = 0; axis < x.rank(); ++axis)
    if (axis != from) axes.push_back(axis);
  axes.insert(axes.begin() + to, from);
  return transpose(x, axes);
}

}  // namespace

MappedLeaves::MappedLeaves(const std::vector<Tensor>& values, const std::vector<MappedAxis>& axes,
                           const std::vector<std::size_t>& arguments, std::optional<Location> where)
    : where_(where) {
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
                       name(i) + "; name another axis, or pass it as not_mapped" + place(where_));
    const std::int64_t size = value.shape()[axis];
    if (!first) {
      first = i;
      size_ = size;
    }
    if (size != size_)
      throw ShapeError("vmap: the mapped axes differ in size: " + std::to_string(size_) + " of " +
                       name(*first) + ", but " + std::to_string(size) + " of " + name(i) +
                       place(where_));
    mapped_.push_back(moved(value, axis, 0, name(i), where_));
    Dims one(mapped_.back().shape().begin() + 1, mapped_.back().shape().end());
    tensors_.push_back(make_leaf(Op::parameter, IndexAttributes{mapped_leaf},
                                 {Shape(std::move(one)), value.dtype()}, value.device()));
    scope_.add(tensors_.back());
  }
  if (!first)
    throw Error("vmap: no tensor of the arguments is mapped, so there is nothing to map over" +
                place(where_));
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
  const std::vector<BatchedValue> values = batch_values(
      outputs, leaves(), size_, [](const Node& node) { return node.live_scope() != nullptr; });
  std::vector<Tensor> result;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Tensor& value = values[i].value;
    if (!value) {
      result.emplace_back();
      continue;
    }
    const std::string name = "result " + std::to_string(i) + ", " + to_string(outputs[i].type());
    if (!values[i].batched && value.dtype() == DType::i64)
      throw DTypeError("vmap: " + name +
                       ", is the same for every example, and i64 can't be repeated: convert it to "
                       "i32, or use it outside" +
                       place(where_));
    const Tensor all = values[i].batched ? value : repeated(value, size_);
    const std::int64_t position = axis < 0 ? axis + all.rank() : axis;
    if (position < 0 || position >= all.rank())
      throw ShapeError("vmap: out_axis " + std::to_string(axis) + " is out of range for " + name +
                       ", which becomes " + to_string(all.type()) + place(where_));
    result.push_back(moved(all, 0, position, name, where_));
  }
  return result;
}

namespace detail {

MappedLeaves mapped_leaves(const std::vector<std::vector<Tensor>>& arguments,
                           const std::vector<MappedAxis>& in_axes, const Location& where) {
  if (!in_axes.empty() && in_axes.size() != arguments.size())
    throw Error("vmap: " + std::to_string(in_axes.size()) + " axes for " +
                std::to_string(arguments.size()) +
                " arguments; give each argument an axis or not_mapped, or none at all (" +
                to_string(where) + ")");
  std::vector<Tensor> values;
  std::vector<MappedAxis> axes;
  std::vector<std::size_t> owners;
  for (std::size_t k = 0; k < arguments.size(); ++k)
    for (const Tensor& value : arguments[k]) {
      values.push_back(value);
      axes.push_back(in_axes.empty() ? MappedAxis(0) : in_axes[k]);
      owners.push_back(k);
    }
  return MappedLeaves(values, axes, owners, where);
}

}  // namespace detail

}  // namespace fluxion
