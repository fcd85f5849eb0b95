#include "tests/failing_new.h"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

constexpr long never = -1;
thread_local long allowed_allocations = never;
thread_local bool has_failed = false;

// A block, or nullptr when it is to fail or there is no memory.
void* allocate(std::size_t bytes, std::size_t alignment) noexcept {
  if (allowed_allocations != never && allowed_allocations-- == 0) {
    allowed_allocations = never;
    has_failed = true;
    return nullptr;
  }
  if (bytes == 0) bytes = 1;
  if (alignment <= alignof(std::max_align_t)) return std::malloc(bytes);
  return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

void* or_throw(void* memory) {
  if (!memory) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t bytes) { return or_throw(allocate(bytes, 1)); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return allocate(bytes, 1); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return or_throw(allocate(bytes, static_cast<std::size_t>(alignment)));
}
void* operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace fluxion::testing {

FailingAllocation::FailingAllocation(long allowed) {
  has_failed = false;
  allowed_allocations = allowed;
}

FailingAllocation::~FailingAllocation() { allowed_allocations = never; }

bool FailingAllocation::failed() const { return has_failed; }

}  // namespace fluxion::testing
