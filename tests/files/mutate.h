// Damaged copies of a file's bytes, to see that a reader refuses them politely.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <random>
#include <vector>

namespace fluxion::testing {

// One to four random edits: a byte flipped, set to a telling value, removed, doubled, or a stretch
// cut out or repeated.
inline std::vector<std::byte> mutate(std::vector<std::byte> bytes, std::mt19937& random) {
  const auto below = [&](std::size_t count) { return static_cast<std::size_t>(random()) % count; };
  static constexpr unsigned char telling[] = {0,   1,   0x7f, 0x80, 0xff, '"', '{', '}', '[',
                                              ']', ',', ':',  '-',  '9',  'e', '.', '\\'};
  for (std::size_t edit = 1 + below(4); edit > 0 && !bytes.empty(); --edit) {
    const std::size_t at = below(bytes.size());
    const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    const std::size_t length = 1 + below(std::min<std::size_t>(16, bytes.size() - at));
    switch (below(6)) {
      case 0:
        bytes[at] ^= static_cast<std::byte>(1u << below(8));
        break;
      case 1:
        bytes[at] = static_cast<std::byte>(telling[below(std::size(telling))]);
        break;
      case 2:
        bytes.erase(place);
        break;
      case 3:
        bytes.insert(place, *place);
        break;
      case 4:
        bytes.erase(place, place + static_cast<std::ptrdiff_t>(length));
        break;
      default: {
        const std::vector<std::byte> stretch(place, place + static_cast<std::ptrdiff_t>(length));
        bytes.insert(place, stretch.begin(), stretch.end());
      }
    }
  }
  return bytes;
}

}  // namespace fluxion::testing
