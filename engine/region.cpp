#include "engine/region.h"

namespace fluxion {

std::string to_string(const Region& region) {
  constexpr const char* kinds[] = {"checkpoint", "custom_jvp", "custom_linear", "custom_vjp", "derivative of custom_vjp"};
  return std::string(kinds[static_cast<std::size_t>(region.kind)]) + " " + region.name;
}

std::vector<TensorType> output_types(const Region& region, std::span<const TensorType> inputs, const Location& where) {
  if (inputs.size() != region.parameters.size())
    throw ShapeError(to_string(region) + ": wants " + std::to_string(region.parameters.size()) + " operands, got " + std::to_string(inputs.size()) +
                     " (" + to_string(where) + ")");
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (!(inputs[i] == region.parameters[i].type()))
      throw ShapeError(to_string(region) + ": operand " + std::to_string(i) + " is " + to_string(inputs[i]) + ", not " +
                       to_string(region.parameters[i].type()) + " (" + to_string(where) + ")");
  return region.types;
}

}  // namespace fluxion
