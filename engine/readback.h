// Values on their way to the host, so that the caller can work meanwhile:
//
//   Readback loss(step.loss);        // submits the evaluation, starts the copy, returns
//   ... submit the next step ...
//   loss.item<float>(0);             // waits for that copy only
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion {

class Readback {
 public:
  Readback();  // of no tensors
  // Evaluates the tensors, which must share a device, and starts to copy them. What happens to them
  // later, donation included, does not change what is read. Throws what evaluation throws.
  explicit Readback(std::span<const Tensor> tensors);
  explicit Readback(const Tensor& tensor) : Readback(std::span<const Tensor>(&tensor, 1)) {}
  // Waits for the copy.
  ~Readback();
  Readback(Readback&&) noexcept;
  Readback& operator=(Readback&&) noexcept;

  std::size_t size() const;
  // Whether the values have arrived. Never waits.
  bool done() const;
  // Returns when they have. Throws DeviceError if the device died first.
  void wait() const;

  // Wait for tensor `index` and return its value. Throw Error if there is no such tensor,
  // DTypeError if T is not its element type; item throws ShapeError unless it has one element.
  template <class T>
  std::vector<T> values(std::size_t index) const {
    std::vector<T> result(elements(index));
    copy(index, dtype_of<T>, std::as_writable_bytes(std::span<T>(result)));
    return result;
  }
  template <class T>
  T item(std::size_t index) const {
    T value{};
    copy(index, dtype_of<T>, std::as_writable_bytes(std::span<T>(&value, 1)));
    return value;
  }

 private:
  std::size_t elements(std::size_t index) const;
  void copy(std::size_t index, DType dtype, std::span<std::byte> to) const;

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fluxion
