#include "engine/graph/tensor.h"

#include <algorithm>
#include <cstring>

#include "engine/graph/numbers.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/graph/shape_rules.h"
#include "engine/number_text.h"
#include "engine/sole_owner.h"

namespace fluxion {

// ---- Tensor

Tensor Tensor::from_bytes(std::span<const std::byte> bytes, TensorType type, const Device& device,
                          Location where) {
  if (bytes.size() != type.bytes()) {
    throw ShapeError("Tensor::from: " + to_string(type) + " takes " + std::to_string(type.bytes()) +
                     " bytes, got " + std::to_string(bytes.size()) + " (" + to_string(where) + ")");
  }
  std::shared_ptr<Buffer> buffer = device.backend().allocate(type);
  device.backend().upload(*buffer, type.dtype, bytes);
  return from_buffer(std::move(buffer), std::move(type), device);
}

Tensor Tensor::from_buffer(std::shared_ptr<Buffer> buffer, TensorType type, const Device& device) {
  if (!buffer || buffer->bytes() < bytes_of(type, device.backend().capabilities().storage))
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
  device().backend().download(*buffer, dtype, bytes);
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

const Tensor& require_tensor(const Tensor& x, std::string_view function, std::string_view operand,
                             const Location& where) {
  if (!x)
    throw Error(std::string(function) + ": " + std::string(operand) + " holds no tensor (" +
                to_string(where) + ")");
  return x;
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

// Frees a graph without recursion and without allocations, which could fail: when the sweep enters
// an input, it stores the way back up in the slot that held the input.
class NodeSweeper {
 public:
  static void sweep(std::vector<Tensor> inputs) {
    while (!inputs.empty()) {
      std::shared_ptr<Node> node = take_last(inputs);
      if (dies(node)) sweep_below(std::move(node));
    }
  }

 private:
  // A node with one owner is reachable only from here, so its inputs can be taken.
  static bool dies(const std::shared_ptr<Node>& node) {
    return is_sole_owner(node) && !node->inputs_.empty();
  }

  static std::shared_ptr<Node> take_last(std::vector<Tensor>& inputs) {
    std::shared_ptr<Node> node = inputs.back().node();
    inputs.pop_back();
    return node;
  }

  static void sweep_below(std::shared_ptr<Node> node) {
    std::shared_ptr<Node> above;
    while (node) {
      if (node->inputs_.empty()) {
        node = std::move(above);
        if (node) above = take_last(node->inputs_);
        continue;
      }
      std::shared_ptr<Node> below = take_last(node->inputs_);
      if (!dies(below)) continue;
      node->inputs_.emplace_back(std::move(above), 0);  // the slot that was just emptied
      above = std::move(node);
      node = std::move(below);
    }
  }
};

Node::~Node() {
  if (!inputs_.empty()) NodeSweeper::sweep(std::move(inputs_));
}

std::vector<Tensor> Node::inputs() const {
  std::lock_guard lock(mutex_);
  return inputs_;
}

void Node::refuse_donated(int output) const {
  const Value& value = at(output);
  if (value.life != Life::donated && value.life != Life::lost) return;
  const std::string donated = "the tensor " + to_string(outputs[static_cast<std::size_t>(output)]) +
                              " was donated as argument tensor " + std::to_string(value.argument) +
                              " of a compiled call";
  if (value.life == Life::lost)
    throw Error(donated +
                " that failed while it wrote over its memory: its value is lost; go on from a copy "
                "that was kept elsewhere");
  throw Error(donated + " and can't be used any more; use the value that the call returned");
}

bool Node::complete() const {
  return std::none_of(values_.begin(), values_.end(),
                      [](const Value& value) { return value.life == Life::pending; });
}

std::shared_ptr<Buffer> Node::value(int output) const {
  std::lock_guard lock(mutex_);
  refuse_donated(output);
  return at(output).buffer;
}

void Node::require_not_donated(int output) const {
  std::lock_guard lock(mutex_);
  refuse_donated(output);
}

bool Node::pending(int output) const {
  std::lock_guard lock(mutex_);
  return at(output).life == Life::pending;
}

bool Node::evaluated() const {
  std::lock_guard lock(mutex_);
  return complete();
}

void Node::publish(int output, std::shared_ptr<Buffer> buffer) {
  std::vector<Tensor> dropped;
  {
    std::lock_guard lock(mutex_);
    Value& value = at(output);
    if (value.life == Life::pending) {
      value.buffer = std::move(buffer);
      value.life = Life::published;
    }
    if (complete() && !(scope_ && scope_->live.load())) dropped.swap(inputs_);
  }
  if (!dropped.empty()) NodeSweeper::sweep(std::move(dropped));
}

std::shared_ptr<Buffer> Node::donate(int output, std::int32_t argument) {
  std::lock_guard lock(mutex_);
  refuse_donated(output);
  Value& value = at(output);
  if (value.life == Life::pending)
    throw Error("a tensor without a value can't be donated; this is an engine error");
  value.life = Life::donated;
  value.argument = argument;
  return std::move(value.buffer);
}

void Node::take_back(int output, std::shared_ptr<Buffer> buffer) noexcept {
  std::lock_guard lock(mutex_);
  at(output) = {std::move(buffer), -1, Life::published};
}

void Node::lose(int output) noexcept {
  std::lock_guard lock(mutex_);
  at(output).life = Life::lost;
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
      require_tensor(input, to_string(op), "operand " + std::to_string(types.size()), where);
    types.push_back(input.type());
    if (input.device() != inputs.front().device()) {
      throw DeviceError(std::string(to_string(op)) + ": the operands live on different devices, " +
                        inputs.front().device().name() + " and " + input.device().name() +
                        (inputs.front().device().name() == input.device().name()
                             ? " (each call that opens a device makes another: share one)"
                             : "") +
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

Tensor make_constant(double number, DType dtype, const Device& device, std::string_view function,
                     const Location& where) {
  if (dtype == DType::i64)
    throw DTypeError(std::string(function) + ": i64 exists at the boundary only; make an i32 and " +
                     "convert it (" + to_string(where) + ")");
  if (!can_hold(dtype, number))
    throw DTypeError(std::string(function) + ": " + std::string(to_string(dtype)) +
                     " can't hold the number " + number_text(number) + "; convert the tensor, or " +
                     "use a number that it can hold (" + to_string(where) + ")");
  // Kernels have no 16-bit registers, so the constant is rounded to its dtype here.
  if (dtype == DType::bf16) number = to_f32(to_bf16(static_cast<float>(number)));
  if (dtype == DType::f16) number = to_f32(to_f16(static_cast<float>(number)));
  return make_leaf(Op::constant, ValueAttributes{number}, {{}, dtype}, device);
}

}  // namespace fluxion
