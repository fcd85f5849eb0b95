#include "models/paths/wrapping.h"

#include "engine/error.h"
#include "engine/graph/ops.h"
#include "models/names.h"

namespace fluxion {
namespace {

constexpr EnumNames<Wrapping, 5> wrapping_names = {{{Wrapping::none, "none"},
                                                    {Wrapping::edm, "edm"},
                                                    {Wrapping::consistency, "consistency"},
                                                    {Wrapping::score, "score"},
                                                    {Wrapping::trigflow, "trigflow"}}};

// The end of a trajectory, which is z itself at the least noise.
Velocity consistency_function(const Velocity& network, const Path& path) {
  return [network, path](const Tensor& z, const Times& times, const Tensor& labels) {
    const double data = path.sigma_data;
    const Tensor sigma = path.at(times.t).sigma, above = sigma - path.sigma_min;
    const Tensor q = hypot(sigma, full_like(sigma, data));
    const Tensor skip = data * data / (square(above) + data * data), out = data * above / q;
    const Tensor F = edm_inputs(network, path)(z, times, labels);
    return over_samples(skip, z.rank()) * z + over_samples(out, z.rank()) * F;
  };
}

Velocity score_of_noise(const Velocity& network, const Path& path) {
  return [network, path](const Tensor& z, const Times& times, const Tensor& labels) {
    const Tensor F = network(z, {.t = times.t, .r = zeros_like(times.t)}, labels);
    return F / over_samples(path.at(times.t).sigma, z.rank());
  };
}

Velocity trigflow_end(const Velocity& network, const Path& path) {
  return [network, path](const Tensor& z, const Times& times, const Tensor& labels) {
    const double data = path.sigma_data;
    const Tensor F = network(z / data, {.t = times.t, .r = zeros_like(times.t)}, labels);
    return over_samples(cos(times.t), z.rank()) * z -
           over_samples(sin(times.t), z.rank()) * (data * F);
  };
}

}  // namespace

std::string to_string(Wrapping wrapping) { return name_of(wrapping_names, wrapping); }

Wrapping wrapping_from(const std::string& name) {
  return value_named(wrapping_names, name, "wrapping");
}

Velocity wrapped(Wrapping wrapping, const Velocity& network, const Path& path) {
  switch (wrapping) {
    case Wrapping::none:
      return network;
    case Wrapping::edm:
      return edm_inputs(network, path);
    case Wrapping::consistency:
      return consistency_function(network, path);
    case Wrapping::score:
      return score_of_noise(network, path);
    case Wrapping::trigflow:
      return trigflow_end(network, path);
  }
  throw Error("wrapping: unknown");
}

}  // namespace fluxion
