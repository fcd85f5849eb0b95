// SplitMeanFlow: the average velocity over an interval as the mean of those over its parts; no
// derivative.
#include "engine/graph/ops.h"
#include "models/methods/flow_options.h"
#include "models/objectives/flow.h"

namespace fluxion {
namespace {

// The relation between intervals alone has trivial solutions: the rows with r = t tie u to the
// data's velocity.
LossValue split_meanflow_loss(const LossArguments& arguments) {
  DrawOptions how = draw_options(arguments.use.options);
  how.fixed_share = true;
  const FlowDraws draws = draw(arguments, how);
  const std::int64_t batch = draws.x.size(0), split_rows = unequal_rows_beside_equal(how, batch);
  Tensor total = zeros({}, draws.x.dtype(), draws.x.device());
  if (split_rows > 0) {
    const Tensor lambda = uniform(fold_in(arguments.key, 1), {split_rows}, draws.x.dtype());
    total = total +
            sum(split_meanflow(arguments.velocity, rows(draws, 0, split_rows), lambda).per_sample);
  }
  if (split_rows < batch)
    total = total + sum(flow_matching(arguments.velocity, rows(draws, split_rows, batch),
                                      {.mean_over_elements = false})
                            .per_sample);
  const Tensor loss = total / static_cast<double>(draws.x.elements());
  return {loss, loss};
}

}  // namespace

Method split_meanflow_method() {
  return {
      .name = "split-meanflow",
      .summary = "The average velocity, from intervals split in two; one step draws a sample",
      .paper = "Guo et al. 2025, SplitMeanFlow, arXiv 2507.16884",
      .options = with_options({label_dropout_option(), equal_share_option()}, {time_options()}),
      .prediction = Prediction::average_velocity,
      .sampling = {.sampler = "meanflow", .steps = 1},
      .loss = split_meanflow_loss,
      .takes_pairs = true,
  };
}

}  // namespace fluxion
