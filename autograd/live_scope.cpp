#include "autograd/live_scope.h"

namespace fluxion {

LiveScope::LiveScope() : scope_(std::make_shared<TraceScope>()) {
  // An inner transform starts later, so a count of starts orders nested scopes, outermost first.
  // 0 is the scope of a compiled function, and of a region parameter, whose scope never ends: the
  // tangent placeholders of vjp and linearize are such parameters.
  static std::atomic<std::uint64_t> started{0};
  scope_->depth = ++started;
}

LiveScope::~LiveScope() { scope_->live.store(false); }

}  // namespace fluxion
