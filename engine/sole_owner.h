// Whether a shared object may be changed or taken apart, since nobody else can see it.
#pragma once

#include <atomic>
#include <memory>

namespace fluxion {

// True where this is the only owner; then what former owners did to the object is seen: the count
// alone is read without ordering. (The thread sanitizer does not know fences, but that a copy and
// its end change the count in order with those before.)
template <class T>
bool is_sole_owner(const std::shared_ptr<T>& object) {
  if (object.use_count() != 1) return false;
#if defined(__SANITIZE_THREAD__)
  static_cast<void>(std::shared_ptr<T>(object));
#else
  std::atomic_thread_fence(std::memory_order_acquire);
#endif
  return true;
}

}  // namespace fluxion
