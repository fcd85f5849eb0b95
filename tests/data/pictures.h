// Image files made for tests.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/error_message.h"
#include "tests/files/scratch.h"

namespace fluxion::testing {

inline void append_u32(std::vector<std::byte>& bytes, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8)
    bytes.push_back(static_cast<std::byte>(value >> shift));
}

inline void append_chunk(std::vector<std::byte>& file, const std::string& kind,
                         const std::vector<std::byte>& content) {
  append_u32(file, static_cast<std::uint32_t>(content.size()));
  const std::size_t start = file.size();
  for (const std::byte value : bytes_of(kind)) file.push_back(value);
  file.insert(file.end(), content.begin(), content.end());
  append_u32(file,
             static_cast<std::uint32_t>(::crc32(
                 0, reinterpret_cast<const Bytef*>(file.data() + start), file.size() - start)));
}

struct PngParts {
  std::uint32_t width = 1, height = 1;
  int bits = 8, colour = 0;        // 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha
  std::vector<std::uint8_t> rows;  // samples of all rows, without filter bytes
  std::vector<std::uint8_t> palette = {};
  int interlaced = 0;
};

inline std::vector<std::byte> png_of(const PngParts& parts) {
  std::vector<std::byte> file = bytes_of("\x89PNG\r\n\x1a\n"), header;
  append_u32(header, parts.width);
  append_u32(header, parts.height);
  for (const int value : {parts.bits, parts.colour, 0, 0, parts.interlaced})
    header.push_back(static_cast<std::byte>(value));
  append_chunk(file, "IHDR", header);
  std::vector<std::byte> palette;
  for (const std::uint8_t value : parts.palette) palette.push_back(static_cast<std::byte>(value));
  if (!palette.empty()) append_chunk(file, "PLTE", palette);
  std::vector<std::uint8_t> filtered;
  // All in one row where there are fewer samples than rows, as in files that lie about their size.
  const std::size_t row = parts.height > 0 && parts.rows.size() >= parts.height
                              ? parts.rows.size() / parts.height
                              : parts.rows.size();
  for (std::size_t y = 0; row > 0 && y < parts.rows.size() / row; ++y) {
    filtered.push_back(0);
    filtered.insert(filtered.end(), parts.rows.begin() + static_cast<std::ptrdiff_t>(y * row),
                    parts.rows.begin() + static_cast<std::ptrdiff_t>((y + 1) * row));
  }
  uLongf size = ::compressBound(filtered.size());
  std::vector<std::byte> data(size);
  ::compress(reinterpret_cast<Bytef*>(data.data()), &size, filtered.data(), filtered.size());
  data.resize(size);
  append_chunk(file, "IDAT", data);
  append_chunk(file, "IEND", {});
  return file;
}

// A grey square of one level.
inline std::vector<std::byte> grey_square(std::uint32_t size, std::uint8_t level) {
  return png_of({.width = size,
                 .height = size,
                 .rows = std::vector<std::uint8_t>(std::size_t{size} * size, level)});
}

inline std::vector<std::byte> from_hex(const std::string& digits) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
    bytes.push_back(static_cast<std::byte>(std::stoi(digits.substr(i, 2), nullptr, 16)));
  return bytes;
}

// JPEGs that Pillow wrote: 16 x 8 pixels, one colour left and one right. Red (200, 40, 30) and blue
// (20, 60, 180), baseline and progressive with colour at half the resolution; grey 220 and 40; red
// and blue in CMYK.
inline const std::string baseline_jpeg =
    "ffd8ffe000104a46494600010100000100010000ffdb004300080606070605080707070909080a0c140d0c0b0b0c19"
    "12130f141d1a1f1e1d1a1c1c20242e2720222c231c1c28"
    "37292c30313434341f27393d38323c2e333432ffdb0043010909090c0b0c180d0d1832211c21323232323232323232"
    "3232323232323232323232323232323232323232323232"
    "323232323232323232323232323232323232ffc00011080008001003011100021101031101ffc40015000101000000"
    "00000000000000000000000506ffc40014100100000000"
    "000000000000000000000000ffc4001501010100000000000000000000000000000705ffc400141101000000000000"
    "00000000000000000000ffda000c03010002110311003f"
    "00964324062c071fffd9";
inline const std::string progressive_jpeg =
    "ffd8ffe000104a46494600010100000100010000ffdb004300080606070605080707070909080a0c140d0c0b0b0c19"
    "12130f141d1a1f1e1d1a1c1c20242e2720222c231c1c28"
    "37292c30313434341f27393d38323c2e333432ffdb0043010909090c0b0c180d0d1832211c21323232323232323232"
    "3232323232323232323232323232323232323232323232"
    "323232323232323232323232323232323232ffc20011080008001003012200021101031101ffc40016000101010000"
    "0000000000000000000000000405ffc400140101000000"
    "00000000000000000000000004ffda000c03010002100310000001ca8c42ff00ffc400141001000000000000000000"
    "00000000000010ffda00080101000105023fffc4001811"
    "0002030000000000000000000000000000054281c1ffda0008010301013f016d0bc3ffc40017110003010000000000"
    "000000000000000000054281ffda0008010201013f0157"
    "587fffc40014100100000000000000000000000000000010ffda0008010100063f023fffc400141001000000000000"
    "00000000000000000010ffda0008010100013f213fffda"
    "000c0301000200030000001087ffc40014110100000000000000000000000000000000ffda0008010301013f1047ff"
    "c4001611000300000000000000000000000000000081f0"
    "ffda0008010201013f10933fffc40014100100000000000000000000000000000010ffda0008010100013f103fffd"
    "9";
inline const std::string grey_jpeg =
    "ffd8ffe000104a46494600010100000100010000ffdb004300080606070605080707070909080a0c140d0c0b0b0c19"
    "12130f141d1a1f1e1d1a1c1c20242e2720222c231c1c28"
    "37292c30313434341f27393d38323c2e333432ffc0000b080008001001011100ffc400150001010000000000000000"
    "0000000000000708ffc400141001000000000000000000"
    "00000000000000ffda0008010100003f005c496fffd9";
inline const std::string cmyk_jpeg =
    "ffd8ffee000e41646f626500640000000000ffdb004300080606070605080707070909080a0c140d0c0b0b0c191213"
    "0f141d1a1f1e1d1a1c1c20242e2720222c231c1c283729"
    "2c30313434341f27393d38323c2e333432ffc000140800080010044311004d11005911004b1100ffc4001600010101"
    "00000000000000000000000000080007ffc40014100100"
    "000000000000000000000000000000ffda000e0443004d0059004b00003f00dfc7f1fdbf8008ff004fffd9";

}  // namespace fluxion::testing
