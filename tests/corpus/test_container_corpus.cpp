// Arrays and weights in the containers of other programs: .npy, .npz, IDX, gzip, safetensors, and
// what is none of them. Each file is made here byte by byte; what it holds is computed here, too,
// or the words that must be in the refusal are said.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/platform/file.h"
#include "models/data/data_set.h"
#include "models/data/random.h"
#include "models/files/safetensors.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/containers.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// What a data set must hold, in the order of its file.
struct ArrayHolds {
  Shape sample;
  std::vector<float> values;
  std::vector<std::int32_t> labels = {};  // empty: no classes
};

struct ContainerCorpus {
  ScratchFolder folder;
  int files = 0;

  void reads(const std::string& name, const Bytes& bytes, const ArrayHolds& expected) {
    ++files;
    INFO(name);
    const std::filesystem::path path = folder / name;
    replace_file(path, bytes);
    std::unique_ptr<DataSet> set;
    const std::string refusal = message_of([&] { set = make_data_set(path.string()); });
    INFO(refusal);
    CHECK(set != nullptr);
    if (set == nullptr) return;
    CHECK(set->sample_shape() == expected.sample);
    const auto elements = static_cast<std::size_t>(expected.sample.elements());
    const std::size_t count = expected.values.size() / elements;
    CHECK(set->size() == static_cast<std::int64_t>(count));
    if (set->sample_shape() != expected.sample || set->size() != static_cast<std::int64_t>(count))
      return;
    CHECK((set->classes() > 0) == !expected.labels.empty());
    std::vector<float> values(expected.values.size());
    std::vector<std::int32_t> labels(count);
    for (std::size_t i = 0; i < count; ++i) {
      const HostBatch one = set->batch(1, 0, i);
      const std::size_t row = permuted(i, count, 0, 0);
      std::copy(one.x.begin(), one.x.end(),
                values.begin() + static_cast<std::ptrdiff_t>(row * elements));
      labels[row] = one.labels[0];
    }
    CHECK(values == expected.values);
    if (!expected.labels.empty()) CHECK(labels == expected.labels);
  }

  void refuses(const std::string& name, const Bytes& bytes, const std::vector<std::string>& words) {
    ++files;
    const std::filesystem::path path = folder / name;
    replace_file(path, bytes);
    const std::string message = message_of([&] { make_data_set(path.string()); });
    INFO(name << ": " << message);
    CHECK(contains(message, name));
    CHECK(message.find('\n') == message.npos);
    for (const std::string& word : words) {
      INFO("lacks: " << word);
      CHECK(contains(message, word));
    }
  }
};

// 60 levels, of three images of 4 x 5, that fit i8.
std::vector<int> usual_levels() {
  std::vector<int> result;
  for (int i = 0; i < 60; ++i) result.push_back((7 * i + 3) % 128);
  return result;
}
const Shape usual_shape{4, 5, 1};

float scaled_level(int level) { return static_cast<float>(level) / 127.5f - 1.0f; }
std::vector<float> scaled_level(const std::vector<int>& levels) {
  std::vector<float> result;
  for (const int level : levels) result.push_back(scaled_level(level));
  return result;
}

// Index of element i, as stored with the first axis fastest, of a row-major [3, 4, 5].
std::size_t column_major_place(std::size_t i) { return i % 3 * 20 + i / 3 % 4 * 5 + i / 12; }

void append_number(Bytes& to, std::uint64_t bits, int bytes, bool big_endian) {
  if (big_endian) {
    append_big(to, bits, bytes);
  } else {
    append_little(to, bits, bytes);
  }
}

// A number of at most 9 bits over a power of two as IEEE 754's 16 bits.
std::uint64_t half_bits(double value) {
  if (value == 0) return 0;
  int exponent = 0;
  const double fraction = std::frexp(std::abs(value), &exponent);  // in [0.5, 1)
  const auto mantissa = static_cast<std::uint64_t>(std::ldexp(fraction, 11)) - 1024;
  return (value < 0 ? 0x8000u : 0) | static_cast<std::uint64_t>(exponent + 14) << 10 | mantissa;
}

std::uint64_t bits_of_float(double value, int bytes) {
  if (bytes == 2) return half_bits(value);
  std::uint64_t bits = 0;
  if (bytes == 4) {
    const auto single = static_cast<float>(value);
    std::memcpy(&bits, &single, 4);
  } else {
    std::memcpy(&bits, &value, 8);
  }
  return bits;
}

