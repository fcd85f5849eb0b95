// Ctrl-C as a stop token.
#pragma once

#include <memory>
#include <stop_token>

namespace fluxion {

// While it lives, the first SIGINT (Ctrl-C), SIGTERM or SIGHUP (the terminal is gone) requests a
// stop instead of ending the process, so that a run can finish its step and save; a second one does
// what it did before the guard. Signals that were ignored, as by nohup, stay ignored. The handlers
// found at construction come back at the end. For programs, not libraries: one guard at a time in a
// process (a second throws Error).
//
//   InterruptGuard interrupt;
//   train(model, data, {.cancel = interrupt.token()});
//   if (interrupt.signal() != 0) return 128 + interrupt.signal();
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  std::stop_token token() const;
  // The number of the signal that arrived, or 0. Where the system has no thread to give that could
  // wait for one, it is this call that requests the stop: make it now and then.
  int signal() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fluxion
