#include "models/images/jpeg.h"

// jpeglib.h needs these two before it.
#include <cstddef>
#include <cstdio>
// clang-format off
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/error.h"

namespace fluxion::jpeg {

namespace {

// Some cameras leave a few bytes behind the compressed data. More is data for which there are no
// pixels: the header is not the one that it was written with.
constexpr int most_bytes_left_over = 64;

// Errors leave libjpeg through longjmp, which must not pass over objects with destructors: between
// setjmp and the calls of libjpeg there are none.
struct Session {
  jpeg_decompress_struct decoder{};
  jpeg_error_mgr errors{};
  std::jmp_buf leave{};
  int allowed_left_over = most_bytes_left_over;
  std::array<char, JMSG_LENGTH_MAX> message{};
  bool out_of_memory = false;

  Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() { jpeg_destroy_decompress(&decoder); }
};

[[noreturn]] void fail(j_common_ptr common) {
  auto& session = *static_cast<Session*>(common->client_data);
  (*common->err->format_message)(common, session.message.data());
  session.out_of_memory = common->err->msg_code == JERR_OUT_OF_MEMORY;
  std::longjmp(session.leave, 1);
}

// Negative levels are warnings: libjpeg goes on, with zeros for what it could not read.
void warn(j_common_ptr common, int level) {
  if (level >= 0) return;
  const auto& session = *static_cast<const Session*>(common->client_data);
  const jpeg_error_mgr& error = *common->err;
  switch (error.msg_code) {
    case JWRN_EXTRANEOUS_DATA:
      if (error.msg_parm.i[0] > session.allowed_left_over) fail(common);
      return;
    // About numbers in headers that nothing depends on.
    case JWRN_ADOBE_XFORM:
    case JWRN_JFIF_MAJOR:
    case JWRN_NOT_SEQUENTIAL:
      return;
    default:
      fail(common);
  }
}

// Rows of the output's components, for which there is as much room as `structure` states. False:
// session.message says why not.
bool read(Session& session, Bytes file, const Structure& structure, std::uint8_t* pixels) {
  jpeg_decompress_struct& decoder = session.decoder;
  decoder.err = jpeg_std_error(&session.errors);
  session.errors.error_exit = fail;
  session.errors.emit_message = warn;
  decoder.client_data = &session;
  if (setjmp(session.leave) != 0) return false;
  jpeg_create_decompress(&decoder);
  jpeg_mem_src(&decoder, reinterpret_cast<const unsigned char*>(file.data()), file.size());
  jpeg_read_header(&decoder, TRUE);
  decoder.out_color_space = decoder.num_components == 1   ? JCS_GRAYSCALE
                            : decoder.num_components == 4 ? JCS_CMYK
                                                          : JCS_RGB;
  if (static_cast<int>(decoder.image_width) != structure.width ||
      static_cast<int>(decoder.image_height) != structure.height ||
      decoder.num_components != structure.components) {
    std::snprintf(session.message.data(), session.message.size(), "two contradictory headers");
    return false;
  }
  jpeg_start_decompress(&decoder);
  const std::size_t row = std::size_t{decoder.output_width} * decoder.num_components;
  while (decoder.output_scanline < decoder.output_height) {
    JSAMPROW to = pixels + decoder.output_scanline * row;
    jpeg_read_scanlines(&decoder, &to, 1);
  }
  jpeg_finish_decompress(&decoder);
  return true;
}

// What ink lets through, of a colour and of black.
std::uint8_t through(int colour, int black) {
  const int product = (255 - colour) * black + 128;
  return static_cast<std::uint8_t>(black - (((product >> 8) + product) >> 8));
}

}  // namespace

void refuse(std::string_view name, const std::string& what) {
  throw FormatError(std::string(name) + ": " + what);
}

Image decode(Bytes file, const Structure& structure, std::string_view name) {
  Image image;
  image.width = structure.width;
  image.height = structure.height;
  image.channels = structure.components == 1 ? 1 : 3;
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(structure.width) * structure.height *
                                   structure.components);
  Session session;
  if (structure.standard_tables) session.allowed_left_over = 0;
  if (!read(session, file, structure, pixels.data())) {
    if (session.out_of_memory)
      throw OutOfMemory(std::string(name) + ": no memory is left to decode it");
    refuse(name, "a JPEG that can't be decoded: " + std::string(session.message.data()) +
                     (structure.standard_tables
                          ? " (it lacks Huffman tables, and the standard ones may not fit)"
                          : ""));
  }
  if (structure.components < 4) {
    image.pixels = std::move(pixels);
    return image;
  }
  image.pixels.reserve(pixels.size() / 4 * 3);
  for (std::size_t at = 0; at < pixels.size(); at += 4)
    for (std::size_t c = 0; c < 3; ++c)
      image.pixels.push_back(through(pixels[at + c], pixels[at + 3]));
  return image;
}

}  // namespace fluxion::jpeg
