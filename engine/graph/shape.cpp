#include "engine/graph/shape.h"

#include <algorithm>

#include "engine/error.h"
#include "engine/platform/memory_size.h"

namespace fluxion {

std::int64_t Shape::elements() const {
  std::int64_t product = 1;
  bool empty = false, fits = true;
  for (const std::int64_t size : sizes_) {
    if (size < 0) throw ShapeError("a shape has an axis of negative size: " + to_string(sizes_));
    empty = empty || size == 0;
    fits = fits && !__builtin_mul_overflow(product, size, &product);
  }
  if (empty) return 0;
  if (!fits) throw ShapeError("the elements of shape " + to_string(sizes_) + " can't be counted");
  return product;
}

void Shape::no_such_axis(std::int64_t axis) const {
  throw ShapeError("shape " + to_string(sizes_) + " has no axis " + std::to_string(axis));
}

Shape with_leading_axis(std::int64_t size, const Shape& shape) {
  Dims sizes = shape.dims();
  sizes.insert(sizes.begin(), size);
  return Shape(std::move(sizes));
}

std::string to_string(const Dims& dims) {
  std::string text = "[";
  for (std::size_t axis = 0; axis < dims.size(); ++axis) {
    if (axis > 0) text += ", ";
    text += std::to_string(dims[axis]);
  }
  return text + "]";
}

std::string to_string(const Shape& shape) { return to_string(shape.dims()); }

Dims row_major_strides(const Shape& shape) {
  Dims strides(static_cast<std::size_t>(shape.rank()));
  std::int64_t stride = 1;
  for (std::int64_t axis = shape.rank() - 1; axis >= 0; --axis) {
    if (stride < 0)
      throw ShapeError("the strides of shape " + to_string(shape) + " can't be counted");
    strides[static_cast<std::size_t>(axis)] = stride;
    if (__builtin_mul_overflow(stride, std::max<std::int64_t>(shape[axis], 1), &stride))
      stride = -1;
  }
  return strides;
}

bool is_representable(const Dims& sizes, DType dtype) {
  auto bytes = static_cast<std::int64_t>(size_of(dtype));
  for (const std::int64_t size : sizes)
    if (size < 0 || __builtin_mul_overflow(bytes, std::max<std::int64_t>(size, 1), &bytes) ||
        bytes > max_tensor_bytes)
      return false;
  return true;
}

TensorType::TensorType(Shape shape, DType dtype) : shape(std::move(shape)), dtype(dtype) {
  if (!is_representable(this->shape.dims(), dtype))
    throw ShapeError("there is no tensor " + to_string(*this) +
                     ": sizes are not negative, and a tensor has at most 2^50 bytes");
}

std::size_t TensorType::bytes() const {
  const std::int64_t elements = shape.elements();
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(elements, static_cast<std::int64_t>(size_of(dtype)), &bytes) ||
      !fits_memory(bytes))
    throw ShapeError("the bytes of " + to_string(*this) + " can't be counted");
  return static_cast<std::size_t>(bytes);
}

std::string to_string(const TensorType& type) {
  return std::string(to_string(type.dtype)) + to_string(type.shape);
}

}  // namespace fluxion