Bytes u8_data(const std::vector<int>& values) {
  Bytes data;
  for (const int value : values) append_little(data, static_cast<std::uint64_t>(value), 1);
  return data;
}

Bytes usual_npy() { return npy_file("'|u1'", false, "(3, 4, 5)", u8_data(usual_levels())); }
Bytes labels_npy(const std::string& shape = "(3,)") {
  Bytes data;
  for (const int label : {2, 0, 1}) append_little(data, static_cast<std::uint64_t>(label), 8);
  return npy_file("'<i8'", false, shape, data);
}
const std::vector<std::int32_t> usual_labels = {2, 0, 1};

ZipPlan npz(const std::vector<std::pair<std::string, Bytes>>& arrays, bool deflate = false) {
  ZipPlan plan;
  for (const auto& [name, content] : arrays)
    plan.members.push_back({.name = name + ".npy", .content = content, .deflate = deflate});
  return plan;
}

void npy_types(ContainerCorpus& corpus) {
  const std::vector<int> values = usual_levels();
  struct Type {
    char kind;
    int bytes;
  };
  for (const Type type :
       {Type{'i', 1}, Type{'i', 2}, Type{'i', 4}, Type{'i', 8}, Type{'u', 1}, Type{'u', 2},
        Type{'u', 4}, Type{'u', 8}, Type{'f', 2}, Type{'f', 4}, Type{'f', 8}, Type{'b', 1}})
    for (const bool big : {false, true})
      for (const bool column_major : {false, true}) {
        std::vector<float> expected(values.size());
        Bytes data;
        for (std::size_t i = 0; i < values.size(); ++i) {
          const std::size_t place = column_major ? column_major_place(i) : i;
          const int level = values[place];
          if (type.kind == 'f') {
            const double value = level / 64.0 - 1;
            append_number(data, bits_of_float(value, type.bytes), type.bytes, big);
            expected[place] = static_cast<float>(value);
          } else if (type.kind == 'b') {
            append_little(data, level % 2 == 0 ? 1 : 0, 1);
            expected[place] = level % 2 == 0 ? 1.0f : -1.0f;
          } else {
            append_number(data, static_cast<std::uint64_t>(level), type.bytes, big);
            expected[place] = scaled_level(level);
          }
        }
        const std::string order = type.bytes == 1 ? "|" : big ? ">" : "<";
        const std::string descr = order + type.kind + std::to_string(type.bytes);
        if (type.bytes == 1 && big) continue;
        corpus.reads(std::string(big ? "big-" : "little-") + type.kind +
                         std::to_string(type.bytes) + (column_major ? "-fortran.npy" : ".npy"),
                     npy_file("'" + descr + "'", column_major, "(3, 4, 5)", data),
                     {usual_shape, expected});
      }
}

