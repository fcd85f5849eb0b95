#include <fcntl.h>
#include <io.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "engine/platform/file.h"
#include "engine/platform/machine.h"
#include "engine/platform/system_windows.h"

namespace fluxion {

namespace {

std::filesystem::path folder_of(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.parent_path();
  return folder.empty() ? std::filesystem::path(L".") : folder;
}

// A name no other process and no other thread of this one is using; CREATE_NEW guards the rest.
std::filesystem::path temporary_name(const std::filesystem::path& target) {
  static std::atomic<unsigned> counter{0};
  const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
  // The longest file name has 255 characters; what follows takes at most some 40.
  const std::wstring name = L"." + target.filename().native().substr(0, 200) + L"." +
                            std::to_wstring(::GetCurrentProcessId()) + L"-" +
                            std::to_wstring(now % 1000000007) + L"-" + std::to_wstring(counter++) +
                            L".part";
  return folder_of(target) / name;
}

// Where an open file lies, behind all links.
std::filesystem::path path_of(HANDLE file) {
  std::wstring path(32768, L'\0');
  const DWORD length = ::GetFinalPathNameByHandleW(
      file, path.data(), static_cast<DWORD>(path.size()), FILE_NAME_NORMALIZED);
  path.resize(length < path.size() ? length : 0);
  return path;
}

// Who may do what with a file: its access list. Empty if the system does not say.
std::vector<std::byte> access_of(const std::filesystem::path& path) {
  DWORD bytes = 0;
  ::GetFileSecurityW(path.c_str(), DACL_SECURITY_INFORMATION, nullptr, 0, &bytes);
  std::vector<std::byte> access(bytes);
  if (bytes > 0 &&
      !::GetFileSecurityW(path.c_str(), DACL_SECURITY_INFORMATION, access.data(), bytes, &bytes))
    access.clear();
  return access;
}

HANDLE handle_of(int descriptor) { return reinterpret_cast<HANDLE>(::_get_osfhandle(descriptor)); }

// The system removes such a file when its last handle is closed, also when the process dies.
bool remove_on_close(int descriptor, bool remove) {
  FILE_DISPOSITION_INFO disposition{};
  disposition.DeleteFile = remove;
  return ::SetFileInformationByHandle(handle_of(descriptor), FileDispositionInfo, &disposition,
                                      sizeof disposition);
}

int open_descriptor(Handle& file) {
  const int descriptor = ::_open_osfhandle(reinterpret_cast<std::intptr_t>(file.get()), _O_BINARY);
  if (descriptor >= 0) file.release();
  return descriptor;
}

}  // namespace

// No path names it.
bool is_standard_output(const std::filesystem::path&) { return false; }

// (The system does it: see remove_on_close.)
void remove_temporary_files() noexcept {}

ReplacementFile::ReplacementFile(const std::filesystem::path& path, std::uint64_t expected_bytes)
    : path_(path), target_(path) {
  refuse_nul(path, "writing");
  const DWORD attributes = ::GetFileAttributesW(path.c_str());
  const bool there = attributes != INVALID_FILE_ATTRIBUTES;
  if (there && (attributes & FILE_ATTRIBUTE_DIRECTORY))
    throw IoError("writing " + path.string() + ": Is a directory");
  constexpr DWORD everybody = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
  const auto open = [&](DWORD access, DWORD how) {
    return ::CreateFileW(path.c_str(), access, everybody, nullptr, how, FILE_ATTRIBUTE_NORMAL,
                         nullptr);
  };
  // Asking for no access follows links and opens devices too.
  const Handle old(open(0, OPEN_EXISTING));
  if (old && ::GetFileType(old.get()) != FILE_TYPE_DISK) {
    Handle device(open(GENERIC_WRITE, OPEN_EXISTING));
    if (!device) fail("writing", static_cast<int>(::GetLastError()));
    descriptor_ = open_descriptor(device);
    if (descriptor_ < 0) fail("writing", ERROR_TOO_MANY_OPEN_FILES);
    return;
  }
  if (old) {
    const std::filesystem::path place = path_of(old.get());
    if (!place.empty()) target_ = place;
  } else if (there && (attributes & FILE_ATTRIBUTE_REPARSE_POINT)) {
    // A link to nothing makes the file that it names.
    const Handle made(open(GENERIC_WRITE, OPEN_ALWAYS));
    if (!made) fail("writing", static_cast<int>(::GetLastError()));
    target_ = path_of(made.get());
    made_target_ = true;
  }
  try {
    make_temporary(expected_bytes, 0);
  } catch (...) {
    discard();
    throw;
  }
}

void ReplacementFile::make_temporary(std::uint64_t expected_bytes, unsigned) {
  if (expected_bytes > 0) {
    const auto free = free_disk_bytes(target_);
    if (free && *free < expected_bytes)
      throw IoError("writing " + path_.string() + ": " + reason_of(ERROR_DISK_FULL) + " (" +
                    std::to_string(expected_bytes) + " bytes to write, " + std::to_string(*free) +
                    " free)");
  }
  std::vector<std::byte> access = access_of(target_);
  SECURITY_ATTRIBUTES security{};
  security.nLength = sizeof security;
  security.lpSecurityDescriptor = access.empty() ? nullptr : access.data();
  for (int attempt = 0; attempt < 100; ++attempt) {
    temporary_ = temporary_name(target_);
    // Nobody else may open it, so that none removes it while this process lives.
    Handle file(::CreateFileW(temporary_.c_str(), GENERIC_WRITE | DELETE, 0,
                              access.empty() ? nullptr : &security, CREATE_NEW,
                              FILE_ATTRIBUTE_NORMAL, nullptr));
    const DWORD error = file ? ERROR_SUCCESS : ::GetLastError();
    if (error == ERROR_FILE_EXISTS) continue;
    if (error == ERROR_SUCCESS) descriptor_ = open_descriptor(file);
    if (descriptor_ < 0) {
      temporary_.clear();
      fail("writing", static_cast<int>(error ? error : DWORD{ERROR_TOO_MANY_OPEN_FILES}));
    }
    remove_on_close(descriptor_, true);
    return;
  }
  temporary_.clear();
  fail("writing", ERROR_FILE_EXISTS);
}

ReplacementFile::~ReplacementFile() { discard(); }

void ReplacementFile::discard() noexcept {
  if (descriptor_ >= 0) ::_close(std::exchange(descriptor_, -1));
  if (!temporary_.empty()) ::DeleteFileW(temporary_.c_str());
  if (made_target_) ::DeleteFileW(target_.c_str());
}

void ReplacementFile::fail(std::string_view doing, int error) {
  throw IoError(failure(doing, reason_of(static_cast<DWORD>(error))));
}

void ReplacementFile::write(std::span<const std::byte> bytes) {
  if (descriptor_ < 0) throw Error("writing " + path_.string() + ": already committed");
  while (!bytes.empty()) {
    constexpr std::size_t most = std::size_t{1} << 30;
    DWORD written = 0;
    if (!::WriteFile(handle_of(descriptor_), bytes.data(),
                     static_cast<DWORD>(std::min(bytes.size(), most)), &written, nullptr))
      fail("writing", static_cast<int>(::GetLastError()));
    bytes = bytes.subspan(written);
  }
}

void ReplacementFile::commit() {
  if (descriptor_ < 0) throw Error("writing " + path_.string() + ": already committed");
  const bool device = temporary_.empty();
  // Devices and pipes have nothing to flush.
  if (!::FlushFileBuffers(handle_of(descriptor_)) && !device)
    fail("flushing", static_cast<int>(::GetLastError()));
  if (!device && !remove_on_close(descriptor_, false))
    fail("keeping", static_cast<int>(::GetLastError()));
  if (::_close(std::exchange(descriptor_, -1)) != 0) fail("closing", ERROR_WRITE_FAULT);
  if (device) return;
  if (!::MoveFileExW(temporary_.c_str(), target_.c_str(),
                     MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH))
    fail("replacing", static_cast<int>(::GetLastError()));
  temporary_.clear();
  made_target_ = false;
}

bool remove_abandoned_file(const std::filesystem::path& temporary) {
  return ::DeleteFileW(temporary.c_str()) || ::GetLastError() == ERROR_FILE_NOT_FOUND;
}

namespace {

// "process 1234 on host", from the file of a lock.
std::string holder_in(const std::filesystem::path& path) {
  const Handle file(::CreateFileW(path.c_str(), GENERIC_READ,
                                  FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr,
                                  OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr));
  char text[200];
  DWORD bytes = 0;
  if (!file || !::ReadFile(file.get(), text, sizeof text, &bytes, nullptr)) bytes = 0;
  std::string holder(text, bytes);
  holder.resize(std::min(holder.size(), holder.find('\n')));
  const bool plain = std::all_of(holder.begin(), holder.end(),
                                 [](unsigned char c) { return c >= 0x20 && c < 0x7f; });
  return holder.empty() || !plain ? "another process" : holder;
}

std::string this_process() {
  char host[256];
  DWORD length = sizeof host;
  if (!::GetComputerNameA(host, &length)) length = 0;
  return "process " + std::to_string(::GetCurrentProcessId()) + " on " + std::string(host, length) +
         "\n";
}

}  // namespace

FolderLock::FolderLock(const std::filesystem::path& folder) : path_(folder / L".lock") {
  // Others may read the file and not write it, and while it is open nobody can remove the folder.
  Handle file(::CreateFileW(path_.c_str(), GENERIC_READ | GENERIC_WRITE | DELETE, FILE_SHARE_READ,
                            nullptr, CREATE_ALWAYS,
                            FILE_ATTRIBUTE_NORMAL | FILE_FLAG_DELETE_ON_CLOSE, nullptr));
  if (!file) {
    const DWORD error = ::GetLastError();
    if (error == ERROR_SHARING_VIOLATION)
      throw IoError("the folder " + folder.string() + " is in use by " + holder_in(path_) +
                    "; wait for it, or use another folder");
    throw IoError("locking " + folder.string() + ": " + path_.string() + ": " + reason_of(error));
  }
  const std::string text = this_process();
  DWORD written = 0;
  // (On a full disk the lock holds all the same, without a name.)
  ::WriteFile(file.get(), text.data(), static_cast<DWORD>(text.size()), &written, nullptr);
  descriptor_ = open_descriptor(file);
  if (descriptor_ < 0)
    throw IoError("locking " + folder.string() + ": " + reason_of(ERROR_TOO_MANY_OPEN_FILES));
}

FolderLock::~FolderLock() {
  if (descriptor_ >= 0) ::_close(descriptor_);
}

bool FolderLock::holds() const { return descriptor_ >= 0; }

}  // namespace fluxion
