// Files of the operating system: read-only maps, and replacement that is all or nothing. The system
// calls are in file_posix.cpp and its twins for other systems.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace fluxion {

// A whole file mapped for reading. Pages are read from the file when touched, so a large checkpoint
// costs nothing until it is used. Replacing the file (ReplacementFile) leaves the map intact;
// cutting it short in place does not: see MappedFileGuard.
class MappedFile {
 public:
  MappedFile() = default;
  // Throws IoError, naming the file and the reason, if it can't be opened, is not a regular file,
  // or can't be mapped; OutOfMemory where no addresses are left.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return bytes_; }

  // True once the file has fewer bytes than were mapped: those that it lost read as zeros.
  bool cut_short() const;
  // Throws IoError if so. Call it after bytes were read and before they are believed.
  void check_whole() const;

 private:
  void close();

  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
  int descriptor_ = -1;
  void* place_ = nullptr;  // in the table of maps
};

// While it lives, bytes that a mapped file has lost read as zeros; else reading one may end the
// process (SIGBUS). For programs, not libraries: one at a time in a process.
class MappedFileGuard {
 public:
  MappedFileGuard();
  ~MappedFileGuard();
  MappedFileGuard(const MappedFileGuard&) = delete;
  MappedFileGuard& operator=(const MappedFileGuard&) = delete;
};

// Replaces a file atomically: a reader, or the next start after a crash, sees the old content or
// the new one, never a part. The bytes go to a temporary name in the same folder, are flushed to
// disk, and take the final name in commit(). Without commit() the temporary file is removed and the
// old file stays.
//
// A symbolic link is followed, and nobody may do with the new file what they could not do with the
// one it replaces: owner, permissions and access list are kept, or where the system does not allow
// that, what they gave to others is taken away. Where `path` names a device or a pipe, which can't
// be replaced, or a descriptor of this process (/dev/stdout, /dev/fd/5), the bytes go straight to
// it.
class ReplacementFile {
 public:
  // Throws IoError if the folder does not exist, which it says, or does not allow it. Pass the size
  // to come, if known, to have a full disk refused here.
  explicit ReplacementFile(const std::filesystem::path& path, std::uint64_t expected_bytes = 0);
  ~ReplacementFile();
  ReplacementFile(const ReplacementFile&) = delete;
  ReplacementFile& operator=(const ReplacementFile&) = delete;

  void write(std::span<const std::byte> bytes);  // throws IoError: disk full, quota, ...
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  void commit();  // throws IoError; at most once, and no write after it

 private:
  [[noreturn]] void fail(std::string_view doing, int error);

  // "writing out/x: ", and that its folder does not exist, or else `reason`.
  std::string failure(std::string_view doing, const std::string& reason) const;
  void make_temporary(std::uint64_t expected_bytes, unsigned mode);
  void discard() noexcept;  // what is not committed

  std::filesystem::path path_;       // as the caller wrote it, for messages
  std::filesystem::path target_;     // the file behind links
  std::filesystem::path temporary_;  // empty once it is gone, or when writing to a device
  int descriptor_ = -1;
  int place_ = -1;            // in the table of temporary names; -1: in none
  bool made_target_ = false;  // behind a link to nothing: goes unless it is committed
};

// Whether ReplacementFile writes to this process's standard output: /dev/stdout, /dev/fd/1.
bool is_standard_output(const std::filesystem::path& path);

// Removes the temporary files of all replacements that are under way in this process. For a signal
// handler that ends it.
void remove_temporary_files() noexcept;

// Removes a temporary file of a replacement whose process has ended; one that is being written
// stays. True if it is gone.
bool remove_abandoned_file(const std::filesystem::path& temporary);

// A folder that one process writes to. The system drops the lock when the process ends, however it
// ends. A file ".lock" in the folder names its holder and is removed with the lock.
class FolderLock {
 public:
  // Throws IoError, naming the holder, where another FolderLock, of this process or another, holds
  // the folder, or the file can't be made. On a file system that has no locks it holds nothing.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  // False where the folder has been removed, or made anew, since.
  bool holds() const;
  // False on a file system that has no locks.
  bool effective() const { return effective_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  bool effective_ = true;
};

// Replaces the content of `path` at once. Throws IoError.
void replace_file(const std::filesystem::path& path, std::span<const std::byte> bytes);
void replace_file(const std::filesystem::path& path, std::string_view text);

}  // namespace fluxion
