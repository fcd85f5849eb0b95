// The expansions that define the fused ops.
#include "engine/plan/builder.h"
#include "engine/shape_rules.h"

namespace fluxion::plan {

namespace {

// Shorthand over one builder: values as operands of the usual functions.
struct Writer {
  Builder& builder;

  Value unary(Op op, Value x) { return builder.emit(op, NoAttributes{}, {x}); }
  // Rows and scalars stretch to the shape of the other operand.
  Value binary(Op op, Value a, Value b) {
    const Shape shape = broadcast_shapes(op, builder.type(a), builder.type(b), Location::current());
    return builder.emit(op, NoAttributes{}, {builder.broadcast(a, shape), builder.broadcast(b, shape)});
  }
  Value reduce(Op op, Value x, std::int64_t axis) { return builder.emit(op, AxesAttributes{{axis}}, {x}); }
  Value mean(Value x, std::int64_t axis) {
    const TensorType& type = builder.type(x);
    const double count = static_cast<double>(type.shape[axis]);
    return binary(Op::mul, reduce(Op::sum, x, axis), builder.constant(1 / count, type.dtype));
  }
};

}  // namespace

std::vector<Value> expand(Builder& builder, Op op, const Attributes& attributes, Value x) {
  Writer w{builder};
  const TensorType type = builder.type(x);
  switch (op) {
    case Op::softmax: {
      const std::int64_t axis = std::get<AxisAttributes>(attributes).axis;
      const Value e = w.unary(Op::exp, w.binary(Op::sub, x, w.reduce(Op::max, x, axis)));
      const Value scale = w.binary(Op::div, builder.constant(1, type.dtype), w.reduce(Op::sum, e, axis));
      return {w.binary(Op::mul, e, scale)};
    }
    case Op::log_softmax: {
      const std::int64_t axis = std::get<AxisAttributes>(attributes).axis;
      const Value shifted = w.binary(Op::sub, x, w.reduce(Op::max, x, axis));
      return {w.binary(Op::sub, shifted, w.unary(Op::log, w.reduce(Op::sum, w.unary(Op::exp, shifted), axis)))};
    }
    case Op::layer_norm: {
      const std::int64_t axis = type.shape.rank() - 1;
      const Value centred = w.binary(Op::sub, x, w.mean(x, axis));
      const Value variance = w.mean(w.binary(Op::mul, centred, centred), axis);
      const Value scale =
          w.unary(Op::rsqrt, w.binary(Op::add, variance, builder.constant(std::get<EpsilonAttributes>(attributes).epsilon, type.dtype)));
      return {w.binary(Op::mul, centred, scale), scale};
    }
    case Op::rms_norm: {
      const std::int64_t axis = type.shape.rank() - 1;
      const Value square = w.mean(w.binary(Op::mul, x, x), axis);
      const Value scale =
          w.unary(Op::rsqrt, w.binary(Op::add, square, builder.constant(std::get<EpsilonAttributes>(attributes).epsilon, type.dtype)));
      return {w.binary(Op::mul, x, scale), scale};
    }
    default:
      throw Error("expand: " + std::string(to_string(op)) + " is no fused op");
  }
}

}  // namespace fluxion::plan
