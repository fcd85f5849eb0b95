// What methods share that learn the score along a path of a diffusion, t uniform between the path's
// ends, which samplers walk between (path.h); on vp and sub-vp it begins at 1e-3.
#pragma once

#include "autograd/divergence.h"
#include "models/methods/flow_options.h"
#include "models/paths/path.h"

namespace fluxion {

// path, its rates or levels, and label-dropout, with a method's own before them.
std::vector<MethodOption> score_options(std::vector<MethodOption> own = {});
Path score_path(const MethodOptions& options);
// Where beta-min is not below beta-max.
std::string score_refusal(const MethodUse& use);

// A batch at its noise levels: z = alpha x + sigma e.
struct NoisedBatch {
  Tensor e, z, t;
  Tensor sigma;   // [batch, 1, ..]
  Tensor labels;  // some of them dropped; empty without classes
};
NoisedBatch noised_batch(const LossArguments& arguments);

// z -> sigma s(z), with s the score of the network at the levels of the batch.
Field scaled_score(const LossArguments& arguments, const NoisedBatch& batch);

// The mean squared error per element of sigma s as a regression on -e, its mean, whatever it is
// trained by.
Tensor score_error(const NoisedBatch& batch, const Tensor& scaled);

// A row of the table, still without a name and a loss.
Method score_method();

}  // namespace fluxion
