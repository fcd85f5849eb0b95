// MeanFlow from its formulas: learn the average velocity u(z, t, r) of the flow from noise (t = 1)
// to data (t = 0), then draw a sample as z - u(z, 1, 0).
#include <cstdio>
#include <cstdlib>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "models/data/points.h"
#include "models/images/sample_picture.h"
#include "models/networks/network.h"
#include "models/optimisers/optimiser.h"

using namespace fluxion;

int main(int argc, char** argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 10000;
  const std::int64_t batch = 512;
  const Device device = cpu();
  const auto data = moons();
  const MlpConfig network{.data_dim = 2, .hidden = {256, 256, 256}};
  const Tensor key = random_key(0, device);

  const auto train_step = compile(
      [=](const TrainState& state, const Tensor& x, const Tensor& learning_rate) {
        const auto loss = [&](const Parameters& parameters) {
          const Tensor draw = fold_in(key, state.step);
          const Tensor e = normal(fold_in(draw, 0), x.shape()),
                       t = uniform(fold_in(draw, 1), {batch});
          const Tensor r = where(lt(uniform(fold_in(draw, 2), {batch}), 0.5), t,
                                 t * uniform(fold_in(draw, 3), {batch}));
          const Tensor v = e - x, z = x + expand_dims(t, 1) * v;
          const auto u = [&](const Tensor& z, const Tensor& t, const Tensor& r) {
            return apply(network, parameters, z, {t, r});
          };
          const auto [average, change] =
              jvp(u, std::tuple(z, t, r),
                  std::tuple(v, ones_like(t), zeros_like(r)));  // u and du/dt along the flow
          const Tensor target = stop_gradient(v - expand_dims(t - r, 1) * change);
          return mean(square(average - target));
        };
        const auto [value, gradient] = value_and_grad(loss)(state.parameters);
        return std::pair(
            update({.clip_norm = 1, .ema_decays = {0.999}}, state, gradient, learning_rate).state,
            value);
      },
      {.donate = {0}});

  TrainState state = make_train_state(initialise(network, fold_in(key, 1), DType::f32));
  const Tensor learning_rate = full({}, 3e-3, DType::f32, device);
  for (int step = 0; step < steps; ++step) {
    const Tensor x =
        Tensor::from(data->batch(batch, 0, static_cast<std::uint64_t>(step)).x, {batch, 2}, device);
    const auto [next, loss] = train_step(state, x, learning_rate);
    state = next;
    if (step % 1000 == 0) std::printf("step %5d  loss %.4f\n", step, loss.item<float>());
  }

  const Tensor noise = normal(fold_in(key, 2), {4000, 2}),
               one = full({4000}, 1, DType::f32, device);
  const Tensor samples =
      noise - apply(network, state.ema[0], noise, {.t = one, .r = zeros_like(one)});
  write_png("meanflow.png",
            sample_picture({2}, samples.to_host<float>(), {}, data->batch(4000, 1, 0).x));
  std::printf("wrote meanflow.png: data, and samples drawn with one evaluation of the network\n");
}
