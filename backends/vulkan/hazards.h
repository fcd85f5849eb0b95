// Which dispatches must wait for earlier ones.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "backends/vulkan/memory.h"

namespace fluxion::vulkan_backend {

// What was read and written since the last barrier, as intervals of blocks.
class Hazards {
 public:
  // Whether a use of these bytes must wait for what came since the last barrier: what it reads was
  // written, or what it writes was read or written.
  bool conflicts(const Place& place, bool writes) const {
    return overlaps(written_, place) || (writes && overlaps(read_, place));
  }
  void note(const Place& place, bool reads, bool writes) {
    if (writes) written_.push_back(place);
    if (reads) read_.push_back(place);
  }
  void barrier() {
    read_.clear();
    written_.clear();
  }

 private:
  static bool overlaps(const std::vector<Place>& places, const Place& place) {
    return std::any_of(places.begin(), places.end(), [&](const Place& each) {
      return each.block == place.block && each.offset < place.offset + place.bytes &&
             place.offset < each.offset + each.bytes;
    });
  }
  std::vector<Place> read_, written_;
};

}  // namespace fluxion::vulkan_backend