void npy_headers(ContainerCorpus& corpus) {
  const Bytes data = u8_data(usual_levels());
  const ArrayHolds usual{usual_shape, scaled_level(usual_levels())};
  for (const int version : {1, 2, 3})
    corpus.reads("version-" + std::to_string(version) + ".npy",
                 npy_file("'|u1'", false, "(3, 4, 5)", data, version), usual);
  corpus.reads("python-2.npy", npy_file("'|u1'", false, "(3L, 4L, 5L)", data), usual);
  corpus.reads("c-order-sign.npy", npy_file("'<u1'", false, "(3, 4, 5)", data), usual);
  corpus.reads("no-order-sign.npy", npy_file("'u1'", false, "(3, 4, 5)", data), usual);
  corpus.reads("long-name.npy", npy_file("\"uint8\"", false, "(3,4,5,)", data), usual);
  corpus.reads("other-order-of-keys.npy",
               npy_file("{\"shape\":(3,4,5),\"fortran_order\":False,\"descr\":\"|u1\"}", data),
               usual);
  corpus.reads("unicode-keys.npy",
               npy_file("{u'descr': '|u1', u'shape': (3, 4, 5), u'fortran_order': False}", data, 3),
               usual);
  corpus.reads("UPPER.NPY", usual_npy(), usual);
  corpus.reads("any-name.dat", usual_npy(), usual);
  corpus.reads("packed.npy.gz", GzipMember{.content = usual_npy()}.bytes(), usual);
  std::vector<float> points;
  Bytes floats;
  for (int i = 0; i < 12; ++i) {
    points.push_back(static_cast<float>(i) - 5.5f);
    append_little(floats, bits_of_float(i - 5.5, 4), 4);
  }
  corpus.reads("points.npy", npy_file("'<f4'", false, "(4, 3)", floats), {{3}, points});
  corpus.reads("rgb.npy", npy_file("'|u1'", false, "(1, 4, 5, 3)", data),
               {{4, 5, 3}, scaled_level(usual_levels())});

  const auto refuses = [&](const std::string& name, const Bytes& bytes,
                           const std::vector<std::string>& words) {
    corpus.refuses(name, bytes, words);
  };
  const auto of_type = [&](const std::string& descr) {
    return npy_file(descr, false, "(3, 4, 5)", data);
  };
  refuses("structured.npy", of_type("[('x', '<f4'), ('y', '<f4')]"),
          {"records of several fields (x, y)", "structured_to_unstructured"});
  refuses("nested.npy", of_type("[(('title', 'name'), '<f4'), ('y', [('z', '<i4')])]"),
          {"records of several fields"});
  refuses("subarray.npy", of_type("('<f4', (2,))"), {"arrays themselves"});
  refuses("object.npy", of_type("'|O'"), {"Python objects", "pickle"});
  refuses("complex.npy", of_type("'<c8'"), {"complex", "np.stack"});
  refuses("text.npy", of_type("'<U5'"), {"text", "np.unique"});
  refuses("bytes.npy", of_type("'|S5'"), {"text"});
  refuses("dates.npy", of_type("'<M8[ns]'"), {"dates"});
  refuses("void.npy", of_type("'|V2'"), {"bfloat16", "astype(np.float32)"});
  refuses("long-double.npy", of_type("'<f16'"), {"long double", "float64"});
  refuses("version-9.npy", npy_file("'|u1'", false, "(3, 4, 5)", data, 9), {"version is 9.0"});
  refuses("scalar.npy", npy_file("'|u1'", false, "()", u8_data({1})), {"[count, dimensions]"});
  refuses("vector.npy", npy_file("'|u1'", false, "(60,)", data), {"[count, dimensions]"});
  refuses("empty-axis.npy", npy_file("'|u1'", false, "(3, 0, 5)", {}), {"empty array"});
  refuses("channels-first.npy", npy_file("'|u1'", false, "(1, 3, 4, 5)", data),
          {"transpose(0, 2, 3, 1)"});
  refuses("one-picture.npy", npy_file("'|u1'", false, "(8, 9, 3)", Bytes(216)),
          {"one picture", "array[None]"});
  refuses("integer-points.npy", npy_file("'<i2'", false, "(15, 2)", data), {"astype"});
  refuses("beyond-255.npy", npy_file("'<u2'", false, "(1, 1, 2)", bytes_of("\x01\x01\x02\x02")),
          {"from 257 to 514", "0 to 255"});
  refuses("no-boolean.npy", npy_file("'|b1'", false, "(1, 1, 2)", u8_data({1, 2})),
          {"element 1", "not a boolean"});
  refuses("beyond-i64.npy", npy_file("'<u8'", false, "(1, 1, 1)", Bytes(8, std::byte{255})),
          {"18446744073709551615"});
  Bytes bytes = usual_npy();
  bytes.push_back(std::byte{0});
  refuses("trailing.npy", bytes, {"needs 60 bytes, it holds 61", "several arrays"});
  bytes.resize(bytes.size() - 2);
  refuses("truncated.npy", bytes, {"needs 60 bytes, it holds 59", "ends early"});
  bytes.resize(20);
  refuses("in-its-header.npy", bytes, {"ends inside its header"});
}

