// Shapes: the sizes of a tensor's axes, outermost first, row-major.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "engine/graph/dtype.h"

namespace fluxion {

// Sizes, positions or axis numbers, one per axis.
using Dims = std::vector<std::int64_t>;

class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes) : sizes_(sizes) {}
  explicit Shape(Dims sizes) : sizes_(std::move(sizes)) {}

  std::int64_t rank() const { return static_cast<std::int64_t>(sizes_.size()); }
  // An axis that does not exist is a ShapeError.
  std::int64_t operator[](std::int64_t axis) const { return sizes_[existing(axis)]; }
  std::int64_t& operator[](std::int64_t axis) { return sizes_[existing(axis)]; }
  std::int64_t back() const { return (*this)[rank() - 1]; }
  auto begin() const { return sizes_.begin(); }
  auto end() const { return sizes_.end(); }
  const Dims& dims() const { return sizes_; }

  // Product of the sizes; 1 for rank 0, 0 if any axis is empty. Throws ShapeError if a size is
  // negative or the product overflows 64 bits.
  std::int64_t elements() const;

  bool operator==(const Shape&) const = default;

 private:
  std::size_t existing(std::int64_t axis) const {
    if (axis < 0 || axis >= rank()) no_such_axis(axis);
    return static_cast<std::size_t>(axis);
  }
  [[noreturn]] void no_such_axis(std::int64_t axis) const;

  Dims sizes_;
};

// [size, ..shape]: a batch of what has that shape.
Shape with_leading_axis(std::int64_t size, const Shape& shape);

std::string to_string(const Dims& dims);    // "[2, 3]"
std::string to_string(const Shape& shape);  // "[2, 3]"

// Row-major strides in elements: {12, 4, 1} for [2, 3, 4]. An axis of size 0 counts as 1. Throws
// ShapeError if a stride overflows 64 bits.
Dims row_major_strides(const Shape& shape);

// The most bytes that a tensor may have, counting an axis of size 0 as 1. That is more than any
// memory holds, and so far below 2^63 that sums and small multiples of sizes, strides, element
// numbers and byte offsets can't overflow.
inline constexpr std::int64_t max_tensor_bytes = std::int64_t{1} << 50;

// Whether no size is negative and the tensor has at most max_tensor_bytes.
bool is_representable(const Dims& sizes, DType dtype);

// Shape and dtype of a tensor.
struct TensorType {
  Shape shape;
  DType dtype = DType::f32;

  TensorType() = default;
  // Throws ShapeError unless is_representable(shape, dtype).
  TensorType(Shape shape, DType dtype);

  std::size_t bytes() const;
  bool operator==(const TensorType&) const = default;
};

std::string to_string(const TensorType& type);  // "f32[2, 3]"

}  // namespace fluxion
