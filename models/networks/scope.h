// What networks that read their parameters by name have in common.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "models/layers/image.h"
#include "models/layers/precision.h"
#include "models/networks/parameters.h"
#include "models/networks/running.h"

namespace fluxion {

// Parameters under one prefix: (scope / "blocks.0")("weight") is the parameter "blocks.0.weight".
// Throws Error where there is none.
struct Scope {
  const Parameters& parameters;
  std::string prefix;  // "" or with a dot at its end
  Precision precision = {};

  const Tensor& operator()(const std::string& name) const {
    return parameter(parameters, prefix + name);
  }
  Scope operator/(const std::string& name) const {
    return {parameters, prefix + name + ".", precision};
  }
  // weight x + bias over the last axis.
  Tensor linear(const Tensor& x) const;
};

// A convolution of images [batch, height, width, channels]: weight [out, in, height, width] and
// bias.
Tensor convolve(const Scope& at, const Tensor& x, const ConvolutionOptions& options);
// A 3 x 3 kernel keeps the size.
inline constexpr ConvolutionOptions same_size{.low = {1, 1}, .high = {1, 1}};

// x with a share of its elements left out and the others scaled up, as `running` says; `place`
// keeps the places of a network apart.
Tensor with_dropout(const Tensor& x, const Running& running, std::uint32_t place);

// Linear "0", silu, linear "2" on the sinusoidal features of a time: [batch] -> [batch, width].
Tensor embed_time(const Scope& mlp, const Tensor& time, std::int64_t features, double time_scale);

// Throws ShapeError unless z is [batch, ..sample] and, if there are classes, labels are i32
// [batch]; Error where they are missing. `network` stands at the head of the message.
void check_call(const char* network, const Shape& sample, std::int64_t classes, const Tensor& z,
                const Tensor& labels);

// The shapes of a linear map's weight [out, in] and bias [out].
void add_linear(std::map<std::string, Shape>& shapes, const std::string& name, std::int64_t in,
                std::int64_t out);

}  // namespace fluxion
