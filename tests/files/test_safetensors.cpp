#include <cstring>
#include <random>

#include "backends/reference/reference.h"
#include "engine/error.h"
#include "engine/graph/ops.h"
#include "models/files/safetensors.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/failing_new.h"
#include "tests/files/mutate.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// A file of this header and that many bytes of data.
std::vector<std::byte> file_of(const std::string& header, std::size_t data,
                               std::uint64_t claimed_length) {
  std::vector<std::byte> bytes(8);
  std::memcpy(bytes.data(), &claimed_length, 8);
  for (const std::byte byte : bytes_of(header)) bytes.push_back(byte);
  bytes.resize(bytes.size() + data);
  return bytes;
}
std::vector<std::byte> file_of(const std::string& header, std::size_t data) {
  return file_of(header, data, header.size());
}

// The FormatError's message; empty if the file is taken.
std::string refusal(const std::vector<std::byte>& bytes) {
  return message_of<FormatError>([&] { SafetensorsFile(bytes, "test"); });
}
std::string refusal(const std::string& header, std::size_t data) {
  return refusal(file_of(header, data));
}

std::vector<std::byte> example_file() {
  const ScratchFolder folder;
  const std::vector<double> f64{1, -2.5, 3};
  const std::vector<float> f32{1, 2, 3, 4, 5, 6};
  const std::vector<std::uint8_t> u8{1, 2, 255};
  const std::vector<std::uint16_t> halves{0x3c00, 0xbc00, 0x7c00};
  const std::vector<std::int64_t> i64{-1, std::int64_t{1} << 40};
  const std::vector<std::int32_t> i32{7};
  const std::vector<std::uint32_t> u32{0xffffffffu};
  const std::vector<std::uint8_t> bits{0, 1, 1};
  const auto bytes = [](const auto& values) { return std::as_bytes(std::span(values)); };
  const std::vector<SafetensorsEntry> entries{{"flags", DType::boolean, {3}, bytes(bits)},
                                              {"bytes", DType::u8, {3}, bytes(u8)},
                                              {"half", DType::f16, {3}, bytes(halves)},
                                              {"brain", DType::bf16, {3, 1}, bytes(halves)},
                                              {"w.\"q\"\n\xc3\xa9", DType::f32, {2, 3}, bytes(f32)},
                                              {"scalar", DType::i32, {}, bytes(i32)},
                                              {"key", DType::u32, {1}, bytes(u32)},
                                              {"step", DType::i64, {2}, bytes(i64)},
                                              {"exact", DType::f64, {3}, bytes(f64)},
                                              {"none", DType::f32, {0, 5}, {}}};
  write_safetensors(folder / "example", entries,
                    {{"format", "test"}, {"config", "{\"depth\": 3}"}});
  return bytes_of(text_of(folder / "example"));
}

}  // namespace

TEST_CASE("safetensors: what is written is read, aligned", "[files]") {
  const std::vector<std::byte> bytes = example_file();
  const SafetensorsFile file(bytes);
  CHECK(file.entries().size() == 10);
  CHECK(file.metadata() == Metadata{{"config", "{\"depth\": 3}"}, {"format", "test"}});
  for (const SafetensorsEntry& entry : file.entries()) {
    INFO(entry.name);
    CHECK((entry.bytes.data() - bytes.data()) %
              static_cast<std::ptrdiff_t>(size_of(entry.type().dtype)) ==
          0);
    CHECK(file.find(entry.name) == &entry);
  }
  CHECK(file.find("absent") == nullptr);
  const SafetensorsEntry* const matrix = file.find("w.\"q\"\n\xc3\xa9");
  REQUIRE(matrix != nullptr);
  CHECK(matrix->shape == Shape{2, 3});
  float last = 0;
  std::memcpy(&last, matrix->bytes.data() + 20, 4);
  CHECK(last == 6);
  CHECK(file.find("none")->bytes.empty());
  CHECK(file.find("scalar")->shape.rank() == 0);
}

