// Fuzz target: what the decoder of pictures makes of hostile bytes. It refuses them with a
// FormatError, or returns the picture that image_info promised.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>

#include "engine/error.h"
#include "models/images/decode.h"

using namespace fluxion;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = std::as_bytes(std::span(data, size));
  try {
    const ImageInfo info = image_info(file);
    if (std::int64_t{info.width} * info.height > 1 << 20) return 0;
    const Image image = decode_image(file);
    if (image.width == info.width && image.height == info.height &&
        image.channels == info.channels &&
        image.pixels.size() == Image(info.width, info.height, info.channels).pixels.size())
      return 0;
    std::fprintf(stderr, "the picture is not what image_info promised\n");
    std::abort();
  } catch (const FormatError&) {
  }
  return 0;
}
