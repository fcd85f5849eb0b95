#include "autograd/divergence.h"

#include <algorithm>
#include <optional>

#include "autograd/transforms.h"
#include "autograd/vmap.h"
#include "engine/graph/ops.h"

namespace fluxion {

namespace {

// Sum of a b over all axes but the batch.
Tensor inner(const Tensor& a, const Tensor& b) {
  Dims axes;
  for (std::int64_t axis = 1; axis < a.rank(); ++axis) axes.push_back(axis);
  return axes.empty() ? a * b : sum(a * b, axes);
}

// What one product J v says: v' J v and |J v|^2.
struct Product {
  Tensor vJv, squared_norm;
  static auto members(auto& self) { return std::tie(self.vJv, self.squared_norm); }
};
Product product(const Tensor& v, const Tensor& Jv) { return {inner(v, Jv), inner(Jv, Jv)}; }

// Over the vectors that the products are of.
Product sum_of(const Product& products) {
  return {sum(products.vJv, {0}), sum(products.squared_norm, {0})};
}
Product mean_of(const Product& products) {
  return {mean(products.vJv, {0}), mean(products.squared_norm, {0})};
}
Product operator+(const Product& a, const Product& b) {
  return {a.vJv + b.vJv, a.squared_norm + b.squared_norm};
}

std::int64_t elements_per_sample(const Tensor& x) {
  return Shape(Dims(x.shape().begin() + 1, x.shape().end())).elements();
}

// A field at x, for any number of products with its Jacobian.
class At {
 public:
  At(const char* who, const Field& f, const Tensor& x) : who_(who), f_(f), x_(x) {
    if (x.rank() < 1)
      throw ShapeError(std::string(who) + ": wants x [batch, ..], got " + to_string(x.type()));
    if (!is_floating(x.dtype()))
      throw DTypeError(std::string(who) + ": " + to_string(x.type()) +
                       " has no derivatives; only floating tensors do");
  }

  // g(v, J v) for each v of [count, batch, ..].
  template <class G>
  auto each(const Tensor& vectors, G g) {
    require_probes(vectors);
    return vmap([&](const Tensor& v) {
      const auto [y, Jv] = jvp(f_, x_, v);
      if (y.type() != x_.type())
        throw ShapeError(std::string(who_) + ": the field maps " + to_string(x_.type()) + " to " +
                         to_string(y.type()) + "; a trace wants equal shapes");
      value_ = y;
      return g(v, Jv);
    })(vectors);
  }

  // Throws ShapeError unless these are [probes, batch, ..].
  void require_probes(const Tensor& probes) const {
    Dims wanted = x_.shape().dims();
    wanted.insert(wanted.begin(), probes.rank() > 0 ? probes.size(0) : 0);
    if (probes.shape() != Shape(wanted))
      throw ShapeError(std::string(who_) + ": wants probes [probes, " +
                       to_string(x_.shape()).substr(1) + " of x " + to_string(x_.type()) +
                       ", got " + to_string(probes.type()));
  }

  // f(x), after the first product.
  const Tensor& value() const { return value_; }

