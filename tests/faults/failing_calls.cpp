// A library for LD_PRELOAD that lets calls of a program fail, from main on. FLUXION_FAULT says
// which: "memory:5" the sixth allocation, "memory:5+" that and all after it; "thread:2" starting a
// third thread beside two that live; "file:3" the fourth call of making, writing, flushing,
// closing, linking and renaming files, as on a full disk. At the end of main the number of calls of
// each kind goes to the file FLUXION_FAULT_COUNTS.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace {

enum Kind { memory, thread, file, kinds };
constexpr std::array<const char*, kinds> names = {"memory", "thread", "file"};

std::atomic<bool> armed{false};
std::array<std::atomic<long>, kinds> calls{};
Kind failing = kinds;
long first = 0;
bool all_after = false;

bool fails(Kind kind) {
  if (!armed) return false;
  const long number = calls[kind]++;
  return kind == failing && (number == first || (all_after && number > first));
}

void read_fault() {
  const char* text = std::getenv("FLUXION_FAULT");
  if (!text) return;
  for (int kind = 0; kind < kinds; ++kind) {
    const std::size_t length = std::strlen(names[static_cast<std::size_t>(kind)]);
    if (std::strncmp(text, names[static_cast<std::size_t>(kind)], length) != 0) continue;
    failing = static_cast<Kind>(kind);
    first = std::atol(text + length + 1);
    all_after = text[std::strlen(text) - 1] == '+';
  }
}

template <class Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

using Main = int(int, char**, char**);
Main* real_main = nullptr;

int armed_main(int argc, char** argv, char** environment) {
  read_fault();
  armed = true;
  const int code = real_main(argc, argv, environment);
  armed = false;
  if (const char* path = std::getenv("FLUXION_FAULT_COUNTS")) {
    std::FILE* const counts = std::fopen(path, "w");
    for (const auto& count : calls) std::fprintf(counts, "%ld ", count.load());
    std::fclose(counts);
  }
  return code;
}

int no_space() {
  errno = ENOSPC;
  return -1;
}

struct Thread {
  void* (*body)(void*);
  void* argument;
};
constexpr long most_threads = 1000000;
std::atomic<long> living{0};

void* run_thread(void* begin) {
  const Thread thread = *static_cast<Thread*>(begin);
  std::free(begin);
  void* const result = thread.body(thread.argument);
  --living;
  return result;
}

bool makes_or_writes(int flags) { return (flags & (O_WRONLY | O_RDWR | O_CREAT)) != 0; }

}  // namespace

extern "C" {

int __libc_start_main(Main* main, int argc, char** argv, void (*init)(), void (*fini)(),
                      void (*rtld_fini)(), void* stack_end) {
  real_main = main;
  using Start = int(Main*, int, char**, void (*)(), void (*)(), void (*)(), void*);
  return real<Start>("__libc_start_main")(armed_main, argc, argv, init, fini, rtld_fini, stack_end);
}

void* malloc(std::size_t bytes) { return fails(memory) ? nullptr : __libc_malloc(bytes); }
void* calloc(std::size_t count, std::size_t bytes) {
  return fails(memory) ? nullptr : __libc_calloc(count, bytes);
}
void* realloc(void* block, std::size_t bytes) {
  return fails(memory) ? nullptr : __libc_realloc(block, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  return fails(memory) ? nullptr : __libc_memalign(alignment, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) {
  return fails(memory) ? nullptr : __libc_memalign(alignment, bytes);
}
int posix_memalign(void** block, std::size_t alignment, std::size_t bytes) {
  void* const made = fails(memory) ? nullptr : __libc_memalign(alignment, bytes);
  if (!made) return ENOMEM;
  *block = made;
  return 0;
}

int pthread_create(pthread_t* id, const pthread_attr_t* attributes, void* (*body)(void*),
                   void* argument) {
  ++calls[thread];
  if (living.fetch_add(1) >= (failing == thread ? first : most_threads)) {
    --living;
    return EAGAIN;
  }
  auto* const begin = static_cast<Thread*>(__libc_malloc(sizeof(Thread)));
  *begin = {body, argument};
  using Create = int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  const int error = real<Create>("pthread_create")(id, attributes, run_thread, begin);
  if (error != 0) {
    --living;
    std::free(begin);
  }
  return error;
}

int open(const char* path, int flags, ...) {
  std::va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  if (makes_or_writes(flags) && fails(file)) return no_space();
  return real<int(const char*, int, ...)>("open")(path, flags, mode);
}
int mkdir(const char* path, mode_t mode) {
  return fails(file) ? no_space() : real<int(const char*, mode_t)>("mkdir")(path, mode);
}
ssize_t write(int descriptor, const void* bytes, std::size_t count) {
  if (descriptor > STDERR_FILENO && fails(file)) return no_space();
  return real<ssize_t(int, const void*, std::size_t)>("write")(descriptor, bytes, count);
}
ssize_t writev(int descriptor, const iovec* parts, int count) {
  if (descriptor > STDERR_FILENO && fails(file)) return no_space();
  return real<ssize_t(int, const iovec*, int)>("writev")(descriptor, parts, count);
}
ssize_t pwrite(int descriptor, const void* bytes, std::size_t count, off_t at) {
  if (fails(file)) return no_space();
  return real<ssize_t(int, const void*, std::size_t, off_t)>("pwrite")(descriptor, bytes, count,
                                                                       at);
}
int close(int descriptor) {
  // It is closed all the same, as on Linux.
  const bool failing_now = descriptor > STDERR_FILENO && fails(file);
  const int result = real<int(int)>("close")(descriptor);
  return failing_now ? no_space() : result;
}
int link(const char* from, const char* to) {
  return fails(file) ? no_space() : real<int(const char*, const char*)>("link")(from, to);
}
int fsync(int descriptor) { return fails(file) ? no_space() : real<int(int)>("fsync")(descriptor); }
int rename(const char* from, const char* to) {
  return fails(file) ? no_space() : real<int(const char*, const char*)>("rename")(from, to);
}
}
