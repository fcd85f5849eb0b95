#include "models/diagnostics/jacobian.h"

#include <Eigen/QR>
#include <Eigen/SVD>
#include <algorithm>
#include <string>

#include "autograd/transforms.h"
#include "autograd/vmap.h"
#include "engine/compile.h"
#include "engine/error.h"
#include "engine/graph/ops.h"
#include "models/data/random.h"
#include "models/layers/host_numbers.h"
#include "models/layers/losses.h"

namespace fluxion {
namespace {

using Block = Eigen::MatrixXd;  // [elements of a sample, vectors]

// J v or J' v for each vector of [vectors, batch, ..].
using Products = std::function<Tensor(const Tensor& x, const Tensor& vectors)>;

Tensor forward_products(const Field& f, const Tensor& x, const Tensor& vectors) {
  return vmap([&](const Tensor& v) { return jvp(f, std::tuple(x), std::tuple(v)).second; })(
      vectors);
}

Tensor backward_products(const Field& f, const Tensor& x, const Tensor& vectors) {
  return vmap([&](const Tensor& v) { return std::get<0>(vjp(f, x).second(v)); })(vectors);
}

void check_spectrum(const Tensor& x, const SpectrumOptions& options) {
  if (!x || x.rank() < 1 || x.size(0) < 1)
    throw ShapeError("spectrum: wants samples [batch, ..]" +
                     (x ? ", got " + to_string(x.type()) : std::string()));
  const std::int64_t elements = x.elements() / x.size(0);
  if (options.count < 1 || options.count > elements || options.iterations < 0)
    throw Error("spectrum: wants 1 to " + std::to_string(elements) +
                " singular values of samples of so many numbers, and 0 or more iterations, got " +
                std::to_string(options.count) + " and " + std::to_string(options.iterations));
}

// Vectors of all samples, a block for each, as a tensor and back.
struct Blocks {
  std::vector<Block> of_sample;

  Tensor tensor(const Tensor& x, std::int64_t first, std::int64_t count) const {
    std::vector<double> values;
    values.reserve(static_cast<std::size_t>(count * x.elements()));
    for (std::int64_t k = first; k < first + count; ++k)
      for (const Block& block : of_sample)
        values.insert(values.end(), block.col(k).begin(), block.col(k).end());
    return tensor_of(values, with_leading_axis(count, x.shape()), x.dtype(), x.device());
  }
  void take(const Tensor& products, std::int64_t first) {
    const std::vector<double> values = doubles_of(products);
    const double* next = values.data();
    for (std::int64_t k = 0; k < products.size(0); ++k)
      for (Block& block : of_sample) {
        block.col(first + k) = Eigen::Map<const Eigen::VectorXd>(next, block.rows());
        next += block.rows();
      }
  }
};

}  // namespace

Asymmetry asymmetry(const Field& f, const Tensor& x, const Tensor& probes) {
  if (!x || !probes || probes.rank() != x.rank() + 1 || probes.size(0) < 1 ||
      probes.shape() != with_leading_axis(probes.size(0), x.shape()))
    throw ShapeError("asymmetry: wants at least one probe of the shape of the samples" +
                     (x && probes
                          ? ", got " + to_string(probes.type()) + " for " + to_string(x.type())
                          : std::string()));
  const std::vector<Tensor> parts = vmap([&](const Tensor& q) {
    const Tensor along = jvp(f, std::tuple(x), std::tuple(q)).second,
                 back = std::get<0>(vjp(f, x).second(q));
    return std::vector<Tensor>{squared_norm(along - back),
                               squared_norm(along) + squared_norm(back)};
  })(probes);
  return {mean(parts[0], {0}), mean(parts[1], {0})};
}

std::vector<std::vector<double>> singular_values(const Field& f, const Tensor& x,
                                                 const SpectrumOptions& options) {
  check_spectrum(x, options);
  const std::int64_t batch = x.size(0), elements = x.elements() / batch, count = options.count;
  const auto forward = compile(
      Products([&f](const Tensor& at, const Tensor& v) { return forward_products(f, at, v); }));
  const auto backward = compile(
      Products([&f](const Tensor& at, const Tensor& v) { return backward_products(f, at, v); }));
  const std::int64_t limit = x.device().costs().tangents_at_once,
                     at_once = limit > 0 ? std::min(limit, count) : count;
  const auto apply = [&](const auto& products, const Blocks& from) {
    Blocks to = from;
    for (std::int64_t first = 0; first < count; first += at_once)
      to.take(products(x, from.tensor(x, first, std::min(at_once, count - first))), first);
    return to;
  };

  Blocks vectors;
  for (std::int64_t i = 0; i < batch; ++i) {
    RandomSequence random(options.seed, static_cast<std::uint64_t>(i));
    Block block(elements, count);
    for (Eigen::Index k = 0; k < block.size(); ++k) block.data()[k] = random.normal();
    vectors.of_sample.push_back(std::move(block));
  }
  const auto make_orthonormal = [&] {
    for (Block& block : vectors.of_sample)
      block = Eigen::HouseholderQR<Block>(block).householderQ() * Block::Identity(elements, count);
  };
  make_orthonormal();
  const int iterations = count == elements ? 0 : options.iterations;
  for (int i = 0; i < iterations; ++i) {
    vectors = apply(backward, apply(forward, vectors));
    make_orthonormal();
  }
  std::vector<std::vector<double>> result;
  for (const Block& image : apply(forward, vectors).of_sample) {
    if (!image.allFinite()) throw Error("spectrum: the field's Jacobian is not finite");
    const Eigen::VectorXd values = Eigen::BDCSVD<Block>(image).singularValues();
    result.emplace_back(values.begin(), values.end());
  }
  return result;
}

std::vector<double> wide_directions(const Predictor& predictor, const Tensor& z, double t,
                                    const SpectrumOptions& options, const Tensor& labels) {
  const double alpha = predictor.path.at(t).alpha;
  const Field denoiser = [&](const Tensor& at) {
    const Tensor time = full({at.size(0)}, t, at.dtype(), at.device());
    return alpha * predictor(Prediction::data, at, time, labels);
  };
  std::vector<double> counts;
  for (const std::vector<double>& values : singular_values(denoiser, z, options))
    counts.push_back(static_cast<double>(
        std::ranges::count_if(values, [](double value) { return value > 0.5; })));
  return counts;
}

Tensor flipd(const Predictor& predictor, const Tensor& x, double t, const Tensor& probes,
             const Tensor& labels) {
  const PathNumbers at = predictor.path.at(t);
  // The noise is -sigma times the score.
  const Field noise = [&](const Tensor& z) {
    const Tensor time = full({z.size(0)}, t, z.dtype(), z.device());
    return predictor(Prediction::noise, z, time, labels);
  };
  const Tensor z = at.alpha * x;
  const FieldDivergence found = probes ? hutchinson(noise, z, probes)
                                       : divergence(noise, z, z.device().costs().tangents_at_once);
  const auto dimensions = static_cast<double>(x.elements() / x.size(0));
  return dimensions - at.sigma * found.divergence + squared_norm(found.value);
}

}  // namespace fluxion