void npz_files(ContainerCorpus& corpus) {
  const Bytes images = usual_npy(), labels = labels_npy();
  const ArrayHolds plain{usual_shape, scaled_level(usual_levels())},
      labelled{usual_shape, scaled_level(usual_levels()), usual_labels};
  for (const bool deflate : {false, true}) {
    const std::string kind = deflate ? "deflated-" : "stored-";
    corpus.reads(kind + "pair.npz", npz({{"images", images}, {"labels", labels}}, deflate).bytes(),
                 labelled);
    corpus.reads(kind + "single.npz", npz({{"images", images}}, deflate).bytes(), plain);
    corpus.reads(
        kind + "keras.npz",
        npz({{"x_train", images}, {"y_train", labels}, {"x_test", images}, {"y_test", labels}},
            deflate)
            .bytes(),
        labelled);
    corpus.reads(kind + "unnamed.npz", npz({{"arr_0", images}, {"arr_1", labels}}, deflate).bytes(),
                 labelled);
  }
  corpus.reads("arr_0.npz", npz({{"arr_0", images}}).bytes(), plain);
  corpus.reads("other-name.NPZ", npz({{"digits", images}}).bytes(), plain);
  corpus.reads("no-ending", npz({{"X", images}, {"Y", labels_npy("(3, 1)")}}).bytes(), labelled);
  corpus.reads("medmnist.npz",
               npz({{"train_images", images},
                    {"train_labels", labels_npy("(3, 1)")},
                    {"val_images", images},
                    {"val_labels", labels},
                    {"test_images", images},
                    {"test_labels", labels}})
                   .bytes(),
               labelled);
  corpus.reads("besides.npz",
               npz({{"data", images},
                    {"labels", labels},
                    {"label_names", npy_file("'<U3'", false, "(1,)", Bytes(12))},
                    {"mean", npy_file("'<f4'", false, "()", Bytes(4))}})
                   .bytes(),
               labelled);
  ZipPlan plan = npz({{"images", images}, {"labels", labels}}, true);
  for (ZipMemberPlan& member : plan.members) member.descriptor = true;
  corpus.reads("descriptors.npz", plan.bytes(), labelled);
  for (ZipMemberPlan& member : plan.members) member.descriptor = false, member.zip64 = true;
  plan.zip64 = true;
  plan.comment = "ZIP64, and a comment";
  corpus.reads("zip64.npz", plan.bytes(), labelled);
  plan = npz({{"pack/images", images}, {"pack/labels", labels}});
  plan.members.push_back({.name = "pack/", .content = {}});
  plan.members.push_back({.name = "__MACOSX/pack/._images.npy", .content = Bytes(7)});
  plan.members.push_back({.name = "pack/.DS_Store", .content = Bytes(9)});
  corpus.reads("from-a-mac.npz", plan.bytes(), labelled);

  const auto refuses = [&](const std::string& name, const ZipPlan& bad,
                           const std::vector<std::string>& words) {
    corpus.refuses(name, bad.bytes(), words);
  };
  const ZipPlan good = npz({{"images", images}, {"labels", labels}}, true);
  refuses("two-sets.npz", npz({{"images", images}, {"x", images}}), {"both images and x"});
  refuses("nothing-said.npz", npz({{"a", images}, {"b", images}}),
          {"nothing says", "a u8[3, 4, 5]", "numpy.savez"});
  refuses("unnamed-images.npz", npz({{"arr_0", images}, {"arr_1", images}}),
          {"arr_1 holds no labels"});
  refuses("object-labels.npz",
          npz({{"images", images}, {"labels", npy_file("'|O'", false, "(3,)", Bytes(9))}}),
          {"Python objects"});
  refuses("too-few-labels.npz",
          npz({{"images", images}, {"labels", npy_file("'|u1'", false, "(2,)", Bytes(2))}}),
          {"3 samples need labels [3], got [2]"});
  refuses("one-hot.npz",
          npz({{"images", images}, {"labels", npy_file("'|u1'", false, "(3, 4)", Bytes(12))}}),
          {"labels.argmax(1)"});
  refuses("only-tests.npz", npz({{"x_test", images}}), {"no part to train on"});
  ZipPlan bad = good;
  bad.members[0].wrong_local_size = 1;
  refuses("sizes-differ.npz", bad, {"disagree"});
  bad = good;
  bad.members[0].wrong_size = 1;
  refuses("size-lies.npz", bad, {"images", "it holds 61"});
  bad = good;
  bad.members[0].wrong_size = std::uint64_t{1} << 31;
  bad.members[0].descriptor = true;
  refuses("bomb.npz", bad, {"can't hold"});
  bad = good;
  bad.members[0].wrong_checksum = 1;
  refuses("checksum.npz", bad, {"CRC-32"});
  bad = good;
  bad.members[0].encrypted = true;
  refuses("encrypted.npz", bad, {"encrypted"});
  bad = good;
  bad.members[0].method = 12;
  refuses("bzip2.npz", bad, {"bzip2"});
  bad = good;
  bad.members[0].local_name = "imagez.npy";
  refuses("names-differ.npz", bad, {"disagree"});
  bad = good;
  bad.members[1] = bad.members[0];
  refuses("same-name.npz", bad, {"two members"});
  bad.overlap = true;
  refuses("overlap.npz", bad, {"overlap"});
  bad = good;
  bad.wrong_members = 60000;
  refuses("members-lie.npz", bad, {"60002 members"});
  bad = good;
  bad.wrong_start = 1;
  refuses("directory-lies.npz", bad, {"directory"});
  Bytes cut = good.bytes();
  cut.resize(cut.size() - 30);
  corpus.refuses("truncated.npz", cut, {"ends early"});
  corpus.refuses("empty.zip", ZipPlan{}.bytes(), {"zip archive"});
}

