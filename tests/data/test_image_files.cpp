// Decoding and resizing.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <random>

#include "models/images/decode.h"
#include "models/images/resize.h"
#include "tests/catch.h"
#include "tests/data/pictures.h"
#include "tests/files/mutate.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

std::vector<int> pixel(const Image& image, int x, int y) {
  return {image.at(x, y), image.at(x, y) + image.channels};
}

// Within the loss of the JPEGs of pictures.h.
void check_colour(const Image& image, int x, std::vector<int> expected) {
  REQUIRE(image.width == 16);
  REQUIRE(image.height == 8);
  REQUIRE(static_cast<std::size_t>(image.channels) == expected.size());
  for (int y = 0; y < 8; ++y)
    for (std::size_t c = 0; c < expected.size(); ++c) {
      INFO("pixel " << x << ", " << y << ", channel " << c);
      CHECK(std::abs(static_cast<int>(image.at(x, y)[c]) - expected[c]) <= 6);
    }
}

std::vector<float> resized(std::int64_t height, std::int64_t width, std::int64_t size,
                           const std::vector<float>& image) {
  std::vector<float> result(static_cast<std::size_t>(size * size));
  SquareResize(height, width, size)(image, 1, result);
  return result;
}

}  // namespace

TEST_CASE("decode: PNG in every kind of pixel", "[images]") {
  using Pixels = std::vector<int>;
  const auto first = [](const PngParts& parts) {
    const Image image = decode_image(png_of(parts));
    CHECK(image_info(png_of(parts)).channels == image.channels);
    CHECK(image.pixels.size() ==
          Image(static_cast<int>(parts.width), static_cast<int>(parts.height), image.channels)
              .pixels.size());
    return pixel(image, 0, 0);
  };
  CHECK(first({.rows = {77}}) == Pixels{77});
  CHECK(first({.width = 2, .rows = {77, 78}}) == Pixels{77});
  CHECK(first({.colour = 2, .rows = {1, 2, 3}}) == Pixels{1, 2, 3});
  CHECK(first({.bits = 16, .rows = {0xab, 0xcd}}) == Pixels{0xab});
  CHECK(first({.bits = 16, .colour = 2, .rows = {1, 255, 2, 255, 3, 255}}) == Pixels{1, 2, 3});
  CHECK(first({.width = 8, .bits = 1, .rows = {0x80}}) == Pixels{255});
  CHECK(first({.colour = 3, .rows = {1}, .palette = {9, 9, 9, 10, 20, 30}}) == Pixels{10, 20, 30});
  CHECK(first({.rows = {77}, .interlaced = 1}) == Pixels{77});
  // Transparency over white.
  CHECK(first({.colour = 4, .rows = {100, 255}}) == Pixels{100});
  CHECK(first({.colour = 4, .rows = {100, 0}}) == Pixels{255});
  CHECK(first({.colour = 6, .rows = {0, 100, 255, 51}}) == Pixels{204, 224, 255});
  CHECK(first({.bits = 16, .colour = 6, .rows = {9, 0, 8, 0, 7, 0, 0, 0}}) ==
        Pixels{255, 255, 255});
}

TEST_CASE("decode: JPEG, baseline, progressive, grey and CMYK", "[images]") {
  for (const std::string& file : {baseline_jpeg, progressive_jpeg}) {
    const Image image = decode_image(from_hex(file));
    check_colour(image, 2, {200, 40, 30});
    check_colour(image, 13, {20, 60, 180});
  }
  const Image grey = decode_image(from_hex(grey_jpeg));
  check_colour(grey, 2, {220});
  check_colour(grey, 13, {40});
  CHECK(image_info(from_hex(grey_jpeg)).channels == 1);
  const Image cmyk = decode_image(from_hex(cmyk_jpeg));
  check_colour(cmyk, 2, {255, 0, 0});
  check_colour(cmyk, 13, {0, 0, 255});
  CHECK(image_info(from_hex(cmyk_jpeg)).channels == 3);
}

