// How parameters start.
#pragma once

#include <array>
#include <functional>

#include "models/networks/parameters.h"

namespace fluxion {

// Uniform on +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010). weight [out, in], or [out,
// ..] with all other axes counted as inputs.
Tensor xavier_uniform(const Tensor& key, const Shape& shape, DType dtype);
// The same of a weight of any shape that counts as so many outputs and inputs.
Tensor xavier_uniform(const Tensor& key, std::array<std::int64_t, 2> outputs_inputs,
                      const Shape& shape, DType dtype);

// Uniform on +-1 / sqrt(inputs): PyTorch's default of weights and biases of linear maps and
// convolutions, where each output has so many inputs.
Tensor fan_in_uniform(const Tensor& key, const Shape& shape, std::int64_t inputs, DType dtype);

// make(name, shape, key) for every parameter, each with a key of its own, evaluated one at a time.
Parameters initialise_each(const std::map<std::string, Shape>& shapes, const Tensor& key,
                           const std::function<Tensor(const std::string& name, const Shape& shape,
                                                      const Tensor& key)>& make);

}  // namespace fluxion
