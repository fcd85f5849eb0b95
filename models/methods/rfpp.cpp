// rf++: reflow with times near both ends, where learning is hardest, and a pseudo-Huber distance.
//   loss = (sqrt(|v(z, t) - (e - x)|^2 + c^2) - c) / d,  c = 0.00054 d,  t u-shaped
// on pairs of a teacher, as its authors' code has it but for the perceptual distance, which takes
// weights of another network. The network is behind EDM's scales, v(z, t) = (z - D(z / (1 - t),
// t / (1 - t))) / t, so that it may begin as a denoiser that EDM has trained.
#include "engine/graph/ops.h"
#include "models/layers/losses.h"
#include "models/methods/noise_levels.h"

namespace fluxion {
namespace {

constexpr double ends = 1e-5;  // times keep away from both by so much

Path straight_path(const MethodOptions& options) {
  Path path = Path::linear();
  path.sigma_data = options.real("sigma-data");
  return path;
}

LossValue rfpp_loss(const LossArguments& arguments) {
  const MethodOptions& options = arguments.use.options;
  FlowDraws draws =
      draw(arguments, {.equal_share = 1, .label_dropout = options.real("label-dropout")});
  const Tensor t =
      draw_times({.density = TimeDensity::u_shaped, .slope = options.real("time-slope")},
                 fold_in(arguments.key, 1), {arguments.x.size(0)}, arguments.x.dtype());
  draws.t = draws.r = ends + (1 - 2 * ends) * t;
  const Path path = straight_path(options);
  const Predictor flow{wrapped(Wrapping::edm, arguments.velocity, path), path, Prediction::F};
  const Tensor v = flow(Prediction::velocity, interpolate(draws.x, draws.e, draws.t), draws.t,
                        draws.labels.dropped());
  const Tensor squares = squared_norm(v - (draws.e - draws.x));
  const auto elements = static_cast<double>(arguments.x.elements() / arguments.x.size(0));
  const double c = options.real("huber-share") * elements;
  // sqrt(s + c^2) - c without its difference of equal numbers, and with a slope at s = 0.
  const Tensor distance = squares / (sqrt(squares + std::max(c * c, 1e-24)) + c);
  return {mean(distance) / elements, per_element(squares, arguments.x)};
}

std::vector<MethodOption> rfpp_options() {
  return with_options(pair_making_options(),
                      {{time_slope_option(),
                        real_option("huber-share", 0, 10, {.images = 0.00054},
                                    "c of the pseudo-Huber distance, in numbers of elements"),
                        sigma_data_option(), label_dropout_option()}});
}

}  // namespace

Method rfpp_method() {
  return {
      .name = "rf++",
      .summary =
          "As reflow, with times near noise and data and a pseudo-Huber distance; one step or two "
          "draw a sample",
      .paper =
          "Lee, Lin and Fanti 2024, Improving the Training of Rectified Flows, arXiv 2405.20320",
      .options = rfpp_options(),
      .prediction = Prediction::F,
      .wrapping = Wrapping::edm,
      .path = straight_path,
      .sampling = {.sampler = "rf++", .steps = 2},
      .loss = rfpp_loss,
      .takes_pairs = true,
      .needs_pairs = true,
  };
}

}  // namespace fluxion
