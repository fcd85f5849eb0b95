// Steppers that work with the data and the noise that a network sees in z, and those that draw
// noise of their own.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "engine/graph/ops.h"
#include "models/layers/losses.h"
#include "models/samplers/steppers.h"

namespace fluxion {
namespace {

double squared(double x) { return x * x; }

// Deviation of the noise in z_s given z_t and x, s the cleaner (DDIM's sigma for eta = 1).
double posterior_deviation(const GridPoint& t, const GridPoint& s) {
  const double share = squared(t.alpha * s.sigma / (s.alpha * t.sigma));
  return s.sigma * std::sqrt(std::max(0.0, 1 - share));
}

// What of the noise at s is not drawn again.
double kept_noise(const GridPoint& s, double drawn) {
  return std::sqrt(std::max(0.0, squared(s.sigma) - squared(drawn)));
}

// Paths whose alpha reaches 0: there the forward SDE's coefficients are infinite.
bool reaches_noise(const Path& path) {
  return path.kind == PathKind::linear || path.kind == PathKind::trig ||
         path.kind == PathKind::trigflow;
}

double log_snr(const GridPoint& at) {
  return at.alpha < 1e-12 ? -std::numeric_limits<double>::infinity()
                          : std::log(at.alpha / at.sigma);
}

}  // namespace

Stepper edm_stepper(const SamplerOptions& options) {
  Stepper stepper;
  const NoiseRange range = noise_range(options.path, options.prediction);
  stepper.path = options.path.kind == PathKind::edm
                     ? options.path
                     : Path::edm(std::max(range.low, options.sigma_min),
                                 std::min(range.high, options.sigma_max));
  stepper.grid = time_grid(options, stepper.path, true);
  stepper.draws_noise = options.churn > 0;
  stepper.call = [grid = stepper.grid, options](std::size_t i) -> Stepper::Call {
    const double steps = static_cast<double>(grid.size() - 1), s = grid[i].sigma,
                 next = grid[i + 1].sigma;
    const bool churned = s >= options.churn_min && s <= options.churn_max;
    const double gamma = churned ? std::min(options.churn / steps, std::numbers::sqrt2 - 1) : 0;
    const double raised = s * (1 + gamma),
                 added = std::sqrt(std::max(0.0, squared(raised) - squared(s)));
    return {next == 0 ? 1 : 0, {raised, next - raised, next, added * options.churn_noise}};
  };
  stepper.step = [noisy = stepper.draws_noise](int form, const LabelledPredictor& network,
                                               const StepInput& input) -> StepOutput {
    const std::vector<Tensor>& n = input.numbers;
    const Tensor z = noisy ? input.z + n[3] * input.noise(0) : input.z;
    const Tensor slope = network(Prediction::velocity, z, n[0]);
    const Tensor euler = z + n[1] * slope;
    if (form == 1) return {euler};
    return {z + 0.5 * n[1] * (slope + network(Prediction::velocity, euler, n[2]))};
  };
  return stepper;
}

Stepper ddim_stepper(const SamplerOptions& options) {
  Stepper stepper;
  stepper.path = options.path;
  stepper.grid = time_grid(options, options.path, true);
  const double eta = options.eta.value_or(0);
  stepper.draws_noise = eta > 0;
  stepper.call = [grid = stepper.grid, eta](std::size_t i) -> Stepper::Call {
    const double drawn = eta * posterior_deviation(grid[i], grid[i + 1]);
    return {0, {grid[i].t, grid[i + 1].alpha, kept_noise(grid[i + 1], drawn), drawn}};
  };
  stepper.step = [noisy = stepper.draws_noise](int, const LabelledPredictor& network,
                                               const StepInput& input) -> StepOutput {
    const std::vector<Tensor>& n = input.numbers;
    const auto [x, e] = network.both(Prediction::data, Prediction::noise, input.z, n[0]);
    const Tensor z = n[1] * x + n[2] * e;
    return {noisy ? z + n[3] * input.noise(0) : z};
  };
  return stepper;
}

Stepper dpm_solver_stepper(const SamplerOptions& options) {
  Stepper stepper;
  stepper.path = options.path;
  stepper.grid = time_grid(options, options.path, true);
  stepper.call = [grid = stepper.grid](std::size_t i) -> Stepper::Call {
    const GridPoint &t = grid[i], &s = grid[i + 1];
    const double h =
        s.sigma > 0 ? log_snr(s) - log_snr(t) : std::numeric_limits<double>::infinity();
    const double of_data = -s.alpha * std::expm1(-h);
    // The first step has no history; the last is of first order where it ends without noise, and
    // where there are few.
    const std::size_t steps = grid.size() - 1;
    const bool first_order = i == 0 || std::isinf(h) || (i + 1 == steps && steps < 15);
    const double before = i == 0 ? 0 : log_snr(t) - log_snr(grid[i - 1]);
    return {0, {t.t, s.sigma / t.sigma, of_data, first_order ? 0 : of_data * h / (2 * before)}};
  };
  // Memory: the data seen one step before.
  stepper.start = [](const LabelledPredictor&, const Tensor& z,
                     const Tensor&) -> std::vector<Tensor> { return {zeros_like(z)}; };
  stepper.step = [](int, const LabelledPredictor& network, const StepInput& input) -> StepOutput {
    const std::vector<Tensor>& n = input.numbers;
    const Tensor x = network(Prediction::data, input.z, n[0]);
    return {n[1] * input.z + n[2] * x + n[3] * (x - input.memory[0]), {x}};
  };
  return stepper;
}

Stepper sde_stepper(const SamplerOptions& options) {
  Stepper stepper;
  stepper.path = options.path;
  stepper.grid = time_grid(options, options.path, options.path.kind != PathKind::ve);
  const double eta = options.eta.value_or(1);
  stepper.draws_noise = eta > 0;
  stepper.call = [grid = stepper.grid, path = options.path, eta](std::size_t i) -> Stepper::Call {
    const double t = grid[i].t, h = grid[i + 1].t - t;
    // Where no noise is left the step is to the data seen: its drift would take away what the noise
    // that is not added makes up for.
    if (grid[i + 1].sigma == 0) return {1, {t}};
    const PathNumbers at = path.at(t);
    const double rate =
        squared(eta) * (reaches_noise(path) ? 2 * at.sigma * at.sigma_rate : diffusion_squared(at));
    const bool last = i + 2 == grid.size();
    const double variance = std::max(0.0, rate) * std::abs(h);
    return {0, {t, h, variance / (2 * at.sigma), last ? 0 : std::sqrt(variance)}};
  };
  stepper.step = [noisy = stepper.draws_noise](int form, const LabelledPredictor& network,
                                               const StepInput& input) -> StepOutput {
    const std::vector<Tensor>& n = input.numbers;
    if (form == 1) return {network(Prediction::data, input.z, n[0])};
    if (!noisy) return {input.z + n[1] * network(Prediction::velocity, input.z, n[0])};
    const auto [v, e] = network.both(Prediction::velocity, Prediction::noise, input.z, n[0]);
    return {input.z + n[1] * v - n[2] * e + n[3] * input.noise(0)};
  };
  return stepper;
}

Stepper predictor_corrector_stepper(const SamplerOptions& options) {
  Stepper stepper;
  stepper.path = options.path;
  stepper.grid = time_grid(options, options.path, true);
  stepper.draws_noise = true;
  const bool ancestral = reaches_noise(options.path);
  stepper.call = [grid = stepper.grid, ancestral,
                  snr = options.signal_to_noise](std::size_t i) -> Stepper::Call {
    const GridPoint &t = grid[i], &s = grid[i + 1];
    const double ratio = t.alpha / s.alpha;
    // Both predictors are z' = a z + b x + c e + d noise; the last step returns the mean.
    const bool last = i + 2 == grid.size();
    double a = 0, b = 0, c = 0, d = 0;
    if (ancestral) {
      d = posterior_deviation(t, s);
      b = s.alpha, c = kept_noise(s, d);
    } else {
      const double beta = squared(t.sigma) - squared(ratio * s.sigma);
      a = 2 - ratio, c = -beta / t.sigma, d = std::sqrt(std::max(0.0, beta));
    }
    // alpha of Song et al.: 1 - beta_i on vp, 1 on ve.
    const double scale = ancestral ? 1 : squared(ratio), step = 2 * scale * squared(snr * t.sigma);
    return {0,
            {t.t, a, b, c, last ? 0 : d, step / t.sigma, std::sqrt(2 * step), t.sigma,
             2 * scale * squared(snr)}};
  };
  stepper.step = [ancestral, options](int, const LabelledPredictor& network,
                                      const StepInput& input) -> StepOutput {
    const std::vector<Tensor>& n = input.numbers;
    Tensor z = input.z;
    for (std::int64_t k = 0; k < options.corrections; ++k) {
      const Tensor e = network(Prediction::noise, z, n[0]),
                   drawn = input.noise(static_cast<std::uint32_t>(k + 1));
      if (options.measured_norms) {
        const auto norm = [](const Tensor& x) { return mean(sqrt(squared_norm(x))); };
        // |score| = |e| / sigma.
        const Tensor step = n[8] * square(norm(drawn) * n[7] / norm(e));
        z = z - step / n[7] * e + sqrt(2.0 * step) * drawn;
      } else {
        z = z - n[5] * e + n[6] * drawn;
      }
    }
    const Tensor noise = n[4] * input.noise(0);
    if (!ancestral) return {n[1] * z + n[3] * network(Prediction::noise, z, n[0]) + noise};
    const auto [x, e] = network.both(Prediction::data, Prediction::noise, z, n[0]);
    return {n[2] * x + n[3] * e + noise};
  };
  return stepper;
}

Stepper consistency_stepper(const SamplerOptions& options) {
  Stepper stepper;
  stepper.path = options.path;
  stepper.grid = time_grid(options, options.path, false);
  stepper.draws_noise = options.steps > 1;
  stepper.call =
      [grid = stepper.grid, clean = options.path.clean_time(),
       least = options.path.at(options.path.clean_time()).sigma](std::size_t i) -> Stepper::Call {
    const bool last = i + 2 == grid.size();
    const GridPoint& s = grid[i + 1];
    return {0, {grid[i].t, clean, last ? 1 : s.alpha, last ? 0 : kept_noise(s, least)}};
  };
  stepper.step = [noisy = stepper.draws_noise](int, const LabelledPredictor& network,
                                               const StepInput& input) -> StepOutput {
    const std::vector<Tensor>& n = input.numbers;
    const Tensor x = network.jump(input.z, n[0], n[1]);
    return {noisy ? n[2] * x + n[3] * input.noise(0) : x};
  };
  return stepper;
}

Stepper rectified_stepper(const SamplerOptions& options) {
  Stepper stepper;
  stepper.path = options.path;
  stepper.grid = time_grid(options, options.path, true);
  stepper.call = [grid = stepper.grid](std::size_t i) -> Stepper::Call {
    return {0, {grid[i].t, grid[i + 1].alpha, grid[i + 1].sigma}};
  };
  // Memory: the noise at the start, which is all there is where no data are in it.
  stepper.start = [sigma = stepper.grid.front().sigma, pure = options.begin == 0](
                      const LabelledPredictor&, const Tensor& z,
                      const Tensor& noise) -> std::vector<Tensor> {
    if (!pure) return {noise};
    return {sigma == 1 ? z : z / sigma};
  };
  stepper.step = [](int, const LabelledPredictor& network, const StepInput& input) -> StepOutput {
    const std::vector<Tensor>& n = input.numbers;
    const Tensor x = network(Prediction::data, input.z, n[0]);
    return {n[1] * x + n[2] * input.memory[0], {input.memory[0]}};
  };
  return stepper;
}

}  // namespace fluxion
