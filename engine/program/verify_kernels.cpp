// Checks contractions, whose operands are views of buffers, and ops on whole tensors.
#include <algorithm>
#include <type_traits>

#include "engine/graph/expansion.h"
#include "engine/graph/op_names.h"
#include "engine/graph/shape_rules.h"
#include "engine/program/verify_parts.h"

namespace fluxion::verification {

namespace {

void check_operand(Inspection& inspection, DType dtype, const ContractOperand& operand,
                   std::int64_t batch, std::int64_t rows, std::int64_t columns,
                   const std::string& name) {
  const auto fail = [&](const std::string& what) { inspection.fail(what); };
  const TensorType& type = inspection.slot(operand.buffer).type;
  if (type.dtype != dtype)
    fail(name + " is " + to_string(type) + ", the kernel reads it as " +
         std::string(to_string(dtype)));
  Dims sizes;
  Affine address{operand.offset, {}};
  for (const auto& [axis, size] : {std::pair(&operand.batch, batch), std::pair(&operand.rows, rows),
                                   std::pair(&operand.columns, columns)}) {
    if (axis->sizes.size() != axis->strides.size())
      fail(name + ": as many sizes as strides are wanted");
    if (inspection.points(axis->sizes) != size)
      fail(name + ": digits " + to_string(axis->sizes) + " do not make " + std::to_string(size));
    sizes.insert(sizes.end(), axis->sizes.begin(), axis->sizes.end());
    address.coefficients.insert(address.coefficients.end(), axis->strides.begin(),
                                axis->strides.end());
  }
  const std::int64_t points = inspection.points(sizes);
  inspection.check_affine(address, sizes, name);
  if (points > 0) {
    const Bounds bounds = values_of(address, sizes);
    if (!bounds.within(0, type.shape.elements()))
      fail(name + " reads elements " + text(bounds) + " of b" + std::to_string(operand.buffer) +
           ", which has " + std::to_string(type.shape.elements()));
  }
  inspection.read({operand.buffer, nullptr});
}

void check_attributes(const Inspection& inspection, const OpKernel& kernel) {
  const auto fail = [&](const std::string& what) { inspection.fail(what); };
  const std::string name(to_string(kernel.op));
  if (const auto* scalar = std::get_if<IndexAttributes>(&kernel.attributes);
      scalar && kernel.op == Op::constant) {
    if (!(scalar->index >= 0 && scalar->index < inspection.program.scalars))
      fail(name + ": names a scalar that the program does not have");
    return;
  }
  if (kernel.attributes.index() != info(kernel.op).attributes)
    fail(name + ": attributes of another op");
  const auto check_number = [&](std::int64_t number) {
    if (!(number >= 0 && number <= max_tensor_bytes)) fail(name + ": absurd attributes");
  };
  const auto check_list = [&](const Dims& list) {
    std::for_each(list.begin(), list.end(), check_number);
  };
  struct Visitor {
    const decltype(check_number)& number;
    const decltype(check_list)& list;
    void operator()(std::int64_t value) const { number(value); }
    void operator()(const Dims& values) const { list(values); }
    void operator()(double) const {}
    void operator()(bool) const {}
    void operator()(DType) const {}
  };
  std::visit(
      [&](const auto& attributes) {
        std::apply(
            [&](const auto&... members) {
              (Visitor{check_number, check_list}(members), ...);
            },
            std::decay_t<decltype(attributes)>::members(attributes));
      },
      kernel.attributes);
  const std::int64_t rank = kernel.output_types.empty() ? 0 : kernel.output_types[0].shape.rank();
  if (kernel.op == Op::iota)
    if (std::get<AxisAttributes>(kernel.attributes).axis >= rank)
      fail("iota: the axis is out of range");
  if (kernel.op == Op::flip)
    for (const std::int64_t axis : std::get<AxesAttributes>(kernel.attributes).axes)
      if (axis >= rank) fail("flip: an axis is out of range");
}

}  // namespace

void check_kernel(Inspection& inspection, const ContractKernel& kernel) {
  const auto fail = [&](const std::string& what) { inspection.fail(what); };
  for (const DType operand : {kernel.lhs, kernel.rhs})
    if (!is_floating(operand) || (operand == DType::f64) != (kernel.accumulate == DType::f64) ||
        (kernel.accumulate != DType::f32 && kernel.accumulate != DType::f64))
      fail("contracts " + std::string(to_string(operand)) + " in " +
           std::string(to_string(kernel.accumulate)) +
           "; bf16, f16 and f32 are summed in f32, f64 in f64");
  // Each operand and result must be a possible tensor; batch x m x n x k need not be.
  inspection.points({kernel.batch, kernel.m, kernel.n});
  inspection.points({kernel.batch, kernel.m, kernel.k});
  inspection.points({kernel.batch, kernel.k, kernel.n});
  if (kernel.results < 1) fail("a contraction without results");
  std::vector<bool> computed(static_cast<std::size_t>(
      std::clamp<std::int64_t>(kernel.results, 0, static_cast<std::int64_t>(kernel.terms.size()))));
  for (std::size_t i = 0; i < kernel.terms.size(); ++i) {
    const ContractTerm& term = kernel.terms[i];
    const std::string name = "term " + std::to_string(i);
    check_operand(inspection, kernel.lhs, term.lhs, kernel.batch, kernel.m, kernel.k,
                  name + ", left operand");
    check_operand(inspection, kernel.rhs, term.rhs, kernel.batch, kernel.k, kernel.n,
                  name + ", right operand");
    if (!(term.result >= 0 && static_cast<std::size_t>(term.result) < computed.size()))
      fail(name + ": there is no result r" + std::to_string(term.result));
    computed[static_cast<std::size_t>(term.result)] = true;
  }
  if (!(kernel.results == static_cast<std::int64_t>(computed.size()) &&
        std::find(computed.begin(), computed.end(), false) == computed.end()))
    fail("a result has no term");
  const Tape& epilogue = kernel.epilogue;
  if (epilogue.reduced_axes != 0) fail("an epilogue has no reduced axes");
  const std::int64_t points = inspection.points(epilogue.extents);
  const std::int64_t rows = kernel.batch * kernel.m;
  if (points != rows * kernel.n)
    fail("the epilogue's space " + to_string(epilogue.extents) +
         " is not batch x m x n = " + std::to_string(kernel.batch) + " x " +
         std::to_string(kernel.m) + " x " + std::to_string(kernel.n));
  if (points > 0) {
    std::int64_t product = 1;
    bool batch_ends = kernel.batch == 1, rows_end = rows == 1;
    for (const std::int64_t extent : epilogue.extents) {
      product *= extent;
      batch_ends = batch_ends || product == kernel.batch;
      rows_end = rows_end || product == rows;
    }
    if (!(batch_ends && rows_end))
      fail("an axis of the epilogue's space " + to_string(epilogue.extents) +
           " straddles batch, m and n");
  }
  check_tape(inspection, epilogue, std::pair(kernel.results, kernel.accumulate));
}

void check_kernel(Inspection& inspection, const OpKernel& kernel) {
  const auto fail = [&](const std::string& what) { inspection.fail(what); };
  const std::string name(to_string(kernel.op));
  const OpInfo& op = info(kernel.op);
  const bool views = is_attention(kernel.op);
  if ((op.op_class == OpClass::fused && !views) || op.op_class == OpClass::region)
    fail(name + " should have been expanded");
  if (kernel.views.size() != (views ? kernel.inputs.size() : 0))
    fail(name + ": wrong number of views");
  if (!(kernel.op != Op::data && kernel.op != Op::parameter)) fail(name + " is not computed");
  if (!(kernel.inputs.size() == kernel.input_types.size() &&
        kernel.outputs.size() == kernel.output_types.size()))
    fail(name + ": one type per buffer is wanted");
  check_attributes(inspection, kernel);
  const auto check_buffer = [&](std::int32_t buffer, const TensorType& type) {
    if (!is_representable(type.shape.dims(), type.dtype))
      fail(name + ": a tensor of absurd shape " + to_string(type.shape));
    const TensorType& stored = inspection.slot(buffer).type;
    if (!(stored.dtype == type.dtype && stored.shape.elements() == type.shape.elements()))
      fail(name + ": b" + std::to_string(buffer) + " is " + to_string(stored) + ", not " +
           to_string(type));
  };
  const bool elementwise = op.op_class == OpClass::elementwise;
  const bool adds = kernel.op == Op::index_add || kernel.op == Op::scatter_add;
  for (std::size_t i = 0; i < kernel.inputs.size(); ++i) {
    if (views) continue;
    check_buffer(kernel.inputs[i], kernel.input_types[i]);
    inspection.read({kernel.inputs[i], nullptr, elementwise || (adds && i == 0)});
  }
  if (op.op_class == OpClass::leaf) {
    if (!(kernel.inputs.empty() && kernel.outputs.size() == 1))
      fail(name + ": no inputs and one output are wanted");
  } else {
    if (infer_types(kernel.op, kernel.attributes, kernel.input_types, Location::current()) !=
        kernel.output_types)
      fail(name + ": wrong output types");
  }
  for (std::size_t i = 0; i < kernel.views.size(); ++i) {
    const Shape &shape = kernel.input_types[i].shape, &q = kernel.input_types[0].shape;
    const std::int64_t matrix_axes = shape.rank() < q.rank() ? 1 : 2, rank = shape.rank();
    std::int64_t batch = 1;
    for (std::int64_t axis = 0; axis < rank - matrix_axes; ++axis) batch *= shape[axis];
    if (kernel.views[i].buffer != kernel.inputs[i])
      fail(name + ": a view of another buffer than its input");
    check_operand(inspection, kernel.input_types[i].dtype, kernel.views[i], batch,
                  shape[rank - matrix_axes], matrix_axes == 2 ? shape[rank - 1] : 1, name);
  }
  for (std::size_t i = 0; i < kernel.outputs.size(); ++i) {
    if (std::find(kernel.outputs.begin(), kernel.outputs.begin() + static_cast<std::ptrdiff_t>(i),
                  kernel.outputs[i]) != kernel.outputs.begin() + static_cast<std::ptrdiff_t>(i))
      fail(name + " has b" + std::to_string(kernel.outputs[i]) + " for two outputs");
    check_buffer(kernel.outputs[i], kernel.output_types[i]);
    inspection.write({kernel.outputs[i], nullptr, true});
  }
}

}  // namespace fluxion::verification
