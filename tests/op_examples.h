// Examples of every op of the table, on odd sizes, size-1 and empty axes: what the tests of values
// and of derivatives walk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion::testing {

using Tensors = std::vector<Tensor>;

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
// Such values in [-1, 1) on a device.
Tensor random_tensor(const Shape& shape, const Device& device, std::uint64_t seed = 1,
                     DType dtype = DType::f32);

inline constexpr DType all_dtypes[] = {DType::boolean, DType::u8,  DType::i32,
                                       DType::u32,     DType::i64, DType::bf16,
                                       DType::f16,     DType::f32, DType::f64};
inline constexpr double infinity = std::numeric_limits<double>::infinity();

using TensorFunction = std::function<Tensors(const Tensors&)>;

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
// The elements as they lie in host memory.
std::vector<std::byte> host_bytes(const Tensor& tensor);

// How far `got` may be from `expected`: |got - expected| <= relative |expected| + absolute; NaN
// equals NaN, infinities themselves. "" or what differs first.
std::string difference(const Tensor& got, const Tensor& expected, double relative, double absolute);

// The distance from 1 to the next number of f32 or f64; 0 for other dtypes.
double epsilon_of(DType dtype);

// How far a device may be from the reference, which gave `expected`: a few units in the last place
// for an elementwise op; for sums, that times the number of terms and the size of the largest
// result; nothing for what moves or counts.
struct Tolerance {
  double relative = 0, absolute = 0;
};
Tolerance tolerance(const OpExample& example, DType dtype, const std::vector<Tensor>& expected);

// Runs an example in a dtype on a device and on the reference: "" if the results agree, else what
// differs first or what was thrown.
std::string difference(const OpExample& example, const Device& device, const Device& reference,
                       DType dtype);

}  // namespace fluxion::testing