TEST_CASE("safetensors: the header is padded so that data start at a multiple of 8", "[files]") {
  std::uint64_t length = 0;
  const std::vector<std::byte> bytes = example_file();
  std::memcpy(&length, bytes.data(), 8);
  CHECK(length % 8 == 0);
}

TEST_CASE("safetensors: a file with nothing in it is valid", "[files]") {
  CHECK(refusal("{}", 0).empty());
  CHECK(refusal("{}      ", 0).empty());
  CHECK(refusal(R"({"__metadata__":{}})", 0).empty());
}

TEST_CASE("safetensors: every wrong header is refused, with the reason", "[files]") {
  const auto one = [](const std::string& fields) { return R"({"a":{)" + fields + "}}"; };
  const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  REQUIRE(refusal(one(good), 8).empty());

  CHECK(contains(refusal(std::vector<std::byte>(7)), "7 bytes"));
  CHECK(contains(refusal(file_of("{}", 0, std::uint64_t{1} << 63)), "at most 100 MB"));
  CHECK(contains(refusal(file_of("{}", 0, 100'000'001)), "at most 100 MB"));
  CHECK(contains(refusal(file_of("{}", 0, 99'000'000)), "in a file of"));
  CHECK(contains(refusal("[]", 0), "does not start with '{'"));
  CHECK(contains(refusal(" {}", 0), "does not start with '{'"));
  CHECK(contains(refusal("", 0), "does not start with '{'"));
  CHECK(contains(refusal("{", 0), "not JSON"));
  CHECK(contains(refusal("{} x", 0), "not JSON"));
  CHECK(contains(refusal("{\"\xff\":1}", 0), "not JSON"));
  CHECK(contains(refusal(R"({"a":1})", 0), "a number where a tensor's object belongs"));
  CHECK(contains(refusal(R"({"a":null})", 0), "null"));
  CHECK(contains(refusal(R"({"a":[1]})", 0), "a list"));
  CHECK(contains(refusal(R"({"__metadata__":{"k":1}})", 0), "where a metadata text belongs"));
  CHECK(contains(refusal(R"({"__metadata__":{"k":"a","k":"b"}})", 0), "twice"));
  CHECK(contains(refusal(R"({"__metadata__":{},"__metadata__":{}})", 0), "twice"));
  CHECK(contains(refusal(R"({"__metadata__":{"k":{"l":"m"}}})", 0), "an object"));

  CHECK(contains(refusal(one(""), 8), "missing"));
  CHECK(contains(refusal(one(R"("dtype":"F32","shape":[2])"), 8), "missing"));
  CHECK(contains(refusal(one(good + R"(,"dtype":"F32")"), 8), "dtype twice"));
  CHECK(contains(refusal(one(good + R"(,"shape":[2])"), 8), "shape twice"));
  CHECK(contains(refusal(one(good + R"(,"more":"F32")"), 8), "unknown field"));
  CHECK(contains(refusal(one(R"("dtype":7,"shape":[2],"data_offsets":[0,8])"), 8),
                 "a number where its dtype belongs"));
  CHECK(
      contains(refusal(one(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), 8), "negative"));
  CHECK(
      contains(refusal(one(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"), 8), "\"2.0\""));
  CHECK(contains(refusal(one(R"("dtype":"F32","shape":["2"],"data_offsets":[0,8])"), 8), "a text"));
  CHECK(contains(refusal(one(R"("dtype":"F32","shape":[[2]],"data_offsets":[0,8])"), 8), "a list"));
  CHECK(contains(
      refusal(one(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8])"), 8),
      "a size of"));
  CHECK(contains(
      refusal(one(R"("dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0])"), 0),
      "overflows"));
  CHECK(contains(
      refusal(one(R"("dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0])"), 0),
      "overflows"));
  CHECK(contains(refusal(one(R"("dtype":"F32","shape":[2],"data_offsets":[0])"), 8),
                 "fewer than two"));
  CHECK(contains(refusal(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,8])"), 8),
                 "more than two"));
  CHECK(contains(refusal(one(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), 8),
                 "end before they begin"));
  CHECK(contains(refusal(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,12])"), 8), "beyond"));
  CHECK(contains(
      refusal(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615])"), 8),
      "beyond"));
  CHECK(contains(refusal(one(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"), 8),
                 "needs 12 bytes"));
  CHECK(contains(refusal(one(good), 12), "4 unused bytes at the end"));
  CHECK(contains(refusal(one(R"("dtype":"F32","shape":[2],"data_offsets":[4,12])"), 12),
                 "4 unused bytes before"));

  const auto two = [](const std::string& name, const std::string& range) {
    return R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},")" + name +
           R"(":{"dtype":"F32","shape":[2],"data_offsets":[)" + range + "]}}";
  };
  CHECK(refusal(two("b", "8,16"), 16).empty());
  CHECK(contains(refusal(two("a", "8,16"), 16), "twice"));
  CHECK(contains(refusal(two("b", "4,12"), 12), "overlaps"));
  CHECK(contains(refusal(two("b", "0,8"), 8), "overlaps"));

  std::string axes = "1";
  for (int i = 0; i < 40; ++i) axes += ",1";
  CHECK(contains(refusal(one(R"("dtype":"F32","shape":[)" + axes + R"(],"data_offsets":[0,4])"), 4),
                 "more than 32 axes"));
}

