// Examples of every op of the table, on odd sizes, size-1 and empty axes: what the tests of values
// and of derivatives walk.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion::testing {

// Host data, in double. `dtype` f64 stands for "the floating dtype under test"; other dtypes are as
// they are.
struct HostValue {
  Shape shape;
  DType dtype = DType::f64;
  std::vector<double> values;
};

// On a device; f64 values become `floating`, which may be i32 too: then values are scaled by 10 and
// truncated. To 16 bits they are rounded.
Tensor to_tensor(const HostValue& value, const Device& device, DType floating = DType::f64);
std::vector<Tensor> to_tensors(const std::vector<HostValue>& values, const Device& device,
                               DType floating = DType::f64);

// Uniform values in [low, high), the same for the same seed everywhere.
HostValue random_value(const Shape& shape, double low, double high, std::uint64_t seed);

using TensorFunction = std::function<std::vector<Tensor>(const std::vector<Tensor>&)>;

struct OpExample {
  Op op;
  std::string label;
  std::vector<HostValue> inputs;  // points where the op is smooth
  TensorFunction f;
};

// At least one for every op but data and parameter.
const std::vector<OpExample>& op_examples();

// Ops that no transform differentiates: leaves, integers, comparisons, random bits, and
// stop_gradient, whose derivative is zero by decree.
bool has_derivative(Op op);
// Ops that take i32 operands where others take floating ones.
bool takes_integers(Op op);

// The elements as double, whatever the dtype.
std::vector<double> host_values(const Tensor& tensor);

// How far `got` may be from `expected`: |got - expected| <= relative |expected| + absolute; NaN
// equals NaN, infinities themselves. "" or what differs first.
std::string difference(const Tensor& got, const Tensor& expected, double relative, double absolute);

}  // namespace fluxion::testing
