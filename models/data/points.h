// The plane's classic toy densities, endless and unlabelled.
#pragma once

#include <memory>

#include "models/data/data_set.h"

namespace fluxion {

// Eight Gaussians, centres at radius 4, standard deviation 0.5, all divided by sqrt 2 (Grathwohl et al., "FFJORD", 2019, its code).
std::unique_ptr<DataSet> eight_gaussians();
// The variant of Tong et al. ("TorchCFM", 2023, its code): centres at radius 5, variance sqrt(0.1).
std::unique_ptr<DataSet> eight_gaussians_torchcfm();
// Two interleaved half circles with noise 0.2, scaled to 3x - 1 (TorchCFM's code).
std::unique_ptr<DataSet> moons();
// Uniform on the eight dark cells of a 4 x 4 board over [-4, 4]^2 (FFJORD's code).
std::unique_ptr<DataSet> checkerboard();
// Five blurred arms (FFJORD's code: radial 0.3, tangential 0.1, rate 0.25, factor 2).
std::unique_ptr<DataSet> pinwheel();
// Two spirals that start at the origin (FFJORD's code).
std::unique_ptr<DataSet> two_spirals();

}  // namespace fluxion
