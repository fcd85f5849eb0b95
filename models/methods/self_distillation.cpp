#include "models/methods/self_distillation.h"

#include "engine/graph/ops.h"
#include "models/methods/learned_weight.h"
#include "models/objectives/flow.h"

namespace fluxion {
namespace {

bool learns_weight(const MethodOptions& options) { return options.text("weighting") == "learned"; }

}  // namespace

std::vector<MethodOption> self_distillation_options(std::vector<MethodOption> own) {
  own.push_back(label_dropout_option());
  own.push_back(real_option("diagonal-share", 0, 1, {.images = 0.75, .points = 0.5},
                            "Share of rows that learn the velocity; the others learn the map"));
  own.push_back(
      choice_option("weighting", {"none", "learned"}, {.images = "none"},
                    "learned: weigh times by exp(-w) with a learned w(t, r); none: all alike"));
  return own;
}

LossValue self_distillation_loss(const LossArguments& arguments, const MapResidual& residual) {
  const MethodOptions& options = arguments.use.options;
  const std::int64_t batch = arguments.x.size(0);
  const DrawOptions how{.equal_share = options.real("diagonal-share"),
                        .fixed_share = true,
                        .label_dropout = options.real("label-dropout")};
  const std::int64_t map_rows = unequal_rows_beside_equal(how, batch);
  FlowDraws draws = draw(arguments, how);
  const Tensor times = uniform(fold_in(arguments.key, 1), {2, batch}, arguments.x.dtype());
  const Tensor alone = reshape(slice_axis(times, 0, 0, 1), {batch});
  draws.t = where(draws.equal_mask, alone, max(times, {0}));
  draws.r = where(draws.equal_mask, alone, min(times, {0}));

  std::vector<Tensor> parts;
  if (map_rows > 0)
    parts.push_back(
        residual(arguments.velocity, rows(draws, 0, map_rows), fold_in(arguments.key, 2)));
  if (map_rows < batch)
    parts.push_back(flow_matching(arguments.velocity, rows(draws, map_rows, batch),
                                  {.mean_over_elements = false})
                        .per_sample);
  const Tensor each = (parts.size() == 1 ? parts[0] : concat(parts, 0)) /
                      static_cast<double>(arguments.x.elements() / batch);
  const Tensor error = mean(each);
  if (!learns_weight(options)) return {error, error};
  const Tensor times_of = concat({expand_dims(draws.t, 1), expand_dims(draws.r, 1)}, 1);
  const Tensor w = weight_of(arguments.learned, times_of);
  return {mean(exp(-w) * each + w), error};
}

Method self_distillation_method() {
  Method method{.prediction = Prediction::average_velocity,
                .sampling = {.sampler = "meanflow", .steps = 4},
                .takes_pairs = true};
  method.paper =
      "Boffi, Albergo and Vanden-Eijnden 2025, How to build a consistency model, arXiv 2505.18825";
  method.learned_shapes = [](const MethodUse& use) {
    return learns_weight(use.options) ? weight_shapes(2) : std::map<std::string, Shape>();
  };
  method.learned = [](const MethodUse& use, const Tensor& key) {
    return learns_weight(use.options) ? fresh_weight(2, key) : Parameters();
  };
  return method;
}

}  // namespace fluxion
