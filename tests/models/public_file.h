// Networks under the names of the public code, from files beside the tests, and what their import
// gives.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/files/safetensors.h"
#include "models/import.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"

namespace fluxion::testing {

using TensorMap = std::map<std::string, Tensor>;

struct PublicFile {
  Device device = cpu({.threads = 1});
  ScratchFolder folder;
  TensorMap weights;  // under the names of the public code
  TensorMap values;   // what the public network was called with, and what it gave
  Metadata metadata;

  // From tests/models/`name`.
  explicit PublicFile(const std::string& name) {
    const TensorFile file =
        load_tensors(std::filesystem::path(FLUXION_SOURCE_DIR) / "tests/models" / name, device);
    metadata = file.metadata;
    for (const auto& [key, tensor] : file.tensors) {
      const bool value = key.starts_with("value.");
      (value ? values : weights).emplace(key.substr(value ? 6 : 7), tensor);
    }
  }
  std::filesystem::path path() const { return folder / "public.safetensors"; }
  ImportedModel import(const TensorMap& tensors, const ImportOptions& options) const {
    save_tensors(path(), tensors, metadata);
    return import_network(path(), options, device);
  }
  std::vector<Mismatch> mismatches(const TensorMap& tensors, const ImportOptions& options) const {
    try {
      import(tensors, options);
    } catch (const MismatchError& error) {
      return error.mismatches();
    }
    return {};
  }
  std::string refusal(const TensorMap& tensors, const ImportOptions& options) const {
    return message_of([&] { import(tensors, options); });
  }
  Tensor output(const Model& model, const Tensor& t, const Tensor& r) const {
    return apply(model.info.network, model.parameters, values.at("z"), {.t = t, .r = r},
                 values.at("labels"));
  }
};

inline double largest_difference(const Tensor& a, const Tensor& b) {
  return max(abs(a.to(DType::f64) - b.to(DType::f64))).item<double>();
}

}  // namespace fluxion::testing
