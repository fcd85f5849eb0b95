#include <utility>

#include "tests/corpus/pictures.h"
#include "tests/corpus/png_writer.h"
#include "tests/data/pictures.h"

namespace fluxion::testing {

namespace {

class Pngs {
 public:
  std::vector<OddPicture> all;

  void read(const std::string& name, const PngPicture& picture, std::vector<std::byte> file) {
    all.push_back({name, std::move(file), PngWriter(picture).expected()});
  }
  void refused(const std::string& name, std::vector<std::byte> file, const std::string& words) {
    all.push_back({.name = name, .file = std::move(file), .refusal = words});
  }
};

std::string words(const PngPicture& picture) {
  return "png colour " + std::to_string(picture.colour) + ", " + std::to_string(picture.bits) +
         " bits, " + std::to_string(picture.width) + " x " + std::to_string(picture.height);
}

void every_kind(Pngs& pngs) {
  constexpr int kinds[15][2] = {{0, 1}, {0, 2}, {0, 4}, {0, 8}, {0, 16}, {2, 8}, {2, 16}, {3, 1},
                                {3, 2}, {3, 4}, {3, 8}, {4, 8}, {4, 16}, {6, 8}, {6, 16}};
  for (const auto& [colour, bits] : kinds)
    for (const bool interlaced : {false, true}) {
      const PngPicture picture = png_picture(13, 11, bits, colour);
      pngs.read(words(picture) + (interlaced ? ", interlaced" : ""), picture,
                png_file(picture, interlaced));
    }
  // Interlaced pictures so small that passes are empty.
  for (const auto& [width, height] :
       {std::pair{1, 1}, {1, 7}, {3, 1}, {4, 4}, {5, 2}, {2, 9}, {8, 8}}) {
    const PngPicture picture = png_picture(width, height, 8, 2);
    pngs.read(words(picture) + ", interlaced", picture, png_file(picture, true));
  }
}

void transparency(Pngs& pngs) {
  for (const auto& [colour, bits] :
       {std::pair{0, 1}, {0, 2}, {0, 4}, {0, 8}, {0, 16}, {2, 8}, {2, 16}}) {
    PngPicture picture = png_picture(9, 9, bits, colour);
    // The colour of a pixel of the middle.
    const auto at = picture.samples.begin() + 40 * picture.channels();
    picture.transparent.assign(at, at + picture.channels());
    pngs.read(words(picture) + ", one colour transparent", picture, png_file(picture));
  }
  // A level that differs from another in its lower byte alone.
  PngPicture near = png_picture(2, 1, 16, 0);
  near.samples = {0x4001, 0x4002};
  near.transparent = {0x4002};
  pngs.read("png of 16 bits, transparent by the lower byte", near, png_file(near));
  for (const int bits : {1, 4, 8}) {
    PngPicture picture = png_picture(9, 9, bits, 3);
    picture.transparent = {0, 128};
    pngs.read(words(picture) + ", palette with alpha", picture, png_file(picture));
  }
}

void chunks(Pngs& pngs) {
  const PngPicture rgb = png_picture(6, 5, 8, 2), palette = png_picture(6, 5, 4, 3);
  const auto begun = [&] { return std::move(PngWriter(rgb).header()); };
  pngs.read("png with gamma, chromaticities, text, time, EXIF and a private chunk", rgb,
            begun()
                .chunk("gAMA", from_hex("00002710"))
                .chunk("cHRM", from_hex("00007a2500008083"
                                        "0000f9ff000080e9000075300000ea6000003a9800001770"))
                .chunk("pHYs", from_hex("00000b1300000b1301"))
                .chunk("sBIT", from_hex("050505"))
                .chunk("bKGD", from_hex("000100020003"))
                .chunk("tEXt", bytes_of("Comment\0IDAT"))
                .chunk("tIME", from_hex("07ea0b1c100000"))
                .chunk("eXIf", from_hex("4d4d002a00000008000101120003000000010006000000000000"))
                .chunk("prVt", bytes_of("anything"))
                .data()
                .chunk("zTXt", from_hex("610000789c030000000001"))
                .end()
                .file);
  pngs.read("png in many parts, some empty", rgb,
            begun().chunk("IDAT").data(false, 7).chunk("IDAT").end().file);
  pngs.read("png with a suggested palette", rgb,
            begun().chunk("PLTE", from_hex("010203")).data().end().file);
  pngs.read("png with an animation beside it", rgb,
            begun()
                .chunk("acTL", from_hex("0000000200000000"))
                .chunk("fcTL", from_hex("00000000000000060000000500000000000000000001000a0000"))
                .data()
                .chunk("fcTL", from_hex("00000001000000060000000500000000000000000001000a0000"))
                .chunk("fdAT", from_hex("00000002789c0300"))
                .end()
                .file);
  auto longer = png_file(rgb);
  longer.resize(longer.size() + 100, std::byte{0x55});
  pngs.read("png with bytes behind its end", rgb, longer);
  PngPicture wide = palette;
  wide.palette.resize(3 * 5);
  for (std::uint32_t& index : wide.samples) index %= 5;
  pngs.read("png with a palette of 5 of 16 colours", wide, png_file(wide));

  wide.samples[7] = 5;
  pngs.refused("png with a colour that its palette lacks", png_file(wide), "palette of 5");
  pngs.refused("png without its palette", PngWriter(palette).header().data().end().file, "palette");
  wide.palette.resize(14);
  pngs.refused("png with a palette of 14 bytes", png_file(wide), "palette");
  PngPicture many = png_picture(3, 3, 1, 3);
  many.transparent = {1, 2, 3};
  pngs.refused("png with more alpha than colours", png_file(many), "palette");
  pngs.refused("png in Apple's variant",
               PngWriter(rgb).chunk("CgBI", from_hex("50002006")).header().data().end().file,
               "Apple");
  pngs.refused("png whose header comes second",
               PngWriter(rgb).chunk("gAMA", from_hex("00002710")).header().data().end().file,
               "header");
  pngs.refused("png with two headers", begun().header().data().end().file, "header");
  pngs.refused("png with an unknown chunk that matters", begun().chunk("WHAT").data().end().file,
               "chunk");
  pngs.refused("png with two palettes",
               PngWriter(palette).header().palette().palette().data().end().file, "two palettes");
  pngs.refused("png without data", begun().end().file, "data");
  pngs.refused("png without its end", begun().data().file, "ends early");
  pngs.refused("png with rows missing", begun().data(false, 1, 19).end().file, "decoded");
  pngs.refused("png with transparency for a picture that has alpha",
               PngWriter(png_picture(3, 3, 8, 6))
                   .header()
                   .chunk("tRNS", from_hex("000000000000"))
                   .data()
                   .end()
                   .file,
               "tRNS");
  pngs.refused("png with transparency of another length",
               begun().chunk("tRNS", from_hex("0000")).data().end().file, "tRNS");
}

void damaged(Pngs& pngs) {
  for (const auto& [colour, bits] : {std::pair{2, 4},
                                     {3, 16},
                                     {4, 2},
                                     {6, 1},
                                     {1, 8},
                                     {5, 8},
                                     {7, 8},
                                     {0, 3},
                                     {0, 32},
                                     {0, 0}}) {
    PngPicture picture = png_picture(3, 3, 8, 0);
    picture.colour = colour;
    picture.bits = bits;
    pngs.refused(words(picture), PngWriter(picture).header().end().file, "colour type");
  }
  PngPicture palette = png_picture(6, 5, 4, 3);
  palette.transparent = {10, 20};
  for (const char* const kind : {"IHDR", "PLTE", "tRNS", "IDAT"}) {
    auto file = png_file(palette);
    const std::string text(reinterpret_cast<const char*>(file.data()), file.size());
    file[text.find(kind) + 5] ^= std::byte{1};
    pngs.refused(std::string("png with a flipped bit in ") + kind, file, "checksum");
  }
  const PngPicture grey = png_picture(6, 5, 8, 0);
  for (const std::size_t field : {10u, 11u, 12u}) {
    std::vector<std::byte> header = from_hex("00000006000000050800000000");
    header[field] = std::byte{2};
    pngs.refused("png with an unknown method in byte " + std::to_string(field),
                 PngWriter(grey).chunk("IHDR", header).data().end().file, "bad");
  }
  const std::vector<std::byte> whole = png_file(grey);
  for (const std::size_t size : {9u, 30u, 50u})
    pngs.refused("png that ends after " + std::to_string(size) + " bytes",
                 {whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}, "ends early");
}

}  // namespace

std::vector<OddPicture> odd_pngs() {
  Pngs pngs;
  every_kind(pngs);
  transparency(pngs);
  chunks(pngs);
  damaged(pngs);
  for (const auto& [name, bytes, words] : {std::tuple{"GIF", "GIF89a", "GIF"},
                                           {"BMP", "BM\x36\x0c\x01 the size", "BMP"},
                                           {"WebP", "RIFF1234WEBPVP8 ", "WebP"},
                                           {"text", "hello", "neither"}})
    pngs.refused(std::string(name) + " with another name", bytes_of(bytes), words);
  pngs.refused("empty file", {}, "empty");
  return std::move(pngs.all);
}

}  // namespace fluxion::testing
