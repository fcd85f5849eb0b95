#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "engine/error.h"
#include "models/images/decode.h"
#include "models/images/image.h"
#include "models/images/scatter.h"
#include "models/images/text.h"
#include "tests/catch.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;
#if __has_include(<catch2/catch_all.hpp>)
using Catch::Approx;
#endif

namespace {

// A PNG decoder for what we write, from the specification (https://www.w3.org/TR/png).
Image decode_png(const std::vector<std::byte>& file) {
  const auto byte = [&](std::size_t i) { return std::to_integer<std::uint32_t>(file.at(i)); };
  const auto word = [&](std::size_t i) {
    return byte(i) << 24 | byte(i + 1) << 16 | byte(i + 2) << 8 | byte(i + 3);
  };
  REQUIRE(std::memcmp(file.data(), "\x89PNG\r\n\x1a\n", 8) == 0);
  Image image;
  std::vector<std::uint8_t> rows;
  for (std::size_t at = 8; at < file.size(); at += 12 + word(at)) {
    const std::string name(reinterpret_cast<const char*>(file.data() + at + 4), 4);
    REQUIRE(word(at + 8 + word(at)) ==
            ::crc32(0, reinterpret_cast<const Bytef*>(file.data() + at + 4), 4 + word(at)));
    if (name == "IHDR") {
      REQUIRE(byte(at + 16) == 8);
      image = Image(static_cast<int>(word(at + 8)), static_cast<int>(word(at + 12)),
                    byte(at + 17) == 2 ? 3 : 1);
    } else if (name == "IDAT") {
      rows.resize(static_cast<std::size_t>(image.width * image.channels + 1) *
                  static_cast<std::size_t>(image.height));
      uLongf size = rows.size();
      REQUIRE(::uncompress(rows.data(), &size, reinterpret_cast<const Bytef*>(file.data() + at + 8),
                           word(at)) == Z_OK);
      REQUIRE(size == rows.size());
    } else {
      REQUIRE(name == "IEND");
    }
  }
  const int row_bytes = image.width * image.channels;
  const auto pixel = [&](int y, int i) -> int {
    return y < 0 || i < 0 ? 0 : image.pixels[static_cast<std::size_t>(y * row_bytes + i)];
  };
  for (int y = 0; y < image.height; ++y) {
    const std::uint8_t* const row = rows.data() + y * (row_bytes + 1);
    for (int i = 0; i < row_bytes; ++i) {
      const int a = pixel(y, i - image.channels), b = pixel(y - 1, i),
                c = i < image.channels ? 0 : pixel(y - 1, i - image.channels);
      const int p = a + b - c, pa = std::abs(p - a), pb = std::abs(p - b), pc = std::abs(p - c);
      const int predictions[] = {0, a, b, (a + b) / 2, pa <= pb && pa <= pc ? a : pb <= pc ? b : c};
      image.pixels[static_cast<std::size_t>(y * row_bytes + i)] =
          static_cast<std::uint8_t>(row[1 + i] + predictions[row[0]]);
    }
  }
  return image;
}

// Whether a pixel has the blue to purple of points, not the grey of frame and labels.
bool is_ink(const std::uint8_t* pixel) {
  return pixel[2] > pixel[0] + 15 || pixel[0] > pixel[1] + 15;
}

}  // namespace

TEST_CASE("png: an independent decoder sees the same pixels", "[images]") {
  for (const int channels : {1, 3}) {
    Image image(37, 23, channels);
    for (int y = 0; y < image.height; ++y)
      for (int x = 0; x < image.width; ++x)
        // Bands that suit one filter each, and noise.
        for (int c = 0; c < channels; ++c) {
          const int noise = (x * 7919 + y * 104729 + c * 31) * 2654435761u >> 24;
          const int values[] = {noise, x * 5 + c, y * 9 + c, x * 3 + y * 4, 77};
          image.at(x, y)[c] = static_cast<std::uint8_t>(values[y / 5]);
        }
    const Image decoded = decode_png(encode_png(image));
    CHECK(decoded.width == 37);
    CHECK(decoded.height == 23);
    CHECK(decoded.channels == channels);
    CHECK(decoded.pixels == image.pixels);
  }
  CHECK(decode_png(encode_png(Image(1, 1, 1, 42))).pixels == std::vector<std::uint8_t>{42});
}

