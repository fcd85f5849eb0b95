#include "engine/graph/tensor.h"

#include <algorithm>
#include <cstring>

#include "engine/graph/ops.h"
#include "engine/graph/shape_rules.h"

namespace fluxion {

// ---- Tensor

Tensor Tensor::from_bytes(std::span<const std::byte> bytes, TensorType type, const Device& device,
                          Location where) {
  if (bytes.size() != type.bytes()) {
    throw ShapeError("Tensor::from: " + to_string(type) + " takes " + std::to_string(type.bytes()) +
                     " bytes, got " + std::to_string(bytes.size()) + " (" + to_string(where) + ")");
  }
  std::shared_ptr<Buffer> buffer = device.backend().allocate(bytes.size());
  device.backend().upload(*buffer, bytes);
  return from_buffer(std::move(buffer), std::move(type), device);
}

Tensor Tensor::from_buffer(std::shared_ptr<Buffer> buffer, TensorType type, const Device& device) {
  if (!buffer || buffer->bytes() < type.bytes())
    throw ShapeError("Tensor::from_buffer: the buffer is smaller than " + to_string(type));
  auto node = std::make_shared<Node>(Op::data, NoAttributes{}, std::vector<Tensor>{},
                                     std::vector<TensorType>{std::move(type)}, device);
  node->publish(0, std::move(buffer));
  return Tensor(std::move(node), 0);
}

const TensorType& Tensor::type() const {
  if (!node_) throw Error("Tensor: this handle holds no tensor");
  return node_->outputs[static_cast<std::size_t>(output_)];
}

std::int64_t Tensor::size(std::int64_t axis) const {
  if (axis < -rank() || axis >= rank())
    throw ShapeError("Tensor::size: axis " + std::to_string(axis) + " is out of range for " +
                     to_string(type()));
  return shape()[axis < 0 ? axis + rank() : axis];
}

const Device& Tensor::device() const {
  if (!node_) throw Error("Tensor: this handle holds no tensor");
  return node_->device;
}

void Tensor::copy_to(std::span<std::byte> bytes, DType dtype) const {
  if (dtype != this->dtype())
    throw DTypeError("to_host: the tensor is " + to_string(type()) + ", asked for as " +
                     std::string(to_string(dtype)) + "; convert first");
  if (bytes.size() != type().bytes())
    throw ShapeError("to_host: " + to_string(type()) + " takes " + std::to_string(type().bytes()) +
                     " bytes, room for " + std::to_string(bytes.size()));
  eval(*this);
  const std::shared_ptr<Buffer> buffer = node_->value(output_);
  device().backend().download(*buffer, bytes);
}

template <>
std::vector<bool> Tensor::to_host<bool>() const {
  std::vector<std::byte> bytes(static_cast<std::size_t>(elements()));
  copy_to(bytes, DType::boolean);
  std::vector<bool> values;
  for (const std::byte byte : bytes) values.push_back(byte != std::byte{0});
  return values;
}

Tensor Tensor::to(DType dtype, Location where) const { return convert(*this, dtype, where); }

Tensor Tensor::to(const Device& device) const {
  std::vector<std::byte> bytes(type().bytes());
  copy_to(bytes, dtype());
  return from_bytes(bytes, type(), device);
}

// ---- Node

Node::Node(Op op, Attributes attributes, std::vector<Tensor> inputs,
           std::vector<TensorType> outputs, Device device)
    : op(op),
      attributes(std::move(attributes)),
      outputs(std::move(outputs)),
      device(std::move(device)),
      inputs_(std::move(inputs)) {
  values_.resize(this->outputs.size());
  for (const Tensor& input : inputs_) {
    std::shared_ptr<TraceScope> scope = input.node()->live_scope();
    if (scope && (!scope_ || scope->depth < scope_->depth)) scope_ = std::move(scope);
  }
}

// Frees a graph without recursion: nodes about to die hand their inputs to one list.
class NodeSweeper {
 public:
  static void sweep(std::vector<Tensor> inputs) {
    std::vector<std::shared_ptr<Node>> dying;
    collect(std::move(inputs), dying);
    while (!dying.empty()) {
      const std::shared_ptr<Node> node = std::move(dying.back());
      dying.pop_back();
      // Nobody else can reach a node with one owner, so its inputs are ours to take.
      if (node.use_count() == 1) collect(std::move(node->inputs_), dying);
    }
  }

