#include "models/samplers/runge_kutta.h"

#include <limits>

#include "engine/graph/ops.h"
#include "models/paths/path.h"

namespace fluxion {
namespace {

// h sum_i weights_i k_i, with zeros left out.
Tensor weighted_slopes(const std::vector<double>& weights, const std::vector<Tensor>& slopes,
                       const Tensor& h) {
  Tensor total;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0) continue;
    const Tensor term = weights[i] * slopes[i];
    total = total ? total + term : term;
  }
  return over_samples(h, slopes.front().rank()) * total;
}

std::vector<Tensor> stages(const Tableau& tableau, const Slope& f, const Tensor& y, const Tensor& t,
                           const Tensor& h, const Tensor& first) {
  std::vector<Tensor> slopes{first ? first : f(y, t)};
  for (std::size_t i = 1; i < tableau.c.size(); ++i)
    slopes.push_back(f(y + weighted_slopes(tableau.a[i], slopes, h), t + tableau.c[i] * h));
  return slopes;
}

// Root of the mean square of each sample, or of all, [batch].
Tensor error_norm(const Tensor& x, bool per_sample) {
  const Tensor rows = mean(square(reshape(x, {x.size(0), -1})), {1});
  return sqrt(per_sample ? rows : broadcast_to(mean(rows, {0}, true), rows.shape()));
}

}  // namespace

const Tableau& midpoint_tableau() {
  static const Tableau tableau{.c = {0, 0.5}, .a = {{}, {0.5}}, .b = {0, 1}};
  return tableau;
}

const Tableau& dopri5_tableau() {
  static const Tableau tableau{
      .c = {0, 1.0 / 5, 3.0 / 10, 4.0 / 5, 8.0 / 9, 1, 1},
      .a = {{},
            {1.0 / 5},
            {3.0 / 40, 9.0 / 40},
            {44.0 / 45, -56.0 / 15, 32.0 / 9},
            {19372.0 / 6561, -25360.0 / 2187, 64448.0 / 6561, -212.0 / 729},
            {9017.0 / 3168, -355.0 / 33, 46732.0 / 5247, 49.0 / 176, -5103.0 / 18656},
            {35.0 / 384, 0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84}},
      .b = {35.0 / 384, 0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84, 0},
      .error = {35.0 / 384 - 5179.0 / 57600, 0, 500.0 / 1113 - 7571.0 / 16695,
                125.0 / 192 - 393.0 / 640, -2187.0 / 6784 + 92097.0 / 339200,
                11.0 / 84 - 187.0 / 2100, -1.0 / 40}};
  return tableau;
}

Tensor runge_kutta_step(const Tableau& tableau, const Slope& f, const Tensor& y, const Tensor& t,
                        const Tensor& h) {
  // A stage of weight 0 that no other needs is not evaluated: dopri5's last.
  Tableau used = tableau;
  while (used.b.size() > 1 && used.b.back() == 0) {
    used.b.pop_back();
    used.c.pop_back();
    used.a.pop_back();
  }
  return y + weighted_slopes(used.b, stages(used, f, y, t, h, {}), h);
}

AdaptiveState adaptive_start(const Slope& f, const Tensor& y, const Tensor& from, const Tensor& to,
                             const AdaptiveOptions& options) {
  const Shape batch{y.size(0)};
  const Tensor t = broadcast_to(from, batch), span = broadcast_to(to, batch) - t;
  const Tensor slope = f(y, t);
  const Tensor scale = options.absolute + options.relative * abs(y);
  const auto norm = [&](const Tensor& x) { return error_norm(x / scale, options.per_sample); };
  const Tensor size = norm(y), speed = norm(slope);
  const Tensor tiny = lt(minimum(size, speed), 1e-5);
  const Tensor guess = minimum(where(tiny, 1e-6, 0.01 * size / where(tiny, 1.0, speed)), abs(span));
  const Tensor direction = sign(span);
  const Tensor ahead =
      f(y + over_samples(direction * guess, y.rank()) * slope, t + direction * guess);
  const Tensor bend = norm(ahead - slope) / guess;
  const Tensor largest = maximum(speed, bend);
  const Tensor flat = le(largest, 1e-15);
  const Tensor next =
      where(flat, maximum(1e-3 * guess, 1e-6), pow(0.01 / where(flat, 1.0, largest), 0.2));
  const Tensor h = minimum(minimum(100.0 * guess, next), abs(span));
  return {.y = y, .t = t, .h = direction * h, .slope = slope, .rejected = lt(t, t)};
}

