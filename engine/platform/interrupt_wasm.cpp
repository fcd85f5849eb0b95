// WebAssembly gets no signals: no stop is ever requested.
#include "engine/platform/interrupt.h"

namespace fluxion {

struct InterruptGuard::State {
  std::stop_source source;
};

InterruptGuard::InterruptGuard() : state_(std::make_unique<State>()) {}
InterruptGuard::~InterruptGuard() = default;
std::stop_token InterruptGuard::token() const { return state_->source.get_token(); }
int InterruptGuard::signal() const { return 0; }

}  // namespace fluxion
