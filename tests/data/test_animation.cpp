// Moving pictures against readers of their own, from the specifications.
#include <map>
#include <random>

#include "engine/error.h"
#include "models/images/animation.h"
#include "models/images/decode.h"
#include "tests/catch.h"

using namespace fluxion;

namespace {

Image random_image(int width, int height, int channels, std::uint32_t seed, int levels = 256) {
  std::mt19937 random(seed);
  Image image(width, height, channels);
  for (std::uint8_t& level : image.pixels)
    level = static_cast<std::uint8_t>(random() % static_cast<unsigned>(levels) *
                                      (255u / static_cast<unsigned>(levels - 1)));
  return image;
}

struct Gif {
  std::vector<Image> frames;  // RGB
  std::vector<int> hundredths;
  bool repeats = false;
};

// GIF89a (CompuServe 1990): one palette, frames of the whole picture.
class GifReader {
 public:
  explicit GifReader(const std::vector<std::byte>& file) : file_(file) {}

  Gif read() {
    Gif gif;
    REQUIRE(text(6) == "GIF89a");
    const int width = u16(), height = u16();
    REQUIRE(u8() == 0xF7);
    u8(), u8();
    std::vector<std::uint8_t> palette;
    for (int i = 0; i < 768; ++i) palette.push_back(static_cast<std::uint8_t>(u8()));
    int delay = 0;
    for (;;) {
      const int kind = u8();
      if (kind == 0x3B) break;
      if (kind == 0x21) {
        const int label = u8();
        if (label == 0xF9) {
          REQUIRE(u8() == 4);
          u8();
          delay = u16();
          u8();
          REQUIRE(u8() == 0);
        } else {
          REQUIRE(label == 0xFF);
          const std::vector<std::uint8_t> content = blocks();
          gif.repeats = std::string(content.begin(), content.begin() + 11) == "NETSCAPE2.0";
        }
        continue;
      }
      REQUIRE(kind == 0x2C);
      REQUIRE(u16() == 0);
      REQUIRE(u16() == 0);
      REQUIRE(u16() == width);
      REQUIRE(u16() == height);
      REQUIRE(u8() == 0);
      REQUIRE(u8() == 8);
      Image frame(width, height, 3);
      const std::vector<std::uint8_t> symbols = decoded(blocks());
      REQUIRE(symbols.size() == static_cast<std::size_t>(width) * static_cast<std::size_t>(height));
      for (std::size_t i = 0; i < symbols.size(); ++i)
        for (std::size_t c = 0; c < 3; ++c)
          frame.pixels[3 * i + c] = palette[3 * std::size_t{symbols[i]} + c];
      gif.frames.push_back(std::move(frame));
      gif.hundredths.push_back(delay);
    }
    REQUIRE(at_ == file_.size());
    return gif;
  }

 private:
  int u8() { return std::to_integer<int>(file_.at(at_++)); }
  int u16() {
    const int low = u8();
    return low | u8() << 8;
  }
  std::string text(int count) {
    std::string result;
    for (int i = 0; i < count; ++i) result.push_back(static_cast<char>(u8()));
    return result;
  }
  std::vector<std::uint8_t> blocks() {
    std::vector<std::uint8_t> all;
    for (int size = u8(); size > 0; size = u8())
      for (int i = 0; i < size; ++i) all.push_back(static_cast<std::uint8_t>(u8()));
    return all;
  }
  static std::vector<std::uint8_t> decoded(const std::vector<std::uint8_t>& bytes) {
    std::vector<std::vector<std::uint8_t>> table;
    const auto reset = [&] {
      table.clear();
      for (int i = 0; i < 256; ++i) table.push_back({static_cast<std::uint8_t>(i)});
      table.resize(258);
    };
    reset();
    std::vector<std::uint8_t> result, before;
    int width = 9;
    for (std::size_t bit = 0;;) {
      std::size_t code = 0;
      for (int i = 0; i < width; ++i, ++bit)
        code |= static_cast<std::size_t>(bytes.at(bit / 8) >> bit % 8 & 1) << i;
      if (code == 257) return result;
      if (code == 256) {
        reset();
        before.clear();
        width = 9;
        continue;
      }
      REQUIRE(code <= table.size());
      std::vector<std::uint8_t> now = code < table.size() ? table[code] : before;
      if (code == table.size()) now.push_back(before.at(0));
      result.insert(result.end(), now.begin(), now.end());
      if (!before.empty() && table.size() < 4096) {
        before.push_back(now.front());
        table.push_back(before);
        if (table.size() == std::size_t{1} << width && width < 12) ++width;
      }
      before = now;
    }
  }

  const std::vector<std::byte>& file_;
  std::size_t at_ = 0;
};

}  // namespace

