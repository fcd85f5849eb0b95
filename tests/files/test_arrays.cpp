// .npy, gzip, zip and IDX.
#include <cstring>
#include <random>

#include "models/files/gz.h"
#include "models/files/idx.h"
#include "models/files/npy.h"
#include "models/files/zip.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/containers.h"
#include "tests/files/mutate.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

std::vector<std::byte> npy_of(const std::string& header, std::size_t data) {
  std::string text = "\x93NUMPY";
  text +=
      {'\x01', '\0', static_cast<char>(header.size() & 255), static_cast<char>(header.size() >> 8)};
  text += header;
  text.resize(text.size() + data);
  return bytes_of(text);
}

// Every prefix is refused, and whatever mutation does is read or refused.
template <class Parse>
void expect_polite(const std::vector<std::byte>& whole, Parse parse) {
  REQUIRE(message_of<FormatError>([&] { parse(whole); }).empty());
  for (std::size_t length = 0; length < whole.size(); ++length) {
    INFO(length << " of " << whole.size() << " bytes");
    REQUIRE_FALSE(message_of<FormatError>([&] { parse(std::span(whole).first(length)); }).empty());
  }
  std::mt19937 random(7);
  int refused = 0;
  for (int i = 0; i < 5000; ++i) {
    const std::vector<std::byte> damaged = mutate(whole, random);
    refused += message_of<FormatError>([&] { parse(damaged); }).empty() ? 0 : 1;
  }
  CHECK(refused > 500);
}

// [count, 2, 3] images of counting bytes.
std::vector<std::byte> idx_of(std::uint8_t count) {
  std::vector<std::byte> bytes;
  for (const int value : {0, 0, 8, 3, 0, 0, 0, static_cast<int>(count), 0, 0, 0, 2, 0, 0, 0, 3})
    bytes.push_back(static_cast<std::byte>(value));
  for (int i = 0; i < count * 6; ++i) bytes.push_back(static_cast<std::byte>(i));
  return bytes;
}

}  // namespace

TEST_CASE("npy: what is written is read", "[files]") {
  const ScratchFolder folder;
  const std::vector<float> f32{1, 2, 3, 4, 5, 6};
  write_npy(folder / "a.npy", f32, {2, 3});
  const NpyArray array = read_npy(folder / "a.npy");
  CHECK(array.type == TensorType{{2, 3}, DType::f32});
  CHECK(array.values<float>() == f32);
  CHECK_THROWS_AS(array.values<double>(), DTypeError);

  write_npy(folder / "b.npy", std::vector<double>{-1.5}, {});
  CHECK(read_npy(folder / "b.npy").type == TensorType{{}, DType::f64});
  write_npy(folder / "c.npy", std::vector<std::int32_t>{1, 2, 3}, {3});
  CHECK(read_npy(folder / "c.npy").values<std::int32_t>() == std::vector<std::int32_t>{1, 2, 3});
  write_npy(folder / "d.npy", std::vector<std::int64_t>{1, -2}, {2, 1});
  CHECK(read_npy(folder / "d.npy").values<std::int64_t>() == std::vector<std::int64_t>{1, -2});
  write_npy(folder / "e.npy", std::vector<std::uint8_t>{}, {0, 7});
  CHECK(read_npy(folder / "e.npy").type == TensorType{{0, 7}, DType::u8});

  CHECK_THROWS_AS(write_npy(folder / "a.npy", f32, {7}), ShapeError);
  CHECK_THROWS_AS(write_npy(folder / "a.npy", std::vector<BFloat16>(1), {1}), DTypeError);
  CHECK(read_npy(folder / "a.npy").values<float>() == f32);
}

TEST_CASE("npy: the file is byte for byte what NumPy writes", "[files]") {
  const ScratchFolder folder;
  write_npy(folder / "a.npy", std::vector<std::uint8_t>{1, 2}, {2});
  std::string expected = "\x93NUMPY";
  expected += {'\x01', '\0', '\x76', '\0'};
  expected += "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }";
  expected.resize(127, ' ');
  expected += "\n\x01\x02";
  CHECK(text_of(folder / "a.npy") == expected);
}

