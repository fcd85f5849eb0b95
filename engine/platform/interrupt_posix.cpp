#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <thread>

#include "engine/error.h"
#include "engine/platform/interrupt.h"
#include "engine/platform/threads.h"

namespace fluxion {

namespace {

struct Guarded {
  int number;
  struct sigaction before = {};
  bool ours = false;
};

// What the handler touches: a signal handler gets no argument, so its state can't live anywhere
// else. Requesting a stop runs callbacks and takes locks, which a handler must not do; it writes a
// byte to a pipe instead, and a thread that waits there requests the stop.
std::atomic<bool> guarded{false};
std::atomic<int> arrived{0};
std::atomic<int> pipe_entry{-1};
std::atomic<int> inside{0};  // handlers that may be about to write
std::array<Guarded, 3> signals = {Guarded{SIGINT}, Guarded{SIGTERM}, Guarded{SIGHUP}};
static_assert(std::atomic<int>::is_always_lock_free);

extern "C" void on_interrupt(int number) {
  const int saved_errno = errno;
  int none = 0;
  if (arrived.compare_exchange_strong(none, number)) {
    const char byte = 0;
    ++inside;
    if (const int entry = pipe_entry; entry >= 0) {
      [[maybe_unused]] const ssize_t written = ::write(entry, &byte, 1);
    }
    --inside;
  } else {
    for (const Guarded& signal : signals)
      if (signal.number == number) ::sigaction(number, &signal.before, nullptr);
    ::raise(number);  // delivered when the handler returns
  }
  errno = saved_errno;
}

}  // namespace

struct InterruptGuard::State {
  State() {
    if (guarded.exchange(true))
      throw Error("InterruptGuard: another one is alive; a process can have one at a time");
    // Without a pipe or a thread, signal() does the thread's work.
    if (::pipe2(pipe, O_CLOEXEC) != 0) pipe[0] = pipe[1] = -1;
    if (pipe[0] >= 0)
      watcher = start_threads(1, [this] {
        char byte = 0;
        ssize_t count = 0;
        do count = ::read(pipe[0], &byte, 1);
        while (count < 0 && errno == EINTR);
        if (count == 1) source.request_stop();
      });
  }
  ~State() {
    if (pipe[1] >= 0) ::close(pipe[1]);  // ends the watcher if no signal did
    watcher.clear();
    if (pipe[0] >= 0) ::close(pipe[0]);
    guarded = false;
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  std::stop_source source;
  int pipe[2] = {-1, -1};
  std::vector<std::jthread> watcher;  // one, or none
};

InterruptGuard::InterruptGuard() : state_(std::make_unique<State>()) {
  arrived = 0;
  pipe_entry = state_->pipe[1];
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  action.sa_flags = SA_RESTART;
  ::sigemptyset(&action.sa_mask);
  for (Guarded& signal : signals) {
    signal.ours = ::sigaction(signal.number, nullptr, &signal.before) == 0 &&
                  signal.before.sa_handler != SIG_IGN;
    if (signal.ours) ::sigaction(signal.number, &action, nullptr);
  }
}

InterruptGuard::~InterruptGuard() {
  for (const Guarded& signal : signals)
    if (signal.ours) ::sigaction(signal.number, &signal.before, nullptr);
  pipe_entry = -1;
  // A handler on another thread may hold the number of the pipe, which is closed next.
  while (inside != 0) std::this_thread::yield();
}

std::stop_token InterruptGuard::token() const { return state_->source.get_token(); }

int InterruptGuard::signal() const {
  const int number = arrived.load();
  if (number != 0 && state_->watcher.empty()) state_->source.request_stop();
  return number;
}

}  // namespace fluxion