TEST_CASE("png: what is no image is refused, and failures leave no file", "[images]") {
  const ScratchFolder folder;
  CHECK_THROWS_AS(encode_png(Image()), ShapeError);
  CHECK_THROWS_AS(encode_png(Image(2, 2, 2)), ShapeError);
  Image torn(2, 2, 3);
  torn.pixels.pop_back();
  CHECK_THROWS_AS(write_png(folder / "a.png", torn), ShapeError);
  CHECK_THROWS_AS(write_png(folder / "no/a.png", Image(2, 2, 3)), IoError);
  CHECK(folder.files() == 0);
  write_png(folder / "a.png", Image(2, 2, 3, 9));
  CHECK(decode_png(bytes_of(text_of(folder / "a.png"))).pixels == std::vector<std::uint8_t>(12, 9));
}

TEST_CASE("image_grid: samples become tiles", "[images]") {
  // Five images of 1 x 2 pixels.
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> samples{-1, 1, 0, 0, -7, 7, nan, 1, 1, 1};
  const Image grid =
      image_grid(samples, 5, 1, 2, 1, {.columns = 3, .padding = 1, .scale = 2, .background = 99});
  CHECK(grid.width == 3 * (4 + 1) + 1);
  CHECK(grid.height == 2 * (2 + 1) + 1);
  CHECK(grid.channels == 1);
  CHECK(*grid.at(0, 0) == 99);
  CHECK(*grid.at(1, 1) == 0);
  CHECK(*grid.at(2, 2) == 0);
  CHECK(*grid.at(3, 1) == 255);
  CHECK(*grid.at(6, 1) == 128);
  CHECK(*grid.at(11, 1) == 0);
  CHECK(*grid.at(13, 1) == 255);
  CHECK(*grid.at(1, 4) == 0);    // NaN
  CHECK(*grid.at(11, 4) == 99);  // no sixth image
  CHECK_THROWS_AS(image_grid(samples, 4, 1, 2, 1), ShapeError);
  CHECK_THROWS_AS(image_grid(samples, 1, 1, 5, 2), ShapeError);
  CHECK_THROWS_AS(image_grid({}, 0, 1, 1, 1), ShapeError);
  const Image colour =
      image_grid(std::vector<float>{1, -1, 0}, 1, 1, 1, 3, {.padding = 0, .scale = 1});
  CHECK(colour.pixels == std::vector<std::uint8_t>{255, 0, 128});
}

TEST_CASE("scatter_plot: points appear where they are, panels side by side", "[images]") {
  std::vector<float> points;
  for (int i = 0; i < 200; ++i) {
    points.push_back(1);
    points.push_back(1);
  }
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  for (const float value : {nan, infinity, -infinity, 1e30f}) {
    points.push_back(value);
    points.push_back(0);
  }
  const ScatterOptions options{.panel_size = 200, .low = -2, .high = 2};
  const Image one = scatter_plot({{"", points}}, options);
  double x = 0, y = 0, ink = 0;
  for (int v = 0; v < one.height; ++v)
    for (int u = 0; u < one.width; ++u) {
      const double weight = is_ink(one.at(u, v)) ? 1 : 0;
      x += weight * u, y += weight * v, ink += weight;
    }
  REQUIRE(ink > 0);
  // The point (1, 1) lies at three quarters of the panel's width and one quarter of its height.
  const Image empty = scatter_plot({{"", {}}}, options);
  CHECK(empty.width == one.width);
  const double left = 23, top = 10;  // margins, roughly
  CHECK(x / ink == Approx(left + 150).margin(12));
  CHECK(y / ink == Approx(top + 50).margin(12));
  const Image two = scatter_plot({{"data", points}, {"samples, 4 steps", points}}, options);
  CHECK(two.width > one.width + 199);
  CHECK_THROWS_AS(scatter_plot({}), ShapeError);
  CHECK_THROWS_AS(scatter_plot({{"", std::span(points).first(3)}}), ShapeError);
  // Limits from points that are all alike, or not there.
  CHECK_NOTHROW(scatter_plot({{"", std::vector<float>{0, 0}}, {"", {}}}));
  CHECK_NOTHROW(scatter_plot({{"", std::vector<float>{nan, infinity}}}));
}

