// Stands in for backends/vulkan/spirv/module.h, beside value.h.
#pragma once

#include <spirv/unified1/GLSL.std.450.h>

#include <cstdlib>
#include <functional>
#include <initializer_list>
#include <memory>

#include "backends/vulkan/spirv/value.h"

namespace fluxion::vulkan_backend::spirv {

class Variable {
 public:
  Value get() const { return *value_; }
  void set(Value value) const { *value_ = value; }

 private:
  std::shared_ptr<Value> value_ = std::make_shared<Value>();
};

class Module {
 public:
  Value u32(std::uint32_t value) { return {U32, value}; }
  Value i32(std::int32_t value) { return {I32, static_cast<std::uint32_t>(value)}; }
  Value f32(float value) { return Value(value); }
  Variable variable(Type) { return {}; }
  void if_else(Value condition, const std::function<void()>& then,
               const std::function<void()>& otherwise) {
    condition.bits() ? then() : otherwise();
  }
  Value extended(std::uint32_t instruction, Type, std::initializer_list<std::uint32_t> ids,
                 bool = false) {
    const std::uint32_t first = *ids.begin();
    const auto at = [&](std::uint32_t i) { return Value::operands.at(first + i); };
    const auto result = [&]() -> Value {
      switch (instruction) {
        case GLSLstd450FClamp: {
          const Value low = at(1), high = at(2);
          return select(at(0) < low, low, select(at(0) > high, high, at(0)));
        }
        case GLSLstd450FindUMsb:
          return u32(31 - static_cast<std::uint32_t>(std::countl_zero(at(0).bits())));
        case GLSLstd450Sqrt:
          return Value(root(at(0).number()));
        case GLSLstd450InverseSqrt:
          return Value(inverse_root(at(0).number()));
        default:
          std::abort();
      }
    }();
    Value::operands.clear();
    return result;
  }
};

}  // namespace fluxion::vulkan_backend::spirv
