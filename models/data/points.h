// The plane's classic toy densities, endless and unlabelled, and what is known of them exactly.
#pragma once

#include <array>
#include <memory>
#include <string_view>
#include <vector>

#include "models/data/data_set.h"

namespace fluxion {

// Eight Gaussians, centres at radius 4, standard deviation 0.5, all divided by sqrt 2 (Grathwohl et
// al., "FFJORD", 2019, its code).
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
// A rolled-up band: angle a uniform in [1.5 pi, 4.5 pi), a (cos a, sin a) with noise 1, divided by
// 5 (FFJORD's code; scikit-learn's swiss roll seen from the side).
std::unique_ptr<DataSet> swiss_roll();
// Circles of radius 1 and 1/2 with noise 0.08, times 3 (FFJORD's code).
std::unique_ptr<DataSet> circles();
// Circles of radius 3, 2.25, 1.5 and 0.75, equally full, with noise 0.08 (FFJORD's code).
std::unique_ptr<DataSet> rings();
// x uniform in [-2.5, 2.5), y = 2.5 sin x, although the name says cos (FFJORD's code). A curve: it
// has no density in the plane.
std::unique_ptr<DataSet> cosine();
// x uniform in [-2.5, 2.5), y = x (FFJORD's code). A curve, too.
std::unique_ptr<DataSet> line();

// A mixture of equally likely round Gaussians: where they are, and their standard deviation along
// each axis.
struct PlanarMixture {
  std::vector<std::array<double, 2>> centres;
  double deviation = 0;
};
// What "8gaussians" and "8gaussians-torchcfm" draw from, exactly. Throws Error for another name.
PlanarMixture planar_mixture(std::string_view name);

// Whether "checkerboard" can draw (x, y): on one of its eight dark cells, edges included. Its
// density is 1/32 there and 0 elsewhere.
bool in_checkerboard(double x, double y);

}  // namespace fluxion
