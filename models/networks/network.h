// What every network has in common: it is called as u(z, times, labels) and is a plain value - a
// configuration - beside its named parameters.
//
//   NetworkConfig config = DitConfig{.image_size = 28, .channels = 1, .num_classes = 10};
//   Parameters parameters = initialise(config, random_key(0, device));
//   Tensor u = apply(config, parameters, z, {.t = t, .r = r}, labels);
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <variant>
#include <vector>

#include "models/networks/dit.h"
#include "models/networks/mlp.h"
#include "models/networks/parameters.h"
#include "models/networks/song_unet.h"
#include "models/networks/unet.h"

namespace fluxion {

using NetworkConfig = std::variant<MlpConfig, DitConfig, UnetConfig, SongUnetConfig>;

// The network's output, of the shape of z: the average velocity u(z, r, t) from time t back to r,
// or whatever it was trained to be.
//   z       [batch, ..sample_shape]
//   times   t and r, [batch] each
//   labels  i32 [batch], in [0, num_classes], where num_classes is the null class; ignored, and may
//   be empty, if the network has no classes
// Throws ShapeError where these do not fit the configuration, Error where a parameter is missing.
Tensor apply(const NetworkConfig& config, const Parameters& parameters, const Tensor& z,
             const Times& times, const Tensor& labels = {});

// The same network, whose gradients compute each of its blocks again instead of keeping what they
// computed: less memory, some more time. Throws Error for an MLP, which has no blocks.
NetworkConfig with_checkpoints(NetworkConfig config);

// The same network, whose products with weights have this precision. Neither changes what the
// network is: configurations stay equal, and files don't hold it.
NetworkConfig with_precision(NetworkConfig config, const Precision& precision);

// The same network, which leaves a share of its activations out, by this key, as in training
// (Srivastava et al. 2014). Throws Error for a share that is not in [0, 1), and for networks that
// have no such place.
NetworkConfig with_dropout(NetworkConfig config, double share, const Tensor& key);

// A network with its parameters bound: what objectives and samplers work on. Any callable of this
// form will do.
using Velocity = std::function<Tensor(const Tensor& z, const Times& times, const Tensor& labels)>;
Velocity bind_parameters(const NetworkConfig& config, const Parameters& parameters);

// Fresh parameters on the key's device. An MLP and a DiT: linear weights Xavier-uniform, biases 0,
// embedding tables and time embedders N(0, 0.02^2), adaLN and output layers 0. U-Nets: unet.h,
// song_unet.h.
Parameters initialise(const NetworkConfig& config, const Tensor& key, DType dtype = DType::f32);

// Every parameter's name and shape.
std::map<std::string, Shape> parameter_shapes(const NetworkConfig& config);
// Names of the parameters that are constants and are not trained.
std::vector<std::string> frozen_parameters(const NetworkConfig& config);

std::string family(const NetworkConfig& config);        // "mlp", "dit", "unet", "song-unet"
std::int64_t num_classes(const NetworkConfig& config);  // 0: not conditional
Shape sample_shape(const NetworkConfig& config);        // of one sample, e.g. [28, 28, 1]
std::int64_t parameter_count(const NetworkConfig& config);
// Throws Error, saying what would be right, for a configuration that no network can have.
void check(const NetworkConfig& config);

// {"family": "dit", "config": {..}}. network_from_json throws FormatError for an unknown family, a
// missing or mistyped member or an invalid configuration.
nlohmann::json network_to_json(const NetworkConfig& config);
NetworkConfig network_from_json(const nlohmann::json& json);

}  // namespace fluxion
