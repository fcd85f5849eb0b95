#include "models/images/decode.h"

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "engine/error.h"
#include "engine/platform/file.h"
#include "models/files/file_kind.h"
#include "models/images/jpeg.h"
#include "models/images/stb.h"

namespace fluxion {

namespace {

constexpr std::uint64_t most_pixels = std::uint64_t{1} << 27;
// Deflate can't shrink data more than 1032-fold (https://zlib.net/zlib_tech.html).
constexpr std::uint64_t largest_expansion = 1032;

using Bytes = std::span<const std::byte>;

std::uint32_t byte(Bytes file, std::size_t at) { return std::to_integer<std::uint32_t>(file[at]); }
std::uint32_t u16(Bytes file, std::size_t at) { return byte(file, at) << 8 | byte(file, at + 1); }
std::uint32_t u32(Bytes file, std::size_t at) { return u16(file, at) << 16 | u16(file, at + 2); }

std::string_view text_of(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A PNG file (https://www.w3.org/TR/png): what the decoder trusts, and what it would overlook.
class Png {
 public:
  // Checks the structure; with `checksums` also those of what is decoded.
  Png(Bytes file, std::string_view name, bool checksums) : file_(file), name_(name) {
    std::uint64_t data = 0;
    bool more = true;
    for (std::size_t at = 8; more;) {
      if (file_.size() - at < 12) refuse("a PNG that ends early");
      const std::uint32_t length = u32(file_, at);
      if (length > file_.size() - at - 12) refuse("a PNG that ends early");
      const std::string_view kind = text_of(file_.subspan(at + 4, 4));
      const Bytes content = file_.subspan(at + 8, length);
      if (kind == "CgBI") refuse("a PNG in Apple's own variant: convert it to a plain PNG");
      if ((kind == "IHDR") != (at == 8)) refuse("a PNG whose header is not its first chunk");
      if (checksums && (kind == "IHDR" || kind == "IDAT" || kind == "PLTE" || kind == "tRNS") &&
          u32(file_, at + 8 + length) !=
              ::crc32_z(0, reinterpret_cast<const Bytef*>(file_.data()) + at + 4,
                        std::size_t{length} + 4))
        refuse("a damaged PNG: the checksum of a part does not fit");
      if (kind == "IHDR") header(content);
      if ((kind == "PLTE" && !palette_.empty()) || (kind == "tRNS" && !transparency_.empty()))
        refuse("a damaged PNG: two palettes");
      if (kind == "PLTE") palette_ = content;
      if (kind == "tRNS") transparency_ = content;
      if (kind == "IDAT") data += length;
      more = kind != "IEND";
      at += 12 + std::size_t{length};
      end_ = at;
    }
    if (raw_size_ > data * largest_expansion)
      refuse("a PNG that claims more pixels than its data can hold");
    if (colour_ == palette && palette_.empty()) refuse("a PNG without the palette that it needs");
  }

  ImageInfo info() const {
    const stb::Decoded header = stb::header(file_);
    if (header.channels == 0) refuse("an image that can't be read: " + header.failure);
    return {header.width, header.height, header.channels < 3 ? 1 : 3};
  }

  Image decode() const {
    return colour_ == palette ? without_alpha(looked_up(decoded(file_with_indices())))
                              : without_alpha(decoded(file_));
  }

 private:
  static constexpr std::uint32_t grey = 0, palette = 3;

  Bytes file_;
  std::string_view name_;
  std::uint32_t bits_ = 0, colour_ = 0;
  std::uint64_t raw_size_ = 0, height_ = 0;  // raw: bytes of the pixels before compression
  Bytes palette_, transparency_;
  std::size_t end_ = 0;

  [[noreturn]] void refuse(const std::string& what) const { jpeg::refuse(name_, what); }

  void header(Bytes content) {
    if (content.size() != 13) refuse("a PNG with a damaged header");
    const std::uint64_t width = u32(content, 0), height = u32(content, 4);
    if (width == 0 || height == 0) refuse("an image without pixels");
    if (width > most_pixels || height > most_pixels || width * height > most_pixels)
      refuse("an image of " + std::to_string(width) + " x " + std::to_string(height) +
             " pixels (at most 2^27 in all)");
    height_ = height;
    bits_ = byte(content, 8);
    colour_ = byte(content, 9);
    const bool small = bits_ == 1 || bits_ == 2 || bits_ == 4;
    const bool fits = colour_ == grey      ? small || bits_ == 8 || bits_ == 16
                      : colour_ == palette ? small || bits_ == 8
                                           : bits_ == 8 || bits_ == 16;
    if (colour_ > 6 || colour_ == 1 || colour_ == 5 || !fits)
      refuse("a damaged PNG: colour type " + std::to_string(colour_) + " with " +
             std::to_string(bits_) + " bits a sample");
    const std::uint64_t channels = colour_ == 2 ? 3 : colour_ == 4 ? 2 : colour_ == 6 ? 4 : 1;
    raw_size_ = (width * bits_ * channels + 7) / 8 * height;
  }

  stb::Decoded decoded(Bytes file) const {
    // What it collects of the file and unpacks of it doubles as it grows; interlaced rows are more,
    // and each begins with a byte of its own.
    const std::uint64_t most =
        std::max<std::uint64_t>(2 * file.size(), 4 * (raw_size_ + 2 * height_)) + 8192;
    stb::Decoded result = stb::decode(file, most);
    if (result.out_of_memory)
      throw OutOfMemory(std::string(name_) + ": no memory is left to decode it");
    if (result.channels == 0) refuse("an image that can't be decoded: " + result.failure);
    return result;
  }

  // The same file with the indices as levels of grey: the decoder does not tell an index that the
  // palette lacks.
  std::vector<std::byte> file_with_indices() const {
    std::vector<std::byte> result;
    result.reserve(end_);
    result.insert(result.end(), file_.begin(), file_.begin() + 8);
    for (std::size_t at = 8; at < end_;) {
      const std::size_t size = 12 + std::size_t{u32(file_, at)};
      const std::string_view kind = text_of(file_.subspan(at + 4, 4));
      if (kind == "IHDR" || kind == "IDAT" || kind == "IEND") {
        const auto from = file_.begin() + static_cast<std::ptrdiff_t>(at);
        result.insert(result.end(), from, from + static_cast<std::ptrdiff_t>(size));
      }
      at += size;
    }
    result[8 + 8 + 9] = static_cast<std::byte>(grey);
    return result;
  }

  stb::Decoded looked_up(stb::Decoded indices) const {
    const std::size_t colours = palette_.size() / 3;
    if (palette_.size() % 3 != 0 || colours > 256 || transparency_.size() > colours)
      refuse("a damaged PNG: a palette of an impossible size");
    const std::uint32_t scale = 255 / ((1u << bits_) - 1);
    stb::Decoded result;
    result.width = indices.width;
    result.height = indices.height;
    result.channels = 4;
    result.pixels.reserve(4 * indices.pixels.size());
    for (const std::uint8_t level : indices.pixels) {
      const std::size_t index = level / scale;
      if (index >= colours)
        refuse("a damaged PNG: a pixel of colour " + std::to_string(index) + " in a palette of " +
               std::to_string(colours));
      for (std::size_t c = 0; c < 3; ++c)
        result.pixels.push_back(static_cast<std::uint8_t>(byte(palette_, 3 * index + c)));
      result.pixels.push_back(static_cast<std::uint8_t>(
          index < transparency_.size() ? byte(transparency_, index) : 255));
    }
    return result;
  }

  // Laid over white.
  static Image without_alpha(stb::Decoded decoded) {
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
};

enum class Kind : std::uint8_t { png, jpeg };

Kind kind_of(Bytes file, std::string_view name) {
  const std::string_view text = text_of(file);
  if (text.empty()) jpeg::refuse(name, "an empty file");
  if (text.starts_with("\x89PNG\r\n\x1a\n")) return Kind::png;
  if (text.starts_with("\xff\xd8")) return Kind::jpeg;
  const FileDescription other = describe_file(file);
  jpeg::refuse(name, other.what.empty() ? std::string("neither a PNG nor a JPEG picture")
                                        : "neither a PNG nor a JPEG, but " + other.what);
}

}  // namespace

ImageInfo image_info(std::span<const std::byte> file, std::string_view name) {
  if (kind_of(file, name) == Kind::png) return Png(file, name, false).info();
  const jpeg::Structure jpeg = jpeg::read_structure(file, name);
  return {jpeg.width, jpeg.height, jpeg.components == 1 ? 1 : 3};
}

Image decode_image(std::span<const std::byte> file, std::string_view name) {
  if (kind_of(file, name) == Kind::png) return Png(file, name, true).decode();
  return jpeg::decode(file, jpeg::read_structure(file, name), name);
}

Image read_image(const std::filesystem::path& path) {
  const MappedFile file(path);
  Image image = decode_image(file.bytes(), path.string());
  if (file.cut_short())
    throw FormatError(path.string() + ": it was cut short while it was being read");
  return image;
}

}  // namespace fluxion
