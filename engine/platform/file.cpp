// Files: what needs no call of the operating system of its own.
#include "engine/platform/file.h"

namespace fluxion {

void replace_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  ReplacementFile file(path, bytes.size());
  file.write(bytes);
  file.commit();
}

void replace_file(const std::filesystem::path& path, std::string_view text) {
  replace_file(path, std::as_bytes(std::span(text)));
}

}  // namespace fluxion