void idx_files(ContainerCorpus& corpus) {
  const std::vector<int> values = usual_levels();
  struct Type {
    int code, bytes;
    bool floating;
  };
  for (const Type type : {Type{8, 1, false}, Type{9, 1, false}, Type{11, 2, false},
                          Type{12, 4, false}, Type{13, 4, true}, Type{14, 8, true}}) {
    Bytes data;
    std::vector<float> expected;
    for (const int level : values) {
      const double value = level / 64.0 - 1;
      append_big(
          data,
          type.floating ? bits_of_float(value, type.bytes) : static_cast<std::uint64_t>(level),
          type.bytes);
      expected.push_back(type.floating ? static_cast<float>(value) : scaled_level(level));
    }
    const std::string name = "type-" + std::to_string(type.code);
    const Bytes file = idx_file(type.code, {3, 4, 5}, data);
    corpus.reads(name, file, {usual_shape, expected});
    corpus.reads(name + ".gz", GzipMember{.content = file}.bytes(), {usual_shape, expected});
  }
  const Bytes data = u8_data(values);
  corpus.reads("rgb-idx4-ubyte", idx_file(8, {1, 4, 5, 3}, data),
               {{4, 5, 3}, scaled_level(values)});
  corpus.refuses("trailing-idx3-ubyte", idx_file(8, {3, 4, 4}, data), {"48 bytes", "has 60"});
  corpus.refuses("truncated-idx3-ubyte", idx_file(8, {4, 4, 5}, data), {"80 bytes", "has 60"});
  corpus.refuses("labels-idx1-ubyte", idx_file(8, {60}, data), {"[60]", "labels?"});
  corpus.refuses("absurd-idx3-ubyte", idx_file(8, {~0u, ~0u, ~0u}, data), {"absurd"});
  corpus.refuses("five-axes", idx_file(8, {1, 1, 3, 4, 5}, data), {"5 axes"});
  Bytes other = idx_file(10, {3, 4, 5}, data);
  corpus.refuses("type-10", other, {"none of the files that are read"});
}

