#include "backends/vulkan/guards.h"

#include <array>

namespace fluxion::vulkan_backend {

namespace {

// As a little-endian u32: 0xffc5c5c5, a NaN.
constexpr std::array pattern{std::byte{0xc5}, std::byte{0xc5}, std::byte{0xc5}, std::byte{0xff}};

std::byte expected_at(std::int64_t index) { return pattern[static_cast<std::size_t>(index) % 4]; }

}  // namespace

void fill_guarded(const Place& place) {
  for (std::int64_t i = 0; i < place.bytes; ++i) place.host[i] = expected_at(i);
}

bool guards_are_whole(const Place& place, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = 0; i < place.bytes; ++i)
    if ((i < begin || i >= end) && place.host[i] != expected_at(i)) return false;
  return true;
}

}  // namespace fluxion::vulkan_backend