TEST_CASE("scatter_plot: the axes hold all points but the outermost of each hundred", "[images]") {
  const auto reaches = [](const std::vector<float>& points, const std::vector<float>& within) {
    const float reach = reach_of(within);
    return scatter_plot({{"", points}}).pixels ==
           scatter_plot({{"", points}}, {.low = -reach, .high = reach}).pixels;
  };
  CHECK(reaches({3, -1}, {3}));
  CHECK(reaches({1, 1, -1, -1, 10, 0}, {10}));
  CHECK(reaches({0.5f, -7, std::numeric_limits<float>::infinity(), 20}, {7}));
  std::vector<float> many;
  for (int i = 0; i < 300; ++i) {
    many.push_back(i < 297 ? 1 : 1000);
    many.push_back(0);
  }
  CHECK(reaches(many, {1}));
  CHECK(reach_of(std::vector<float>{-4, std::numeric_limits<float>::infinity()}) == Approx(4.6f));
  // A single point is there to be seen.
  const Image one = scatter_plot({{"", std::vector<float>{3, -1}}});
  int ink = 0;
  for (int v = 0; v < one.height; ++v)
    for (int u = 0; u < one.width; ++u) ink += is_ink(one.at(u, v)) ? 1 : 0;
  CHECK(ink > 4);
}

TEST_CASE("draw_text: letters leave ink, and text beyond the edge is cut off", "[images]") {
  Image image(60, 30, 3);
  draw_text(image, 5, 20, "a1");
  CHECK(std::count(image.pixels.begin(), image.pixels.end(), 255) < 60 * 30 * 3);
  CHECK_NOTHROW(
      draw_text(image, -100, 20, "some long text that runs out on both sides of the picture"));
  CHECK_NOTHROW(draw_text(image, 5, -50, "above"));
  CHECK(text_width("") == 0);
  CHECK(text_width("mm") > text_width("ii"));
  Image grey(10, 10, 1);
  CHECK_THROWS_AS(draw_text(grey, 0, 0, "a"), ShapeError);
}

TEST_CASE("notes of a picture come back, and damaged ones are refused", "[images]") {
  const std::vector<ImageText> texts{
      {"Software", "fluxion"}, {"about", "seed 7, gr\u00fcn\n"}, {"e", ""}};
  const std::vector<std::byte> file = encode_png(Image(3, 2, 1, 7), texts);
  CHECK(is_png(file));
  CHECK(png_texts(file) == texts);
  CHECK(png_texts(encode_png(Image(3, 2, 3))).empty());
  CHECK(decode_image(file).pixels == std::vector<std::uint8_t>(6, 7));
  for (std::size_t bytes = 0; bytes < file.size(); ++bytes)
    CHECK_THROWS_AS(png_texts(std::span(file).first(bytes)), FormatError);
  for (std::size_t at = 0; at < file.size(); ++at) {
    std::vector<std::byte> damaged = file;
    damaged[at] ^= std::byte{1};
    CHECK_THROWS_AS(png_texts(damaged), FormatError);
  }
  for (const char* key : {"", "a\nb", "\xc3\xbc"})
    CHECK_THROWS_AS(encode_png(Image(1, 1, 1), std::vector<ImageText>{{key, "x"}}), Error);
  CHECK_THROWS_AS(encode_png(Image(1, 1, 1), std::vector<ImageText>{{std::string(80, 'k'), "x"}}),
                  Error);
}
