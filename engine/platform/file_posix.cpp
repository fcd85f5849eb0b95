#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>
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

// The descriptor of this process that a path names: /dev/stdout, /dev/stderr, /dev/fd/5,
// /proc/self/fd/5. Nothing for other paths.
std::optional<int> named_descriptor(const std::filesystem::path& path) {
  const std::string& text = path.native();
  if (text == "/dev/stdout") return STDOUT_FILENO;
  if (text == "/dev/stderr") return STDERR_FILENO;
  for (const std::string_view folder : {"/dev/fd/", "/proc/self/fd/"}) {
    if (!text.starts_with(folder)) continue;
    int number = -1;
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data() + folder.size(), end, number);
    if (error == std::errc() && rest == end && number >= 0) return number;
  }
  return std::nullopt;
}

// Where an open file lies, behind all links. Empty if the system does not say.
std::filesystem::path path_of(int descriptor) {
  std::error_code error;
  const std::filesystem::path path =
      std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(descriptor), error);
  return error ? std::filesystem::path() : path;
}

// Makes the new file's owner, permissions and access list those of the old one, or tighter.
void keep_access(int descriptor, const std::filesystem::path& old_path, const struct stat& old) {
  struct stat now {};
  if (::fstat(descriptor, &now) != 0) return;
  const auto given = [&](uid_t owner, gid_t group) {
    return ::fchown(descriptor, owner, group) == 0;
  };
  constexpr auto same_owner = static_cast<uid_t>(-1);
  const bool group_kept =
      given(old.st_uid, old.st_gid) || now.st_gid == old.st_gid || given(same_owner, old.st_gid);
  mode_t mode = old.st_mode & 0777;
  const auto classes_in_common = [](mode_t bits) {
    const mode_t both = (bits >> 3) & bits & 07;
    return (bits & 0700) | both << 3 | both;
  };
  // Those who were of the group are now among the others, and those of the new group were.
  if (!group_kept) mode = classes_in_common(mode);
  // Where there is an access list, the bits of the group are its mask and not what the group may.
  std::array<std::byte, 4096> list;
  constexpr const char* name = "system.posix_acl_access";
  const ssize_t bytes = ::getxattr(old_path.c_str(), name, list.data(), list.size());
  const bool none = bytes < 0 && (errno == ENODATA || errno == ENOTSUP || errno == ENOSYS);
  const bool list_kept =
      bytes > 0 && group_kept &&
      ::fsetxattr(descriptor, name, list.data(), static_cast<std::size_t>(bytes), 0) == 0;
  if (!none && !list_kept) mode &= ~mode_t{070};
  if (!list_kept) ::fchmod(descriptor, mode);
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
  if (place < 0) return;
  int expected = TemporaryName::set;  // or it is read, in a process that ends
  temporary_names[static_cast<std::size_t>(place)].state.compare_exchange_strong(
      expected, TemporaryName::free);
}

}  // namespace

bool is_standard_output(const std::filesystem::path& path) {
  return named_descriptor(path) == STDOUT_FILENO;
}

void remove_temporary_files() noexcept {
  for (TemporaryName& name : temporary_names) {
    int expected = TemporaryName::set;  // nobody writes another name there while it is read
    if (name.state.compare_exchange_strong(expected, TemporaryName::changing))
      ::unlink(name.path.data());
  }
}

ReplacementFile::ReplacementFile(const std::filesystem::path& path, std::uint64_t expected_bytes)
    : path_(path), target_(path) {
  refuse_nul(path, "writing");
  if (const std::optional<int> number = named_descriptor(path)) {
    descriptor_ = ::fcntl(*number, F_DUPFD_CLOEXEC, 0);
    if (descriptor_ < 0) fail("writing", errno);
    return;
  }
  // The system follows links, by its own rules of who may follow which; a link to nothing makes the
  // file that it names.
  Descriptor there(::open(path.c_str(), O_PATH | O_CLOEXEC));
  struct stat link {};
  if (there.get() < 0 && errno == ENOENT && ::lstat(path.c_str(), &link) == 0) {
    const Descriptor made(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
    if (made.get() < 0) fail("writing", errno);
    made_target_ = true;
    there.reset(::open(path.c_str(), O_PATH | O_CLOEXEC));
  }
  if (there.get() < 0) {
    if (errno != ENOENT) fail("writing", errno);
    make_temporary(expected_bytes, 0666);
    return;
  }
  struct stat status {};
  if (::fstat(there.get(), &status) != 0) fail("writing", errno);
  if (S_ISDIR(status.st_mode)) fail("writing", EISDIR);
  const std::filesystem::path place = path_of(there.get());
  const bool has_place = place.is_absolute() && status.st_nlink > 0;
  if (!S_ISREG(status.st_mode) || (!has_place && std::filesystem::is_symlink(path))) {
    made_target_ = false;  // whose name is not known
    const int truncate = S_ISREG(status.st_mode) ? O_TRUNC : 0;
    descriptor_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY | truncate);
    if (descriptor_ < 0) fail("writing", errno);
    return;
  }
  if (has_place) target_ = place;
  try {
    make_temporary(expected_bytes, 0600);
    keep_access(descriptor_, target_, status);
  } catch (...) {
    discard();
    throw;
  }
}

