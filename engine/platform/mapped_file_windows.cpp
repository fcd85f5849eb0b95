// MappedFile on Windows. While a file is mapped, the system lets nobody cut it short or replace it:
// there is nothing to guard against, and whoever tries is told so.
#include "engine/platform/file.h"
#include "engine/platform/system_windows.h"

namespace fluxion {

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const auto fail = [&](DWORD error) {
    throw IoError("reading " + path.string() + ": " + reason_of(error));
  };
  refuse_nul(path, "reading");
  const DWORD attributes = ::GetFileAttributesW(path.c_str());
  if (attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY))
    throw IoError("reading " + path.string() + ": Is a directory");
  const Handle file(::CreateFileW(path.c_str(), GENERIC_READ,
                                  FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr,
                                  OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr));
  if (!file) fail(::GetLastError());
  if (::GetFileType(file.get()) != FILE_TYPE_DISK)
    throw IoError("reading " + path.string() + ": not a regular file");
  LARGE_INTEGER size{};
  if (!::GetFileSizeEx(file.get(), &size)) fail(::GetLastError());
  if (size.QuadPart == 0) return;
  const Handle mapping(::CreateFileMappingW(file.get(), nullptr, PAGE_READONLY, 0, 0, nullptr));
  if (!mapping) fail(::GetLastError());
  // The view keeps the mapping and the file.
  const void* const view = ::MapViewOfFile(mapping.get(), FILE_MAP_READ, 0, 0, 0);
  if (!view && ::GetLastError() == ERROR_NOT_ENOUGH_MEMORY)
    throw OutOfMemory("reading " + path.string() + ": no room for its bytes");
  if (!view) fail(::GetLastError());
  bytes_ = {static_cast<const std::byte*>(view), static_cast<std::size_t>(size.QuadPart)};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::UnmapViewOfFile(bytes_.data());
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

bool MappedFile::cut_short() const { return false; }
void MappedFile::check_whole() const {}

MappedFileGuard::MappedFileGuard() = default;
MappedFileGuard::~MappedFileGuard() = default;

}  // namespace fluxion
