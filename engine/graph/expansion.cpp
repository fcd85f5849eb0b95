#include "engine/graph/expansion.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "engine/graph/largest.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"

namespace fluxion {

namespace {

using Tensors = std::vector<Tensor>;

// x / sqrt(square + epsilon), and the factor 1 / sqrt(square + epsilon).
Tensors normalised(const Tensor& x, const Tensor& square, double epsilon) {
  const Tensor scale = rsqrt(square + epsilon);
  return {x * scale, scale};
}

// Bounds on the parts that a convolution is taken apart into, since a file may ask for any number:
// enough for the gradient of patches of 16 x 16, and for kernels of 32 x 32 of one channel each.
constexpr std::int64_t most_phases = 256, most_depthwise_views = 1024;

// The product of the image's windows, which are a view of the padded image, with the weights.
Tensor product_of_windows(const ConvAttributes& a, const Tensor& x, const Tensor& w,
                          const CostModel& costs) {
  const std::int64_t kh = w.size(0), kw = w.size(1), in = w.size(2), out = w.size(3) / a.groups;
  const Tensor image = spread_and_pad(x, a.spread, a.low, a.high, costs);
  const Tensor seen =
      make_node(Op::windows, WindowAttributes{{kh, kw}, a.stride, a.dilation}, {image});
  const std::int64_t rows = seen.size(0) * seen.size(1) * seen.size(2), columns = kh * kw * in;
  const Shape result{seen.size(0), seen.size(1), seen.size(2), w.size(3)};
  if (in == 1 && out == 1 && a.groups > 1 && costs.depthwise_as_views &&
      kh * kw <= most_depthwise_views) {
    const Tensor pixels = convert(seen, a.accumulate), weights = convert(w, a.accumulate);
    Tensor total;
    for (std::int64_t p = 0; p < kh; ++p)
      for (std::int64_t q = 0; q < kw; ++q) {
        const Tensor view =
            reshape(slice_axis(slice_axis(pixels, 3, p, p + 1), 4, q, q + 1), result);
        const Tensor part =
            view * reshape(slice_axis(slice_axis(weights, 0, p, p + 1), 1, q, q + 1), {a.groups});
        total = total ? total + part : part;
      }
    return convert(total, a.result);
  }
  if (a.groups == 1)
    return reshape(matmul(reshape(seen, {rows, columns}), reshape(w, {columns, out}), a.result),
                   result);
  const Shape split{seen.size(0), seen.size(1), seen.size(2), kh, kw, a.groups, in};
  const Tensor per_group =
      reshape(transpose(reshape(seen, split), {5, 0, 1, 2, 3, 4, 6}), {a.groups, rows, columns});
  const Tensor weights = transpose(reshape(w, {columns, a.groups, out}), {1, 0, 2});
  return reshape(transpose(matmul(per_group, weights, a.result), {1, 0, 2}), result);
}

// One axis of a convolution of stride 1 whose pixels lie `spread` apart, with zeros between them.
// The results o = number + spread t of phase `number` meet pixels with the kernel elements p for
// which dilation p = low - number (mod spread), and zeros with all others. Those elements are
// first, first + step, .., `count` of them. The i-th of them meets pixel t + dilation' i - low',
// where dilation' and low' are the members of this struct.
struct Phase {
  std::int64_t first = 0, step = 1, count = 0;
  std::int64_t low = 0, high = 0, dilation = 1;
};

std::vector<Phase> phases(std::int64_t spread, std::int64_t kernel, std::int64_t dilation,
                          std::int64_t low, std::int64_t pixels, std::int64_t results) {
  std::vector<Phase> all(static_cast<std::size_t>(spread));
  const std::int64_t common = std::gcd(dilation, spread);
  for (std::int64_t number = 0; number < spread; ++number) {
    Phase& phase = all[static_cast<std::size_t>(number)];
    phase.step = spread / common, phase.dilation = dilation / common;
    while (phase.first < kernel && (number + dilation * phase.first - low) % spread != 0)
      ++phase.first;
    if (phase.first == kernel) continue;
    phase.count = (kernel - phase.first + phase.step - 1) / phase.step;
    phase.low = (low - number - dilation * phase.first) / spread;
    phase.high = results + phase.dilation * (phase.count - 1) - pixels - phase.low;
  }
  return all;
}

// A convolution of a spread image as several convolutions of the image itself, whose results
// interleave. It multiplies with no zeros between pixels.
Tensor convolution_by_phases(const ConvAttributes& a, const Tensor& x, const Tensor& w,
                             const CostModel& costs) {
  std::vector<Phase> of[2];
  Dims results(2), each(2);
  for (std::size_t k = 0; k < 2; ++k) {
    const auto axis = static_cast<std::int64_t>(k);
    results[k] = (x.size(axis + 1) - 1) * a.spread[k] + 1 + a.low[k] + a.high[k] -
                 a.dilation[k] * (w.size(axis) - 1);
    each[k] = (results[k] + a.spread[k] - 1) / a.spread[k];
    of[k] = phases(a.spread[k], w.size(axis), a.dilation[k], a.low[k], x.size(axis + 1), each[k]);
  }
  const Shape cell{x.size(0), each[0], 1, each[1], 1, w.size(3)};
  std::vector<Tensor> rows;
  for (const Phase& row : of[0]) {
    std::vector<Tensor> columns;
    for (const Phase& column : of[1]) {
      if (row.count == 0 || column.count == 0) {
        columns.push_back(broadcast_to(zeros({}, a.result, x.device()), cell));
        continue;
      }
      const Tensor part = slice(w, {row.first, column.first, 0, 0}, w.shape().dims(),
                                {row.step, column.step, 1, 1});
      const ConvAttributes plain{{1, 1},
                                 {row.dilation, column.dilation},
                                 {1, 1},
                                 {row.low, column.low},
                                 {row.high, column.high},
                                 a.groups,
                                 a.accumulate,
                                 a.result};
      columns.push_back(reshape(product_of_windows(plain, x, part, costs), cell));
    }
    rows.push_back(concat(columns, 4));
  }
  const Tensor whole = reshape(
      concat(rows, 2), {x.size(0), each[0] * a.spread[0], each[1] * a.spread[1], w.size(3)});
  return slice(whole, {0, 0, 0, 0}, {whole.size(0), results[0], results[1], whole.size(3)},
               Dims(4, 1));
}

Tensor convolution(const ConvAttributes& a, const Tensor& x, const Tensor& w,
                   const CostModel& costs) {
  const bool is_spread = a.spread[0] > 1 || a.spread[1] > 1,
             single_steps = a.stride[0] == 1 && a.stride[1] == 1;
  if (!is_spread || !single_steps || x.elements() == 0 || a.spread[0] * a.spread[1] > most_phases)
    return product_of_windows(a, x, w, costs);
  return convolution_by_phases(a, x, w, costs);
}

Tensor swapped(const Tensor& x) { return swap_axes(x, -1, -2); }

Tensor scores(const AttentionAttributes& a, const Tensor& q, const Tensor& k, const Tensor* mask) {
  Tensor s = matmul(q, swapped(k)) * a.scale;
  if (mask) s = s + *mask;
  if (!a.causal) return s;
  const Shape square{s.size(-2), s.size(-1)};
  const Tensor visible =
      le(iota(square, 1, DType::i32, q.device()), iota(square, 0, DType::i32, q.device()));
  return where(visible, s, -std::numeric_limits<double>::infinity());
}

// Rows over nothing: every key is masked, or there is none.
Tensor sees_none(const Tensor& s) {
  return eq(max(s, {-1}, true), -std::numeric_limits<double>::infinity());
}

// x, and 0 where it is -inf: what to subtract from scores. A row over nothing then has weights 0 in
// place of exp(-inf + inf).
Tensor shift_by(const Tensor& x) {
  return where(eq(x, -std::numeric_limits<double>::infinity()), 0.0, x);
}

struct Softmax {
  Tensor p, lse;  // [.., queries, keys], [.., queries, 1]; over nothing 0 and -inf
};
Softmax softmax_of(const Tensor& s) {
  const Tensor shift = shift_by(max(s, {-1}, true)), e = exp(s - shift), total = sum(e, {-1}, true);
  return {e * (1.0 / where(eq(total, 0.0), 1.0, total)), shift + log(total)};
}

Tensor without_last(const Tensor& x) {
  Dims sizes = x.shape().dims();
  sizes.pop_back();
  return reshape(x, Shape(sizes));
}

Tensors attention(const AttentionAttributes& a, const Tensors& in) {
  const auto [p, lse] = softmax_of(scores(a, in[0], in[1], in.size() > 3 ? &in[3] : nullptr));
  return {matmul(p, in[2]), without_last(lse)};
}

// x minus what it is at the largest score (the mean over all that tie), and that. Sums of p x over
// the keys are then sums over the other keys alone: where one key takes nearly all weight, what is
// left of it in a derivative is not a difference of large numbers. (As autograd's rule of softmax.)
struct AgainstLargest {
  Tensor difference, at_largest;
};
AgainstLargest against_largest(const Tensor& x, const Tensor& s) {
  const Tensor largest = convert(eq(s, max(s, {-1}, true)), x.dtype());
  const Tensor at = mean_over(x, largest, {-1});
  return {x - at, at};
}

// With ds the tangent of the scores and t = p ds: dlse = sum t, dy = t v - dlse y + p dv.
Tensors attention_dual(const AttentionAttributes& a, const Tensors& in) {
  const Tensor &q = in[0], &k = in[1], &v = in[2], &dq = in[3], &dk = in[4], &dv = in[5];
  const Tensor s = scores(a, q, k, in.size() > 6 ? &in[6] : nullptr);
  const auto [p, lse] = softmax_of(s);
  const auto [ds, at_largest] =
      against_largest((matmul(dq, swapped(k)) + matmul(q, swapped(dk))) * a.scale, s);
  const Tensor weighted = p * ds, total = sum(weighted, {-1}, true);
  const Tensor dy = matmul(weighted - total * p, v) + matmul(p, dv),
               dlse = where(sees_none(s), 0.0, total + at_largest);
  return {matmul(p, v), without_last(lse), dy, without_last(dlse)};
}

// The op on lse, delta and u: ds = p (u v' - delta) scale with p = exp(scores - lse).
Tensors attention_backward_by_delta(const AttentionAttributes& a, const Tensors& in) {
  const Tensor &q = in[0], &k = in[1], &v = in[2], &lse = in[3], &delta = in[4], &u = in[5];
  const Tensor p =
      exp(scores(a, q, k, in.size() > 6 ? &in[6] : nullptr) - shift_by(expand_dims(lse, -1)));
  const Tensor ds = p * (matmul(u, swapped(v)) - expand_dims(delta, -1)) * a.scale;
  return {matmul(ds, k), matmul(swapped(ds), q), matmul(swapped(p), u)};
}

// ds = p (u v' - delta) scale with delta = sum p u v' - the cotangent of lse, 0 over nothing.
Tensors attention_backward(const AttentionAttributes& a, const Tensors& in) {
  if (is_by_delta(in[0].shape(), in[3].shape())) return attention_backward_by_delta(a, in);
  const Tensor &q = in[0], &k = in[1], &v = in[2], &u = in[3], &lse_cotangent = in[4];
  const Tensor s = scores(a, q, k, in.size() > 5 ? &in[5] : nullptr), p = softmax_of(s).p;
  const Tensor weighted = p * against_largest(matmul(u, swapped(v)), s).difference;
  const Tensor delta = sum(weighted, {-1}, true) - expand_dims(lse_cotangent, -1);
  const Tensor ds = (weighted - delta * p) * a.scale;
  return {matmul(ds, k), matmul(swapped(ds), q), matmul(swapped(p), u)};
}

}  // namespace

Tensor spread_and_pad(const Tensor& x, const Dims& spread, const Dims& low, const Dims& high,
                      const CostModel& costs) {
  // Each pixel becomes a cell of spread x spread elements. One pad puts whole cells of zeros around
  // them, and a slice, which is a view, cuts off the excess: the image is copied once.
  Dims before(2), behind(2), start(2), stop(2);
  for (std::size_t k = 0; k < 2; ++k) {
    const std::int64_t size = x.size(static_cast<std::int64_t>(k) + 1), cell = spread[k];
    const std::int64_t whole = (size == 0 ? 0 : (size - 1) * cell + 1) + low[k] + high[k];
    before[k] = (std::max<std::int64_t>(low[k], 0) + cell - 1) / cell;
    start[k] = before[k] * cell - low[k];
    stop[k] = start[k] + whole;
    behind[k] = std::max<std::int64_t>((stop[k] + cell - 1) / cell - size - before[k], 0);
  }
  Tensor image;
  const std::int64_t batch = x.size(0), height = x.size(1), width = x.size(2), channels = x.size(3);
  if (spread[0] == 1 && spread[1] == 1 && channels < costs.min_padded_channels) {
    const Tensor rows =
        pad(reshape(x, {batch, height, width * channels}), {0, before[0], before[1] * channels},
            {0, behind[0], behind[1] * channels});
    image = reshape(rows, {batch, rows.size(1), before[1] + width + behind[1], channels});
  } else if (spread[0] == 1 && spread[1] == 1) {
    image = pad(x, {0, before[0], before[1], 0}, {0, behind[0], behind[1], 0});
  } else {
    const Tensor cells =
        pad(reshape(x, {batch, height, 1, width, 1, channels}), {0, before[0], 0, before[1], 0, 0},
            {0, behind[0], spread[0] - 1, behind[1], spread[1] - 1, 0});
    image = reshape(cells, {batch, cells.size(1) * spread[0], cells.size(3) * spread[1], channels});
  }
  return slice(image, {0, start[0], start[1], 0}, {image.size(0), stop[0], stop[1], image.size(3)},
               Dims(4, 1));
}

bool is_attention(Op op) {
  return op == Op::attention || op == Op::attention_dual || op == Op::attention_backward;
}

bool is_by_delta(const Shape& q, const Shape& operand) { return operand.rank() < q.rank(); }

Tensors expansion(Op op, const Attributes& attributes, const Tensors& inputs,
                  const CostModel& costs) {
  const Tensor& x = inputs.front();
  switch (op) {
    case Op::softmax: {
      const std::int64_t axis = std::get<AxisAttributes>(attributes).axis;
      const Tensor e = exp(x - max(x, {axis}, true));
      return {e * (1.0 / sum(e, {axis}, true))};
    }
    case Op::log_softmax: {
      const std::int64_t axis = std::get<AxisAttributes>(attributes).axis;
      const Tensor top = max(x, {axis}, true), shifted = x - top;
      return {shifted - log_sum(shifted, eq(x, top), {axis})};
    }
    case Op::layer_norm: {
      // centred() removes the mean twice: 1/sqrt(var + epsilon) would enlarge a remainder up to a
      // thousand times.
      const Tensor deviation = centred(x, {-1});
      return normalised(deviation, mean(deviation * deviation, {-1}, true),
                        std::get<EpsilonAttributes>(attributes).epsilon);
    }
    case Op::rms_norm:
      return normalised(x, mean(x * x, {-1}, true),
                        std::get<EpsilonAttributes>(attributes).epsilon);
    case Op::conv2d:
      return {convolution(std::get<ConvAttributes>(attributes), x, inputs[1], costs)};
    case Op::attention:
      return attention(std::get<AttentionAttributes>(attributes), inputs);
    case Op::attention_dual:
      return attention_dual(std::get<AttentionAttributes>(attributes), inputs);
    case Op::attention_backward:
      return attention_backward(std::get<AttentionAttributes>(attributes), inputs);
    default:
      throw Error("expansion: " + std::string(to_string(op)) + " is no fused op");
  }
}

}  // namespace fluxion