void ReplacementFile::make_temporary(std::uint64_t expected_bytes, unsigned mode) {
  if (expected_bytes > 0) {
    const auto free = free_disk_bytes(target_);
    if (free && *free < expected_bytes)
      throw IoError("writing " + path_.string() + ": " + reason(ENOSPC) + " (" +
                    std::to_string(expected_bytes) + " bytes to write, " + std::to_string(*free) +
                    " free)");
  }
  for (int attempt = 0; attempt < 100; ++attempt) {
    temporary_ = temporary_name(target_);
    leave_temporary(std::exchange(place_, -1));
    place_ = enter_temporary(temporary_);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (descriptor_ < 0 && errno == EEXIST) continue;
    if (descriptor_ < 0) {
      const int error = errno;
      temporary_.clear();
      leave_temporary(std::exchange(place_, -1));
      fail("writing", error);
    }
    // By its lock others know that this process lives (remove_abandoned_file). One that came
    // between has removed the file.
    struct stat status {};
    ::flock(descriptor_, LOCK_EX);
    if (::fstat(descriptor_, &status) != 0 || status.st_nlink > 0) return;
    ::close(std::exchange(descriptor_, -1));
  }
  temporary_.clear();
  leave_temporary(std::exchange(place_, -1));
  fail("writing", EEXIST);
}

ReplacementFile::~ReplacementFile() { discard(); }

void ReplacementFile::discard() noexcept {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  if (made_target_) ::unlink(target_.c_str());
  leave_temporary(std::exchange(place_, -1));
}

void ReplacementFile::fail(std::string_view doing, int error) {
  throw IoError(failure(doing, reason(error)));
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
  made_target_ = false;
  leave_temporary(std::exchange(place_, -1));
  // The new name must survive a power cut too. Some file systems can't flush a folder; the file
  // itself is safe then all the same.
  const Descriptor folder(::open(around.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() >= 0 && ::fsync(folder.get()) != 0 && errno == EIO)
    fail("flushing the folder of", errno);
}

bool remove_abandoned_file(const std::filesystem::path& temporary) {
  const Descriptor file(
      ::open(temporary.c_str(), O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY));
  if (file.get() < 0) return errno == ENOENT;
  struct stat status {};
  if (::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) return false;
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) return false;
  return ::unlink(temporary.c_str()) == 0;
}

namespace {

// "process 1234 on host", from the file of a lock.
std::string holder_in(int descriptor) {
  std::array<char, 200> text{};
  const ssize_t bytes = ::pread(descriptor, text.data(), text.size(), 0);
  std::string holder(text.data(), static_cast<std::size_t>(std::max<ssize_t>(bytes, 0)));
  holder.resize(std::min(holder.size(), holder.find('\n')));
  const bool plain = std::all_of(holder.begin(), holder.end(),
                                 [](unsigned char c) { return c >= 0x20 && c < 0x7f; });
  return holder.empty() || !plain ? "another process" : holder;
}

std::string this_process() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  return "process " + std::to_string(::getpid()) + " on " + std::string(host.data()) + "\n";
}

bool same_file(int descriptor, const std::filesystem::path& path) {
  struct stat open {
  }, there{};
  return ::fstat(descriptor, &open) == 0 && ::lstat(path.c_str(), &there) == 0 &&
         open.st_dev == there.st_dev && open.st_ino == there.st_ino;
}

}  // namespace

FolderLock::FolderLock(const std::filesystem::path& folder) : path_(folder / ".lock") {
  const auto fail = [&](int error) {
    throw IoError("locking " + folder.string() + ": " + path_.string() + ": " + reason(error));
  };
  for (int attempt = 0; attempt < 100; ++attempt) {
    Descriptor file(
        ::open(path_.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666));
    if (file.get() < 0) fail(errno);
    if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EINTR) continue;
      if (errno == EWOULDBLOCK)
        throw IoError("the folder " + folder.string() + " is in use by " + holder_in(file.get()) +
                      "; wait for it, or use another folder");
      effective_ = false;
    }
    // The holder before may have removed the file between the two calls.
    if (effective_ && !same_file(file.get(), path_)) continue;
    const std::string text = this_process();
    if (::ftruncate(file.get(), 0) != 0 ||
        ::pwrite(file.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
      // On a full disk the lock holds all the same, without a name.
    }
    descriptor_ = file.release();
    return;
  }
  fail(EAGAIN);
}

FolderLock::~FolderLock() {
  if (descriptor_ < 0) return;
  if (holds()) ::unlink(path_.c_str());  // while it is locked: nobody else's
  ::close(descriptor_);
}

bool FolderLock::holds() const { return descriptor_ >= 0 && same_file(descriptor_, path_); }

}  // namespace fluxion
