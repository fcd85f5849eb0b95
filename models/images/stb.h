// The PNG decoder of stb_image (https://github.com/nothings/stb), built once, in stb.cpp.
// For decode_image alone, which checks files first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace fluxion::stb {

struct Decoded {
  int width = 0, height = 0;
  int channels = 0;  // 1: grey, 2: grey and alpha, 3: RGB, 4: RGB and alpha; 0: failed
  std::vector<std::uint8_t> pixels;
  std::string failure;
  bool out_of_memory = false;
};

// Width, height and channels only.
Decoded header(std::span<const std::byte> file);
// Fails where it would unpack into a piece of more than `most_unpacked` bytes.
Decoded decode(std::span<const std::byte> file, std::uint64_t most_unpacked);

}  // namespace fluxion::stb
