#include "engine/graph/custom.h"

#include "engine/graph/ops.h"
#include "engine/graph/region.h"

namespace fluxion::flat {

namespace {

// Which tensors of a flattened tree are not empty.
using Present = std::vector<bool>;

// The tensors that are present; in_places() is the inverse.
std::vector<Tensor> gather(const std::vector<Tensor>& all, const Present& present) {
  std::vector<Tensor> some;
  for (std::size_t i = 0; i < present.size(); ++i)
    if (present[i]) some.push_back(all[i]);
  return some;
}

Tensor zeros_of(const TensorType& type, const Device& device) {
  return zeros(type.shape, type.dtype, device);
}

// The tangents or cotangents for a rule: one for every floating value, none for the others.
std::vector<Tensor> complete(const std::vector<Tensor>& tangents,
                             const std::vector<TensorType>& types, const Device& device) {
  std::vector<Tensor> result;
  for (std::size_t i = 0; i < types.size(); ++i)
    result.push_back(!is_floating(types[i].dtype) ? Tensor()
                     : tangents[i]                ? tangents[i]
                                                  : zeros_of(types[i], device));
  return result;
}

// Checks what a rule returned for values of these types. The result has nothing for those that are
// not floating.
std::vector<Tensor> checked(const std::string& label, const char* what,
                            const std::vector<Tensor>& returned, const Present& present,
                            const std::vector<TensorType>& types) {
  if (returned.size() != present.size())
    throw Error(label + ": its rule returned " + std::to_string(returned.size()) +
                " tensors, the " + what + "s of " + std::to_string(present.size()) + " are wanted");
  std::vector<Tensor> result = gather(returned, present);
  for (std::size_t i = 0; i < result.size(); ++i) {
    if (!is_floating(types[i].dtype)) result[i] = Tensor();
    if (!result[i] || result[i].type() == types[i]) continue;
    const std::string message = label + ": its rule returned " + to_string(result[i].type()) +
                                " as the " + what + " number " + std::to_string(i) + ", of " +
                                to_string(types[i]);
    if (result[i].dtype() != types[i].dtype) throw DTypeError(message);
    throw ShapeError(message);
  }
  return result;
}

std::vector<TensorType> types_of(std::span<const Tensor> tensors) {
  std::vector<TensorType> types;
  for (const Tensor& tensor : tensors) types.push_back(tensor.type());
  return types;
}

// A function traced on parameters of its arguments' types.
struct Traced {
  Region region;
  Present arguments, results;
  std::vector<Tensor> inputs;
  std::vector<TensorType> input_types, output_types;
  std::string label;

  Traced(Region::Kind kind, const std::string& name, const Function& f,
         const std::vector<Tensor>& given)
      : arguments(present_in(given)),
        inputs(gather(given, arguments)),
        input_types(types_of(inputs)) {
    region.kind = kind;
    region.name = name;
    label = to_string(region);
    for (const Tensor& input : inputs)
      region.parameters.push_back(region_parameter(input.type(), input.device()));
    const std::vector<Tensor> made = f(in_places(region.parameters, arguments));
    results = present_in(made);
    region.outputs = gather(made, results);
    output_types = types_of(region.outputs);
  }
  std::vector<Tensor> call(const Location& where) && {
    return in_places(apply_region(std::move(region), std::move(inputs), where), results);
  }
};

const Device& device_of(const std::vector<Tensor>& tensors) { return tensors.front().device(); }

std::vector<Tensor> first(const std::vector<Tensor>& tensors, std::size_t count) {
  return {tensors.begin(), tensors.begin() + static_cast<std::ptrdiff_t>(count)};
}

}  // namespace

std::vector<Tensor> checkpoint(const std::string& name, const Function& f,
                               const std::vector<Tensor>& arguments, Location where) {
  return Traced(Region::Kind::checkpoint, name, f, arguments).call(where);
}

std::vector<Tensor> custom_jvp(const std::string& name, const Function& f, const JvpRule& rule,
                               const std::vector<Tensor>& arguments, Location where) {
  Traced traced(Region::Kind::custom_jvp, name, f, arguments);
  traced.region.jvp = [rule, label = traced.label, present = traced.arguments,
                       results = traced.results, input_types = traced.input_types,
                       output_types = traced.output_types](const std::vector<Tensor>& inputs,
                                                           const std::vector<Tensor>& tangents) {
    const std::vector<Tensor> moving = complete(tangents, input_types, device_of(inputs));
    const std::vector<Tensor> primals = first(inputs, input_types.size());
    return checked(label, "tangent", rule(in_places(primals, present), in_places(moving, present)),
                   results, output_types);
  };
  return std::move(traced).call(where);
}

std::vector<Tensor> custom_vjp(const std::string& name, const Function& f, const VjpRule& rule,
                               const std::vector<Tensor>& arguments, Location where) {
  Traced traced(Region::Kind::custom_vjp, name, f, arguments);
  traced.region.transpose =
      [rule, label = traced.label, present = traced.arguments, results = traced.results,
       input_types = traced.input_types, output_types = traced.output_types](
          const std::vector<Tensor>& inputs, const std::vector<Tensor>& cotangents) {
        const std::size_t count = input_types.size(), all = inputs.size() - output_types.size();
        const std::vector<Tensor> outputs(inputs.begin() + static_cast<std::ptrdiff_t>(all),
                                          inputs.end());
        const std::vector<Tensor> moving = complete(cotangents, output_types, device_of(inputs));
        std::vector<Tensor> result =
            checked(label, "cotangent",
                    rule(in_places(first(inputs, count), present), in_places(outputs, results),
                         in_places(moving, results)),
                    present, input_types);
        result.resize(all);
        return result;
      };
  return std::move(traced).call(where);
}

std::vector<Tensor> custom_linear(const std::string& name, const Function& f,
                                  const Function& transpose, const std::vector<Tensor>& arguments,
                                  Location where) {
  Traced traced(Region::Kind::custom_linear, name, f, arguments);
  for (const TensorType& type : traced.input_types)
    traced.region.linear.push_back(is_floating(type.dtype));
  traced.region.transpose = [f, transpose, name, label = traced.label, where,
                             present = traced.arguments, results = traced.results,
                             linear = traced.region.linear, input_types = traced.input_types,
                             output_types = traced.output_types](
                                const std::vector<Tensor>& inputs,
                                const std::vector<Tensor>& cotangents) {
    // Both maps take and give floating values only; the other arguments keep their values.
    const Device device = device_of(inputs);
    Present floating_results;
    for (const TensorType& type : output_types) floating_results.push_back(is_floating(type.dtype));
    const Function back = [=](const std::vector<Tensor>& u) {
      const std::vector<Tensor> returned =
          checked(label, "cotangent", transpose(in_places(in_places(u, floating_results), results)),
                  present, input_types);
      return gather(complete(returned, input_types, device), linear);
    };
    const Function forth = [=](const std::vector<Tensor>& x) {
      std::vector<Tensor> operands = in_places(x, linear);
      for (std::size_t i = 0; i < operands.size(); ++i)
        if (!operands[i]) operands[i] = inputs[i];
      return gather(gather(f(in_places(operands, present)), results), floating_results);
    };
    constexpr std::string_view prefix = "transpose of ";
    const std::string other =
        name.starts_with(prefix) ? name.substr(prefix.size()) : std::string(prefix) + name;
    std::vector<Tensor> result = in_places(
        custom_linear(other, back, forth,
                      gather(complete(cotangents, output_types, device), floating_results), where),
        linear);
    result.resize(inputs.size());
    return result;
  };
  return std::move(traced).call(where);
}

}  // namespace fluxion::flat
