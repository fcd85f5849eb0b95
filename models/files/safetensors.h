// The safetensors format: named tensors behind a JSON header
// (https://github.com/huggingface/safetensors).
//
//   8 bytes    header length N, unsigned little-endian
//   N bytes    {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...,
//               "__metadata__": {"key": "text", ...}}
//   the rest   little-endian row-major data, from which offsets count
//
// The offsets cover the data without gap or overlap.
//
// Tensors of any type are listed; one whose type is none of ours is refused when it is used.
//
// A file is data from strangers: everything the header claims is checked against the file before
// anything is allocated for it.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/graph/tensor.h"
#include "engine/platform/file.h"
#include "models/files/safetensors_type.h"

namespace fluxion {

using Metadata = std::map<std::string, std::string>;

// One tensor of a file. `bytes` are not necessarily aligned for the element type.
struct SafetensorsEntry {
  std::string name;
  SafetensorsType dtype = DType::f32;
  Shape shape;
  std::span<const std::byte> bytes;

  // Throws FormatError, naming the tensor, where its element type is none of ours.
  TensorType type() const;
};
// "f32[2, 3]", "F8_E4M3[4]".
std::string to_string(const SafetensorsEntry& entry);

// The elements of an entry whose type is_floating, exactly: F64, F32, F16, BF16, and the floats of
// 8 bits, F8_E4M3, F8_E5M2, F8_E8M0, F8_E4M3FNUZ and F8_E5M2FNUZ. Throws FormatError for other
// types.
std::vector<double> to_doubles(const SafetensorsEntry& entry);

// A file opened for reading. Entries point into it and live as long as it does.
class SafetensorsFile {
 public:
  // Maps the file and reads its header. Throws IoError, or FormatError saying what is wrong and
  // where.
  explicit SafetensorsFile(const std::filesystem::path& path);
  // The same of bytes in memory, which must outlive this object; `name` stands for the file in
  // messages.
  explicit SafetensorsFile(std::span<const std::byte> bytes,
                           std::string_view name = "safetensors data");

  const std::vector<SafetensorsEntry>& entries() const { return entries_; }  // sorted by name
  const SafetensorsEntry* find(std::string_view name) const;  // nullptr if there is none
  const Metadata& metadata() const { return metadata_; }
  // Throws IoError where the file was cut short since it was opened: what entries hold may be
  // zeros then. Call it after they were read.
  void check_whole() const { file_.check_whole(); }
  // Throws FormatError where the metadata have a checksum of save_tensors and it is not that of the
  // entries: bits were changed, or tensors exchanged. Reads all of the file.
  void check_content() const;

 private:
  void parse(std::span<const std::byte> bytes, const std::string& name);

  MappedFile file_;
  std::string name_;  // for messages
  std::vector<SafetensorsEntry> entries_;
  Metadata metadata_;
};

// Writes a file in one piece or not at all. The largest element types come first, so that all data
// are naturally aligned in the file. Throws IoError; FormatError for names that are repeated or not
// UTF-8; ShapeError where bytes and shape disagree.
void write_safetensors(const std::filesystem::path& path, std::span<const SafetensorsEntry> entries,
                       const Metadata& metadata = {});

// Named tensors <-> file.
struct TensorFile {
  std::map<std::string, Tensor> tensors;
  Metadata metadata;
};
// Throws FormatError for a tensor whose element type is none of ours, and where the checksum of
// save_tensors, which is left out of the metadata, does not fit.
TensorFile load_tensors(const std::filesystem::path& path, const Device& device);
// Evaluates the tensors first; copies one at a time to the host. Adds a checksum of names and
// content to the metadata ("fluxion.checksum").
void save_tensors(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors,
                  const Metadata& metadata = {});

}  // namespace fluxion