TEST_CASE("decode: a file that ends early is refused by its structure alone, wherever it ends",
          "[images]") {
  const std::vector<std::vector<std::byte>> files = {
      png_of({.width = 3, .height = 2, .rows = {1, 2, 3, 4, 5, 6}}), from_hex(baseline_jpeg),
      from_hex(progressive_jpeg)};
  for (const auto& file : files) {
    CHECK_NOTHROW(image_info(file));
    for (std::size_t size = 0; size < file.size(); ++size) {
      INFO(size << " of " << file.size());
      CHECK_THROWS_AS(image_info(std::span(file).first(size)), FormatError);
    }
    // What some cameras append does no harm.
    auto longer = file;
    longer.resize(longer.size() + 100, std::byte{0x55});
    CHECK(decode_image(longer).pixels == decode_image(file).pixels);
  }
  CHECK(contains(message_of([] { image_info({}, "x.png"); }), "x.png: an empty file"));
  CHECK(contains(message_of([] { image_info(bytes_of("GIF89a"), "x.png"); }),
                 "neither a PNG nor a JPEG"));
}

TEST_CASE("decode: claims that the data can't meet are refused before memory is taken",
          "[images]") {
  const auto why = [](const std::vector<std::byte>& file) {
    return message_of([&] { image_info(file); });
  };
  CHECK(contains(why(png_of({.width = 100'000, .height = 100'000, .rows = {0}})), "2^27"));
  CHECK(contains(why(png_of({.width = 10'000, .height = 10'000, .rows = {}})),
                 "more pixels than its data can hold"));
  CHECK(contains(why(png_of({.width = 0, .height = 1, .rows = {}})), "without pixels"));
  auto jpeg = from_hex(baseline_jpeg);
  const std::vector<std::byte> sof = from_hex("ffc0"), dht = from_hex("ffc4");
  const auto frame = std::search(jpeg.begin(), jpeg.end(), sof.begin(), sof.end());
  REQUIRE(frame != jpeg.end());
  frame[5] = frame[7] = std::byte{0x20};  // 8200 x 8208
  CHECK(contains(why(jpeg), "more pixels than its data can hold"));
  frame[5] = frame[7] = std::byte{0xff};
  CHECK(contains(why(jpeg), "2^27"));
  // A Huffman table of more symbols than there are.
  auto table = from_hex(baseline_jpeg);
  const auto at = std::search(table.begin(), table.end(), dht.begin(), dht.end());
  std::fill(at + 5, at + 21, std::byte{0xff});
  CHECK(contains(why(table), "Huffman"));
}

TEST_CASE("decode: data beyond the pixels are not unpacked", "[images]") {
  const std::vector<std::byte> bomb =
      png_of({.width = 1, .height = 1, .rows = std::vector<std::uint8_t>(std::size_t{1} << 23)});
  CHECK(bomb.size() < 1 << 14);
  CHECK(contains(message_of<FormatError>([&] { decode_image(bomb); }),
                 "more data than it has pixels"));
}

TEST_CASE("decode: memory that runs out is not taken for damage", "[images]") {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  const std::vector<std::byte> large = png_of(
      {.width = 6000, .height = 6000, .rows = std::vector<std::uint8_t>(std::size_t{6000} * 6000)});
  const pid_t child = ::fork();
  if (child == 0) {
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlim_t most = pages * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE)) + (rlim_t{20} << 20);
    const rlimit limit{most, most};
    ::setrlimit(RLIMIT_AS, &limit);
    int result = 1;
    try {
      decode_image(large);
    } catch (const OutOfMemory&) {
      result = 0;
    } catch (const std::exception&) {
      result = 2;
    }
    ::_exit(result);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
#endif
}

TEST_CASE("decode: a flipped bit in the data of a PNG does not pass", "[images]") {
  std::vector<std::uint8_t> rows(64);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::uint8_t>(i * 37);
  auto file = png_of({.width = 8, .height = 8, .rows = rows});
  const std::vector<std::byte> mark = bytes_of("IDAT");
  const auto at = std::search(file.begin(), file.end(), mark.begin(), mark.end());
  at[20] ^= std::byte{4};
  CHECK_NOTHROW(image_info(file));
  CHECK(contains(message_of([&] { decode_image(file, "x.png"); }), "x.png: a damaged PNG"));
}