TEST_CASE("safetensors: nesting a million deep costs nothing", "[files]") {
  std::string deep = R"({"a":)";
  for (int i = 0; i < 1'000'000; ++i) deep += i % 2 == 0 ? "[" : R"({"b":)";
  CHECK_FALSE(refusal(deep, 0).empty());
  CHECK_FALSE(refusal(R"({"a":{"dtype":"F32","shape":)" + std::string(1'000'000, '['), 0).empty());
}

TEST_CASE("safetensors: no part of a file passes for the whole", "[files]") {
  const std::vector<std::byte> whole = example_file();
  REQUIRE(refusal(whole).empty());
  for (std::size_t length = 0; length < whole.size(); ++length) {
    INFO(length << " of " << whole.size() << " bytes");
    REQUIRE_FALSE(refusal(std::vector<std::byte>(
                              whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)))
                      .empty());
  }
}

TEST_CASE("safetensors: a damaged file is read or refused, never worse", "[files]") {
  const std::vector<std::byte> whole = example_file();
  std::mt19937 random(20240607);
  int refused = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::vector<std::byte> damaged = mutate(whole, random);
    try {
      const SafetensorsFile file(damaged);
      for (const SafetensorsEntry& entry : file.entries()) {
        const bool inside =
            entry.bytes.data() >= damaged.data() &&
            entry.bytes.data() + entry.bytes.size() <= damaged.data() + damaged.size();
        REQUIRE(inside);
        if (entry.dtype.bits())
          REQUIRE(entry.dtype.bytes_of(static_cast<std::uint64_t>(entry.shape.elements())) ==
                  entry.bytes.size());
      }
    } catch (const FormatError&) {
      ++refused;
    }
  }
  CHECK(refused > 10000);
}

TEST_CASE("safetensors: what can't be read back is not written", "[files]") {
  const ScratchFolder folder;
  const std::vector<float> values{1, 2};
  const auto bytes = std::as_bytes(std::span(values));
  const auto write = [&](const std::vector<SafetensorsEntry>& entries,
                         const Metadata& metadata = {}) {
    write_safetensors(folder / "f", entries, metadata);
  };
  CHECK_THROWS_AS(write({{"a", DType::f32, {2}, bytes}, {"a", DType::f32, {2}, bytes}}),
                  FormatError);
  CHECK_THROWS_AS(write({{"__metadata__", DType::f32, {2}, bytes}}), FormatError);
  CHECK_THROWS_AS(write({{"\xff", DType::f32, {2}, bytes}}), FormatError);
  CHECK_THROWS_AS(write({}, {{"k", "\xff"}}), FormatError);
  CHECK_THROWS_AS(write({{"a", DType::f32, {3}, bytes}}), ShapeError);
  CHECK_THROWS_AS(write_safetensors(folder / "no/folder",
                                    std::vector<SafetensorsEntry>{{"a", DType::f32, {2}, bytes}}),
                  IoError);
  CHECK(folder.files() == 0);
}

