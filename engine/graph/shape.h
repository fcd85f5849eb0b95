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
  std::int64_t operator[](std::int64_t axis) const {
    return sizes_[static_cast<std::size_t>(axis)];
  }
  std::int64_t& operator[](std::int64_t axis) { return sizes_[static_cast<std::size_t>(axis)]; }
  std::int64_t back() const { return sizes_.back(); }
  auto begin() const { return sizes_.begin(); }
  auto end() const { return sizes_.end(); }
  const Dims& dims() const { return sizes_; }

  // Product of the sizes; 1 for rank 0, 0 if any axis is empty.
  std::int64_t elements() const;

  bool operator==(const Shape&) const = default;

 private:
  Dims sizes_;
};

std::string to_string(const Dims& dims);    // "[2, 3]"
std::string to_string(const Shape& shape);  // "[2, 3]"

// Row-major strides in elements: {12, 4, 1} for [2, 3, 4].
Dims row_major_strides(const Shape& shape);

// What a tensor is without its value.
struct TensorType {
  Shape shape;
  DType dtype = DType::f32;

  std::size_t bytes() const { return static_cast<std::size_t>(shape.elements()) * size_of(dtype); }
  bool operator==(const TensorType&) const = default;
};

std::string to_string(const TensorType& type);  // "f32[2, 3]"

}  // namespace fluxion