TEST_CASE("decode: damaged files are refused or decoded, and nothing else happens", "[images]") {
  std::mt19937 random(11);
  std::vector<std::uint8_t> noise(3 * 16 * 16);
  for (std::uint8_t& value : noise) value = static_cast<std::uint8_t>(random());
  const std::vector<std::vector<std::byte>> files = {
      from_hex(baseline_jpeg), from_hex(progressive_jpeg), from_hex(grey_jpeg), from_hex(cmyk_jpeg),
      png_of({.width = 16, .height = 16, .colour = 2, .rows = noise})};
  int refused = 0, decoded = 0;
  for (int round = 0; round < 2000; ++round) {
    const auto file = mutate(files[static_cast<std::size_t>(round) % files.size()], random);
    try {
      const Image image = decode_image(file);
      REQUIRE(image.pixels.size() ==
              Image(image.width, image.height, image.channels).pixels.size());
      ++decoded;
    } catch (const FormatError&) {
      ++refused;
    }
  }
  CHECK(refused > 500);
  CHECK(decoded > 100);
}

TEST_CASE("resize: constants stay, ramps stay ramps, equal sizes stay as they are", "[images]") {
  for (const std::int64_t size : {1, 2, 3, 7, 16, 31, 64}) {
    INFO(size);
    for (const float value : resized(20, 31, size, std::vector<float>(20 * 31, 0.3f)))
      CHECK(value == Approx(0.3f).epsilon(1e-6));
  }
  std::vector<float> ramp(32 * 32);
  for (std::size_t i = 0; i < ramp.size(); ++i) ramp[i] = static_cast<float>(i % 32) + 0.5f;
  for (const std::int64_t size : {4, 8, 16, 64}) {
    INFO(size);
    const std::vector<float> result = resized(32, 32, size, ramp);
    const double scale = 32.0 / static_cast<double>(size), reach = std::max(1.0, scale);
    for (std::int64_t x = 0; x < size; ++x) {
      const double centre = (static_cast<double>(x) + 0.5) * scale;
      if (centre < reach || centre > 32 - reach) continue;  // the filter is cut off at the edge
      CHECK(result[static_cast<std::size_t>(x)] == Approx(centre).epsilon(1e-5));
    }
  }
  std::vector<float> image(5 * 9);
  for (std::size_t i = 0; i < image.size(); ++i) image[i] = static_cast<float>(i);
  const std::vector<float> middle = resized(5, 9, 5, image);
  for (std::size_t y = 0; y < 5; ++y)
    for (std::size_t x = 0; x < 5; ++x) CHECK(middle[5 * y + x] == image[9 * y + 2 + x]);
  CHECK_THROWS_AS(SquareResize(0, 3, 2), ShapeError);
  CHECK_THROWS_AS(resized(5, 9, 5, std::vector<float>(3)), ShapeError);
}

TEST_CASE("resize: the finest checks become even grey", "[images]") {
  std::vector<float> checks(64 * 64);
  for (std::size_t i = 0; i < checks.size(); ++i)
    checks[i] = static_cast<float>((i / 64 + i % 64) % 2);
  for (const std::int64_t size : {8, 13, 31})
    for (const float value : resized(64, 64, size, checks))
      CHECK(value == Approx(0.5).margin(0.06));
}

TEST_CASE("resize: the numbers of Pillow's bilinear filter", "[images]") {
  // The middle 7 x 7 of 7 rows and 9 columns, from Pillow 9.4 on floats.
  std::vector<float> image;
  for (int y = 0; y < 7; ++y)
    for (int x = 0; x < 9; ++x)
      image.push_back(static_cast<float>((x * 37 + y * 91 + x * y * 13) % 256));
  const std::vector<float> three = {132.143f, 135.042f, 133.408f, 140.933f, 142.952f,
                                    131.05f,  109.694f, 153.076f, 127.694f};
  const std::vector<float> five = {
      85.444f,  135.963f, 125.848f, 170.037f, 106.778f, 170.444f, 145.568f, 135.131f, 133.889f,
      124.815f, 133.848f, 164.677f, 132.702f, 154.091f, 112.515f, 113.63f,  134.654f, 152.606f,
      101.889f, 154.519f, 94.333f,  115.815f, 174.818f, 141.593f, 115.667f};
  const std::vector<float> ten_first_row = {37.0f,   57.35f,  83.25f,  109.15f, 135.05f,
                                            160.95f, 186.85f, 212.75f, 123.45f, 3.0f};
  const auto check = [&](std::int64_t size, const std::vector<float>& expected) {
    const std::vector<float> result = resized(7, 9, size, image);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      INFO("size " << size << ", element " << i);
      CHECK(result[i] == Approx(expected[i]).margin(0.002));
    }
  };
  check(3, three);
  check(5, five);
  check(10, ten_first_row);
}
