// One reference case: a safetensors file as the oracle schema describes it.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion::oracles {

// A tensor of the file, its values widened to f64 (integers and booleans are exact there).
struct HostTensor {
  enum class Kind { floating, integer, boolean };
  Kind kind = Kind::floating;
  Shape shape;
  std::vector<double> values;
};

struct Tolerance {
  double rtol = 0, atol = 0;
  bool elementwise = true;  // else relative to the largest reference of the tensor
};

struct Case {
  std::string id, kind, name;
  nlohmann::json attributes;
  std::vector<std::string> roles;  // of the inputs
  Tolerance tolerance32, tolerance64;
  bool ties = false;
  std::vector<HostTensor> inputs;
  std::map<std::string, HostTensor> parameters;  // without the prefix "param."
  std::map<std::string, HostTensor> tensors;     // all others: "out.0", "tan.1", "grad.<name>", ...

  const HostTensor* find(
      const std::string& name) const;  // among `tensors`; nullptr if there is none
};

// Throws IoError or FormatError.
Case load_case(const std::filesystem::path& path);

// Every case file under a folder, sorted. Files that its INDEX.json lists and that are not there
// are appended too, so that they fail to load.
std::vector<std::filesystem::path> find_cases(const std::filesystem::path& folder);

// On the device: floating values as `floating`, integers as i32.
Tensor to_tensor(const HostTensor& host, DType floating, const Device& device);
HostTensor to_host(const Tensor& tensor);

}  // namespace fluxion::oracles
