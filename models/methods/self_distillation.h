// What the three ways of distilling a flow map from itself share: Boffi, Albergo and Vanden-Eijnden
// 2025, "How to build a consistency model", arXiv 2505.18825. Some rows of a batch learn the
// velocity, u(z, t, t) = e - x; the others, with times r <= t uniform on the triangle, learn that
// the map X(z) = z - (t - r) u(z, t, r) belongs to the flow of that velocity.
#pragma once

#include <functional>

#include "models/methods/flow_options.h"

namespace fluxion {

// The squared residual of the relation, [rows], summed over the elements of each sample; the key
// is for what it draws itself.
using MapResidual = std::function<Tensor(const Velocity&, const FlowDraws&, const Tensor& key)>;

// label-dropout, diagonal-share, weighting, with those of the relation before them.
std::vector<MethodOption> self_distillation_options(std::vector<MethodOption> own = {});

// mean of exp(-w) L + w over the batch, with L the squared residual per element and w(t, r) 0 or
// learned.
LossValue self_distillation_loss(const LossArguments& arguments, const MapResidual& residual);

// A row of the table but for its name, summary, options and loss: with the learned weights, where
// they are asked for.
Method self_distillation_method();

}  // namespace fluxion
