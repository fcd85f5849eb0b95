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

// Throws unless `tensor`, the argument or the result of f, is there and floating.
void require_floating(const char* who, const char* what, const Tensor& tensor,
                      const Location& where) {
  require_tensor(tensor, who, what, where);
  if (!is_floating(tensor.dtype()))
    throw DTypeError(std::string(who) + ": " + what + " is " + to_string(tensor.type()) +
                     "; only floating tensors have derivatives (" + to_string(where) + ")");
}

// jacfwd, in the name of `who`.
Tensor by_columns(const char* who, const std::function<Tensor(const Tensor&)>& f, const Tensor& x,
                  const Location& where) {
  require_floating(who, "the argument", x, where);
  Tensor y;
  const auto column = [&](const Tensor& dx) {
    const auto [value, dy] = jvp(f, x, dx, where);
    require_floating(who, "the result", value, where);
    y = value;
    return dy;
  };
  const Tensor columns = vmap(column, {0}, -1, where)(basis(x.type(), x.device()));
  return reshape(columns, jacobian_shape(y, x));
}

}  // namespace

Tensor jacfwd(const std::function<Tensor(const Tensor&)>& f, const Tensor& x, Location where) {
  return by_columns("jacfwd", f, x, where);
}

Tensor jacrev(const std::function<Tensor(const Tensor&)>& f, const Tensor& x, Location where) {
  require_floating("jacrev", "the argument", x, where);
  const auto [y, pull] = vjp(f, x, where);
  require_floating("jacrev", "the result", y, where);
  const auto row = [&pull = pull](const Tensor& u) { return std::get<0>(pull(u)); };
  return reshape(vmap(row, {}, 0, where)(basis(y.type(), y.device())), jacobian_shape(y, x));
}

Tensor hessian(const std::function<Tensor(const Tensor&)>& f, const Tensor& x, Location where) {
  const auto scalar = [&](const Tensor& z) {
    const Tensor y = f(z);
    require_floating("hessian", "the result", y, where);
    if (y.elements() != 1)
      throw ShapeError("hessian: wants a scalar function, got " + to_string(y.type()) + " from " +
                       to_string(z.type()) + "; sum or average it first (" + to_string(where) +
                       ")");
    return reshape(y, {});
  };
  return by_columns("hessian", grad(scalar, where), x, where);
}

}  // namespace fluxion
