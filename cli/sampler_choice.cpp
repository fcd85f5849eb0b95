#include "cli/sampler_choice.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/error.h"
#include "engine/number_text.h"
#include "models/samplers/default_sampler.h"
#include "models/samplers/head_start.h"

namespace fluxion::cli {

namespace {

using Kinds = std::vector<SamplerKind>;

template <class List>
std::string names_of(const List& list) {
  std::string names;
  for (const auto each : list) names += (names.empty() ? "" : ", ") + to_string(each);
  return names;
}

// Throws unless `kind` is one of those that have the option, or the option was not given.
void check_use(const std::string& command, bool given, const char* option, SamplerKind kind,
               const Kinds& kinds) {
  if (!given || std::find(kinds.begin(), kinds.end(), kind) != kinds.end()) return;
  throw Error(command + ": " + option + " is for --sampler " + names_of(kinds) + ", not for " +
              to_string(kind));
}

}  // namespace

std::vector<Option> add_sampler_options(const Parser& parser, SamplerChoice& choice) {
  std::vector<Option> all;
  all.push_back(
      parser
          .add_number(
              "--steps", choice.steps, whole(1, most_sampler_steps),
              "Steps from noise to data (default: 1 for meanflow models, 50 for flow-matching "
              "models; of the other samplers 2 to 250; of dopri5, the most that it tries)")
          .type_name("K"));
  std::string names;
  for (const std::string& name : sampler_names())
    names += (names.empty() ? "" : &name == &sampler_names().back() ? " or " : ", ") + name;
  all.push_back(parser
                    .add_option("--sampler", choice.sampler,
                                names + " (default: what the model was trained for)")
                    .check(one_of(sampler_names()))
                    .type_name("NAME"));
  const std::string group = "Samplers";
  const auto number = [&](const char* name, std::optional<double>& variable, const Range& range,
                          const char* help, const char* unit) {
    all.push_back(parser.add_number(name, variable, range, help).type_name(unit).group(group));
  };
  number("--eta", choice.eta, real(0, 100),
         "ddim: noise of a step, 0 (none, default) to 1 (ancestral); sde: scale of the noise "
         "(default 1)",
         "X");
  number("--churn", choice.churn, real(0, 1e6), "edm: noise added on the way, in all (default 0)",
         "X");
  number("--churn-min", choice.churn_min, real(0, 1e6), "edm: least sigma that is churned", "X");
  number("--churn-max", choice.churn_max, real(0, 1e6), "edm: largest sigma that is churned", "X");
  number("--churn-noise", choice.churn_noise, real(0, 10),
         "edm: scale of the added noise (default 1)", "X");
  number("--tolerance", choice.tolerance, real(1e-12, 1),
         "dopri5: error of a step, relative and absolute (default 1e-5)", "X");
  all.push_back(
      parser
          .add_flag(
              "--batch-error", choice.batch_error,
              "dopri5: one step size for the whole batch, as most programs have it, instead of "
              "one for each sample")
          .group(group));
  number("--snr", choice.signal_to_noise, real(1e-6, 10),
         "predictor-corrector: signal-to-noise ratio of a correction (default 0.16)", "X");
  all.push_back(parser
                    .add_number("--corrections", choice.corrections, whole(0, 1000),
                                "predictor-corrector: corrections before each step (default 1)")
                    .type_name("N")
                    .group(group));
  all.push_back(
      parser
          .add_flag("--measured-norms", choice.measured_norms,
                    "predictor-corrector: take the norms of noise and score from the batch, as the "
                    "authors' code does; samples then depend on --batch")
          .group(group));
  all.push_back(
      parser
          .add_option(
              "--grid", choice.grid,
              "Where the steps lie: uniform in time, karras, log-snr, best: where euler's err "
              "least on the paths of some samples, or auto: karras for edm, log-snr for "
              "dpm-solver++, else uniform (default: auto)")
          .check(one_of({"auto", "uniform", "karras", "log-snr", "best"}))
          .type_name("NAME")
          .group(group));
  number("--shift", choice.shift, real(1e-3, 1000),
         "uniform grids: t becomes shift t / (1 + (shift - 1) t); above 1, more steps in noise",
         "X");
  number("--rho", choice.rho, real(0.1, 100), "karras grids: exponent (default 7)", "X");
  number("--sigma-min", choice.sigma_min, real(1e-6, 1e6),
         "karras and log-snr grids: least noise for each unit of data (default 0.002)", "X");
  number("--sigma-max", choice.sigma_max, real(1e-6, 1e6),
         "karras and log-snr grids: most noise for each unit of data (default 80)", "X");
  number(
      "--head-start", choice.head_start, real(0.001, 0.999),
      "Cover this share of the path from noise to data by a formula, from the mean and covariance "
      "of the data, without the network (default: none)",
      "X");
  number("--guidance-low", choice.guidance_low, real(0, 1000),
         "Least time at which --guidance holds (default 0)", "X");
  number("--guidance-high", choice.guidance_high, real(0, 1000),
         "Largest time at which --guidance holds (default: always)", "X");
  return all;
}

SamplerOptions chosen_sampler(const SamplerChoice& choice, double guidance, const ModelInfo& info,
                              const std::string& command, bool free_guidance) {
  SamplerOptions options = default_sampler(info);
  check_guidance(info, guidance);
  options.guidance = guidance;
  if (choice.sampler) {
    const SamplerKind before = options.kind;
    options.kind = sampler_kind_from(*choice.sampler);
    // Of velocities and average velocities, these solve with the steps of the model's own sampler.
    const Kinds plain{SamplerKind::meanflow, SamplerKind::ode_euler, SamplerKind::ode_heun,
                      SamplerKind::ode_rk4};
    if (options.kind != before &&
        std::find(plain.begin(), plain.end(), options.kind) == plain.end())
      options.steps = usual_steps(options.kind);
  }
  if (choice.steps) options.steps = *choice.steps;
  if (choice.grid) options.grid = grid_kind_from(*choice.grid);

  const auto use = [&](bool given, const char* option, const Kinds& kinds) {
    check_use(command, given, option, options.kind, kinds);
  };
  const auto set = [](auto& member, const std::optional<double>& given) {
    if (given) member = *given;
  };
  const auto take = [&](auto& member, const std::optional<double>& given, const char* option,
                        const Kinds& kinds) {
    use(given.has_value(), option, kinds);
    set(member, given);
  };
  const Kinds edm{SamplerKind::edm}, dopri5{SamplerKind::ode_dopri5},
      corrector{SamplerKind::predictor_corrector};
  take(options.eta, choice.eta, "--eta", {SamplerKind::ddim, SamplerKind::sde});
  take(options.churn, choice.churn, "--churn", edm);
  take(options.churn_min, choice.churn_min, "--churn-min", edm);
  take(options.churn_max, choice.churn_max, "--churn-max", edm);
  take(options.churn_noise, choice.churn_noise, "--churn-noise", edm);
  take(options.relative_tolerance, choice.tolerance, "--tolerance", dopri5);
  set(options.absolute_tolerance, choice.tolerance);
  use(choice.batch_error, "--batch-error", dopri5);
  take(options.signal_to_noise, choice.signal_to_noise, "--snr", corrector);
  use(choice.corrections.has_value(), "--corrections", corrector);
  use(choice.measured_norms, "--measured-norms", corrector);
  if (options.kind == SamplerKind::ode_dopri5 && choice.grid)
    throw Error(command + ": --grid has no meaning for dopri5, which chooses its steps");
  const auto take_for_grids = [&](double& member, const std::optional<double>& given,
                                  const char* option, std::initializer_list<GridKind> grids) {
    if (!given) return;
    const GridKind grid = grid_of(options);
    if (options.kind == SamplerKind::ode_dopri5)
      throw Error(command + ": " + option + " has no effect on dopri5, which chooses its steps");
    if (std::ranges::count(grids, grid) == 0)
      throw Error(command + ": " + option + " is for --grid " + names_of(grids) +
                  ", and the grid is " + to_string(grid));
    member = *given;
  };
  using enum GridKind;
  take_for_grids(options.shift, choice.shift, "--shift", {uniform});
  take_for_grids(options.rho, choice.rho, "--rho", {karras});
  take_for_grids(options.sigma_min, choice.sigma_min, "--sigma-min", {karras, log_snr});
  take_for_grids(options.sigma_max, choice.sigma_max, "--sigma-max", {karras, log_snr});
  if ((choice.guidance_low || choice.guidance_high) && guidance == 1 && !free_guidance)
    throw Error(command +
                ": --guidance-low and --guidance-high limit --guidance W, which is not given");
  set(options.guidance_low, choice.guidance_low);
  set(options.guidance_high, choice.guidance_high);
  if (choice.corrections) options.corrections = *choice.corrections;
  options.per_sample_error = !choice.batch_error;
  options.measured_norms = choice.measured_norms;
  check(options);
  return options;
}

void take_head_start(const SamplerChoice& choice, SamplerOptions& options, const DataSet& data,
                     const Shape& sample_shape) {
  if (!choice.head_start) return;
  if (data.sample_shape() != sample_shape)
    throw ShapeError("--head-start: " + data.name() + " holds samples of shape " +
                     to_string(data.sample_shape()) + ", the model's are " +
                     to_string(sample_shape));
  options.begin = *choice.head_start;
  options.head_start = std::make_shared<const HeadStart>(fitted_head_start(data));
  check(options);
}

std::string evaluations_text(double evaluations) {
  return evaluations == std::round(evaluations) ? rounded_text(evaluations, 12)
                                                : fixed_text(evaluations, 1);
}

}  // namespace fluxion::cli
