// Files: what needs no call of the operating system of its own.
#include "engine/platform/file.h"

namespace fluxion {

std::string ReplacementFile::failure(std::string_view doing, const std::string& reason) const {
  const std::filesystem::path folder = path_.parent_path();
  std::error_code unknown;
  const bool missing = !folder.empty() && std::filesystem::status(folder, unknown).type() ==
                                              std::filesystem::file_type::not_found;
  return std::string(doing) + " " + path_.string() + ": " +
         (missing ? "the folder " + folder.string() + " does not exist" : reason);
}

void replace_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  ReplacementFile file(path, bytes.size());
  file.write(bytes);
  file.commit();
}

void replace_file(const std::filesystem::path& path, std::string_view text) {
  replace_file(path, std::as_bytes(std::span(text)));
}

}  // namespace fluxion
