#include "models/images/image.h"

#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <string_view>

#include "engine/error.h"
#include "engine/platform/file.h"
#include "models/images/png_file.h"

namespace fluxion {

Image::Image(int width, int height, int channels, std::uint8_t value)
    : width(width),
      height(height),
      channels(channels),
      pixels(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) *
                 static_cast<std::size_t>(channels),
             value) {}

namespace {

constexpr std::string_view png_signature = "\x89PNG\r\n\x1a\n";

void append_u32(std::vector<std::byte>& bytes, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8)
    bytes.push_back(static_cast<std::byte>(value >> shift));
}

// Length, name, content, checksum of name and content.
void append_chunk(std::vector<std::byte>& file, const char* name,
                  std::span<const std::byte> content) {
  append_u32(file, static_cast<std::uint32_t>(content.size()));
  const std::size_t start = file.size();
  file.insert(file.end(), reinterpret_cast<const std::byte*>(name),
              reinterpret_cast<const std::byte*>(name) + 4);
  file.insert(file.end(), content.begin(), content.end());
  append_u32(file,
             static_cast<std::uint32_t>(::crc32_z(
                 0, reinterpret_cast<const Bytef*>(file.data() + start), file.size() - start)));
}

int paeth(int left, int above, int corner) {
  const int to_left = std::abs(above - corner), to_above = std::abs(left - corner),
            to_corner = std::abs(left + above - 2 * corner);
  return to_left <= to_above && to_left <= to_corner ? left
         : to_above <= to_corner                     ? above
                                                     : corner;
}

// Every row behind the number of the filter that predicts it best, by the usual measure: the
// smallest sum of absolute residuals.
std::vector<std::uint8_t> filter_rows(const Image& image) {
  const std::size_t row_bytes =
      static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.channels);
  const auto step = static_cast<std::size_t>(image.channels);
  std::vector<std::uint8_t> result, best(row_bytes), attempt(row_bytes);
  std::vector<std::uint8_t> above(row_bytes, 0);
  result.reserve((row_bytes + 1) * static_cast<std::size_t>(image.height));
  for (int y = 0; y < image.height; ++y) {
    const std::uint8_t* const row = image.pixels.data() + static_cast<std::size_t>(y) * row_bytes;
    long best_cost = -1;
    int best_filter = 0;
    for (int filter = 0; filter < 5; ++filter) {
      long cost = 0;
      for (std::size_t i = 0; i < row_bytes; ++i) {
        const int left = i >= step ? row[i - step] : 0, corner = i >= step ? above[i - step] : 0;
        const int predictions[] = {0, left, above[i], (left + above[i]) / 2,
                                   paeth(left, above[i], corner)};
        attempt[i] = static_cast<std::uint8_t>(row[i] - predictions[filter]);
        cost += std::abs(static_cast<int>(static_cast<std::int8_t>(attempt[i])));
      }
      if (best_cost >= 0 && cost >= best_cost) continue;
      best_cost = cost;
      best_filter = filter;
      best.swap(attempt);
    }
    result.push_back(static_cast<std::uint8_t>(best_filter));
    result.insert(result.end(), best.begin(), best.end());
    above.assign(row, row + row_bytes);
  }
  return result;
}

}  // namespace

std::vector<std::byte> encode_png(const Image& image, std::span<const ImageText> texts) {
  return encode_png_frames(std::span(&image, 1), {}, texts);
}

