// Tensor: a handle on one output of a node of the lazy graph.
//
// Building an op checks shapes and records a node; nothing runs until a value is asked for (eval,
// item, to_host) or a compiled function is called. A materialised tensor is contiguous and
// row-major.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "engine/device.h"
#include "engine/error.h"
#include "engine/graph/op.h"

namespace fluxion {

class Node;
struct TraceScope;

class Tensor {
 public:
  Tensor() = default;  // no tensor; most uses throw Error
  Tensor(std::shared_ptr<Node> node, int output) : node_(std::move(node)), output_(output) {}

  // Uploads row-major host data. Throws ShapeError if values.size() != shape.elements().
  template <class T>
  static Tensor from(std::span<const T> values, Shape shape, const Device& device,
                     Location where = Location::current()) {
    return from_bytes(std::as_bytes(values), {std::move(shape), dtype_of<T>}, device, where);
  }
  template <class T>
  static Tensor from(const std::vector<T>& values, Shape shape, const Device& device,
                     Location where = Location::current()) {
    return from(std::span<const T>(values), std::move(shape), device, where);
  }
  static Tensor from_bytes(std::span<const std::byte> bytes, TensorType type, const Device& device,
                           Location where = Location::current());
  // Wraps a buffer that already holds the value.
  static Tensor from_buffer(std::shared_ptr<Buffer> buffer, TensorType type, const Device& device);

  const TensorType& type() const;
  const Shape& shape() const { return type().shape; }
  DType dtype() const { return type().dtype; }
  std::int64_t rank() const { return shape().rank(); }
  std::int64_t size(std::int64_t axis) const;  // negative axes count from the end
  std::int64_t elements() const { return shape().elements(); }
  const Device& device() const;
  explicit operator bool() const { return node_ != nullptr; }

  // The value, evaluating if need be. T must be the tensor's element type (DTypeError); item wants
  // one element (ShapeError).
  template <class T>
  std::vector<T> to_host() const {
    std::vector<T> values(static_cast<std::size_t>(elements()));
    copy_to(std::as_writable_bytes(std::span<T>(values)), dtype_of<T>);
    return values;
  }
  template <class T>
  T item() const {
    if (elements() != 1)
      throw ShapeError("item: wants a tensor of one element, got " + to_string(type()));
    T value{};
    copy_to(std::as_writable_bytes(std::span<T>(&value, 1)), dtype_of<T>);
    return value;
  }
  // Copies the value as stored; dtype and byte count must match.
  void copy_to(std::span<std::byte> bytes, DType dtype) const;

  // Same value, a conversion node if the dtype differs.
  Tensor to(DType dtype, Location where = Location::current()) const;
  // Same value on another device (through the host). Not differentiable across the copy.
  Tensor to(const Device& device) const;

  const std::shared_ptr<Node>& node() const { return node_; }
  int output() const { return output_; }
  // Identity of the handle, not equality of values (that is eq()).
  bool same_as(const Tensor& other) const {
    return node_ == other.node_ && output_ == other.output_;
  }

 private:
  std::shared_ptr<Node> node_;
  int output_ = 0;
};

template <>
std::vector<bool> Tensor::to_host<bool>() const;

// x itself; if the handle holds no tensor, an Error that names the function, its operand and the
// caller.
const Tensor& require_tensor(const Tensor& x, std::string_view function, std::string_view operand,
                             const Location& where);

// The life of one transform's leaves. Nodes made from a live leaf keep their inputs when they are
// evaluated.
struct TraceScope {
  std::atomic<bool> live{true};
  std::uint64_t depth = 0;  // 0 is outermost
};

// The indices of Op::parameter leaves that are no argument of a traced function.
inline constexpr std::int64_t placeholder_leaf = -1;  // a tangent
inline constexpr std::int64_t mapped_leaf = -2;       // one example of what vmap maps over

// A recorded op. Everything but the published values is immutable.
class Node {
 public:
  Node(Op op, Attributes attributes, std::vector<Tensor> inputs, std::vector<TensorType> outputs,
       Device device);
  ~Node();  // iterative: a chain of any length dies without recursion
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  const Op op;
  const Attributes attributes;
  const std::vector<TensorType> outputs;
  const Device device;

  // A snapshot: empty once the node was evaluated outside of any live trace.
  std::vector<Tensor> inputs() const;
  // The published buffer of an output, or nullptr. Throws Error, naming the output, if it was
  // donated.
  std::shared_ptr<Buffer> value(int output) const;
  void require_not_donated(int output) const;
  bool pending(int output) const;  // no value was published yet
  bool evaluated() const;          // no output is pending
  // Publishes the value of one output; a second publication is ignored. Inputs are dropped once all
  // outputs are there and no live trace needs them.
  void publish(int output, std::shared_ptr<Buffer> buffer);
  // Takes the value of one output away, for argument tensor `argument` of a compiled call: later
  // uses of it throw. Throws Error, and takes nothing, if there is no value to take.
  std::shared_ptr<Buffer> donate(int output, std::int32_t argument);
  // Undoes donate() after a call that wrote nothing.
  void take_back(int output, std::shared_ptr<Buffer> buffer) noexcept;
  // After a call that failed while it wrote over the donated value: later uses say that it is lost.
  void lose(int output) noexcept;

  // The outermost live scope that this node depends on, or nullptr.
  std::shared_ptr<TraceScope> live_scope() const;
  void set_scope(std::shared_ptr<TraceScope> scope);  // transform leaves only, before use

 private:
  friend class NodeSweeper;
  enum class Life : std::uint8_t { pending, published, donated, lost };
  struct Value {
    std::shared_ptr<Buffer> buffer;
    std::int32_t argument = -1;  // of the call that it was donated to
    Life life = Life::pending;
  };
  Value& at(int output) { return values_[static_cast<std::size_t>(output)]; }
  const Value& at(int output) const { return values_[static_cast<std::size_t>(output)]; }
  void refuse_donated(int output) const;  // with the mutex held
  bool complete() const;                  // with the mutex held

  mutable std::mutex mutex_;
  std::vector<Tensor> inputs_;
  std::vector<Value> values_;  // one for each output
  std::shared_ptr<TraceScope> scope_;
};

// Records a node after its shape rule has passed. The base of every function in engine/graph/ops.h;
// also how derivative rules rebuild an op.
Tensor make_node(Op op, Attributes attributes, std::vector<Tensor> inputs,
                 Location where = Location::current());
std::vector<Tensor> make_nodes(Op op, Attributes attributes, std::vector<Tensor> inputs,
                               Location where = Location::current());
// A leaf of a given type: data without value is not possible, so `parameter`, `constant` or `iota`.
Tensor make_leaf(Op op, Attributes attributes, TensorType type, const Device& device);
// A number as a tensor of rank 0. Throws DTypeError in the name of `function` for i64, and unless
// the dtype can hold it (engine/graph/numbers.h).
Tensor make_constant(double number, DType dtype, const Device& device, std::string_view function,
                     const Location& where);

// Computes the values of all tensors in one plan. Inner nodes held by other handles are
// materialised too.
struct EvalOptions {
  RunOptions run;
};
void eval(std::span<const Tensor> tensors, const EvalOptions& options = {});
inline void eval(const Tensor& tensor, const EvalOptions& options = {}) {
  eval(std::span<const Tensor>(&tensor, 1), options);
}

}  // namespace fluxion