TEST_CASE("a GIF of grey frames keeps every level", "[images]") {
  // Noise fills the table of codes again and again; a flat frame has the longest codes.
  for (const auto& [width, height] : {std::pair(1, 1), {3, 1}, {17, 5}, {200, 131}}) {
    const std::vector<Image> frames = {random_image(width, height, 1, 1),
                                       Image(width, height, 1, 7),
                                       random_image(width, height, 1, 2, 2)};
    const std::vector<std::byte> file = encode_gif(frames, {.frame_ms = 70, .last_ms = 900});
    const Gif gif = GifReader(file).read();
    REQUIRE(gif.frames.size() == 3);
    CHECK(gif.repeats);
    CHECK(gif.hundredths == std::vector<int>{7, 7, 90});
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t k = 0; k < frames[i].pixels.size(); ++k)
        for (std::size_t c = 0; c < 3; ++c)
          if (gif.frames[i].pixels[3 * k + c] != frames[i].pixels[k])
            FAIL("frame " << i << ", pixel " << k);
  }
}

TEST_CASE("a GIF keeps up to 256 colours, and comes close to more", "[images]") {
  const std::vector<Image> few = {random_image(60, 40, 3, 3, 6), random_image(60, 40, 3, 4, 6)};
  Gif gif = GifReader(encode_gif(few)).read();  // 216 colours
  for (std::size_t i = 0; i < 2; ++i) CHECK(gif.frames[i].pixels == few[i].pixels);

  // A plane of the cube of colours.
  Image many(64, 64, 3);
  for (int y = 0; y < 64; ++y)
    for (int x = 0; x < 64; ++x) {
      many.at(x, y)[0] = static_cast<std::uint8_t>(4 * x);
      many.at(x, y)[1] = static_cast<std::uint8_t>(4 * y);
      many.at(x, y)[2] = static_cast<std::uint8_t>(2 * (x + y));
    }
  gif = GifReader(encode_gif(std::vector<Image>{many})).read();
  int largest = 0;
  for (std::size_t i = 0; i < many.pixels.size(); ++i)
    largest = std::max(largest, std::abs(int{gif.frames[0].pixels[i]} - int{many.pixels[i]}));
  CHECK(largest <= 16);  // 256 boxes of a plane of 256 x 256 are 16 wide
}

TEST_CASE("an animated PNG holds its frames, and the first for readers that know no others",
          "[images]") {
  const std::vector<Image> frames = {random_image(9, 7, 3, 1), random_image(9, 7, 3, 2),
                                     random_image(9, 7, 3, 3)};
  const std::vector<ImageText> notes = {{"how", "so"}};
  const std::vector<std::byte> file = encode_apng(frames, notes, {.frame_ms = 40, .last_ms = 800});
  CHECK(decode_image(file).pixels == frames[0].pixels);
  CHECK(png_texts(file) == notes);

  // The data of a later frame between the header and the end of the file is a picture.
  const auto word = [&](std::size_t at) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < 4; ++i)
      value = value << 8 | std::to_integer<std::uint32_t>(file.at(at + i));
    return value;
  };
  std::map<std::string, std::vector<std::size_t>> chunks;
  std::uint32_t number = 0;
  std::vector<std::uint32_t> ms;
  for (std::size_t at = 8; at < file.size(); at += 12 + word(at)) {
    const std::string name(reinterpret_cast<const char*>(file.data() + at + 4), 4);
    chunks[name].push_back(at);
    if (name == "fcTL" || name == "fdAT") CHECK(word(at + 8) == number++);
    if (name == "fcTL") {
      CHECK(word(at + 12) == 9);
      CHECK(word(at + 16) == 7);
      CHECK((word(at + 28) & 0xFFFF) == 1000);
      ms.push_back(word(at + 28) >> 16);
    }
  }
  REQUIRE(chunks["acTL"].size() == 1);
  CHECK(word(chunks["acTL"][0] + 8) == 3);
  CHECK(word(chunks["acTL"][0] + 12) == 0);
  CHECK(ms == std::vector<std::uint32_t>{40, 40, 800});
  REQUIRE(chunks["fdAT"].size() == 2);
  CHECK(chunks["acTL"][0] < chunks["IDAT"][0]);

  CHECK(encode_apng(std::span(frames).first(1)) == encode_png(frames[0]));
}

TEST_CASE("frames of a moving picture have one size", "[images]") {
  CHECK_THROWS_AS(encode_gif({}), ShapeError);
  CHECK_THROWS_AS(encode_apng({}), ShapeError);
  const std::vector<Image> unequal = {Image(3, 2, 1), Image(2, 3, 1)};
  CHECK_THROWS_AS(encode_gif(unequal), ShapeError);
  CHECK_THROWS_AS(encode_apng(unequal), ShapeError);
  const std::vector<Image> mixed = {Image(3, 2, 1), Image(3, 2, 3)};
  CHECK_THROWS_AS(encode_gif(mixed), ShapeError);
  CHECK_THROWS_AS(encode_gif(std::vector<Image>{Image(70000, 1, 1)}), ShapeError);
}
