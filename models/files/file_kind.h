// What a file is, by its first bytes rather than its name.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace fluxion {

enum class FileKind {
  npy,
  idx,
  zip,
  gzip,
  safetensors,
  checkpoint,  // weights of another format
  stand_in,    // what is there in place of a file that was not fetched
  foreign,     // known, and not read by this program
  unknown,
};

struct FileDescription {
  FileKind kind = FileKind::unknown;
  std::string what;    // "a PNG picture"; "" if unknown
  std::string advice;  // what to do with it: "give the folder of pictures"; or ""
  bool is_text = false;
};

// `bytes`: the whole file, or enough of its start (a kibibyte).
FileDescription describe_file(std::span<const std::byte> bytes);

// What is in a zip archive: .npy arrays, a PyTorch checkpoint, pictures, a document. Throws
// FormatError for a damaged one.
FileDescription describe_zip(std::span<const std::byte> bytes, std::string_view name);

}  // namespace fluxion
