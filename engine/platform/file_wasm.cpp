// Files for WebAssembly: the calls that Emscripten gives, on its file system in memory or on the
// host's. There is one process, so there are no locks between processes; there are no owners, and
// names of devices and links are not treated apart.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>

#include "engine/error.h"
#include "engine/platform/descriptor_posix.h"
#include "engine/platform/file.h"

namespace fluxion {

bool is_standard_output(const std::filesystem::path& path) {
  return path.native() == "/dev/stdout" || path.native() == "/dev/fd/1";
}

void remove_temporary_files() noexcept {}  // no signal ends this process

ReplacementFile::ReplacementFile(const std::filesystem::path& path, std::uint64_t expected_bytes)
    : path_(path), target_(path) {
  refuse_nul(path, "writing");
  struct stat status {};
  const bool there = ::stat(path.c_str(), &status) == 0;
  if (there && S_ISDIR(status.st_mode)) fail("writing", EISDIR);
  if (there && !S_ISREG(status.st_mode)) {
    descriptor_ = ::open(path.c_str(), O_WRONLY);
    if (descriptor_ < 0) fail("writing", errno);
    return;
  }
  make_temporary(expected_bytes, there ? status.st_mode & 0777 : 0666);
}

void ReplacementFile::make_temporary(std::uint64_t, unsigned mode) {
  static unsigned counter = 0;
  for (int attempt = 0; attempt < 100; ++attempt) {
    temporary_ = target_;
    temporary_.replace_filename("." + target_.filename().string().substr(0, 200) + "-" +
                                std::to_string(counter++) + ".part");
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL, mode);
    if (descriptor_ >= 0) return;
    if (errno == EEXIST) continue;
    const int error = errno;
    temporary_.clear();
    fail("writing", error);
  }
  temporary_.clear();
  fail("writing", EEXIST);
}

ReplacementFile::~ReplacementFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void ReplacementFile::fail(std::string_view doing, int error) {
  throw IoError(failure(doing, std::generic_category().message(error)));
}

void ReplacementFile::write(std::span<const std::byte> bytes) {
  if (descriptor_ < 0) throw Error("writing " + path_.string() + ": already committed");
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0) fail("writing", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void ReplacementFile::commit() {
  if (descriptor_ < 0) throw Error("writing " + path_.string() + ": already committed");
  if (::close(std::exchange(descriptor_, -1)) != 0) fail("closing", errno);
  if (temporary_.empty()) return;
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail("replacing", errno);
  temporary_.clear();
}

bool remove_abandoned_file(const std::filesystem::path& temporary) {
  return ::unlink(temporary.c_str()) == 0 || errno == ENOENT;
}

FolderLock::FolderLock(const std::filesystem::path& folder)
    : path_(folder / ".lock"), effective_(false) {
  struct stat status {};
  if (::stat(folder.c_str(), &status) != 0 || !S_ISDIR(status.st_mode))
    throw IoError("locking " + folder.string() + ": there is no such folder");
}

FolderLock::~FolderLock() = default;

bool FolderLock::holds() const { return false; }

}  // namespace fluxion