TEST_CASE("safetensors: whichever allocation of a save fails, the file that was there stays",
          "[files][memory]") {
  const ScratchFolder folder;
  const std::vector<float> values{1, 2}, others{3, 4};
  const auto write = [&](const std::vector<float>& from) {
    const auto bytes = std::as_bytes(std::span(from));
    write_safetensors(folder / "f",
                      std::vector<SafetensorsEntry>{
                          {"a", DType::f32, {2}, bytes},
                          {"a name of more than fifteen characters", DType::f32, {2, 1}, bytes}},
                      {{"key", "a value of more than fifteen characters"}});
  };
  const auto first_value = [&] {
    const SafetensorsFile file(folder / "f");
    float value = 0;
    std::memcpy(&value, file.entries().front().bytes.data(), sizeof(value));
    return value;
  };
  long failures = 0;
  for (bool failed = true; failed; failures += failed) {
    CAPTURE(failures);
    write(values);
    bool wrote = true;
    {
      const FailingAllocation failing(failures);
      try {
        write(others);
      } catch (const std::bad_alloc&) {
        wrote = false;
      }
      failed = failing.failed();
    }
    CHECK(first_value() == (wrote ? 3 : 1));
    CHECK((wrote || failed));
    CHECK(folder.files() == 1);
  }
  CHECK(failures > 20);
}

TEST_CASE("safetensors: tensors come back from a file as they were", "[files]") {
  const ScratchFolder folder;
  const Device device = reference();
  const std::vector<float> numbers{1, -0.0f, 3e38f, 1e-40f, 5, 6};
  std::map<std::string, Tensor> tensors;
  tensors["weight"] = Tensor::from(numbers, {2, 3}, device);
  tensors["sum"] = tensors["weight"] + tensors["weight"];  // not evaluated yet
  tensors["step"] = Tensor::from(std::vector<std::int32_t>{41}, {}, device);
  tensors["empty"] = Tensor::from(std::vector<float>{}, {0, 4}, device);
  tensors["half"] = tensors["weight"].to(DType::bf16);
  save_tensors(folder / "model", tensors, {{"name", "test"}});

  const TensorFile file = load_tensors(folder / "model", device);
  CHECK(file.metadata == Metadata{{"name", "test"}});
  REQUIRE(file.tensors.size() == 5);
  for (const auto& [name, tensor] : tensors) {
    INFO(name);
    const Tensor& loaded = file.tensors.at(name);
    REQUIRE(loaded.type() == tensor.type());
    std::vector<std::byte> expected(tensor.type().bytes()), got(tensor.type().bytes());
    tensor.copy_to(expected, tensor.dtype());
    loaded.copy_to(got, loaded.dtype());
    CHECK(expected == got);
  }
  SECTION("saving again gives the same bytes") {
    save_tensors(folder / "again", file.tensors, file.metadata);
    CHECK(text_of(folder / "again") == text_of(folder / "model"));
  }
  SECTION("an empty handle is refused, and the old file stays") {
    const std::string before = text_of(folder / "model");
    tensors["nothing"] = Tensor();
    CHECK_THROWS_AS(save_tensors(folder / "model", tensors), Error);
    CHECK(text_of(folder / "model") == before);
  }
  SECTION("a boolean is 0 or 1") {
    const std::vector<std::uint8_t> bits{0, 2};
    write_safetensors(
        folder / "bits",
        std::vector<SafetensorsEntry>{{"b", DType::boolean, {2}, std::as_bytes(std::span(bits))}});
    CHECK_THROWS_AS(load_tensors(folder / "bits", device), FormatError);
  }
}
