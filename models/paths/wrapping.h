// How a network's raw output F(z, times) becomes a prediction on a path, in models whose inputs and
// outputs are scaled by the noise level. With s = sigma_data of the path and q^2 = sigma^2 + s^2:
//
//   name         prediction             source
//   none         F itself
//   edm          F(z / q, ln(sigma) / 4), EDM's F                        Karras et al. 2022
//   consistency  skip z + out F(z / q, ln(sigma) / 4), an end point       Song et al. 2023
//                skip = s^2 / ((sigma - sigma_min)^2 + s^2), out = s (sigma - sigma_min) / q
//   score        F / sigma, the score                                     Song et al. 2021
//   trigflow     cos(t) z - sin(t) s F(z / s, t), an end point            Lu, Song 2024
//
// "edm" and "consistency" are for the path "edm", "trigflow" for its own.
#pragma once

#include <string>

#include "models/networks/network.h"
#include "models/paths/prediction.h"

namespace fluxion {

enum class Wrapping { none, edm, consistency, score, trigflow };
std::string to_string(Wrapping wrapping);
Wrapping wrapping_from(const std::string& name);  // throws FormatError for an unknown name

// The network as what predicts on `path`. The second time of a network behind a scale is 0.
Velocity wrapped(Wrapping wrapping, const Velocity& network, const Path& path);

}  // namespace fluxion
