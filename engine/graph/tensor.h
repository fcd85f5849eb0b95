// Tensor: a handle of one output of a node of the lazy graph.
//
// Calling an op checks shapes and records a node. Nothing runs until a value is asked for (eval,
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
  Tensor() = default;  // an empty handle: functions that need a tensor throw Error
  Tensor(std::shared_ptr<Node> node, int output) : node_(std::move(node)), output_(output) {}

  // Uploads row-major host data. Throws ShapeError if values.size() != shape.elements(), or in
  // from_bytes if bytes.size() != type.bytes().
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
  // Wraps a buffer that already holds the value. Throws ShapeError if it is too small.
  static Tensor from_buffer(std::shared_ptr<Buffer> buffer, TensorType type, const Device& device);

  const TensorType& type() const;
  const Shape& shape() const { return type().shape; }
  DType dtype() const { return type().dtype; }
  std::int64_t rank() const { return shape().rank(); }
  std::int64_t size(std::int64_t axis) const;  // negative axes count from the end
  std::int64_t elements() const { return shape().elements(); }
  const Device& device() const;
  explicit operator bool() const { return node_ != nullptr; }

  // The value on the host, evaluated if need be. Throws DTypeError if T is not the element type;
  // item throws ShapeError unless there is exactly one element.
  template <class T>
  std::vector<T> to_host() const {
    std::vector<T> values(static_cast<std::size_t>(elements()));
    copy_to(std::as_writable_bytes(std::span<T>(values)), dtype_of<T>);
    return values;
  }
  template <class T>
  T item(Location where = Location::current()) const {
    if (elements() != 1)
      throw ShapeError("item: wants a tensor of one element, got " + to_string(type()) + " (" +
                       to_string(where) + ")");
    T value{};
    copy_to(std::as_writable_bytes(std::span<T>(&value, 1)), dtype_of<T>);
    return value;
  }
  // Copies the value into `bytes`, evaluated if need be. Throws DTypeError or ShapeError unless the
  // dtype and the number of bytes are the tensor's.
  void copy_to(std::span<std::byte> bytes, DType dtype) const;

  // convert(*this, dtype): the tensor itself if it has this dtype.
  Tensor to(DType dtype, Location where = Location::current()) const;
  // The value on another device, evaluated and copied through the host. Derivatives do not pass.
  Tensor to(const Device& device) const;

  const std::shared_ptr<Node>& node() const { return node_; }
  int output() const { return output_; }
  // Whether both handles name one output of one node. eq() compares values.
  bool same_as(const Tensor& other) const {
    return node_ == other.node_ && output_ == other.output_;
  }

 private:
  std::shared_ptr<Node> node_;
  int output_ = 0;
};

template <>
std::vector<bool> Tensor::to_host<bool>() const;

// Returns x. Throws Error, which names the function, its operand and the caller, if the handle is
// empty.
const Tensor& require_tensor(const Tensor& x, std::string_view function, std::string_view operand,
                             const Location& where);

// The lifetime of the leaves of one transform. Nodes that depend on a live leaf keep their inputs
// when they are evaluated.
struct TraceScope {
  std::atomic<bool> live{true};
  std::uint64_t depth = 0;  // 0 is outermost
};

// The indices of Op::parameter leaves that are not arguments of a compiled function.
inline constexpr std::int64_t placeholder_leaf = -1;  // a tangent, or a parameter of a region
inline constexpr std::int64_t mapped_leaf = -2;       // one example of what vmap maps over

// A recorded op. Only its published values, and the inputs that they make unnecessary, change.
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

  // A snapshot; empty once the node has been evaluated outside of any live trace.
  std::vector<Tensor> inputs() const;
  // The published buffer of an output, or nullptr. Throws Error, which names the output, if it was
  // donated or lost.
  std::shared_ptr<Buffer> value(int output) const;
  void require_not_donated(int output) const;
  bool pending(int output) const;  // no value has been published yet
  bool evaluated() const;          // no output is pending
  // Publishes the value of one output; a second one is ignored. The inputs are dropped once all
  // outputs have values and no live trace needs the inputs.
  void publish(int output, std::shared_ptr<Buffer> buffer);
  // Takes the value of one output for argument tensor `argument` of a compiled call: later uses of
  // it throw. Throws Error, and takes nothing, if there is no value.
  std::shared_ptr<Buffer> donate(int output, std::int32_t argument);
  // Undoes donate() after a call that wrote nothing.
  void take_back(int output, std::shared_ptr<Buffer> buffer) noexcept;
  // Marks a donated value as lost, after a call that failed while overwriting it.
  void lose(int output) noexcept;

  // The outermost live scope that this node depends on, or nullptr.
  std::shared_ptr<TraceScope> live_scope() const;
  void set_scope(std::shared_ptr<TraceScope> scope);  // transform leaves only, before use

 private:
  friend class NodeSweeper;
  enum class Life : std::uint8_t { pending, published, donated, lost };
  struct Value {
    std::shared_ptr<Buffer> buffer;
    std::int32_t argument = -1;  // number in the call that it was donated to
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

// Records a node of `op` after its shape rule has accepted the inputs. Throws ShapeError,
// DTypeError, DeviceError if the inputs are on different devices, or Error for an empty input. The
// functions of engine/graph/ops.h and the derivative rules build nodes with it. make_node returns
// output 0.
Tensor make_node(Op op, Attributes attributes, std::vector<Tensor> inputs,
                 Location where = Location::current());
std::vector<Tensor> make_nodes(Op op, Attributes attributes, std::vector<Tensor> inputs,
                               Location where = Location::current());
// A leaf of a given type. `op` is parameter, constant or iota; data comes from Tensor::from.
Tensor make_leaf(Op op, Attributes attributes, TensorType type, const Device& device);
// A number as a tensor of rank 0. Throws DTypeError in the name of `function` for i64, and if the
// dtype can't hold it (engine/graph/numbers.h).
Tensor make_constant(double number, DType dtype, const Device& device, std::string_view function,
                     const Location& where);

struct EvalOptions {
  RunOptions run;
};
// Computes the values of all tensors in one plan, and those of inner nodes that other handles hold.
// Throws DeviceError if the tensors are on different devices, Error if a handle is empty.
void eval(std::span<const Tensor> tensors, const EvalOptions& options = {});
inline void eval(const Tensor& tensor, const EvalOptions& options = {}) {
  eval(std::span<const Tensor>(&tensor, 1), options);
}

}  // namespace fluxion
