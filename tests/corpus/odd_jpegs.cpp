#include <algorithm>
#include <utility>

#include "tests/corpus/jpeg_writer.h"
#include "tests/corpus/pictures.h"
#include "tests/data/pictures.h"

namespace fluxion::testing {

namespace {

using enum JpegColours;

class Jpegs {
 public:
  std::vector<OddPicture> all;

  void read(const std::string& name, JpegColours colours, const JpegWriter& writer) {
    // A level for each rounding on the way: transform, interpolation, and colour, which can double
    // them.
    const int tolerance = colours == grey || colours == rgb ? 2 : 3;
    all.push_back({"jpeg " + name, writer.file, writer.expected(colours), tolerance});
  }
  void refused(const std::string& name, const JpegWriter& writer, const std::string& words) {
    refused(name, writer.file, words);
  }
  void refused(const std::string& name, std::vector<std::byte> file, const std::string& words) {
    all.push_back({.name = "jpeg " + name, .file = std::move(file), .refusal = words});
  }
};

// Up to the scan: tables and a frame header.
JpegWriter begun(const JpegPicture& picture) {
  JpegWriter writer(picture);
  writer.standard_tables().frame();
  return writer;
}

JpegWriter whole(const JpegPicture& picture) {
  JpegWriter writer = begun(picture);
  writer.scan().end();
  return writer;
}

// Progressive, with tables for what its scans code.
JpegWriter progressive(const JpegPicture& picture) {
  JpegWriter writer(picture);
  writer.quantisation(0).quantisation(1, 2);
  for (const int number : {0, 1})
    writer.huffman(false, number, standard_huffman(false, number == 1))
        .huffman(true, number, even_huffman(true));
  writer.frame(0xc2);
  return writer;
}

void samplings(Jpegs& jpegs) {
  for (const auto& [width, height] : {std::pair{1, 1}, {8, 8}, {17, 9}, {40, 3}, {3, 40}}) {
    const std::string size = ", " + std::to_string(width) + " x " + std::to_string(height);
    jpegs.read("grey" + size, grey, whole(jpeg_picture(1, width, height)));
    for (const auto& [h, v] : {std::pair{1, 1}, {2, 1}, {2, 2}, {1, 2}, {4, 1}, {4, 2}, {1, 4}}) {
      const JpegPicture picture = jpeg_picture(3, width, height, h, v);
      const std::string name = "sampled " + std::to_string(h) + " x " + std::to_string(v) + size;
      jpegs.read(name, ycc, whole(picture));
      if (width == 17)
        jpegs.read(name + ", progressive", ycc, progressive(picture).progressive_scans().end());
    }
  }
  jpegs.read("grey, sampled 2 x 2", grey, whole(jpeg_picture(1, 21, 18, 2, 2)));
  jpegs.read("with the second component larger than the first", ycc,
             whole({20, 20, {{.id = 1}, {.id = 2, .horizontal = 2, .vertical = 2}, {.id = 3}}}));
  jpegs.read("with chrominance of unequal sizes", ycc,
             whole({30,
                    20,
                    {{.id = 1, .horizontal = 2, .vertical = 2},
                     {.id = 2, .horizontal = 2},
                     {.id = 3, .vertical = 2}}}));
  jpegs.refused(
      "with sampling factors 3 and 2",
      whole({30, 20, {{.id = 1, .horizontal = 3}, {.id = 2, .horizontal = 2}, {.id = 3}}}),
      "sampling factors");
  JpegWriter zero = whole(jpeg_picture(1, 8, 8));
  const std::vector<std::byte> component = from_hex("011100ff");
  *(std::search(zero.file.begin(), zero.file.end(), component.begin(), component.end()) + 1) =
      std::byte{0x01};
  jpegs.refused("with a sampling factor of zero", zero, "sampling factor");
}

void tables(Jpegs& jpegs) {
  const JpegPicture picture = jpeg_picture(3, 24, 20, 2, 2);
  const auto with_quantisation = [&] {
    JpegWriter writer(picture);
    writer.quantisation(0).quantisation(1, 2);
    return writer;
  };
  const auto standard = [](JpegWriter writer, bool ac, int number, bool stated) {
    const JpegHuffman& table = standard_huffman(ac, number == 1);
    return stated ? writer.huffman(ac, number, table) : writer.unstated_huffman(ac, number, table);
  };
  // Which of the four Huffman tables the file states.
  for (int stated = 0; stated < 16; ++stated) {
    JpegWriter writer = with_quantisation();
    for (int i = 0; i < 4; ++i) writer = standard(writer, i / 2 == 1, i % 2, stated >> i & 1);
    jpegs.read("with Huffman tables " + std::to_string(stated) + " of 15, else the standard ones",
               ycc, writer.frame().scan().end());
  }
  // Tables of its own, which it does not state.
  for (const bool ac : {false, true})
    for (const int number : {0, 1}) {
      JpegWriter writer = with_quantisation();
      for (int i = 0; i < 4; ++i) writer = standard(writer, i / 2 == 1, i % 2, true);
      JpegWriter lost(picture);
      lost.quantisation(0).quantisation(1, 2);
      for (int i = 0; i < 4; ++i) {
        if ((i / 2 == 1) == ac && i % 2 == number)
          lost.unstated_huffman(ac, number, even_huffman(ac));
        else
          lost.huffman(i / 2 == 1, i % 2, even_huffman(i / 2 == 1));
      }
      jpegs.refused(
          std::string("without its own ") + (ac ? "AC" : "DC") + " table " + std::to_string(number),
          lost.frame().scan().end(),
          std::string(ac ? "AC" : "DC") + " Huffman table " + std::to_string(number));
    }
  JpegWriter all_lost = with_quantisation();
  for (int i = 0; i < 4; ++i)
    all_lost.unstated_huffman(i / 2 == 1, i % 2, even_huffman(i / 2 == 1));
  jpegs.refused("without all of its own Huffman tables", all_lost.frame().scan().end(),
                "the standard ones may not fit");
  for (const auto& [dc, ac] : {std::pair{2, 0}, {0, 3}}) {
    JpegWriter writer = with_quantisation();
    for (int i = 0; i < 4; ++i) writer = standard(writer, i / 2 == 1, i % 2, true);
    writer.unstated_huffman(false, 2, standard_huffman(false, false))
        .unstated_huffman(true, 3, standard_huffman(true, false));
    writer.frame().scan({.tables = {{dc, ac}, {1, 1}, {1, 1}}}).end();
    jpegs.refused("that names Huffman tables " + std::to_string(dc) + " and " + std::to_string(ac) +
                      " and has 0 and 1",
                  writer, "Huffman table " + std::to_string(dc + ac));
  }
  JpegWriter without(picture);
  without.quantisation(0).quantisation(1, 2);
  for (const int number : {0, 1})
    without.unstated_huffman(false, number, standard_huffman(false, number == 1))
        .unstated_huffman(true, number, even_huffman(true));
  jpegs.refused("progressive, without Huffman tables",
                without.frame(0xc2).progressive_scans().end(), "Huffman table 0");
  jpegs.read("with Huffman tables 2 and 3", ycc,
             with_quantisation()
                 .huffman(false, 2, even_huffman(false))
                 .huffman(true, 3, even_huffman(true))
                 .frame(0xc1)
                 .scan({.tables = {{2, 3}, {2, 3}, {2, 3}}})
                 .end());

  // Quantisation.
  const auto huffman = [](JpegWriter writer) {
    for (const bool ac : {false, true})
      for (const int number : {0, 1}) writer.huffman(ac, number, standard_huffman(ac, number == 1));
    return writer;
  };
  jpegs.refused("without quantisation tables", huffman(JpegWriter(picture)).frame().scan().end(),
                "quantisation table 0");
  jpegs.refused("without the second quantisation table",
                huffman(std::move(JpegWriter(picture).quantisation(0))).frame().scan().end(),
                "quantisation table 1");
  jpegs.refused("without the first quantisation table",
                huffman(std::move(JpegWriter(picture).quantisation(1))).frame().scan().end(),
                "quantisation table 0");
  jpegs.refused("with its quantisation tables behind the data",
                huffman(JpegWriter(picture)).frame().scan().quantisation(0).quantisation(1).end(),
                "quantisation table 0");
  JpegWriter zero(picture);
  zero.quantisation(0).segment(0xdb, std::vector<int>(65, 0)).quantisation(1);
  jpegs.refused("with a quantisation table of zeros", huffman(zero).frame().scan().end(), "zero");
  jpegs.refused("with quantisation table 4",
                huffman(std::move(JpegWriter(picture).quantisation(4))).frame().scan().end(),
                "impossible number");
  jpegs.read(
      "with quantisation tables of 16 bits", ycc,
      huffman(std::move(JpegWriter(picture).quantisation(0, 1, true).quantisation(1, 2, true)))
          .frame()
          .scan()
          .end());
  jpegs.read("with its tables behind the frame header", ycc,
             JpegWriter(picture).frame().standard_tables().scan().end());
  // Each component keeps the table that was there at its first scan.
  const auto one = [](std::size_t i) { return JpegScan{.components = {i}}; };
  jpegs.read("with other tables for every scan", ycc,
             begun(picture)
                 .scan(one(0))
                 .quantisation(1, 3)
                 .huffman(true, 1, even_huffman(true))
                 .scan(one(1))
                 .quantisation(1, 5)
                 .huffman(false, 1, even_huffman(false))
                 .scan(one(2))
                 .end());
  jpegs.read("progressive, with a quantisation table that changes between scans", ycc,
             progressive(picture)
                 .scan({.first = 0, .last = 0})
                 .quantisation(0, 9)
                 .quantisation(1, 9)
                 .scan({.components = {0}, .first = 1, .last = 63})
                 .scan({.components = {1}, .first = 1, .last = 63})
                 .scan({.components = {2}, .first = 1, .last = 63})
                 .end());

  // Huffman tables that can't be.
  JpegHuffman crowded = standard_huffman(false, false);
  crowded.counts[0] = 3;
  crowded.symbols.resize(20);
  jpegs.refused("with more codes than bits allow", begun(picture).huffman(false, 0, crowded).end(),
                "Huffman");
  JpegHuffman cut = standard_huffman(true, false);
  cut.symbols.resize(100);
  jpegs.refused("with a Huffman table that ends early", begun(picture).huffman(true, 0, cut).end(),
                "Huffman");
  jpegs.refused("with a DC table of impossible sizes",
                begun(picture).huffman(false, 0, even_huffman(true)).scan().end(), "Huffman");
  jpegs.refused("with Huffman table 4",
                begun(picture).huffman(false, 4, standard_huffman(false, false)).end(),
                "impossible number");
}

void colours(Jpegs& jpegs) {
  const auto three = [](int first, int second, int third) {
    return JpegPicture(17, 10, {{.id = first}, {.id = second}, {.id = third}});
  };
  const auto with = [](const JpegPicture& picture, bool jfif, int adobe) {
    JpegWriter writer(picture);
    if (jfif) writer.jfif();
    if (adobe >= 0) writer.adobe(adobe);
    return writer.standard_tables().frame().scan().end();
  };
  jpegs.read("of JFIF", ycc, with(three(1, 2, 3), true, -1));
  jpegs.read("with components 0, 1, 2", ycc, with(three(0, 1, 2), false, -1));
  jpegs.read("with components R, G, B", rgb, with(three('R', 'G', 'B'), false, -1));
  jpegs.read("with components r, g, b", ycc, with(three('r', 'g', 'b'), false, -1));
  jpegs.read("of JFIF with components R, G, B", ycc, with(three('R', 'G', 'B'), true, -1));
  jpegs.read("of Adobe, transform 0", rgb, with(three(1, 2, 3), false, 0));
  jpegs.read("of Adobe, transform 1", ycc, with(three(1, 2, 3), false, 1));
  jpegs.read("of Adobe, transform 1, with components R, G, B", ycc,
             with(three('R', 'G', 'B'), false, 1));
  jpegs.read("of Adobe, transform 0, and JFIF", ycc, with(three(1, 2, 3), true, 0));
  jpegs.read("with three components of one number", ycc, with(three(1, 1, 1), false, -1));
  for (const auto& [h, v] : {std::pair{1, 1}, {2, 2}}) {
    const JpegPicture four = jpeg_picture(4, 17, 10, h, v);
    const std::string name =
        "with four components, sampled " + std::to_string(h) + " x " + std::to_string(v);
    jpegs.read(name, cmyk, with(four, false, -1));
    jpegs.read(name + ", JFIF", cmyk, with(four, true, -1));
    jpegs.read(name + ", Adobe 0", cmyk, with(four, false, 0));
    jpegs.read(name + ", Adobe 1", ycck, with(four, false, 1));
    jpegs.read(name + ", Adobe 2", ycck, with(four, false, 2));
    jpegs.read(name + ", Adobe 2, progressive", ycck, [&] {
      JpegWriter writer(four);
      writer.adobe(2).quantisation(0).quantisation(1, 2);
      for (const int number : {0, 1})
        writer.huffman(false, number, standard_huffman(false, number == 1))
            .huffman(true, number, even_huffman(true));
      return writer.frame(0xc2).progressive_scans().end();
    }());
  }
  JpegWriter other(three(1, 2, 3));
  other.segment(0xee, {'A', 'd', 'o', 'x', 'e', 0, 100, 0, 0, 0, 0, 0});
  jpegs.read("with an APP14 of someone else", ycc, other.standard_tables().frame().scan().end());
  jpegs.refused("with two components", whole(jpeg_picture(2, 8, 8)), "2 components");
}

void restarts(Jpegs& jpegs) {
  const JpegPicture picture = jpeg_picture(3, 40, 40, 2, 2);  // 9 units
  const auto with = [&](int interval, auto&&... change) {
    JpegWriter writer = begun(picture);
    writer.restart(interval);
    (change(writer), ...);
    return writer.scan().end();
  };
  for (const int interval : {0, 1, 2, 4, 9, 100}) {
    const std::string name = "with restarts every " + std::to_string(interval);
    jpegs.read(name, ycc, with(interval));
    jpegs.read(name + " and after the last unit", ycc,
               with(interval, [](JpegWriter& writer) { writer.trailing_restart = true; }));
    jpegs.read(name + ", progressive", ycc,
               progressive(picture).restart(interval).progressive_scans().end());
  }
  jpegs.read("with restarts that change between scans", ycc,
             begun(picture)
                 .restart(2)
                 .scan({.components = {0}})
                 .restart(0)
                 .scan({.components = {1}})
                 .restart(5)
                 .scan({.components = {2}})
                 .end());
  jpegs.refused("with a restart marker lost",
                with(2, [](JpegWriter& writer) { writer.dropped_marker = 1; }), "extraneous");
  jpegs.refused("with a restart interval lost",
                with(2, [](JpegWriter& writer) { writer.dropped_interval = 1; }), "premature end");
  jpegs.refused("with restart markers out of order",
                with(2, [](JpegWriter& writer) { writer.restart_step = 3; }), "found marker");
  jpegs.refused("with a restart interval that is cut",
                with(2, [](JpegWriter& writer) { writer.cut_interval = 1; }), "premature end");
  JpegWriter unstated = begun(picture);
  unstated.restart(2);
  const std::vector<std::byte> none = from_hex("ffdd00040002"), zero = from_hex("ffdd00040000");
  unstated.scan().end();
  std::copy(zero.begin(), zero.end(),
            std::search(unstated.file.begin(), unstated.file.end(), none.begin(), none.end()));
  jpegs.refused("with restart markers and no interval", unstated, "premature end");
  jpegs.refused("with a restart interval of 3 bytes",
                begun(picture).segment(0xdd, {0, 0, 2}).scan().end(), "Bogus marker length");
}

void scans(Jpegs& jpegs) {
  const JpegPicture picture = jpeg_picture(3, 40, 24, 2, 2);
  const auto one = [](std::size_t i) { return JpegScan{.components = {i}}; };
  jpegs.read("with a scan for each component", ycc,
             begun(picture).scan(one(0)).scan(one(1)).scan(one(2)).end());
  jpegs.read("with two scans", ycc, begun(picture).scan({.components = {0, 1}}).scan(one(2)).end());
  jpegs.read("progressive, of few scans", grey,
             progressive(jpeg_picture(1, 24, 24))
                 .scan({.first = 0, .last = 0})
                 .scan({.first = 1, .last = 63})
                 .end());
  jpegs.read("extended sequential", ycc,
             [&] { return JpegWriter(picture).standard_tables().frame(0xc1).scan().end(); }());
  jpegs.refused("without a scan of its third component",
                begun(picture).scan({.components = {0, 1}}).end(), "no scan of component 3");
  jpegs.refused("with two scans of one component", begun(picture).scan().scan(one(1)).end(),
                "two scans");
  jpegs.refused("without scans", begun(picture).end(), "without pixels");
  jpegs.refused("with a scan before its frame header",
                JpegWriter(picture).standard_tables().scan().frame().end(), "no frame header");
  jpegs.refused("with two frame headers", begun(picture).frame().scan().end(), "two frame headers");
  jpegs.refused("with a scan of an unknown component",
                begun(picture).segment(0xda, {1, 9, 0, 0, 63, 0}).end(), "component 9");
  jpegs.refused("with a scan header of another length",
                begun(picture).segment(0xda, {3, 1, 0, 0, 63, 0}).end(), "scan header");
  // Progressions that do not hold together.
  const auto first_dc = JpegScan{.first = 0, .last = 0, .low = 1};
  jpegs.refused("progressive, refined before it began",
                progressive(picture).scan({.first = 0, .last = 0, .high = 1}).end(), "follow");
  jpegs.refused("progressive, without its refining scans",
                progressive(jpeg_picture(1, 24, 24))
                    .scan(first_dc)
                    .scan({.first = 1, .last = 63, .low = 1})
                    .end(),
                "last scans");
  jpegs.refused("progressive, without its high frequencies",
                progressive(jpeg_picture(1, 24, 24))
                    .scan({.first = 0, .last = 0})
                    .scan({.first = 1, .last = 62})
                    .end(),
                "last scans");
  jpegs.refused("progressive, refined twice",
                progressive(picture)
                    .scan(first_dc)
                    .scan({.first = 0, .last = 0, .high = 1})
                    .scan({.first = 0, .last = 0, .high = 1})
                    .end(),
                "follow");
  jpegs.refused("progressive, with AC before DC",
                progressive(picture).scan({.components = {0}, .first = 1, .last = 63}).end(),
                "comes before");
  jpegs.refused("progressive, with DC and AC in one scan",
                progressive(picture).segment(0xda, {1, 1, 0, 0, 63, 0}).end(), "impossible");
  jpegs.refused("progressive, with AC of several components in one scan",
                progressive(picture).scan(first_dc).segment(0xda, {2, 1, 0, 2, 0, 1, 63, 0}).end(),
                "impossible");
}

void ends(Jpegs& jpegs) {
  // A table with the codes 00 and 01, and data that goes on with 11.
  JpegHuffman few;
  few.counts[1] = 2;
  few.symbols = {0, 1};
  jpegs.refused("with a code that its table lacks",
                JpegWriter(jpeg_picture(1, 8, 8))
                    .quantisation(0)
                    .huffman(false, 0, few)
                    .huffman(true, 0, few)
                    .frame()
                    .segment(0xda, {1, 1, 0, 0, 63, 0})
                    .bytes("3f3f3f3f3f3f")
                    .end(),
                "bad Huffman code");

  const JpegPicture picture = jpeg_picture(3, 40, 40, 2, 1);
  const auto cut = [](JpegWriter& writer) -> JpegWriter& {
    writer.cut_interval = 0;
    return writer;
  };
  JpegWriter half = begun(picture), one_scan = progressive(picture);
  jpegs.refused("whose data is cut, with an end", cut(half).scan().end(), "premature end");
  jpegs.refused("progressive, whose data is cut", cut(one_scan).progressive_scans().end(),
                "premature end");
  for (const bool refining : {false, true}) {
    JpegWriter second = progressive(jpeg_picture(1, 40, 40));
    second.scan({.first = 0, .last = 0}).scan({.first = 1, .last = 63, .low = 1});
    if (!refining) second = progressive(jpeg_picture(1, 40, 40)).scan({.first = 0, .last = 0});
    const JpegScan rest = {.first = 1, .last = 63, .high = refining ? 1 : 0};
    jpegs.refused(
        std::string("progressive, whose last scan is cut") + (refining ? ", which refines" : ""),
        cut(second).scan(rest).end(), "premature end");
  }
  // The data of more rows than the header states.
  JpegWriter rows = whole(picture);
  const std::vector<std::byte> size = from_hex("0800280028");
  const auto frame = std::search(rows.file.begin(), rows.file.end(), size.begin(), size.end());
  *(frame + 2) = std::byte{8};
  jpegs.refused("whose header states fewer rows than there are", rows, "extraneous");
  *(frame + 2) = std::byte{0x38};
  jpegs.refused("whose header states more rows than there are", rows, "premature end");
  *(frame + 2) = std::byte{0};
  jpegs.refused("of no height", rows, "DNL");
  *(frame + 2) = std::byte{0x28};
  *(frame + 4) = std::byte{0};
  jpegs.refused("of no width", rows, "without pixels");

  jpegs.read("with its number of lines behind the data", ycc,
             begun(picture).scan().segment(0xdc, {0, 40}).end());
  jpegs.refused("with another number of lines behind the data",
                begun(picture).scan().segment(0xdc, {0, 41}).end(), "DNL");
  jpegs.read("with zeros behind its data", ycc,
             begun(picture).scan().bytes("00000000000000000000").end());
  jpegs.read("with a few bytes behind its data", ycc, begun(picture).scan().bytes("123456").end());
  jpegs.read("with fill bytes before markers", ycc,
             JpegWriter(picture)
                 .bytes("ffff")
                 .standard_tables()
                 .bytes("ff")
                 .frame()
                 .bytes("ffffff")
                 .scan()
                 .bytes("ffff")
                 .end());
  jpegs.read(
      "with zeros between its segments", ycc,
      JpegWriter(picture).standard_tables().bytes("0000").frame().bytes("000000").scan().end());
  jpegs.read("with a comment and segments of others", ycc,
             JpegWriter(picture)
                 .segment(0xfe, {'h', 'i'})
                 .segment(0xe1, {'E', 'x', 'i', 'f', 0, 0, 0xff, 0xd8, 0xff, 0xd9})
                 .segment(0xe2, {})
                 .standard_tables()
                 .frame()
                 .scan()
                 .segment(0xfe, {0xff, 0xd9})
                 .end());
  JpegWriter several = whole(picture);
  const std::vector<std::byte> second = whole(jpeg_picture(1, 8, 8)).file;
  several.file.insert(several.file.end(), second.begin(), second.end());
  jpegs.read("with a second picture behind it", ycc, several);
  jpegs.refused("without its end", begun(picture).scan(), "ends early");
  jpegs.refused("with a picture inside", begun(picture).bytes("ffd8").scan().end(), "inside");
}

void other_processes(Jpegs& jpegs) {
  const JpegPicture picture = jpeg_picture(3, 16, 16);
  const auto of = [&](int marker, int bits = 8) {
    return JpegWriter(picture).standard_tables().frame(marker, bits).scan().end();
  };
  jpegs.refused("of 12 bits", of(0xc1, 12), "12 bits");
  jpegs.refused("of 16 bits", of(0xc0, 16), "16 bits");
  jpegs.refused("lossless", of(0xc3), "lossless");
  for (const int marker : {0xc5, 0xc6, 0xc7, 0xcd, 0xce, 0xcf})
    jpegs.refused("with frame " + std::to_string(marker), of(marker), "hierarchical");
  for (const int marker : {0xc9, 0xca, 0xcb})
    jpegs.refused("with frame " + std::to_string(marker), of(marker), "arithmetic");
  jpegs.refused("with conditioning of arithmetic coding",
                JpegWriter(picture).segment(0xcc, {0, 0}).end(), "arithmetic");
  jpegs.refused("with a hierarchical header",
                JpegWriter(picture).segment(0xde, {8, 0, 16, 0, 16, 0}).end(), "hierarchical");
  jpegs.refused("of JPEG-LS", of(0xf7), "JPEG-LS");
  jpegs.refused("with an unknown marker", JpegWriter(picture).segment(0x4f, {0, 0}).end(), "0x4f");
}

}  // namespace

std::vector<OddPicture> odd_jpegs() {
  Jpegs jpegs;
  samplings(jpegs);
  tables(jpegs);
  colours(jpegs);
  restarts(jpegs);
  scans(jpegs);
  ends(jpegs);
  other_processes(jpegs);
  return std::move(jpegs.all);
}

}  // namespace fluxion::testing
