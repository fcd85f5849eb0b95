// A learned log-weight w of each sample's loss, as in exp(-w) L + w, from its times: a layer of
// tanh and a last layer that begins with zeros, as parameters of a method's own
// (Method::learned_shapes, Method::learned).
#pragma once

#include "models/methods/method.h"

namespace fluxion {

std::map<std::string, Shape> weight_shapes(std::int64_t inputs);
Parameters fresh_weight(std::int64_t inputs, const Tensor& key);
// w [batch] of times [batch, inputs].
Tensor weight_of(const Parameters& learned, const Tensor& times);

}  // namespace fluxion