std::vector<std::byte> encode_png_frames(std::span<const Image> frames, std::span<const int> ms,
                                         std::span<const ImageText> texts) {
  const Image& image = frames.front();
  for (const Image& frame : frames) {
    const bool fits =
        frame.width > 0 && frame.height > 0 && (frame.channels == 1 || frame.channels == 3) &&
        frame.pixels.size() == Image(frame.width, frame.height, frame.channels).pixels.size();
    if (!fits)
      throw ShapeError(
          "png: an image of " + std::to_string(frame.width) + " x " + std::to_string(frame.height) +
          " pixels with " + std::to_string(frame.channels) + " channels and " +
          std::to_string(frame.pixels.size()) + " bytes (1 or 3 channels, sizes above 0)");
  }
  const auto signature = std::as_bytes(std::span(png_signature));
  std::vector<std::byte> file(signature.begin(), signature.end());

  std::vector<std::byte> content;
  append_u32(content, static_cast<std::uint32_t>(image.width));
  append_u32(content, static_cast<std::uint32_t>(image.height));
  // 8 bits, colour type (0 grey, 2 RGB), and the only compression, filter and interlace methods
  // worth having: 0.
  for (const int value : {8, image.channels == 3 ? 2 : 0, 0, 0, 0})
    content.push_back(static_cast<std::byte>(value));
  append_chunk(file, "IHDR", content);
  for (const ImageText& note : texts) {
    const bool plain =
        std::all_of(note.key.begin(), note.key.end(), [](char c) { return c >= ' ' && c <= '~'; });
    if (note.key.empty() || note.key.size() > 79 || !plain)
      throw Error("png: '" + note.key + "' can't be the key of a note");
    // Not compressed, of no language, with no translated key.
    std::string text = note.key + std::string(5, '\0') + note.text;
    append_chunk(file, "iTXt", std::as_bytes(std::span(text)));
  }
  if (frames.size() > 1) {
    content.clear();
    append_u32(content, static_cast<std::uint32_t>(frames.size()));
    append_u32(content, 0);  // repeated without end
    append_chunk(file, "acTL", content);
  }

  // Chunks of an animation are numbered; the first frame is the picture that other readers show.
  std::uint32_t number = 0;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    if (frames.size() > 1) {
      content.clear();
      append_u32(content, number++);
      append_u32(content, static_cast<std::uint32_t>(image.width));
      append_u32(content, static_cast<std::uint32_t>(image.height));
      append_u32(content, 0);
      append_u32(content, 0);
      // So many thousandths of a second; it stays, and the next replaces it.
      append_u32(content, static_cast<std::uint32_t>(std::clamp(ms[i], 0, 65535)) << 16 | 1000);
      content.push_back(std::byte{0});
      content.push_back(std::byte{0});
      append_chunk(file, "fcTL", content);
    }
    const std::vector<std::uint8_t> rows = filter_rows(frames[i]);
    uLongf size = ::compressBound(rows.size());
    std::vector<std::byte> compressed(size);
    if (::compress2(reinterpret_cast<Bytef*>(compressed.data()), &size, rows.data(), rows.size(),
                    Z_BEST_COMPRESSION) != Z_OK)
      throw OutOfMemory("png: zlib has no memory to compress " + std::to_string(rows.size()) +
                        " bytes");
    if (size >= std::size_t{1} << 31) throw ShapeError("png: the image is too large for one chunk");
    compressed.resize(size);
    if (i == 0) {
      append_chunk(file, "IDAT", compressed);
    } else {
      content.clear();
      append_u32(content, number++);
      content.insert(content.end(), compressed.begin(), compressed.end());
      append_chunk(file, "fdAT", content);
    }
  }
  append_chunk(file, "IEND", {});
  return file;
}

void write_png(const std::filesystem::path& path, const Image& image,
               std::span<const ImageText> texts) {
  replace_file(path, encode_png(image, texts));
}

bool is_png(std::span<const std::byte> file) {
  const auto signature = std::as_bytes(std::span(png_signature));
  return file.size() >= signature.size() &&
         std::equal(signature.begin(), signature.end(), file.begin());
}

std::vector<ImageText> png_texts(std::span<const std::byte> file) {
  if (!is_png(file)) throw FormatError("png: the bytes do not begin as a PNG file's do");
  const auto fail = [](const char* why) { throw FormatError(std::string("png: ") + why); };
  std::vector<ImageText> texts;
  for (std::size_t at = png_signature.size();;) {
    if (file.size() - at < 12) fail("the file is cut short");
    std::size_t size = 0;
    for (int i = 0; i < 4; ++i)
      size = size << 8 | std::to_integer<std::size_t>(file[at + static_cast<std::size_t>(i)]);
    if (size > file.size() - at - 12) fail("the file is cut short");
    const auto named = file.subspan(at + 4, 4 + size);
    std::uint32_t checksum = 0;
    for (std::size_t i = 0; i < 4; ++i)
      checksum = checksum << 8 | std::to_integer<std::uint32_t>(file[at + 8 + size + i]);
    if (::crc32_z(0, reinterpret_cast<const Bytef*>(named.data()), named.size()) != checksum)
      fail("a checksum differs: the file is damaged");
    const std::string_view name(reinterpret_cast<const char*>(named.data()), 4),
        content(reinterpret_cast<const char*>(named.data()) + 4, size);
    const std::size_t key = content.find('\0');
    if (name == "tEXt" && key != content.npos) {
      texts.push_back({std::string(content.substr(0, key)), std::string(content.substr(key + 1))});
    } else if (name == "iTXt" && key != content.npos && size - key > 4 && content[key + 1] == 0) {
      const std::size_t language = content.find('\0', key + 3);
      const std::size_t translated =
          language == content.npos ? language : content.find('\0', language + 1);
      if (translated != content.npos)
        texts.push_back(
            {std::string(content.substr(0, key)), std::string(content.substr(translated + 1))});
    } else if (name == "IEND") {
      return texts;
    }
    at += 12 + size;
  }
}

