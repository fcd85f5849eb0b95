// The corpus of odd pictures: each is decoded as its maker knows, or refused in words that say why.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "models/images/decode.h"
#include "tests/catch.h"
#include "tests/corpus/pictures.h"
#include "tests/data/pictures.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

int largest_difference(const Image& a, const Image& b) {
  int largest = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i)
    largest = std::max(largest, std::abs(a.pixels[i] - b.pixels[i]));
  return largest;
}

void check(const OddPicture& odd) {
  INFO(odd.name);
  if (!odd.picture) {
    const std::string why = message_of<FormatError>([&] { decode_image(odd.file, "x"); });
    INFO("refused: " << why);
    CHECK(contains(why, odd.refusal));
    CHECK(why.starts_with("x: "));
    return;
  }
  try {
    const ImageInfo info = image_info(odd.file, "x");
    const Image image = decode_image(odd.file, "x");
    CHECK(info.width == odd.picture->width);
    CHECK(info.height == odd.picture->height);
    CHECK(info.channels == odd.picture->channels);
    REQUIRE(image.width == odd.picture->width);
    REQUIRE(image.height == odd.picture->height);
    REQUIRE(image.channels == odd.picture->channels);
    CHECK(largest_difference(image, *odd.picture) <= odd.tolerance);
  } catch (const FormatError& error) {
    FAIL_CHECK("refused: " << error.what());
  }
}

// For a look at them, or for another decoder: FLUXION_CORPUS=folder fluxion-tests "[corpus]".
void write_if_asked(const std::vector<OddPicture>& pictures, const std::string& ending) {
  const char* const folder = std::getenv("FLUXION_CORPUS");
  if (folder == nullptr) return;
  std::filesystem::create_directories(folder);
  for (const OddPicture& odd : pictures) {
    std::string name = odd.name;
    std::replace_if(
        name.begin(), name.end(), [](char c) { return c == ' ' || c == '/'; }, '_');
    std::ofstream(std::filesystem::path(folder) / (name + ending), std::ios::binary)
        .write(reinterpret_cast<const char*>(odd.file.data()),
               static_cast<std::streamsize>(odd.file.size()));
  }
}

void check_all(const std::vector<OddPicture>& pictures, const std::string& ending) {
  std::set<std::string> names;
  for (const OddPicture& odd : pictures) {
    check(odd);
    CHECK(names.insert(odd.name).second);
  }
  write_if_asked(pictures, ending);
}

}  // namespace

TEST_CASE("corpus: odd PNG files are read exactly, or refused by name", "[corpus][images]") {
  check_all(odd_pngs(), ".png");
}

TEST_CASE("corpus: odd JPEG files are read as the standard says, or refused by name",
          "[corpus][images]") {
  check_all(odd_jpegs(), ".jpg");
}
