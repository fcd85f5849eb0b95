#include "tests/oracles/case.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <set>

#include "models/files/safetensors.h"

namespace fluxion::oracles {
namespace {

using nlohmann::json;

template <class T>
std::vector<double> widen(std::span<const std::byte> bytes) {
  std::vector<double> values(bytes.size() / sizeof(T));
  for (std::size_t i = 0; i < values.size(); ++i) {
    T element;
    std::memcpy(&element, bytes.data() + i * sizeof(T), sizeof(T));
    values[i] = static_cast<double>(element);
  }
  return values;
}

HostTensor host_tensor(const SafetensorsEntry& entry) {
  using Kind = HostTensor::Kind;
  switch (entry.type().dtype) {
    case DType::f64:
      return {Kind::floating, entry.shape, widen<double>(entry.bytes)};
    case DType::f32:
      return {Kind::floating, entry.shape, widen<float>(entry.bytes)};
    case DType::i64:
      return {Kind::integer, entry.shape, widen<std::int64_t>(entry.bytes)};
    case DType::i32:
      return {Kind::integer, entry.shape, widen<std::int32_t>(entry.bytes)};
    case DType::boolean:
      return {Kind::boolean, entry.shape, widen<std::uint8_t>(entry.bytes)};
    default:
      throw FormatError("oracle: tensor '" + entry.name + "' has the unexpected type " +
                        to_string(entry.dtype));
  }
}

Tolerance tolerance(const json& object) {
  return {.rtol = object.at("rtol"),
          .atol = object.at("atol"),
          .elementwise = object.at("norm").get<std::string>() == "elementwise"};
}

}  // namespace

const HostTensor* Case::find(const std::string& key) const {
  const auto found = tensors.find(key);
  return found == tensors.end() ? nullptr : &found->second;
}

Case load_case(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  const auto text = file.metadata().find("case");
  if (text == file.metadata().end()) throw FormatError(path.string() + ": no metadata 'case'");
  Case result;
  try {
    const json meta = json::parse(text->second);
    result.id = meta.at("id");
    result.kind = meta.at("kind");
    result.name = meta.at("name");
    result.attributes = meta.at("attrs");
    result.roles = meta.at("inputs").get<std::vector<std::string>>();
    result.tolerance32 = tolerance(meta.at("tolerance"));
    result.tolerance64 = tolerance(meta.at("tolerance64"));
    result.ties = meta.at("ties");
  } catch (const json::exception& error) {
    throw FormatError(path.string() + ": metadata 'case': " + error.what());
  }
  for (const SafetensorsEntry& entry : file.entries()) {
    if (entry.name.starts_with("param."))
      result.parameters.emplace(entry.name.substr(6), host_tensor(entry));
    else
      result.tensors.emplace(entry.name, host_tensor(entry));
  }
  for (std::size_t k = 0; const HostTensor* input = result.find("in." + std::to_string(k)); ++k)
    result.inputs.push_back(*input);
  if (result.inputs.size() != result.roles.size())
    throw FormatError(path.string() + ": " + std::to_string(result.roles.size()) +
                      " input roles for " + std::to_string(result.inputs.size()) + " inputs");
  return result;
}

std::vector<std::filesystem::path> find_cases(const std::filesystem::path& folder) {
  if (std::filesystem::is_regular_file(folder)) return {folder};
  std::set<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().extension() == ".safetensors")
      paths.insert(entry.path());
  if (std::ifstream index(folder / "INDEX.json"); index) {
    const json content = json::parse(index, nullptr, false);
    if (!content.is_object() || !content.contains("cases"))
      throw FormatError((folder / "INDEX.json").string() + ": is not an index of cases");
    for (const json& item : content["cases"])
      paths.insert(folder / item.at("file").get<std::string>());
  }
  return {paths.begin(), paths.end()};
}

Tensor to_tensor(const HostTensor& host, DType floating, const Device& device) {
  const std::vector<double>& values = host.values;
  switch (host.kind) {
    case HostTensor::Kind::integer:
      for (const double value : values)
        if (value != std::clamp(value, -0x1p31, 0x1p31 - 1))
          throw FormatError("an integer beyond 32 bits: " + std::to_string(value));
      return Tensor::from(std::vector<std::int32_t>(values.begin(), values.end()), host.shape,
                          device);
    case HostTensor::Kind::boolean: {
      const std::vector<std::uint8_t> bytes(values.begin(), values.end());
      return Tensor::from_bytes(std::as_bytes(std::span(bytes)), {host.shape, DType::boolean},
                                device);
    }
    case HostTensor::Kind::floating:
      break;
  }
  if (floating == DType::f64) return Tensor::from(values, host.shape, device);
  return Tensor::from(std::vector<float>(values.begin(), values.end()), host.shape, device);
}

HostTensor to_host(const Tensor& tensor) {
  std::vector<std::byte> bytes(tensor.type().bytes());
  tensor.copy_to(bytes, tensor.dtype());
  const std::string name = "result";
  return host_tensor({name, tensor.dtype(), tensor.shape(), bytes});
}

}  // namespace fluxion::oracles
