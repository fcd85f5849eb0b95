// The element types of safetensors files, of which some are ours.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "engine/graph/dtype.h"

namespace fluxion {

// An element type of the format: one of ours, or another. A type that the format has learned since
// this was written is a name, and no more is known of it.
class SafetensorsType {
 public:
  SafetensorsType(DType dtype);                // ours
  explicit SafetensorsType(std::string name);  // as a file says it: "F32", "F8_E4M3", ..

  const std::string& name() const { return name_; }
  std::optional<DType> dtype() const { return dtype_; }  // empty: none of ours
  std::optional<std::uint64_t> bits() const;             // of an element; empty: unknown
  // The size of so many elements; empty where that is unknown, or no whole number of bytes.
  std::optional<std::uint64_t> bytes_of(std::uint64_t elements) const;
  // Whether an element is a floating-point number of its own, so that to_doubles has its value: no
  // whole number, no part of a block as F4 and F6 are, no complex number.
  bool is_floating() const;

  bool operator==(const SafetensorsType& other) const { return name_ == other.name_; }

 private:
  std::string name_;
  std::optional<DType> dtype_;
};
// "f32" for one of ours, else the file's name.
std::string to_string(const SafetensorsType& type);

// What each byte stands for, where an element is a float of 8 bits: F8_E4M3, F8_E5M2, F8_E8M0,
// F8_E4M3FNUZ, F8_E5M2FNUZ. Empty for other types.
std::optional<std::array<double, 256>> values_of_bytes(const SafetensorsType& type);

}  // namespace fluxion
