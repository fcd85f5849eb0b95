#include "tests/vulkan/gemm/host_memory.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/error.h"

namespace fluxion::testing {

namespace {

template <class T>
std::span<const std::byte> bytes_of_vector(const std::vector<T>& elements) {
  return std::as_bytes(std::span(elements));
}

// Calls f with a vector<T> for the host type of `dtype`.
template <class F>
auto with_elements(DType dtype, std::size_t count, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f(std::vector<float>(count));
    case DType::bf16:
      return f(std::vector<BFloat16>(count));
    case DType::f16:
      return f(std::vector<Float16>(count));
    case DType::i32:
      return f(std::vector<std::int32_t>(count));
    default:
      throw Error("the tests of products know no such dtype");
  }
}

template <class T>
T from_double(double value) {
  if constexpr (std::is_same_v<T, BFloat16>)
    return to_bf16(static_cast<float>(value));
  else if constexpr (std::is_same_v<T, Float16>)
    return to_f16(static_cast<float>(value));
  else
    return static_cast<T>(value);
}
template <class T>
double to_double(T element) {
  if constexpr (sizeof(T) == 2)
    return static_cast<double>(to_f32(element));
  else
    return static_cast<double>(element);
}

}  // namespace

std::int64_t RandomNumbers::below(std::int64_t bound) {
  return static_cast<std::int64_t>(engine_() % static_cast<std::uint64_t>(bound));
}
double RandomNumbers::value(double size) {
  return size * (static_cast<double>(below(2001)) / 1000.0 - 1.0);
}
Dims RandomNumbers::digits(std::int64_t size) {
  Dims sizes;
  for (std::int64_t divisor = 2; divisor <= size && sizes.size() < 2; ++divisor)
    if (size % divisor == 0 && one_in(2)) {
      sizes.push_back(divisor);
      size /= divisor;
    }
  sizes.push_back(size);
  shuffle(sizes);
  return sizes;
}

Dims offsets(const OperandAxis& axis) {
  Dims result{0};
  for (std::size_t digit = 0; digit < axis.sizes.size(); ++digit) {
    Dims finer;
    for (const std::int64_t offset : result)
      for (std::int64_t i = 0; i < axis.sizes[digit]; ++i)
        finer.push_back(offset + i * axis.strides[digit]);
    result = std::move(finer);
  }
  return result;
}

Dims addresses(const ContractOperand& operand) {
  Dims all;
  const Dims rows = offsets(operand.rows), columns = offsets(operand.columns);
  for (const std::int64_t batch : offsets(operand.batch))
    for (const std::int64_t row : rows)
      for (const std::int64_t column : columns)
        all.push_back(operand.offset + batch + row + column);
  return all;
}

std::int32_t HostMemory::add(BufferKind kind, const TensorType& type, std::vector<double> values) {
  std::vector<TensorType>& list = kind == BufferKind::input ? program.inputs : program.outputs;
  if (kind == BufferKind::output) program.donations.push_back(-1);
  program.buffers.push_back({kind, type, static_cast<std::int64_t>(list.size()), 0});
  list.push_back(type);
  values_.push_back(std::move(values));
  return static_cast<std::int32_t>(values_.size()) - 1;
}

std::int32_t HostMemory::add_input(DType dtype, const std::vector<double>& values) {
  std::vector<double> rounded = values;
  with_elements(dtype, 0, [&]<class T>(const std::vector<T>&) {
    for (double& value : rounded) value = to_double(from_double<T>(value));
  });
  return add(BufferKind::input, {Shape{static_cast<std::int64_t>(values.size())}, dtype},
             std::move(rounded));
}
std::int32_t HostMemory::add_output(DType dtype, const Shape& shape) {
  return add(BufferKind::output, {shape, dtype},
             std::vector<double>(static_cast<std::size_t>(shape.elements()),
                                 std::numeric_limits<double>::quiet_NaN()));
}

std::vector<std::vector<std::byte>> HostMemory::to_device(const Storage& storage) const {
  std::vector<std::vector<std::byte>> all;
  for (std::size_t i = 0; i < values_.size(); ++i) {
    const TensorType& type = program.buffers[i].type;
    std::vector<std::byte> bytes(bytes_of(type, storage), std::byte{0xff});
    with_elements(type.dtype, values_[i].size(), [&]<class T>(std::vector<T> elements) {
      std::transform(values_[i].begin(), values_[i].end(), elements.begin(), from_double<T>);
      const std::size_t kept = kept_bytes(type.bytes(), type.dtype, storage);
      to_kept(bytes_of_vector(elements), type.dtype, storage, std::span(bytes).first(kept));
    });
    all.push_back(std::move(bytes));
  }
  return all;
}

void HostMemory::from_device(const std::vector<std::vector<std::byte>>& bytes,
                             const Storage& storage) {
  for (std::size_t i = 0; i < values_.size(); ++i) {
    const TensorType& type = program.buffers[i].type;
    with_elements(type.dtype, values_[i].size(), [&]<class T>(std::vector<T> elements) {
      const std::size_t kept = kept_bytes(type.bytes(), type.dtype, storage);
      from_kept(std::span(bytes[i]).first(kept), type.dtype, storage,
                std::as_writable_bytes(std::span(elements)));
      std::transform(elements.begin(), elements.end(), values_[i].begin(), to_double<T>);
    });
  }
}

ContractOperand random_operand(RandomNumbers& random, HostMemory& memory, DType dtype,
                               std::int64_t batch, std::int64_t rows, std::int64_t columns,
                               bool plain, double size) {
  ContractOperand operand;
  operand.batch.sizes = plain ? Dims{batch} : random.digits(batch);
  operand.rows.sizes = plain ? Dims{rows} : random.digits(rows);
  operand.columns.sizes = plain ? Dims{columns} : random.digits(columns);
  std::vector<std::pair<std::int64_t, std::int64_t*>> digits;  // size, stride
  for (OperandAxis* axis : {&operand.batch, &operand.rows, &operand.columns}) {
    axis->strides.assign(axis->sizes.size(), 0);
    for (std::size_t i = 0; i < axis->sizes.size(); ++i) {
      if (!plain && axis == &operand.batch && random.one_in(4)) continue;
      digits.emplace_back(axis->sizes[i], &axis->strides[i]);
    }
  }
  if (!plain) random.shuffle(digits);
  operand.offset = plain ? 0 : random.below(5);
  std::int64_t extent = 1;
  for (auto digit = digits.rbegin(); digit != digits.rend(); ++digit) {
    *digit->second = extent;
    extent *= std::max<std::int64_t>(1, digit->first);
    if (!plain && random.one_in(4)) extent += random.below(3);
  }
  std::vector<double> values(static_cast<std::size_t>(operand.offset + extent));
  for (double& value : values) value = random.value(size);
  operand.buffer = memory.add_input(dtype, values);
  return operand;
}

}  // namespace fluxion::testing