TEST_CASE("npy: every wrong header is refused, with the reason", "[files]") {
  const auto why = [](const std::string& header, std::size_t data) {
    return message_of<FormatError>([&] { parse_npy(npy_of(header, data)); });
  };
  CHECK(why("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", 8).empty());
  CHECK(why("{\"shape\":(1,2),\"fortran_order\":False,\"descr\":\"<f4\"}", 8).empty());
  CHECK(contains(why("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", 8),
                 "needs 12 bytes"));
  CHECK(contains(why("{'descr': '<f3', 'fortran_order': False, 'shape': (2,), }", 8),
                 "its elements (<f3) are"));
  CHECK(contains(why("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", 8), "complex"));
  CHECK(contains(why("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", 8),
                 "tuple of sizes"));
  CHECK(contains(
      why("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", 8),
      "tuple of sizes"));
  CHECK(contains(
      why("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,4), }", 8),
      "overflows"));
  CHECK(contains(
      why("{'descr': '<f4', 'fortran_order': False, 'shape': (0,4611686018427387904,4), }", 0),
      "overflows"));
  CHECK(contains(why("{'descr': '<f4', 'fortran_order': False, }", 8), "missing"));
  CHECK(
      contains(why("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 8),
               "repeated"));
  CHECK(contains(why("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), } x", 8),
                 "after its header"));
  CHECK_FALSE(why("", 8).empty());
  CHECK(contains(message_of<FormatError>([] { parse_npy(std::vector<std::byte>(100)); }), "NUMPY"));
}

TEST_CASE("npy: either byte order and order of axes, and what Python 2 wrote, are read",
          "[files]") {
  const Bytes data = bytes_of(std::string("\0\1\1\0\0\2\2\0\xff\xff\x80\0", 12));
  const NpyArray rows = parse_npy(npy_file("'>i2'", false, "(2L, 3L)", data));
  CHECK(rows.type == TensorType{{2, 3}, DType::i32});
  CHECK(rows.values<std::int32_t>() == std::vector<std::int32_t>{1, 256, 2, 512, -1, -32768});
  const NpyArray columns = parse_npy(npy_file("'>i2'", true, "(2, 3)", data, 2));
  CHECK(columns.values<std::int32_t>() == std::vector<std::int32_t>{1, 2, -1, 256, 512, -32768});
  const NpyArray unsigned_ones = parse_npy(npy_file("'>u2'", false, "(6,)", data, 3));
  CHECK(unsigned_ones.values<std::int32_t>() ==
        std::vector<std::int32_t>{1, 256, 2, 512, 65535, 32768});
  CHECK(parse_npy_header(npy_file("'<i4'", false, "(3,)", data)).held_as_stored());
  CHECK(parse_npy_header(npy_file("'<i4'", true, "(3,)", data)).held_as_stored());
  CHECK_FALSE(parse_npy_header(npy_file("'<i4'", true, "(1, 3)", data)).held_as_stored());
  CHECK_FALSE(parse_npy_header(npy_file("'>i4'", false, "(3,)", data)).held_as_stored());
}

TEST_CASE("npy: damaged files are read or refused, never worse", "[files]") {
  const ScratchFolder folder;
  write_npy(folder / "a.npy", std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3});
  expect_polite(bytes_of(text_of(folder / "a.npy")),
                [](std::span<const std::byte> bytes) { parse_npy(bytes); });
}

