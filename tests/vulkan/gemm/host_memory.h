// What the tests of products and attention share: random numbers, views of matrices, and the
// buffers of a program of one kernel, in host and device form.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "engine/program/program.h"

namespace fluxion::testing {

class RandomNumbers {
 public:
  explicit RandomNumbers(std::uint32_t seed) : engine_(seed) {}
  std::int64_t below(std::int64_t bound);
  bool one_in(std::int64_t n) { return below(n) == 0; }
  double value(double size = 1);  // a multiple of 1/1000 in [-size, size]
  // A product of up to three factors.
  Dims digits(std::int64_t size);
  template <class T>
  void shuffle(std::vector<T>& items) {
    std::shuffle(items.begin(), items.end(), engine_);
  }

 private:
  std::mt19937 engine_;
};

// The offset of every position of an axis.
Dims offsets(const OperandAxis& axis);
// Element (batch, row, column) of an operand, for all of them in this order.
Dims addresses(const ContractOperand& operand);

// The buffers of a program, which it has as inputs and outputs, by their numbers.
class HostMemory {
 public:
  // Adds a buffer to the program. Its elements are the values, rounded to the dtype.
  std::int32_t add_input(DType dtype, const std::vector<double>& values);
  std::int32_t add_output(DType dtype, const Shape& shape);
  std::vector<double>& values(std::int32_t buffer) {
    return values_[static_cast<std::size_t>(buffer)];
  }
  const std::vector<double>& values(std::int32_t buffer) const {
    return values_[static_cast<std::size_t>(buffer)];
  }

  // Device bytes of all buffers; outputs hold NaNs.
  std::vector<std::vector<std::byte>> to_device(const Storage& storage) const;
  // Takes the values of all buffers from device bytes.
  void from_device(const std::vector<std::vector<std::byte>>& bytes, const Storage& storage);

  Program program;  // without kernels at first

 private:
  std::int32_t add(BufferKind kind, const TensorType& type, std::vector<double> values);
  std::vector<std::vector<double>> values_;
};

// A view of a [batch, rows, columns] matrix in a new input: row-major if `plain`, else digits of
// all axes in random order with gaps between them, batch digits possibly broadcast.
ContractOperand random_operand(RandomNumbers& random, HostMemory& memory, DType dtype,
                               std::int64_t batch, std::int64_t rows, std::int64_t columns,
                               bool plain, double size = 1);

}  // namespace fluxion::testing
