// MappedFile for WebAssembly, which maps no files: the bytes are read when the file is opened.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <new>
#include <string>
#include <system_error>
#include <utility>

#include "engine/error.h"
#include "engine/platform/descriptor_posix.h"
#include "engine/platform/file.h"

namespace fluxion {

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const auto fail = [&](int error) {
    throw IoError("reading " + path.string() + ": " + std::generic_category().message(error));
  };
  refuse_nul(path, "reading");
  const Descriptor file(::open(path.c_str(), O_RDONLY));
  if (file.get() < 0) fail(errno);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail(errno);
  if (S_ISDIR(status.st_mode)) fail(EISDIR);
  if (!S_ISREG(status.st_mode)) throw IoError("reading " + path.string() + ": not a regular file");
  if (static_cast<std::uint64_t>(status.st_size) >
      static_cast<std::uint64_t>(std::numeric_limits<std::ptrdiff_t>::max()))
    fail(EFBIG);
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0) return;
  auto* const bytes = new (std::nothrow) std::byte[size];
  if (!bytes)
    throw OutOfMemory("reading " + path.string() + ": can't allocate " + std::to_string(size) +
                      " bytes");
  bytes_ = {bytes, size};
  for (std::size_t done = 0; done < size;) {
    const ssize_t count = ::read(file.get(), bytes + done, size - done);
    if (count > 0) {
      done += static_cast<std::size_t>(count);
      continue;
    }
    const int error = errno;
    delete[] std::exchange(bytes_, {}).data();
    if (count < 0) fail(error);
    throw IoError("reading " + path.string() + ": it was cut short while it was being read");
  }
}

MappedFile::~MappedFile() { delete[] bytes_.data(); }

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