 private:
  static void collect(std::vector<Tensor> inputs, std::vector<std::shared_ptr<Node>>& into) {
    for (const Tensor& input : inputs) into.push_back(input.node());
  }
};

Node::~Node() {
  if (!inputs_.empty()) NodeSweeper::sweep(std::move(inputs_));
}

std::vector<Tensor> Node::inputs() const {
  std::lock_guard lock(mutex_);
  return inputs_;
}

std::shared_ptr<Buffer> Node::value(int output) const {
  std::lock_guard lock(mutex_);
  if (donated_)
    throw Error(
        "a donated tensor was used: its memory now holds another value; use the value that the "
        "compiled function returned");
  return values_[static_cast<std::size_t>(output)];
}

bool Node::evaluated() const {
  std::lock_guard lock(mutex_);
  return std::all_of(values_.begin(), values_.end(),
                     [](const auto& value) { return value != nullptr; });
}

void Node::publish(int output, std::shared_ptr<Buffer> buffer) {
  std::vector<Tensor> dropped;
  {
    std::lock_guard lock(mutex_);
    auto& value = values_[static_cast<std::size_t>(output)];
    if (!value) value = std::move(buffer);
    const bool complete =
        std::all_of(values_.begin(), values_.end(), [](const auto& v) { return v != nullptr; });
    if (complete && !(scope_ && scope_->live.load())) dropped.swap(inputs_);
  }
  if (!dropped.empty()) NodeSweeper::sweep(std::move(dropped));
}

std::shared_ptr<Buffer> Node::donate(int output) {
  std::lock_guard lock(mutex_);
  if (donated_) throw Error("a tensor was donated twice");
  donated_ = true;
  return std::move(values_[static_cast<std::size_t>(output)]);
}

void Node::take_back(int output, std::shared_ptr<Buffer> buffer) {
  std::lock_guard lock(mutex_);
  donated_ = false;
  values_[static_cast<std::size_t>(output)] = std::move(buffer);
}

std::shared_ptr<TraceScope> Node::live_scope() const {
  std::lock_guard lock(mutex_);
  return scope_ && scope_->live.load() ? scope_ : nullptr;
}

void Node::set_scope(std::shared_ptr<TraceScope> scope) {
  std::lock_guard lock(mutex_);
  if (!scope_ || !scope_->live.load()) scope_ = std::move(scope);
}

// ---- making nodes

std::vector<Tensor> make_nodes(Op op, Attributes attributes, std::vector<Tensor> inputs,
                               Location where) {
  std::vector<TensorType> types;
  for (const Tensor& input : inputs) {
    if (!input)
      throw Error(std::string(to_string(op)) + ": an operand holds no tensor (" + to_string(where) +
                  ")");
    types.push_back(input.type());
    if (input.device() != inputs.front().device()) {
      throw DeviceError(std::string(to_string(op)) + ": the operands live on different devices, " +
                        inputs.front().device().name() + " and " + input.device().name() +
                        "; move one with Tensor::to (" + to_string(where) + ")");
    }
  }
  std::vector<TensorType> outputs = infer_types(op, attributes, types, where);
  const std::size_t count = outputs.size();
  Device device = inputs.front().device();
  auto node = std::make_shared<Node>(op, std::move(attributes), std::move(inputs),
                                     std::move(outputs), std::move(device));
  std::vector<Tensor> result;
  for (std::size_t i = 0; i < count; ++i) result.emplace_back(node, static_cast<int>(i));
  return result;
}

Tensor make_node(Op op, Attributes attributes, std::vector<Tensor> inputs, Location where) {
  return make_nodes(op, std::move(attributes), std::move(inputs), where).front();
}

Tensor make_leaf(Op op, Attributes attributes, TensorType type, const Device& device) {
  return Tensor(std::make_shared<Node>(op, std::move(attributes), std::vector<Tensor>{},
                                       std::vector<TensorType>{std::move(type)}, device),
                0);
}

}  // namespace fluxion
