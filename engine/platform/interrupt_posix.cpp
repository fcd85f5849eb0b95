#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <system_error>
#include <thread>

#include "engine/error.h"
#include "engine/platform/interrupt.h"

namespace fluxion {

namespace {

// What the handler touches: a signal handler gets no argument, so its state can't live anywhere
// else. Requesting a stop runs callbacks and takes locks, which a handler must not do; it writes a
// byte to a pipe instead, and a thread that waits there requests the stop.
std::atomic<bool> guarded{false};
std::atomic<int> arrived{0};
std::atomic<int> pipe_entry{-1};
static_assert(std::atomic<int>::is_always_lock_free);

extern "C" void on_interrupt(int number) {
  const int saved_errno = errno;
  int none = 0;
  if (arrived.compare_exchange_strong(none, number)) {
    const char byte = 's';
    [[maybe_unused]] const ssize_t written = ::write(pipe_entry.load(), &byte, 1);
  } else {
    ::signal(number, SIG_DFL);
    ::raise(number);  // delivered when the handler returns
  }
  errno = saved_errno;
}

}  // namespace

struct InterruptGuard::State {
  State() {
    if (guarded.exchange(true))
      throw Error("InterruptGuard: another one is alive; a process can have one at a time");
    if (::pipe2(pipe, O_CLOEXEC) != 0) {
      const int error = errno;
      guarded = false;
      throw IoError("InterruptGuard: making a pipe: " + std::generic_category().message(error));
    }
  }
  ~State() {
    ::close(pipe[0]);
    ::close(pipe[1]);
    guarded = false;
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  std::stop_source source;
  int pipe[2] = {-1, -1};
  struct sigaction old_interrupt = {}, old_terminate = {};
  std::thread watcher;
};

InterruptGuard::InterruptGuard() : state_(std::make_unique<State>()) {
  arrived = 0;
  pipe_entry = state_->pipe[1];
  state_->watcher = std::thread([state = state_.get()] {
    char byte = 0;
    ssize_t count = 0;
    do count = ::read(state->pipe[0], &byte, 1);
    while (count < 0 && errno == EINTR);
    if (count == 1 && byte == 's') state->source.request_stop();
  });
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  action.sa_flags = SA_RESTART;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, &state_->old_interrupt);
  ::sigaction(SIGTERM, &action, &state_->old_terminate);
}

InterruptGuard::~InterruptGuard() {
  ::sigaction(SIGINT, &state_->old_interrupt, nullptr);
  ::sigaction(SIGTERM, &state_->old_terminate, nullptr);
  // Ends the watcher if no signal did.
  const char byte = 'q';
  [[maybe_unused]] const ssize_t written = ::write(state_->pipe[1], &byte, 1);
  state_->watcher.join();
  pipe_entry = -1;
}

std::stop_token InterruptGuard::token() const { return state_->source.get_token(); }
int InterruptGuard::signal() const { return arrived.load(); }

}  // namespace fluxion
