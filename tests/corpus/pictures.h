// Odd pictures, made by code that knows what they hold: the corpus of tests/corpus.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "models/images/image.h"

namespace fluxion::testing {

struct OddPicture {
  std::string name;
  std::vector<std::byte> file;
  std::optional<Image> picture = {};  // what the file holds, within `tolerance` levels
  int tolerance = 0;
  std::string refusal = {};  // or words of the error
};

std::vector<OddPicture> odd_pngs();
std::vector<OddPicture> odd_jpegs();

}  // namespace fluxion::testing