void gzip_framings(ContainerCorpus& corpus) {
  const Bytes file = idx_file(8, {3, 4, 5}, u8_data(usual_levels()));
  const ArrayHolds usual{usual_shape, scaled_level(usual_levels())};
  const Bytes member = GzipMember{.content = file}.bytes();
  const auto padded = [&](std::size_t zeros) {
    Bytes bytes = member;
    bytes.resize(bytes.size() + zeros);
    return bytes;
  };
  for (const std::size_t zeros : {1u, 2u, 511u, 100'000u})
    corpus.reads("padded-" + std::to_string(zeros) + ".gz", padded(zeros), usual);
  const auto half = static_cast<std::ptrdiff_t>(file.size() / 2);
  const Bytes first = GzipMember{.content = {file.begin(), file.begin() + half}}.bytes(),
              second = GzipMember{.content = {file.begin() + half, file.end()}}.bytes();
  for (const std::size_t zeros : {0u, 1u, 512u}) {
    Bytes both = first;
    both.resize(both.size() + zeros);
    append(both, second);
    corpus.reads("two-members-" + std::to_string(zeros) + ".gz", both, usual);
    append(both, GzipMember{}.bytes());
    both.resize(both.size() + 3);
    corpus.reads("and-an-empty-one-" + std::to_string(zeros) + ".gz", both, usual);
  }
  corpus.reads("text.gz", GzipMember{.content = file, .text = true}.bytes(), usual);
  corpus.reads("extra.gz", GzipMember{.content = file, .extra = true}.bytes(), usual);
  corpus.reads("name.gz", GzipMember{.content = file, .name = true}.bytes(), usual);
  corpus.reads("comment.gz", GzipMember{.content = file, .comment = true}.bytes(), usual);
  corpus.reads("header-checksum.gz", GzipMember{.content = file, .header_checksum = true}.bytes(),
               usual);
  corpus.reads("all-fields.gz",
               GzipMember{.content = file,
                          .text = true,
                          .extra = true,
                          .name = true,
                          .comment = true,
                          .header_checksum = true}
                   .bytes(),
               usual);

  corpus.refuses("checksum.gz", GzipMember{.content = file, .wrong_checksum = 1}.bytes(),
                 {"CRC-32"});
  corpus.refuses("size.gz", GzipMember{.content = file, .wrong_size = 1}.bytes(), {"ISIZE"});
  corpus.refuses("header.gz",
                 GzipMember{.content = file, .header_checksum = true, .wrong_header = 1}.bytes(),
                 {"header"});
  corpus.refuses("reserved.gz", GzipMember{.content = file, .reserved = 0x80}.bytes(), {"flags"});
  corpus.refuses("method.gz", GzipMember{.content = file, .method = 7}.bytes(),
                 {"other than deflate"});
  Bytes bytes = member;
  append_text(bytes, "garbage");
  corpus.refuses("garbage.gz", bytes, {"7 bytes behind its end"});
  bytes = padded(3);
  append_text(bytes, "garbage");
  corpus.refuses("garbage-behind-zeros.gz", bytes, {"7 bytes behind its end"});
  for (const std::size_t cut : {1u, 4u, 8u, 9u, 20u}) {
    bytes = member;
    bytes.resize(bytes.size() - cut);
    corpus.refuses("cut-" + std::to_string(cut) + ".gz", bytes, {"ends early"});
  }
  bytes = first;
  append(bytes, second);
  bytes.resize(bytes.size() - 2);
  corpus.refuses("second-cut.gz", bytes, {"ends early"});
  bytes = member;
  bytes[14] ^= std::byte{0xff};
  corpus.refuses("damaged.gz", bytes, {"decompressing"});
  const Bytes picture = bytes_of("\x89PNG\r\n\x1a\n and so on");
  corpus.refuses("picture.png.gz", GzipMember{.content = picture}.bytes(),
                 {"PNG picture, compressed with gzip", "gunzip"});
}

void foreign_files(ContainerCorpus& corpus) {
  using namespace std::string_literals;
  const std::string zeros(600, '\0');
  const auto refuses = [&](const std::string& name, const std::string& text,
                           const std::vector<std::string>& words) {
    corpus.refuses(name, bytes_of(text), words);
  };
  refuses("cat.png", "\x89PNG\r\n\x1a\n"s + zeros, {"PNG picture", "folder of pictures"});
  refuses("cat.npy", "\xff\xd8\xff\xe0"s + zeros, {"JPEG picture", "folder of pictures"});
  refuses("cat.gif", "GIF89a"s + zeros, {"GIF picture", "convert"});
  refuses("cat.webp", "RIFF\1\2\0\0WEBPVP8 "s + zeros, {"WebP picture"});
  refuses("cat.tif", "II*\0"s + zeros, {"TIFF picture"});
  refuses("table.csv", "x,y\n1,2\n", {"text file", "numpy.loadtxt"});
  refuses("table-with-mark.csv", "\xef\xbb\xbfx,y\r\n1,2\r\n", {"text file", "numpy.loadtxt"});
  refuses("data.json", "{\"x\": [1, 2]}", {"JSON"});
  refuses("page.npy", "\n<!DOCTYPE html><html>", {"web page", "download"});
  refuses("pointer.npy", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
          {"Git LFS pointer", "git lfs pull"});
  refuses("data.pkl", "\x80\x04\x95"s + zeros, {"pickle", "run code"});
  refuses("old.pt", "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."s + zeros,
          {"PyTorch checkpoint", "convert_checkpoint.py"});
  corpus.refuses("new.pt",
                 ZipPlan{.members = {{.name = "model/data.pkl", .content = Bytes(4)},
                                     {.name = "model/data/0", .content = Bytes(4)}}}
                     .bytes(),
                 {"PyTorch checkpoint", "convert_checkpoint.py"});
  corpus.refuses("pictures.zip",
                 ZipPlan{.members = {{.name = "a/1.png", .content = Bytes(4)},
                                     {.name = "b/2.JPG", .content = Bytes(4)}}}
                     .bytes(),
                 {"zip archive of 2 pictures", "unpack"});
  corpus.refuses("table.xlsx",
                 ZipPlan{.members = {{.name = "[Content_Types].xml", .content = Bytes(4)}}}.bytes(),
                 {"office document"});
  refuses("data.h5", "\x89HDF\r\n\x1a\n"s + zeros, {"HDF5", "h5py"});
  refuses("data.mat", "MATLAB 5.0 MAT-file, Platform"s + zeros, {"MATLAB", "loadmat"});
  refuses("new.mat", "MATLAB 7.3 MAT-file, Platform"s + zeros, {"MATLAB", "h5py"});
  refuses("old.mat", zeros, {"MATLAB"});
  refuses("data.parquet", "PAR1\x15\x04"s + zeros, {"Parquet"});
  refuses("data.arrow", "ARROW1\0\0"s + zeros, {"Arrow"});
  // Of a record of 5 bytes; the checksum is what TensorFlow writes.
  refuses("data.tfrecord",
          "\x05\0\0\0\0\0\0\0\xea\xb2\x04\x3e"s
          "hello\0\0\0\0"s,
          {"TFRecord"});
  refuses("data.tar", "images/"s + std::string(250, '\0') + "ustar\0"s + zeros, {"tar archive"});
  corpus.refuses(
      "data.tar.gz",
      GzipMember{.content = bytes_of("images/"s + std::string(250, '\0') + "ustar\0"s + zeros)}
          .bytes(),
      {"tar archive, compressed with gzip"});
  refuses("data.npy.xz",
          "\xfd"s
          "7zXZ\0"s +
              zeros,
          {"xz", "unpack"});
  refuses("data.npy.zst", "\x28\xb5\x2f\xfd"s + zeros, {"Zstandard"});
  refuses("data.npy.bz2", "BZh9\1AY&SY"s + zeros, {"bzip2"});
  refuses("weights.safetensors", "\x02\0\0\0\0\0\0\0{}"s, {"safetensors", "fluxion import"});
  refuses("nothing.npy", "", {"empty file"});
  refuses("noise.npy", "\x01\x02\x03\x04\x05\x06\x07\x80\x81", {"none of the files that are read"});
  refuses("data_batch_1.bin", std::string(3073, '\1'), {"CIFAR", "folder"});
}

}  // namespace

TEST_CASE("corpus: arrays in every container are read right, or refused with the real reason",
          "[corpus]") {
  ContainerCorpus corpus;
  SECTION(".npy elements of every type, byte order and order of axes") {
    npy_types(corpus);
    CHECK(corpus.files == 42);
  }
  SECTION(".npy headers") { npy_headers(corpus); }
  SECTION(".npz archives") { npz_files(corpus); }
  SECTION("IDX files") { idx_files(corpus); }
  SECTION("gzip framings") { gzip_framings(corpus); }
  SECTION("what is something else") { foreign_files(corpus); }
}

namespace {

struct WeightType {
  std::string name;
  int bits;
  bool ours, floating;
};
const std::vector<WeightType>& weight_types() {
  static const std::vector<WeightType> types = {
      {"BOOL", 8, true, false},       {"U8", 8, true, false},       {"I8", 8, false, false},
      {"I16", 16, false, false},      {"U16", 16, false, false},    {"I32", 32, true, false},
      {"U32", 32, true, false},       {"I64", 64, true, false},     {"U64", 64, false, false},
      {"F16", 16, true, true},        {"BF16", 16, true, true},     {"F32", 32, true, true},
      {"F64", 64, true, true},        {"C64", 64, false, false},    {"F4", 4, false, false},
      {"F6_E2M3", 6, false, false},   {"F6_E3M2", 6, false, false}, {"F8_E4M3", 8, false, true},
      {"F8_E5M2", 8, false, true},    {"F8_E8M0", 8, false, true},  {"F8_E4M3FNUZ", 8, false, true},
      {"F8_E5M2FNUZ", 8, false, true}};
  return types;
}

// A file of f32 weights w [2, 3] and a tensor of another type.
Bytes weights_and(const std::string& type, const std::string& shape, const Bytes& extra,
                  const std::string& more = "") {
  const std::string header =
      "{" + more + "\"extra\":{\"dtype\":\"" + type + "\",\"shape\":" + shape +
      ",\"data_offsets\":[0," + std::to_string(extra.size()) +
      "]},\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[" +
      std::to_string(extra.size()) + "," + std::to_string(extra.size() + 24) + "]}}";
  Bytes file;
  append_little(file, header.size(), 8);
  append_text(file, header);
  append(file, extra);
  for (int i = 0; i < 6; ++i) append_little(file, bits_of_float(i + 0.5, 4), 4);
  return file;
}

// The value of a byte as (sign) 2^exponent (1 + mantissa), the smallest exponent without the 1.
double small_float(unsigned byte, int mantissa_bits, int bias) {
  const double steps = 1 << mantissa_bits;
  const unsigned exponent = (byte & 0x7f) >> mantissa_bits;
  const double mantissa = (byte & ((1u << mantissa_bits) - 1)) / steps;
  const double size = exponent == 0
                          ? mantissa * std::pow(2.0, 1 - bias)
                          : (1 + mantissa) * std::pow(2.0, static_cast<int>(exponent) - bias);
  return byte >= 128 ? -size : size;
}

bool same_double(double a, double b) {
  return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b);
}

}  // namespace

