// Dense Jacobians: a linear map applied to every vector of a basis at once.
#include "autograd/transforms.h"
#include "autograd/vmap.h"
#include "engine/graph/ops.h"

namespace fluxion {

namespace {

// The standard basis of tensors of this type, [elements, ..]: basis vector i is 1 at row-major
// position i.
Tensor basis(const TensorType& type, const Device& device) {
  const Shape square{type.shape.elements(), type.shape.elements()};
  const Tensor identity =
      eq(iota(square, 0, DType::i32, device), iota(square, 1, DType::i32, device));
  Dims sizes{type.shape.elements()};
  sizes.insert(sizes.end(), type.shape.begin(), type.shape.end());
  return reshape(convert(identity, type.dtype), Shape(std::move(sizes)));
}

// [y.., x..]
Shape jacobian_shape(const Tensor& y, const Tensor& x) {
  Dims sizes = y.shape().dims();
  sizes.insert(sizes.end(), x.shape().begin(), x.shape().end());
  return Shape(std::move(sizes));
}

void require_floating(const char* who, const char* what, const Tensor& tensor) {
  if (!is_floating(tensor.dtype()))
    throw DTypeError(std::string(who) + ": " + what + " is " + to_string(tensor.type()) +
                     "; only floating tensors have derivatives");
}

}  // namespace

Tensor jacfwd(const std::function<Tensor(const Tensor&)>& f, const Tensor& x) {
  require_floating("jacfwd", "the argument", x);
  Tensor y;
  const auto column = [&](const Tensor& dx) {
    const auto [value, dy] = jvp(f, x, dx);
    require_floating("jacfwd", "the result", value);
    y = value;
    return dy;
  };
  const Tensor columns = vmap(column, {0}, -1)(basis(x.type(), x.device()));
  return reshape(columns, jacobian_shape(y, x));
}

Tensor jacrev(const std::function<Tensor(const Tensor&)>& f, const Tensor& x) {
  require_floating("jacrev", "the argument", x);
  const auto [y, pull] = vjp(f, x);
  require_floating("jacrev", "the result", y);
  const auto row = [&pull = pull](const Tensor& u) { return std::get<0>(pull(u)); };
  return reshape(vmap(row)(basis(y.type(), y.device())), jacobian_shape(y, x));
}

Tensor hessian(const std::function<Tensor(const Tensor&)>& f, const Tensor& x) {
  return jacfwd(
      [&](const Tensor& at) {
        const auto scalar = [&](const Tensor& z) {
          const Tensor y = f(z);
          if (y.elements() != 1)
            throw ShapeError("hessian: wants a scalar function, got a value of " +
                             to_string(y.type()) + "; sum or average it first");
          return reshape(y, {});
        };
        return grad(scalar)(at);
      },
      x);
}

}  // namespace fluxion