TEST_CASE("gzip: what is compressed is decompressed, within its limit", "[files]") {
  std::vector<std::byte> bytes(200'000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * i % 251);
  const std::vector<std::byte> packed = gzip(bytes);
  CHECK(is_gzip(packed));
  CHECK_FALSE(is_gzip(bytes));
  CHECK(gunzip(packed, bytes.size()) == bytes);
  CHECK(gunzip(packed, 1 << 30) == bytes);
  CHECK(contains(message_of<FormatError>([&] { gunzip(packed, bytes.size() - 1); }),
                 "holds more than"));
  CHECK(gunzip_prefix(packed, 10) == std::vector<std::byte>(bytes.begin(), bytes.begin() + 10));
  CHECK(gunzip(gzip({}), 10).empty());
  std::vector<std::byte> twice = packed;
  twice.insert(twice.end(), packed.begin(), packed.end());
  CHECK(gunzip(twice, 1 << 30).size() == 2 * bytes.size());
  // A file that unpacks a thousandfold is stopped at the limit.
  const std::vector<std::byte> bomb = gzip(std::vector<std::byte>(50'000'000));
  CHECK(bomb.size() < 100'000);
  CHECK_THROWS_AS(gunzip(bomb, 1'000'000), FormatError);
}

TEST_CASE("gzip: zeros behind a member are padding, anything else is named", "[files]") {
  const Bytes content = bytes_of("some bytes, some bytes, some bytes"), packed = gzip(content);
  Bytes bytes = packed;
  bytes.resize(bytes.size() + 700);
  CHECK(gunzip(bytes, 1000) == content);
  append(bytes, packed);
  CHECK(gunzip(bytes, 1000).size() == 2 * content.size());
  append_text(bytes, "no");
  CHECK(contains(message_of<FormatError>([&] { gunzip(bytes, 1000); }), "2 bytes behind its end"));
  CHECK(contains(message_of<FormatError>([&] {
                   gunzip(GzipMember{.content = content, .wrong_checksum = 1}.bytes(), 1000);
                 }),
                 "CRC-32"));
  CHECK(contains(message_of<FormatError>([&] {
                   gunzip(GzipMember{.content = content, .wrong_size = 1}.bytes(), 1000);
                 }),
                 "ISIZE"));
}

TEST_CASE("deflate without a header holds exactly what is stated", "[files]") {
  const Bytes content = bytes_of("some bytes, some bytes, some bytes");
  Bytes packed = deflated(content);
  CHECK(inflate_raw(packed, content.size(), "it") == content);
  CHECK(contains(message_of<FormatError>([&] { inflate_raw(packed, content.size() - 1, "it"); }),
                 "more than the 33 bytes"));
  CHECK(contains(message_of<FormatError>([&] { inflate_raw(packed, content.size() + 1, "it"); }),
                 "holds 34 bytes, not the 35"));
  packed.push_back(std::byte{0});
  CHECK(contains(message_of<FormatError>([&] { inflate_raw(packed, content.size(), "it"); }),
                 "1 bytes lie behind"));
  packed.resize(packed.size() - 3);
  CHECK(contains(message_of<FormatError>([&] { inflate_raw(packed, content.size(), "it"); }),
                 "ends early"));
}

TEST_CASE("zip: members are found and unpacked, and damage is refused", "[files]") {
  const Bytes content = bytes_of("some bytes, some bytes, some bytes");
  const ZipPlan plan{.members = {{.name = "a", .content = content},
                                 {.name = "folder/", .content = {}},
                                 {.name = "folder/b", .content = content, .deflate = true}}};
  const Bytes bytes = plan.bytes();
  const ZipArchive archive(bytes);
  REQUIRE(archive.members().size() == 2);
  CHECK(archive.members()[1].name == "folder/b");
  for (const ZipMember& member : archive.members()) {
    CHECK(archive.unpack(member) == content);
    CHECK(archive.prefix(member, 4) == bytes_of("some"));
  }
  CHECK(archive.in_place(archive.members()[0]).data() == archive.members()[0].packed.data());
  CHECK_THROWS_AS(archive.in_place(archive.members()[1]), Error);
  expect_polite(bytes, [](std::span<const std::byte> file) {
    const ZipArchive zip(file);
    if (zip.members().size() != 2) throw FormatError("members are lost");
    for (const ZipMember& member : zip.members()) zip.unpack(member);
  });
}

TEST_CASE("IDX: images are read, plain and compressed", "[files]") {
  const std::vector<std::byte> plain = idx_of(5);
  for (const std::vector<std::byte>& bytes : {plain, gzip(plain)}) {
    const FileArray array = parse_idx(bytes);
    CHECK(array.type == TensorType{{5, 2, 3}, DType::u8});
    const std::vector<std::uint8_t> values = array.values<std::uint8_t>();
    REQUIRE(values.size() == 30);
    CHECK(values[29] == 29);
  }
}

TEST_CASE("IDX: every wrong header is refused, with the reason", "[files]") {
  const auto why = [](std::vector<int> header, std::size_t data) {
    std::vector<std::byte> bytes;
    for (const int value : header) bytes.push_back(static_cast<std::byte>(value));
    bytes.resize(bytes.size() + data);
    const std::string plain = message_of<FormatError>([&] { parse_idx(bytes); }),
                      packed = message_of<FormatError>([&] { parse_idx(gzip(bytes)); });
    CHECK(plain.empty() == packed.empty());
    return plain;
  };
  CHECK(why({0, 0, 8, 1, 0, 0, 0, 3}, 3).empty());
  CHECK(contains(why({0, 0, 8}, 0), "magic"));
  CHECK(contains(why({1, 0, 8, 1, 0, 0, 0, 3}, 3), "two zero bytes"));
  CHECK(why({0, 0, 13, 1, 0, 0, 0, 3}, 12).empty());
  CHECK(contains(why({0, 0, 10, 1, 0, 0, 0, 3}, 12), "element type 10"));
  CHECK(contains(why({0, 0, 8, 0}, 1), "0 axes"));
  CHECK(contains(why({0, 0, 8, 200, 0, 0, 0, 3}, 3), "200 axes"));
  CHECK(contains(why({0, 0, 8, 3, 0, 0, 0, 3}, 3), "inside its header"));
  CHECK(contains(why({0, 0, 8, 1, 0, 0, 0, 4}, 3), "claims [4]"));
  CHECK(contains(why({0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}, 3),
                 "absurd"));
  CHECK(contains(why({0, 0, 8, 1, 127, 255, 255, 255}, 3), "claims"));
  CHECK_FALSE(why({0, 0, 8, 1, 0, 0, 0, 2}, 3).empty());
}

TEST_CASE("IDX: damaged files are read or refused, never worse", "[files]") {
  const auto parse = [](std::span<const std::byte> bytes) { parse_idx(bytes); };
  expect_polite(idx_of(5), parse);
  expect_polite(gzip(idx_of(5)), parse);
}