TEST_CASE("corpus: safetensors of every type are listed beside the weights", "[corpus]") {
  for (const WeightType& type : weight_types()) {
    INFO(type.name);
    const Bytes extra(static_cast<std::size_t>(type.bits), std::byte{1});  // eight elements
    const Bytes bytes = weights_and(type.name, "[2,4]", extra);
    const SafetensorsFile file(bytes, "test");
    REQUIRE(file.entries().size() == 2);
    const SafetensorsEntry& entry = *file.find("extra");
    CHECK(entry.dtype.name() == type.name);
    CHECK(entry.shape == Shape{2, 4});
    CHECK(entry.bytes.size() == static_cast<std::size_t>(type.bits));
    CHECK(entry.dtype.dtype().has_value() == type.ours);
    CHECK(entry.dtype.is_floating() == type.floating);
    CHECK(message_of<FormatError>([&] { (void)entry.type(); }).empty() == type.ours);
    CHECK(message_of<FormatError>([&] { to_doubles(entry); }).empty() == type.floating);
    CHECK(to_doubles(*file.find("w")) == std::vector<double>{0.5, 1.5, 2.5, 3.5, 4.5, 5.5});
    CHECK(contains(message_of<FormatError>(
                       [&] { SafetensorsFile(weights_and(type.name, "[2,8]", extra), "test"); }),
                   "hold " + std::to_string(type.bits)));
  }
  CHECK(contains(
      message_of<FormatError>([] { SafetensorsFile(weights_and("F4", "[3]", Bytes(2)), "test"); }),
      "whole number of bytes"));
}

