// From the compressed data of a JPEG file to the samples of its components: entropy decoding and
// the inverse transform (ITU-T T.81, annexes A, F and G). For decode_image alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "models/images/jpeg_file.h"

namespace fluxion::jpeg {

// Of one component, at its own resolution; rows are longer and more than the component's width and
// height, up to whole blocks.
struct Plane {
  std::size_t stride = 0;
  std::vector<std::uint8_t> samples;

  const std::uint8_t* row(int y) const {
    return samples.data() + static_cast<std::size_t>(y) * stride;
  }
};

// In the order of the components. Refuses data that ends early, has codes without meaning, or goes
// on after the last pixel. `name` stands for the file in messages.
std::vector<Plane> decode_samples(const File& file, std::string_view name);

}  // namespace fluxion::jpeg
