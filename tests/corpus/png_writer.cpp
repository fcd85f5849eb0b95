#include "tests/corpus/png_writer.h"

#include <zlib.h>

#include <array>
#include <cstdlib>
#include <random>
#include <utility>

#include "tests/data/pictures.h"

namespace fluxion::testing {

namespace {

int paeth(int left, int up, int corner) {
  const int estimate = left + up - corner;
  const int a = std::abs(estimate - left), b = std::abs(estimate - up),
            c = std::abs(estimate - corner);
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

}  // namespace

int PngPicture::channels() const { return colour == 2 ? 3 : colour == 4 ? 2 : colour == 6 ? 4 : 1; }

PngPicture png_picture(int width, int height, int bits, int colour) {
  PngPicture picture{.width = width, .height = height, .bits = bits, .colour = colour};
  std::mt19937 random(static_cast<unsigned>(width + 100 * height + 10000 * bits + colour));
  const int count = width * height * picture.channels();
  for (int i = 0; i < count; ++i) picture.samples.push_back(random() % (1u << bits));
  if (colour == 3)
    for (int i = 0; i < 3 << bits; ++i)
      picture.palette.push_back(static_cast<std::uint8_t>(random()));
  return picture;
}

PngWriter::PngWriter(PngPicture picture)
    : file(bytes_of("\x89PNG\r\n\x1a\n")), picture_(std::move(picture)) {}

PngWriter& PngWriter::chunk(const std::string& kind, const std::vector<std::byte>& content) {
  append_chunk(file, kind, content);
  return *this;
}

PngWriter& PngWriter::header(bool interlaced) {
  std::vector<std::byte> content;
  append_u32(content, static_cast<std::uint32_t>(picture_.width));
  append_u32(content, static_cast<std::uint32_t>(picture_.height));
  for (const int value : {picture_.bits, picture_.colour, 0, 0, interlaced ? 1 : 0})
    content.push_back(static_cast<std::byte>(value));
  return chunk("IHDR", content);
}

PngWriter& PngWriter::palette() {
  std::vector<std::byte> content;
  for (const std::uint8_t value : picture_.palette) content.push_back(std::byte{value});
  return chunk("PLTE", content);
}

PngWriter& PngWriter::transparency() {
  std::vector<std::byte> content;
  for (const std::uint32_t value : picture_.transparent) {
    if (picture_.colour != 3) content.push_back(static_cast<std::byte>(value >> 8));
    content.push_back(static_cast<std::byte>(value));
  }
  return chunk("tRNS", content);
}

// Of every step-th pixel, each row with its filter.
std::vector<std::uint8_t> PngWriter::rows(int first_x, int first_y, int step_x, int step_y) const {
  std::vector<std::uint8_t> result;
  if (first_x >= picture_.width) return result;
  const auto channels = static_cast<std::size_t>(picture_.channels());
  const std::size_t pixel = (channels * static_cast<std::size_t>(picture_.bits) + 7) / 8;
  std::vector<std::uint8_t> above;
  for (int y = first_y, filter = first_x % 5; y < picture_.height;
       y += step_y, filter = (filter + 1) % 5) {
    std::vector<std::uint8_t> row;
    int free_bits = 0;
    for (int x = first_x; x < picture_.width; x += step_x)
      for (std::size_t c = 0; c < channels; ++c) {
        const std::uint32_t value =
            picture_.samples[static_cast<std::size_t>(y * picture_.width + x) * channels + c];
        if (picture_.bits == 16) row.push_back(static_cast<std::uint8_t>(value >> 8));
        if (picture_.bits >= 8) {
          row.push_back(static_cast<std::uint8_t>(value));
          continue;
        }
        if (free_bits == 0) {
          row.push_back(0);
          free_bits = 8;
        }
        free_bits -= picture_.bits;
        row.back() = static_cast<std::uint8_t>(row.back() | value << free_bits);
      }
    above.resize(row.size());
    result.push_back(static_cast<std::uint8_t>(filter));
    for (std::size_t i = 0; i < row.size(); ++i) {
      const int left = i >= pixel ? row[i - pixel] : 0, up = above[i],
                corner = i >= pixel ? above[i - pixel] : 0;
      const std::array<int, 5> guesses = {0, left, up, (left + up) / 2, paeth(left, up, corner)};
      result.push_back(
          static_cast<std::uint8_t>(row[i] - guesses[static_cast<std::size_t>(filter)]));
    }
    above = row;
  }
  return result;
}

PngWriter& PngWriter::data(bool interlaced, int parts, std::size_t missing) {
  std::vector<std::uint8_t> raw;
  if (interlaced) {
    constexpr int passes[7][4] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                  {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
    for (const auto& pass : passes) {
      const auto more = rows(pass[0], pass[1], pass[2], pass[3]);
      raw.insert(raw.end(), more.begin(), more.end());
    }
  } else {
    raw = rows(0, 0, 1, 1);
  }
  raw.resize(raw.size() - missing);
  uLongf size = ::compressBound(raw.size());
  std::vector<std::byte> packed(size);
  ::compress(reinterpret_cast<Bytef*>(packed.data()), &size, raw.data(), raw.size());
  packed.resize(size);
  const auto total = static_cast<std::ptrdiff_t>(packed.size());
  for (int i = 0; i < parts; ++i)
    chunk("IDAT", {packed.begin() + total * i / parts, packed.begin() + total * (i + 1) / parts});
  return *this;
}

PngWriter& PngWriter::end() { return chunk("IEND"); }

Image PngWriter::expected() const {
  const auto channels = static_cast<std::size_t>(picture_.channels());
  const int colour = picture_.colour;
  const bool grey = colour == 0 || colour == 4;
  Image image(picture_.width, picture_.height, grey ? 1 : 3);
  const auto to_8_bits = [&](std::uint32_t value) {
    return picture_.bits == 16 ? value >> 8 : value * 255 / ((1u << picture_.bits) - 1);
  };
  for (std::size_t i = 0; i < picture_.samples.size() / channels; ++i) {
    const std::uint32_t* const pixel = picture_.samples.data() + i * channels;
    std::uint32_t alpha = 255;
    std::array<std::uint32_t, 3> rgb{};
    if (colour == 3) {
      for (std::size_t c = 0; c < 3; ++c) rgb[c] = picture_.palette[3 * pixel[0] + c];
      if (pixel[0] < picture_.transparent.size()) alpha = picture_.transparent[pixel[0]];
    } else {
      const std::size_t colours = grey ? 1 : 3;
      for (std::size_t c = 0; c < colours; ++c) rgb[c] = to_8_bits(pixel[c]);
      if (channels > colours) alpha = to_8_bits(pixel[colours]);
      if (!picture_.transparent.empty() &&
          std::vector<std::uint32_t>(pixel, pixel + colours) == picture_.transparent)
        alpha = 0;
    }
    for (std::size_t c = 0; c < static_cast<std::size_t>(image.channels); ++c)
      image.pixels[i * static_cast<std::size_t>(image.channels) + c] =
          static_cast<std::uint8_t>((rgb[c] * alpha + 255 * (255 - alpha) + 127) / 255);
  }
  return image;
}

std::vector<std::byte> png_file(const PngPicture& picture, bool interlaced) {
  PngWriter writer(picture);
  writer.header(interlaced);
  if (picture.colour == 3) writer.palette();
  if (!picture.transparent.empty()) writer.transparency();
  return writer.data(interlaced).end().file;
}

}  // namespace fluxion::testing
