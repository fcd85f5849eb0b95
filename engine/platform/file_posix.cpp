#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <string>
#include <system_error>
#include <utility>

#include "engine/error.h"
#include "engine/platform/descriptor_posix.h"
#include "engine/platform/file.h"
#include "engine/platform/machine.h"

namespace fluxion {

namespace {

std::string reason(int error) { return std::generic_category().message(error); }

std::filesystem::path folder_of(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.parent_path();
  return folder.empty() ? std::filesystem::path(".") : folder;
}

// Where a chain of symbolic links ends, even if nothing is there yet.
std::filesystem::path resolve_links(std::filesystem::path path) {
  for (int links = 0; links < 40; ++links) {
    std::error_code error;
    const std::filesystem::path next = std::filesystem::read_symlink(path, error);
    if (error) return path;
    path = next.is_absolute() ? next : folder_of(path) / next;
  }
  return path;
}

// A name no other process and no other thread of this one is using. O_EXCL guards against the rest.
std::filesystem::path temporary_name(const std::filesystem::path& target) {
  static std::atomic<unsigned> counter{0};
  const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
  const std::string suffix = "." + std::to_string(::getpid()) + "-" +
                             std::to_string(now % 1000000007) + "-" + std::to_string(counter++) +
                             ".part";
  // The longest file name is 255 bytes; the suffix takes at most some 40.
  return folder_of(target) / ("." + target.filename().string().substr(0, 200) + suffix);
}

// The names of temporary files, where a signal handler can read them. A name is set before its
// file is made.
struct TemporaryName {
  enum State : int { free, changing, set };
  std::atomic<int> state{free};
  std::array<char, 4096> path{};
};
std::array<TemporaryName, 16> temporary_names;
static_assert(std::atomic<int>::is_always_lock_free);

// Its place in the table, or -1 where that is full or the path too long.
int enter_temporary(const std::filesystem::path& path) {
  const std::string& text = path.native();
  if (text.size() >= TemporaryName().path.size()) return -1;
  for (std::size_t place = 0; place < temporary_names.size(); ++place) {
    TemporaryName& name = temporary_names[place];
    int expected = TemporaryName::free;
    if (!name.state.compare_exchange_strong(expected, TemporaryName::changing)) continue;
    std::copy_n(text.c_str(), text.size() + 1, name.path.begin());
    name.state = TemporaryName::set;
    return static_cast<int>(place);
  }
  return -1;
}

void leave_temporary(int place) {
  if (place >= 0) temporary_names[static_cast<std::size_t>(place)].state = TemporaryName::free;
}

}  // namespace

void remove_temporary_files() noexcept {
  for (const TemporaryName& name : temporary_names)
    if (name.state == TemporaryName::set) ::unlink(name.path.data());
}

ReplacementFile::ReplacementFile(const std::filesystem::path& path, std::uint64_t expected_bytes)
    : path_(path), target_(resolve_links(path)) {
  struct stat status {};
  const bool exists = ::stat(target_.c_str(), &status) == 0;
  if (exists && S_ISDIR(status.st_mode)) fail("writing", EISDIR);
  if (exists && !S_ISREG(status.st_mode)) {
    descriptor_ = ::open(target_.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor_ < 0) fail("writing", errno);
    return;
  }
  if (expected_bytes > 0) {
    const auto free = free_disk_bytes(target_);
    if (free && *free < expected_bytes)
      throw IoError("writing " + path_.string() + ": " + reason(ENOSPC) + " (" +
                    std::to_string(expected_bytes) + " bytes to write, " + std::to_string(*free) +
                    " free)");
  }
  for (int attempt = 0; attempt < 100 && descriptor_ < 0; ++attempt) {
    temporary_ = temporary_name(target_);
    leave_temporary(place_);
    place_ = enter_temporary(temporary_);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && errno != EEXIST) break;
  }
  if (descriptor_ < 0) {
    const int error = errno;
    leave_temporary(place_);
    fail("writing", error);
  }
  // Owner and permissions stay those of the file replaced as far as this process may set them; a
  // file system without them is no reason to fail.
  if (exists) {
    if (::fchown(descriptor_, status.st_uid, status.st_gid) == 0)
      ::fchmod(descriptor_, status.st_mode & 0777);
  }
}

ReplacementFile::~ReplacementFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  leave_temporary(place_);
}

void ReplacementFile::fail(std::string_view doing, int error) {
  throw IoError(std::string(doing) + " " + path_.string() + ": " + reason(error));
}

void ReplacementFile::write(std::span<const std::byte> bytes) {
  if (descriptor_ < 0) throw Error("writing " + path_.string() + ": already committed");
  while (!bytes.empty()) {
    constexpr std::size_t most = std::size_t{1} << 30;  // Linux takes at most 2 GiB in one call
    const ssize_t written = ::write(descriptor_, bytes.data(), std::min(bytes.size(), most));
    if (written < 0) {
      if (errno == EINTR) continue;
      fail("writing", errno);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void ReplacementFile::commit() {
  if (descriptor_ < 0) throw Error("writing " + path_.string() + ": already committed");
  const bool device = temporary_.empty();
  // Devices and pipes have nothing to flush and say so with EINVAL.
  if (::fsync(descriptor_) != 0 && !device) fail("flushing", errno);
  if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) fail("closing", errno);
  if (device) return;
  const std::filesystem::path around =
      folder_of(target_);  // allocates: before the point of no return
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail("replacing", errno);
  temporary_.clear();
  leave_temporary(std::exchange(place_, -1));
  // The new name must survive a power cut too. Some file systems can't flush a folder; the file
  // itself is safe then all the same.
  const Descriptor folder(::open(around.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() >= 0 && ::fsync(folder.get()) != 0 && errno == EIO)
    fail("flushing the folder of", errno);
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
