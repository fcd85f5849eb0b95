#include "models/images/decode.h"

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "engine/error.h"
#include "models/images/stb.h"

namespace fluxion {

namespace {

constexpr std::uint64_t most_pixels = std::uint64_t{1} << 27;
// Deflate can't shrink data more than 1032-fold (https://zlib.net/zlib_tech.html).
constexpr std::uint64_t largest_expansion = 1032;
// A scan costs time for every block of the image and hardly any bytes. Real files have some ten.
constexpr int most_scans = 100;

using Bytes = std::span<const std::byte>;

std::uint32_t byte(Bytes file, std::size_t at) { return std::to_integer<std::uint32_t>(file[at]); }
std::uint32_t u16(Bytes file, std::size_t at) { return byte(file, at) << 8 | byte(file, at + 1); }
std::uint32_t u32(Bytes file, std::size_t at) { return u16(file, at) << 16 | u16(file, at + 2); }

// Checks the structure of a file: what the decoder trusts, and what it would overlook.
class Checker {
 public:
  Checker(Bytes file, std::string_view name) : file_(file), name_(name) {}

  [[noreturn]] void refuse(const std::string& what) const {
    throw FormatError(std::string(name_) + ": " + what);
  }

  // Chunks from the signature to IEND (https://www.w3.org/TR/png); with `checksums` also those of
  // what is decoded.
  void png(bool checksums) const {
    std::uint64_t data = 0, raw = 0;
    for (std::size_t at = 8;;) {
      if (file_.size() - at < 12) refuse("a PNG that ends early");
      const std::uint32_t length = u32(file_, at);
      if (length > file_.size() - at - 12) refuse("a PNG that ends early");
      const std::string_view kind(reinterpret_cast<const char*>(file_.data()) + at + 4, 4);
      const bool header = kind == "IHDR", first = at == 8;
      if (header != first) refuse("a PNG whose header is not its first chunk");
      if (header) {
        if (length != 13) refuse("a PNG with a damaged header");
        raw = png_bytes(at + 8);
      }
      if (kind == "IDAT") data += length;
      if (checksums && (header || kind == "IDAT" || kind == "PLTE") &&
          u32(file_, at + 8 + length) !=
              ::crc32_z(0, reinterpret_cast<const Bytef*>(file_.data()) + at + 4,
                        std::size_t{length} + 4))
        refuse("a damaged PNG: the checksum of a part does not fit");
      if (kind == "IEND") break;
      at += 12 + std::size_t{length};
    }
    if (raw > data * largest_expansion)
      refuse("a PNG that claims more pixels than its data can hold");
  }

  // Segments from SOI to EOI (ITU-T T.81, annex B), through all scans.
  void jpeg() const {
    std::uint64_t blocks = 0;
    std::size_t at = 2;
    int scans = 0;
    while (true) {
      // Before the frame header some writers pad.
      while (blocks == 0 && at < file_.size() && byte(file_, at) != 0xff) ++at;
      if (at < file_.size() && byte(file_, at) != 0xff)
        refuse("a damaged JPEG: no marker where one should be");
      while (at < file_.size() && byte(file_, at) == 0xff) ++at;
      if (at >= file_.size()) refuse("a JPEG that ends early");
      const std::uint32_t marker = byte(file_, at++);
      if (marker == 0xd9) break;
      if (file_.size() - at < 2) refuse("a JPEG that ends early");
      const std::uint32_t length = u16(file_, at);
      if (length < 2) refuse("a damaged JPEG: an impossible length");
      if (length > file_.size() - at) refuse("a JPEG that ends early");
      const Bytes segment = file_.subspan(at + 2, length - 2);
      at += length;
      if (marker == 0xc4) huffman_tables(segment);
      if (marker == 0xc0 || marker == 0xc1 || marker == 0xc2) {
        if (blocks != 0) refuse("a damaged JPEG: two frame headers");
        blocks = jpeg_blocks(segment);
      }
      if (marker != 0xda) continue;
      if (blocks == 0) refuse("a damaged JPEG: no frame header");
      if (++scans > most_scans)
        refuse("a JPEG with more than " + std::to_string(most_scans) + " scans");
      at = scan_end(at);
    }
    if (scans == 0) refuse("a JPEG without pixels");
    // A block costs a bit or more, however well it is packed.
    if (blocks > 8 * std::uint64_t{file_.size()})
      refuse("a JPEG that claims more pixels than its data can hold");
  }

