#include "models/images/stb.h"

#include <cstdint>
#include <cstdlib>
#include <limits>

namespace {

// Of the decoding on this thread. The decoder grows pieces as a file goes on giving data, whatever
// its header says, and takes a lack of memory for damage.
struct Pieces {
  std::uint64_t most = 0;
  bool too_large = false, out_of_memory = false;
};
thread_local Pieces pieces;

void* noted(void* piece) {
  if (piece == nullptr) pieces.out_of_memory = true;
  return piece;
}

void* grown(void* piece, std::size_t size) {
  if (size > pieces.most) {
    pieces.too_large = true;
    return nullptr;
  }
  return noted(std::realloc(piece, size));
}

}  // namespace

// Everything stays in this file: an application may well have an stb_image of its own. Memory comes
// zeroed, so that a damaged file can't show what was there before.
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_MAX_DIMENSIONS 65535
#define STBI_MALLOC(size) noted(std::calloc(1, size))
#define STBI_REALLOC_SIZED(pointer, old_size, new_size) grown(pointer, new_size)
#define STBI_FREE(pointer) std::free(pointer)
#define STBI_ASSERT(condition) static_cast<void>(0)
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>

namespace fluxion::stb {

namespace {

Decoded failed() {
  const char* const why = ::stbi_failure_reason();
  Decoded result;
  result.failure = pieces.too_large ? "more data than it has pixels"
                   : why != nullptr ? why
                                    : "unknown reason";
  result.out_of_memory = pieces.out_of_memory;
  return result;
}

}  // namespace

Decoded header(std::span<const std::byte> file) {
  if (file.size() > std::numeric_limits<int>::max()) return {.failure = "too many bytes"};
  pieces = {.most = file.size()};
  Decoded result;
  if (::stbi_info_from_memory(reinterpret_cast<const stbi_uc*>(file.data()),
                              static_cast<int>(file.size()), &result.width, &result.height,
                              &result.channels) == 0)
    return failed();
  return result;
}

Decoded decode(std::span<const std::byte> file, std::uint64_t most_unpacked) {
  pieces = {.most = most_unpacked};
  if (file.size() > std::numeric_limits<int>::max()) return {.failure = "too many bytes"};
  Decoded result;
  stbi_uc* const pixels = ::stbi_load_from_memory(reinterpret_cast<const stbi_uc*>(file.data()),
                                                  static_cast<int>(file.size()), &result.width,
                                                  &result.height, &result.channels, 0);
  if (pixels == nullptr) return failed();
  try {
    result.pixels.assign(
        pixels, pixels + static_cast<std::size_t>(result.width) * result.height * result.channels);
  } catch (...) {
    ::stbi_image_free(pixels);
    throw;
  }
  ::stbi_image_free(pixels);
  return result;
}

}  // namespace fluxion::stb
