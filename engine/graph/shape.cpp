#include "engine/graph/shape.h"

namespace fluxion {

std::int64_t Shape::elements() const {
  std::uint64_t product =
      1;  // unsigned, so that absurd sizes from a file wrap instead of overflowing
  for (const std::int64_t size : sizes_) product *= static_cast<std::uint64_t>(size);
  return static_cast<std::int64_t>(product);
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
    strides[static_cast<std::size_t>(axis)] = stride;
    stride *= shape[axis];
  }
  return strides;
}

std::string to_string(const TensorType& type) {
  return std::string(to_string(type.dtype)) + to_string(type.shape);
}

}  // namespace fluxion
