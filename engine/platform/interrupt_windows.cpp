// The events of a console: Ctrl-C and Ctrl-Break count as SIGINT, and the end of the window or the
// session as SIGTERM. The system runs the handler in a thread of its own.
#include <atomic>
#include <csignal>
#include <mutex>

#include "engine/error.h"
#include "engine/platform/interrupt.h"
#include "engine/platform/system_windows.h"

namespace fluxion {

struct InterruptGuard::State {
  std::stop_source source;
  std::atomic<int> arrived{0};
};

namespace {

// A handler gets no argument, so what it reads can't live anywhere else.
std::mutex guarded_mutex;
struct Guarded {
  std::stop_source* source = nullptr;
  std::atomic<int>* arrived = nullptr;
} guarded;

BOOL WINAPI on_event(DWORD event) {
  const bool asked = event == CTRL_C_EVENT || event == CTRL_BREAK_EVENT;
  {
    const std::lock_guard lock(guarded_mutex);
    int none = 0;
    if (!guarded.source ||
        !guarded.arrived->compare_exchange_strong(none, asked ? SIGINT : SIGTERM))
      return FALSE;  // to the handler before
    guarded.source->request_stop();
  }
  // The system ends the process when the handler of such an event returns, or after some seconds.
  if (!asked) ::Sleep(INFINITE);
  return TRUE;
}

}  // namespace

InterruptGuard::InterruptGuard() : state_(std::make_unique<State>()) {
  const std::lock_guard lock(guarded_mutex);
  if (guarded.source)
    throw Error("InterruptGuard: another one is alive; a process can have one at a time");
  guarded = {&state_->source, &state_->arrived};
  ::SetConsoleCtrlHandler(on_event, TRUE);
}

InterruptGuard::~InterruptGuard() {
  ::SetConsoleCtrlHandler(on_event, FALSE);
  const std::lock_guard lock(guarded_mutex);
  guarded = {};
}

std::stop_token InterruptGuard::token() const { return state_->source.get_token(); }
int InterruptGuard::signal() const { return state_->arrived; }

}  // namespace fluxion
