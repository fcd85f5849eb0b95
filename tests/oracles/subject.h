// From a case to the calls of the engine and the models that it describes.
#pragma once

#include <functional>
#include <stdexcept>
#include <vector>

#include "models/networks/parameters.h"
#include "tests/oracles/case.h"

namespace fluxion::oracles {

using Inputs = std::vector<Tensor>;
using Outputs = std::vector<Tensor>;

// out.0, out.1, ... as a function of in.0, in.1, ... and the parameters. `where` says dtype and
// device where a case has no input to tell.
struct Placement {
  DType floating = DType::f64;
  Device device;
};
using Subject = std::function<Outputs(const Inputs& inputs, const Parameters& parameters,
                                      const Placement& placement)>;

// The case asks for something that this project does not have; the message names it.
class NotBuilt : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

Subject op_subject(const Case& oracle);
Subject composite_subject(const Case& oracle);
Subject model_subject(const Case& oracle);
Subject objective_subject(const Case& oracle);
Subject sampler_subject(const Case& oracle);
Subject metric_subject(const Case& oracle);

// By kind. Throws NotBuilt.
Subject subject_of(const Case& oracle);

// Names of the parameters that the case says are not trained.
std::vector<std::string> frozen_of(const Case& oracle);

}  // namespace fluxion::oracles