  void pixels(std::uint64_t width, std::uint64_t height) const {
    if (width == 0 || height == 0) refuse("an image without pixels");
    if (width * height > most_pixels)
      refuse("an image of " + std::to_string(width) + " x " + std::to_string(height) +
             " pixels (at most 2^27 in all)");
  }

 private:
  Bytes file_;
  std::string_view name_;

  // Of the pixels before compression.
  std::uint64_t png_bytes(std::size_t header) const {
    const std::uint64_t width = u32(file_, header), height = u32(file_, header + 4),
                        bits = byte(file_, header + 8);
    pixels(width, height);
    const std::uint32_t colour = byte(file_, header + 9);
    const std::uint64_t channels = colour == 2 ? 3 : colour == 4 ? 2 : colour == 6 ? 4 : 1;
    return (width * bits * channels + 7) / 8 * height;
  }

  // 8 x 8 blocks of the largest component, at least.
  std::uint64_t jpeg_blocks(Bytes segment) const {
    if (segment.size() < 6) refuse("a damaged JPEG: a short frame header");
    const std::uint64_t height = u16(segment, 1), width = u16(segment, 3);
    pixels(width, height);
    return (width + 7) / 8 * ((height + 7) / 8);
  }

  // Class and number, 16 counts of codes by length, then their symbols, of which there are at most
  // 256.
  void huffman_tables(Bytes segment) const {
    while (!segment.empty()) {
      if (segment.size() < 17) refuse("a damaged JPEG: a short Huffman table");
      std::size_t symbols = 0;
      for (std::size_t i = 1; i <= 16; ++i) symbols += byte(segment, i);
      if (symbols > 256 || segment.size() < 17 + symbols)
        refuse("a damaged JPEG: an impossible Huffman table");
      segment = segment.subspan(17 + symbols);
    }
  }

  // Where the next marker stands after compressed data, in which a byte ff is followed by 00 or
  // belongs to a restart marker.
  std::size_t scan_end(std::size_t at) const {
    while (true) {
      const void* const found =
          at < file_.size() ? std::memchr(file_.data() + at, 0xff, file_.size() - at) : nullptr;
      if (found == nullptr) refuse("a JPEG that ends early");
      at = static_cast<std::size_t>(static_cast<const std::byte*>(found) - file_.data());
      std::size_t after = at + 1;
      while (after < file_.size() && byte(file_, after) == 0xff) ++after;
      if (after >= file_.size()) refuse("a JPEG that ends early");
      const std::uint32_t next = byte(file_, after);
      if (next != 0 && (next < 0xd0 || next > 0xd7)) return at;
      at = after + 1;
    }
  }
};

void check(const Checker& checker, Bytes file, bool checksums) {
  constexpr std::string_view png = "\x89PNG\r\n\x1a\n", jpeg = "\xff\xd8";
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (file.empty()) checker.refuse("an empty file");
  if (text.starts_with(png)) return checker.png(checksums);
  if (text.starts_with(jpeg)) return checker.jpeg();
  checker.refuse("neither a PNG nor a JPEG image");
}

}  // namespace

ImageInfo image_info(std::span<const std::byte> file, std::string_view name) {
  const Checker checker(file, name);
  check(checker, file, false);
  const stb::Decoded header = stb::header(file);
  if (header.channels == 0) checker.refuse("an image that can't be read: " + header.failure);
  checker.pixels(static_cast<std::uint64_t>(header.width),
                 static_cast<std::uint64_t>(header.height));
  return {header.width, header.height, header.channels < 3 ? 1 : 3};
}

Image decode_image(std::span<const std::byte> file, std::string_view name) {
  const Checker checker(file, name);
  check(checker, file, true);
  stb::Decoded decoded = stb::decode(file);
  if (decoded.channels == 0) checker.refuse("an image that can't be decoded: " + decoded.failure);
  Image image;
  image.width = decoded.width;
  image.height = decoded.height;
  image.channels = decoded.channels < 3 ? 1 : 3;
  if (decoded.channels % 2 == 1) {
    image.pixels = std::move(decoded.pixels);
    return image;
  }
  const auto colours = static_cast<std::size_t>(image.channels);
  image.pixels.reserve(decoded.pixels.size() / (colours + 1) * colours);
  for (std::size_t at = 0; at < decoded.pixels.size(); at += colours + 1) {
    const int alpha = decoded.pixels[at + colours];
    for (std::size_t c = 0; c < colours; ++c)
      image.pixels.push_back(static_cast<std::uint8_t>(
          (decoded.pixels[at + c] * alpha + 255 * (255 - alpha) + 127) / 255));
  }
  return image;
}

}  // namespace fluxion