namespace {

struct GridLayout {
  std::string what;  // for messages
  std::int64_t columns = 0, scale = 1, padding = 0, width = 0, height = 0;
};

GridLayout layout_of(std::int64_t count, std::int64_t height, std::int64_t width,
                     std::int64_t channels, const GridOptions& options) {
  const std::string what = "image_grid: [" + std::to_string(count) + ", " + std::to_string(height) +
                           ", " + std::to_string(width) + ", " + std::to_string(channels) + "]";
  if (count < 1 || height < 1 || width < 1 || (channels != 1 && channels != 3))
    throw ShapeError(what + " (sizes above 0, 1 or 3 channels)");
  if (height > 16384 || width > 16384 || count > 1'000'000)
    throw ShapeError(what + " is too large for one picture");
  const std::int64_t columns =
      options.columns > 0
          ? std::min<std::int64_t>(options.columns, count)
          : static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(count))));
  const std::int64_t rows = (count + columns - 1) / columns;
  const std::int64_t scale =
      options.scale > 0 ? options.scale : std::max<std::int64_t>(1, 56 / std::max(height, width));
  const std::int64_t padding = std::max(options.padding, 0);
  const std::int64_t total_width = columns * (width * scale + padding) + padding,
                     total_height = rows * (height * scale + padding) + padding;
  if (total_width > 65535 || total_height > 65535 ||
      total_width * total_height > std::int64_t{1} << 29)
    throw ShapeError(what + " is too large for one picture");
  return {what, columns, scale, padding, total_width, total_height};
}

}  // namespace

std::uint64_t image_grid_bytes(std::int64_t count, std::int64_t height, std::int64_t width,
                               std::int64_t channels, const GridOptions& options) {
  const GridLayout layout = layout_of(count, height, width, channels, options);
  return static_cast<std::uint64_t>(layout.width * layout.height * channels);
}

Image image_grid(std::span<const float> samples, std::int64_t count, std::int64_t height,
                 std::int64_t width, std::int64_t channels, const GridOptions& options) {
  const GridLayout layout = layout_of(count, height, width, channels, options);
  if (samples.size() != static_cast<std::size_t>(count * height * width * channels))
    throw ShapeError(layout.what + " needs " + std::to_string(count * height * width * channels) +
                     " values, got " + std::to_string(samples.size()));
  const std::int64_t columns = layout.columns, scale = layout.scale, padding = layout.padding;
  Image grid(static_cast<int>(layout.width), static_cast<int>(layout.height),
             static_cast<int>(channels), options.background);
  const auto to_byte = [](float value) -> std::uint8_t {
    const float level = (value + 1) * 127.5f;
    return level > 0 ? static_cast<std::uint8_t>(std::lround(std::min(level, 255.0f)))
                     : 0;  // NaN compares false
  };
  for (std::int64_t tile = 0; tile < count; ++tile) {
    const std::int64_t left = padding + tile % columns * (width * scale + padding),
                       top = padding + tile / columns * (height * scale + padding);
    for (std::int64_t y = 0; y < height * scale; ++y)
      for (std::int64_t x = 0; x < width * scale; ++x) {
        const float* const from =
            samples.data() + ((tile * height + y / scale) * width + x / scale) * channels;
        std::uint8_t* const to = grid.at(static_cast<int>(left + x), static_cast<int>(top + y));
        for (std::int64_t c = 0; c < channels; ++c) to[c] = to_byte(from[c]);
      }
  }
  return grid;
}

}  // namespace fluxion
