// Whether a shared object may be changed or taken apart, since nobody else can see it.
#pragma once

#include <atomic>
#include <memory>

namespace fluxion {

// True where this is the only owner; then what former owners did to the object is seen. (The count
// alone is read without ordering; the thread sanitizer does not know fences.)
template <class T>
bool is_sole_owner(const std::shared_ptr<T>& object) {
  if (object.use_count() != 1) return false;
#if !defined(__SANITIZE_THREAD__)
  std::atomic_thread_fence(std::memory_order_acquire);
#endif
  return true;
}

}  // namespace fluxion