TEST_CASE("corpus: safetensors of a type to come, and without metadata, are read", "[corpus]") {
  const Bytes bytes = weights_and("F3_E1M1", "[8]", Bytes(3), "\"__metadata__\":null,");
  const SafetensorsFile file(bytes, "test");
  CHECK(file.metadata().empty());
  CHECK(to_string(*file.find("extra")) == "F3_E1M1[8]");
  CHECK(contains(message_of<FormatError>([&] { (void)file.find("extra")->type(); }), "F3_E1M1"));
  CHECK(contains(message_of<FormatError>(
                     [] { SafetensorsFile(weights_and("F3_E1M1", "[0]", Bytes(3)), "test"); }),
                 "F3_E1M1"));
  CHECK(contains(message_of<FormatError>([] {
                   SafetensorsFile(weights_and("U8", "[3]", Bytes(3),
                                               "\"__metadata__\":null,\"__metadata__\":{},"),
                                   "test");
                 }),
                 "twice"));
}

TEST_CASE("corpus: floats of eight bits have their values, byte by byte", "[corpus]") {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN(),
                   infinity = std::numeric_limits<double>::infinity();
  Bytes all;
  for (int byte = 0; byte < 256; ++byte) append_little(all, static_cast<std::uint64_t>(byte), 1);
  const auto values_of = [&](const std::string& type) {
    const Bytes bytes = weights_and(type, "[256]", all);
    const SafetensorsFile file(bytes, "test");
    return to_doubles(*file.find("extra"));
  };
  const std::vector<double> e4m3 = values_of("F8_E4M3"), e5m2 = values_of("F8_E5M2"),
                            e8m0 = values_of("F8_E8M0"), e4m3fnuz = values_of("F8_E4M3FNUZ"),
                            e5m2fnuz = values_of("F8_E5M2FNUZ");
  for (unsigned byte = 0; byte < 256; ++byte) {
    INFO(byte);
    const unsigned size = byte & 0x7f;
    CHECK(same_double(e4m3[byte], size == 0x7f ? nan : small_float(byte, 3, 7)));
    CHECK(same_double(e5m2[byte], size > 0x7c    ? nan
                                  : size == 0x7c ? (byte < 128 ? infinity : -infinity)
                                                 : small_float(byte, 2, 15)));
    CHECK(same_double(e8m0[byte], byte == 255 ? nan : std::pow(2.0, static_cast<int>(byte) - 127)));
    CHECK(same_double(e4m3fnuz[byte], byte == 0x80 ? nan : small_float(byte, 3, 8)));
    CHECK(same_double(e5m2fnuz[byte], byte == 0x80 ? nan : small_float(byte, 2, 16)));
  }
  // The largest that the papers state.
  CHECK(e4m3[0x7e] == 448);
  CHECK(e5m2[0x7b] == 57344);
  CHECK(e4m3fnuz[0x7f] == 240);
  CHECK(e5m2fnuz[0x7f] == 57344);
}