Tensor dopri5_between(const Tensor& y, const Tensor& next, const std::vector<Tensor>& slopes,
                      const Tensor& h, const Tensor& theta) {
  // Hermite's cubic through both ends, and a quartic that the stages add, 0 at both with its slope.
  static const std::vector<double> quartic{
      -12715105075.0 / 11282082432,  0,
      87487479700.0 / 32700410799,   -10690763975.0 / 1880347072,
      701980252875.0 / 199316789632, -1453857185.0 / 822651844,
      69997945.0 / 29380423};
  const Tensor step = over_samples(h, y.rank()), at = over_samples(theta, y.rank()),
               left = 1.0 - at, moved = next - y;
  const Tensor bend = step * slopes.front() - moved, other = moved - step * slopes.back() - bend;
  return y +
         at * (moved + left * (bend + at * (other + left * weighted_slopes(quartic, slopes, h))));
}

AdaptiveState adaptive_step(const Slope& f, const AdaptiveState& state, const Tensor& to,
                            const AdaptiveOptions& options, DenseOutput* dense) {
  const Tableau& tableau = dopri5_tableau();
  const std::int64_t rank = state.y.rank();
  const Tensor left = to - state.t;
  // The last step may be a little longer, so that no sliver remains.
  const Tensor last = ge(abs(state.h), 0.999999 * abs(left));
  const Tensor h = where(last, left, state.h);
  const std::vector<Tensor> slopes = stages(tableau, f, state.y, state.t, h, state.slope);
  const Tensor y = state.y + weighted_slopes(tableau.b, slopes, h);
  const Tensor error = weighted_slopes(tableau.error, slopes, h);
  const Tensor scale = options.absolute + options.relative * maximum(abs(state.y), abs(y));
  const Tensor ratio = error_norm(error / scale, options.per_sample);
  const Tensor accepted = le(ratio, 1.0);  // false for NaN
  const Tensor most = where(state.rejected, 1.0, 10.0 + zeros_like(ratio));
  const Tensor sound = lt(ratio, 1e30);
  const Tensor growth = where(
      sound, minimum(maximum(0.9 * pow(maximum(where(sound, ratio, 1.0), 1e-12), -0.2), 0.2), most),
      0.2);
  const Tensor finished = eq(left, 0.0);
  const auto rows = [&](const Tensor& condition) { return over_samples(condition, rank); };
  const Tensor never = ne(left, left);
  const Tensor moves = where(finished, never, accepted);
  const Tensor next_t = where(last, broadcast_to(to, h.shape()), state.t + h);
  if (dense) {
    std::vector<Tensor> states;
    for (std::size_t i = 0; i < dense->times.size(); ++i) {
      const auto place = static_cast<std::int64_t>(i);
      const Tensor before = reshape(slice_axis(dense->states, 0, place, place + 1), y.shape());
      // Times are compared, not their rounded quotient: what ends one step begins the next, so no
      // time is missed between two.
      const Tensor behind = dense->times[i] - state.t, ahead = dense->times[i] - next_t;
      const Tensor forth = gt(h, 0.0);
      const Tensor passed = where(moves,
                                  where(where(forth, gt(behind, 0.0), lt(behind, 0.0)),
                                        where(forth, le(ahead, 0.0), ge(ahead, 0.0)), never),
                                  never);
      const Tensor theta = minimum(behind / h, 1.0);
      states.push_back(expand_dims(
          where(rows(passed), dopri5_between(state.y, y, slopes, h, theta), before), 0));
    }
    dense->states = concat(states, 0);
  }
  return {.y = where(rows(moves), y, state.y),
          .t = where(moves, next_t, state.t),
          .h = where(finished, state.h, h * growth),
          .slope = where(rows(moves), slopes.back(), state.slope),
          .rejected = where(finished, state.rejected, eq(accepted.to(DType::i32), 0.0))};
}

Tensor adaptive_stuck(const AdaptiveState& state, const Tensor& to) {
  const Tensor &t = state.t, &h = state.h, never = ne(t, t), next = t + h;
  const Tensor moves = where(gt(h, 0.0), gt(next, t), lt(next, t));
  // A first slope that is not finite makes a first step of NaN; later ones are never accepted.
  const Tensor sound = le(abs(h), static_cast<double>(std::numeric_limits<float>::max()));
  return where(eq(t, to), never, where(sound, where(moves, never, state.rejected), eq(t, t)));
}

}  // namespace fluxion
