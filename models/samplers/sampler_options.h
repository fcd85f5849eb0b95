// Which sampler, with which settings, for a network trained in which way.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/paths/wrapping.h"

namespace fluxion {

struct HeadStart;

// The samplers by name; docs/sampling.md has their formulas.
enum class SamplerKind {
  meanflow,   // z + h u(z, t, s): one network call per step, exact for a perfect average velocity
  ode_euler,  // on v(z, t) = u(z, t, t): one call
  ode_heun,   // two calls
  ode_rk4,    // the classical Runge-Kutta step: four calls
  ode_midpoint,  // two calls
  ode_dopri5,    // Dormand and Prince 1980, with error control: six calls a try
  edm,           // Karras et al. 2022, algorithm 2: Heun in sigma with churn; 2 steps - 1 calls
  ddim,          // Song et al. 2021 (DDIM); eta 1 is the ancestral sampler: one call
  dpm_solver,    // DPM-Solver++(2M), Lu et al. 2022: one call, second order
  sde,           // Euler-Maruyama on a reverse SDE: one call
  predictor_corrector,  // Song et al. 2021 (score SDE): one call and one for each correction
  consistency,          // Song et al. 2023, algorithm 1: to the end, noise again, and on: one call
  rectified,  // Lee et al. 2024 (rf++): to the data seen, and back to the noise at the start: one
              // call
};
std::string to_string(SamplerKind kind);
SamplerKind sampler_kind_from(const std::string& name);  // throws FormatError for an unknown name
const std::vector<std::string>& sampler_names();
// The number of steps that it is usually run with; of dopri5, the most tries.
std::int64_t usual_steps(SamplerKind kind);

// Where between noise and data a sampler stops on its way.
enum class GridKind {
  automatic,  // karras for edm and on its path, log-snr for dpm_solver, else uniform
  uniform,    // in the path's time
  karras,     // sigma / alpha = (a + i / (n - 1) (b - a))^rho with a, b the rho-th roots of its
              // ends (Karras et al. 2022), and after them no noise
  log_snr,    // even in log(alpha / sigma), and after it no noise
  best,       // of Euler's steps: at `times`, or where these are best for samples of the network
              // (models/samplers/best_steps.h)
};
std::string to_string(GridKind kind);
GridKind grid_kind_from(const std::string& name);  // throws FormatError for an unknown name

struct SamplerOptions {
  SamplerKind kind = SamplerKind::meanflow;
  std::int64_t steps = 1;  // of dopri5: the most that it may try
  double guidance = 1;     // classifier-free guidance scale of velocity models; 1: none
  // Guidance holds for times from low to high only (Kynkaanniemi et al. 2024), those that the
  // network is called at.
  double guidance_low = 0, guidance_high = 1e30;

  // What the network was trained to say.
  Path path = {};
  Prediction prediction = Prediction::average_velocity;
  Wrapping wrapping = Wrapping::none;  // how its raw output becomes that

  // The noise of its training was drawn independently of the data. Otherwise the velocity says
  // nothing of the score, and what adds noise on its way is refused.
  bool independent_noise = true;
  // States on the way are alpha data + sigma noise. Otherwise (FFJORD) nothing can begin with data
  // under noise, and no step ends there.
  bool on_path = true;
  // The set of points that it begins in (models/data/source_set.h); "": standard normal noise.
  std::string source = {};

  GridKind grid = GridKind::automatic;
  // Share of the grid, as it measures the way from noise to data, that is left out: samples then
  // begin with data under noise (Sampler::Request::data). [0, 1).
  double begin = 0;
  // Sampler: that share is gone in closed form (head_start.h); empty: samples begin with data.
  std::shared_ptr<const HeadStart> head_start = {};
  // Of the best grid: the path's times, steps + 1 of them, noise first; empty: to be found.
  std::vector<double> times = {};
  // .. with samples of these classes in turn; empty: of every class that the network has.
  std::vector<std::int32_t> best_classes = {};
  double shift = 1;  // uniform grids of paths in [0, 1]: t becomes shift t / (1 + (shift - 1) t)
  double rho = 7;    // karras
  double sigma_min = 0.002, sigma_max = 80;  // ends of sigma / alpha of karras and log-snr

  // ddim: the noise of each step as a share of the posterior's deviation, [0, 1], else 0.
  // sde: w_t = eta g_t, with g of the forward SDE; where alpha reaches 0 and g is infinite, on
  // linear, trig and trigflow, w_t^2 = eta^2 2 sigma sigma'. Else 1.
  std::optional<double> eta = {};
  double churn = 0;                                             // edm: S_churn
  double churn_min = 0, churn_max = 1e30, churn_noise = 1;      // S_min, S_max, S_noise
  double relative_tolerance = 1e-5, absolute_tolerance = 1e-5;  // dopri5
  // dopri5: Solver's visits see so many steps that are even in time, by its dense output, instead
  // of its tries; 0: the tries.
  std::int64_t shown_steps = 0;
  bool per_sample_error = true;  // dopri5: every sample has steps of its own, and no sample depends
                                 // on those beside it; otherwise the whole batch has one step
  double signal_to_noise = 0.16;  // predictor_corrector: of a correction
  std::int64_t corrections = 1;   // predictor_corrector: for each step
  // predictor_corrector: measure the norms of noise and score and take their means over the batch,
  // as Song et al. do; otherwise their expectation where noise prevails, sigma, stands for the
  // ratio, and no sample depends on those beside it.
  bool measured_norms = false;
};

// The grid of these options, with `automatic` resolved.
GridKind grid_of(const SamplerOptions& options);

// Throws Error, which says what would be right, for settings out of range, and where the network's
// prediction doesn't serve the sampler.
void check(const SamplerOptions& options);

}  // namespace fluxion