 private:
  const char* who_;
  const Field& f_;
  const Tensor& x_;
  Tensor value_;
};

// The columns a_0, a_1, .. [batch, elements] made orthonormal in order. A column in the span of
// those before it becomes 0. Gram-Schmidt, applied twice: the second pass removes the rounding
// errors of the first.
std::vector<Tensor> orthonormal(const std::vector<Tensor>& columns) {
  std::vector<Tensor> basis;
  for (const Tensor& column : columns) {
    const double negligible = column.dtype() == DType::f64 ? 1e-10 : 1e-5;
    const auto length2 = [](const Tensor& x) { return sum(square(x), {1}, true); };
    // x / |x|; 0, with derivative 0, where x is only a rounding error.
    const auto unit = [&](const Tensor& x, const Tensor& of) {
      const Tensor squares = length2(x), counts = gt(squares, negligible * negligible * of);
      return where(counts, x * rsqrt(where(counts, squares, 1.0)), 0.0);
    };
    const auto without_basis = [&](Tensor x) {
      for (const Tensor& q : basis) x = x - q * sum(q * x, {1}, true);
      return x;
    };
    const Tensor once = unit(without_basis(column), length2(column));
    basis.push_back(unit(without_basis(once), ones_like(length2(once))));
  }
  return basis;
}

Shape probes_shape(const char* who, const Tensor& x, std::int64_t count) {
  if (count < 0)
    throw ShapeError(std::string(who) + ": wants a number of probes, got " + std::to_string(count));
  return with_leading_axis(count, x.shape());
}

}  // namespace

FieldDivergence divergence(const Field& f, const Tensor& x, std::int64_t at_once) {
  At field("divergence", f, x);
  const std::int64_t elements = elements_per_sample(x),
                     block = std::max<std::int64_t>(
                         at_once > 0 ? std::min(at_once, elements) : elements, 1);
  std::optional<Product> total;
  std::int64_t first = 0;
  do {
    // Unit vectors first, first + 1, .., the same for every sample.
    const Shape rows{std::min(block, elements - first), elements};
    const Tensor unit = eq(iota(rows, 0, DType::i32, x.device()) + static_cast<double>(first),
                           iota(rows, 1, DType::i32, x.device()));
    Dims once = x.shape().dims(), sizes = once;
    once[0] = 1;
    once.insert(once.begin(), rows[0]);
    sizes.insert(sizes.begin(), rows[0]);
    const Tensor vectors =
        broadcast_to(reshape(convert(unit, x.dtype()), Shape(once)), Shape(sizes));
    const Product part = sum_of(field.each(vectors, product));
    total = total ? *total + part : part;
    first += block;
  } while (first < elements);
  return {field.value(), total->vJv, total->squared_norm};
}

ProbedField probe(const Field& f, const Tensor& x, const Tensor& probes) {
  At field("probe", f, x);
  const Tensor vJv = field.each(probes, inner);
  return {field.value(), vJv};
}

FieldDivergence hutchinson(const Field& f, const Tensor& x, const Tensor& probes) {
  At field("hutchinson", f, x);
  const Product products = field.each(probes, product);
  if (products.vJv.size(0) == 0)
    throw ShapeError("hutchinson: wants at least one probe, got " + to_string(probes.type()));
  const Product found = mean_of(products);
  return {field.value(), found.vJv, found.squared_norm};
}

FieldDivergence hutch_plus_plus(const Field& f, const Tensor& x, const Tensor& sketch,
                                const Tensor& probes) {
  At field("hutch_plus_plus", f, x);
  field.require_probes(probes);
  const Tensor images = field.each(sketch, [](const Tensor&, const Tensor& Jv) { return Jv; });
  const std::int64_t rank = images.size(0), batch = x.size(0), elements = elements_per_sample(x);
  std::vector<Tensor> columns;
  for (std::int64_t k = 0; k < rank; ++k)
    columns.push_back(reshape(slice_axis(images, 0, k, k + 1), {batch, elements}));
  const std::vector<Tensor> basis = orthonormal(columns);

  const Tensor nothing = zeros({batch}, x.dtype(), x.device());
  Product total{nothing, nothing};
  if (rank > 0) {
    std::vector<Tensor> stacked;
    for (const Tensor& q : basis) stacked.push_back(expand_dims(q, 0));
    total = sum_of(field.each(reshape(concat(stacked, 0), images.shape()), product));
  }
  Tensor rest = reshape(probes, {probes.size(0), batch, elements});
  for (const Tensor& q : basis) rest = rest - q * sum(q * rest, {2}, true);
  if (probes.size(0) > 0)
    total = total + mean_of(field.each(reshape(rest, probes.shape()), product));
  return {field.value(), total.vJv, total.squared_norm};
}

Tensor rademacher_probes(const Tensor& key, const Tensor& x, std::int64_t count) {
  const Tensor bit =
      shift_right(random_bits(key, probes_shape("rademacher_probes", x, count)), 31.0);
  return 1.0 - 2.0 * convert(bit, x.dtype());
}

Tensor gaussian_probes(const Tensor& key, const Tensor& x, std::int64_t count) {
  return normal(key, probes_shape("gaussian_probes", x, count), x.dtype());
}

}  // namespace fluxion
