#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "engine/error.h"
#include "engine/platform/descriptor_posix.h"
#include "engine/platform/file.h"

namespace fluxion {

namespace {

// Where files are mapped. A signal handler gets no argument, so what it reads can't live anywhere
// else. A place is free while its begin is 0, and the handler heeds it once its end is set.
struct Place {
  std::atomic<std::uintptr_t> begin{0}, end{0};
  std::atomic<bool> cut{false};
};
// Blocks are added where more files are mapped, and stay: the handler may be reading them.
struct Places {
  std::array<Place, 256> all;
  std::atomic<Places*> next{nullptr};
};
Places places;
std::atomic<std::uintptr_t> page_bytes{0};
struct sigaction action_before = {};
static_assert(std::atomic<std::uintptr_t>::is_always_lock_free &&
              std::atomic<Places*>::is_always_lock_free);

Place* enter(std::span<const std::byte> bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data());
  for (Places* block = &places;;) {
    for (Place& place : block->all) {
      std::uintptr_t none = 0;
      if (!place.begin.compare_exchange_strong(none, begin)) continue;
      place.cut = false;
      place.end = begin + bytes.size();
      return &place;
    }
    Places* next = block->next;
    if (next == nullptr) {
      auto added = std::make_unique<Places>();
      // Another thread may have added one meanwhile.
      if (block->next.compare_exchange_strong(next, added.get())) next = added.release();
    }
    block = next;
  }
}

void leave(void* where) {
  if (where == nullptr) return;
  Place& place = *static_cast<Place*>(where);
  place.end = 0;
  place.begin = 0;
}

// Where the file is mapped whose bytes lie at this address.
Place* place_of(std::uintptr_t address, std::uintptr_t& map_end) {
  for (Places* block = &places; block != nullptr; block = block->next)
    for (Place& place : block->all) {
      const std::uintptr_t begin = place.begin, end = place.end;
      // Another thread may have given the place to another file between these two reads.
      if (end == 0 || place.begin != begin || address < begin || address >= end) continue;
      map_end = end;
      return &place;
    }
  return nullptr;
}

// The page that was touched lies behind the end of its file, and so do all after it.
extern "C" void on_lost_page(int, siginfo_t* info, void*) {
  const int saved_errno = errno;
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  std::uintptr_t end = 0;
  if (Place* const place = place_of(address, end)) {
    const std::uintptr_t page = address / page_bytes * page_bytes;
    void* const zeros = ::mmap(reinterpret_cast<void*>(page), end - page, PROT_READ,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (zeros != MAP_FAILED) {
      place->cut = true;
      errno = saved_errno;
      return;
    }
  }
  ::sigaction(SIGBUS, &action_before, nullptr);  // it comes again when the handler returns
  errno = saved_errno;
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const auto fail = [&](int error) {
    throw IoError("reading " + path.string() + ": " + std::generic_category().message(error));
  };
  refuse_nul(path, "reading");
  // Opening a pipe must not wait for a writer.
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
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
  void* const address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (address == MAP_FAILED) {
    if (errno == ENOMEM)
      throw OutOfMemory("reading " + path.string() + ": no room for its " + std::to_string(size) +
                        " bytes");
    fail(errno);
  }
  bytes_ = {static_cast<const std::byte*>(address), size};
  descriptor_ = file.release();
  try {
    place_ = enter(bytes_);
  } catch (...) {
    close();
    throw;
  }
}

MappedFile::~MappedFile() { close(); }

void MappedFile::close() {
  leave(place_);
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(place_, other.place_);
  return *this;
}

bool MappedFile::cut_short() const {
  if (place_ != nullptr && static_cast<const Place*>(place_)->cut) return true;
  // What is lost of the last page needs no signal to read as zeros.
  struct stat status {};
  return descriptor_ >= 0 && ::fstat(descriptor_, &status) == 0 &&
         static_cast<std::uint64_t>(status.st_size) < bytes_.size();
}

void MappedFile::check_whole() const {
  if (cut_short())
    throw IoError("reading " + path_.string() + ": it was cut short while it was being read");
}

MappedFileGuard::MappedFileGuard() {
  page_bytes = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  struct sigaction action {};
  action.sa_sigaction = on_lost_page;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, &action_before);
}

MappedFileGuard::~MappedFileGuard() { ::sigaction(SIGBUS, &action_before, nullptr); }

}  // namespace fluxion
