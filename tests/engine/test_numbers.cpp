// C++ numbers beside tensors, and conversions between element types: the two rules that
// engine/graph/numbers.h states, on every backend.
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/graph/numbers.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

// Elements of any type as bytes, and one of them as a number.
template <class T>
void append(std::vector<std::byte>& bytes, T value) {
  const std::size_t start = bytes.size();
  bytes.resize(start + sizeof(T));
  std::memcpy(bytes.data() + start, &value, sizeof(T));
}
template <class T>
T element(const std::vector<std::byte>& bytes, std::size_t i) {
  T value;
  std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
  return value;
}

// The rule, written once more and as plainly as can be. A value of an integer type is given as
// std::int64_t, one of a floating type as double.
template <class T>
T integer_from(double value) {
  if (std::isnan(value)) return 0;
  const double towards_zero = std::trunc(value);
  if (towards_zero <= static_cast<double>(std::numeric_limits<T>::min()))
    return std::numeric_limits<T>::min();
  if (towards_zero >= static_cast<double>(std::numeric_limits<T>::max()))
    return std::numeric_limits<T>::max();
  return static_cast<T>(towards_zero);
}
template <class T>
T integer_from(std::int64_t value) {
  return static_cast<T>(static_cast<std::uint64_t>(value));
}

template <class Number>
void append_converted(std::vector<std::byte>& bytes, Number value, DType to) {
  switch (to) {
    case DType::boolean:
      return append(bytes, static_cast<std::uint8_t>(value != 0));
    case DType::u8:
      return append(bytes, integer_from<std::uint8_t>(value));
    case DType::i32:
      return append(bytes, integer_from<std::int32_t>(value));
    case DType::u32:
      return append(bytes, integer_from<std::uint32_t>(value));
    case DType::i64:
      return append(bytes, integer_from<std::int64_t>(value));
    case DType::bf16:
      return append(bytes, to_bf16(static_cast<float>(value)));
    case DType::f16:
      return append(bytes, to_f16(static_cast<float>(value)));
    case DType::f32:
      return append(bytes, static_cast<float>(value));
    case DType::f64:
      return append(bytes, static_cast<double>(value));
  }
}

void with_element(const std::vector<std::byte>& bytes, std::size_t i, DType dtype, auto&& f) {
  switch (dtype) {
    case DType::boolean:
      return f(std::int64_t{element<std::uint8_t>(bytes, i)});
    case DType::u8:
      return f(std::int64_t{element<std::uint8_t>(bytes, i)});
    case DType::i32:
      return f(std::int64_t{element<std::int32_t>(bytes, i)});
    case DType::u32:
      return f(std::int64_t{element<std::uint32_t>(bytes, i)});
    case DType::i64:
      return f(element<std::int64_t>(bytes, i));
    case DType::bf16:
      return f(static_cast<double>(to_f32(element<BFloat16>(bytes, i))));
    case DType::f16:
      return f(static_cast<double>(to_f32(element<Float16>(bytes, i))));
    case DType::f32:
      return f(static_cast<double>(element<float>(bytes, i)));
    case DType::f64:
      return f(element<double>(bytes, i));
  }
}

// The edges of every type, and their neighbours.
const std::vector<double>& edges() {
  static const std::vector<double> values = [] {
    std::vector<double> result = {0.0,
                                  -0.0,
                                  0.4,
                                  0.5,
                                  -0.5,
                                  1.5,
                                  -1.9,
                                  2.5,
                                  1e-8,
                                  1e-300,
                                  -1e-300,
                                  1e20,
                                  -1e20,
                                  3.5e38,
                                  1e300,
                                  65504,
                                  65520,
                                  2049,
                                  1 + 0x1p-11 + 0x1p-40,
                                  infinity,
                                  -infinity,
                                  not_a_number};
    for (const double edge : {1.0, 127.0, 128.0, 255.0, 256.0, 300.0, 0x1p15, 0x1p16, 0x1p24,
                              0x1p31, 0x1p32, 0x1p53, 0x1p63, 0x1p64})
      for (const double beside : {-1.0, -0.5, 0.0, 0.5, 1.0})
        for (const double sign : {-1.0, 1.0}) result.push_back(sign * edge + beside);
    return result;
  }();
  return values;
}

// Values of one type: the edges converted to it, and for i64 those that f64 has not.
std::vector<std::byte> edges_of(DType dtype) {
  std::vector<std::byte> bytes;
  for (const double value : edges()) append_converted(bytes, value, dtype);
  if (dtype == DType::i64)
    for (const std::int64_t value :
         {std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min(),
          (std::int64_t{1} << 53) + 1, (std::int64_t{1} << 32) + 300, std::int64_t{-1}})
      append(bytes, value);
  return bytes;
}

// Where two arrays differ first; NaN of a type equals NaN.
std::string first_difference(const std::vector<std::byte>& from, DType from_dtype,
                             const std::vector<std::byte>& got,
                             const std::vector<std::byte>& expected, DType dtype) {
  std::string text;
  for (std::size_t i = 0; i * size_of(dtype) < got.size() && text.empty(); ++i)
    with_element(got, i, dtype, [&](auto a) {
      with_element(expected, i, dtype, [&](auto b) {
        const auto x = static_cast<long double>(a), y = static_cast<long double>(b);
        if (x == y || (std::isnan(x) && std::isnan(y))) return;
        with_element(from, i, from_dtype, [&](auto value) {
          text = "element " + std::to_string(i) + ", " + std::to_string(value) + ", became " +
                 std::to_string(x) + ", should be " + std::to_string(y);
        });
      });
    });
  return text;
}

}  // namespace

TEST_CASE("a number that a dtype can't hold exactly is no operand of it", "[engine][numbers]") {
  for (const Device& device : {cpu({.threads = 1}), reference()}) {
    const Tensor i = Tensor::from(std::vector<std::int32_t>{2, 4, 6}, {3}, device);
    const Tensor u = Tensor::from(std::vector<std::uint32_t>{2, 4, 6}, {3}, device);
    const Tensor yes = eq(i, i), single = i.to(DType::f32), bytes = i.to(DType::u8);
    const auto refused = [](const std::string& function, const std::string& dtype,
                            const std::string& number, const std::function<void()>& call) {
      INFO(function << " of " << dtype << " and " << number);
      const std::string message = message_of<DTypeError>(call);
      CHECK(message.find(function + ": " + dtype + " can't hold the number " + number) == 0);
      CHECK(message.find("test_numbers.cpp:") != std::string::npos);
    };
    refused("mul", "i32", "0.5", [&] { i * 0.5; });
    refused("mul", "i32", "0.5", [&] { 0.5 * i; });
    refused("add", "u32", "-1", [&] { u + (-1.0); });
    refused("sub", "i32", "3e+09", [&] { i - 3e9; });
    refused("maximum", "i32", "inf", [&] { maximum(i, infinity); });
    refused("minimum", "u32", "nan", [&] { minimum(u, not_a_number); });
    refused("lt", "i32", "2.5", [&] { lt(i, 2.5); });
    refused("eq", "bool", "2", [&] { eq(yes, 2.0); });
    refused("shift_right", "u32", "0.5", [&] { shift_right(u, 0.5); });
    refused("where", "i32", "0.5", [&] { where(yes, i, 0.5); });
    refused("where", "u8", "300", [&] { where(yes, 300.0, bytes); });
    refused("clip", "i32", "-0.5", [&] { clip(i, -0.5, 3.0); });
    refused("clip", "i32", "inf", [&] { clip(i, 0.0, infinity); });
    refused("full", "u8", "300", [&] { full({2}, 300, DType::u8, device); });
    refused("full_like", "i32", "1.5", [&] { full_like(i, 1.5); });
    refused("pad", "i32", "0.5", [&] { pad(i, {1}, {1}, 0.5); });
    refused("pad", "u8", "256", [&] { pad(bytes, {1}, {1}, 256); });
    refused("layer_norm", "f32", "1e+39", [&] { layer_norm(single, 1e39); });
    refused("rms_norm", "f32", "1e+39", [&] { rms_norm(single, 1e39); });
    const Tensor square_of = full({2, 2}, 1, DType::f32, device);
    refused("attention", "f32", "1e+39",
            [&] { attention(square_of, square_of, square_of, {.scale = 1e39}); });
    refused("mul", "f32", "1e+39", [&] { single * 1e39; });
    refused("full", "f16", "65520", [&] { full({2}, 65520, DType::f16, device); });
    refused("full", "bf16", "3.4e+38", [&] { full({2}, 3.4e38, DType::bf16, device); });
    CHECK(message_of<DTypeError>([&] {
            full({}, 1, DType::i64, device);
          }).find("full: i64 exists at the") == 0);
    CHECK(message_of<DTypeError>([&] {
            mean(i);
          }).find("mean: wants a floating dtype, got i32[3]") == 0);
    CHECK(message_of<DTypeError>([&] { var(i); }).find("var: wants a floating dtype, got i32[3]") ==
          0);

    // What a dtype holds, it takes: whole numbers in range, and floats rounded.
    CHECK((i * -3.0).to_host<std::int32_t>() == std::vector<std::int32_t>{-6, -12, -18});
    CHECK((u + 4294967295.0).to_host<std::uint32_t>() == std::vector<std::uint32_t>{1, 3, 5});
    CHECK(full({1}, 255, DType::u8, device).to_host<std::uint8_t>() ==
          std::vector<std::uint8_t>{255});
    CHECK(pad(bytes, {1}, {0}, 255).to_host<std::uint8_t>() ==
          std::vector<std::uint8_t>{255, 2, 4, 6});
    CHECK((single * 0.1).to_host<float>()[0] == 2 * 0.1f);
    CHECK(full({1}, 65519, DType::f16, device).to(DType::f32).item<float>() == 65504);
    const Tensor halves = pad(single.to(DType::f16), {1}, {0}, 0.1);
    CHECK(halves.to(DType::f32).to_host<float>()[0] == to_f32(to_f16(0.1f)));
    CHECK(std::isinf(maximum(single, infinity).to_host<float>()[0]));
    CHECK(std::isnan((single + not_a_number).to_host<float>()[0]));
    CHECK((single * 1e-60).to_host<float>()[0] == 0);  // rounded, as every number is
  }
}

TEST_CASE("what a dtype can hold is what it gives back", "[engine][numbers]") {
  for (const DType dtype : all_dtypes)
    for (const double value : edges()) {
      std::vector<std::byte> stored;
      append_converted(stored, value, dtype);
      with_element(stored, 0, dtype, [&](auto back) {
        const auto same =
            static_cast<double>(back) == value && (is_floating(dtype) || std::abs(value) < 0x1p63);
        const bool expected =
            is_floating(dtype) ? !std::isfinite(value) || std::isfinite(static_cast<double>(back))
                               : same || (dtype == DType::i64 && value == -0x1p63);
        INFO(to_string(dtype) << " and " << value);
        CHECK(can_hold(dtype, value) == expected);
      });
    }
}

TEST_CASE("every conversion follows one rule at every edge, on every backend",
          "[engine][numbers]") {
  for (const Device& device : {cpu({.threads = 1}), reference()})
    for (const DType from : all_dtypes) {
      const std::vector<std::byte> values = edges_of(from);
      const auto count = static_cast<std::int64_t>(values.size() / size_of(from));
      const Tensor x = Tensor::from_bytes(values, {{count}, from}, device);
      for (const DType to : all_dtypes) {
        std::vector<std::byte> expected;
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i)
          with_element(values, i, from, [&](auto value) { append_converted(expected, value, to); });
        INFO(to_string(from) << " to " << to_string(to) << " on " << device.name());
        CHECK(first_difference(values, from, host_bytes(convert(x, to)), expected, to) == "");
        // Every other element: another path through a vectorised backend.
        if (from == DType::i64) continue;  // does not move
        const Tensor few = slice(x, {1}, {count}, {2});
        std::vector<std::byte> values_of_few, expected_of_few;
        for (std::size_t i = 1; i < static_cast<std::size_t>(count); i += 2) {
          with_element(values, i, from,
                       [&](auto value) { append_converted(expected_of_few, value, to); });
          values_of_few.insert(
              values_of_few.end(), values.begin() + static_cast<std::ptrdiff_t>(i * size_of(from)),
              values.begin() + static_cast<std::ptrdiff_t>((i + 1) * size_of(from)));
        }
        CHECK(first_difference(values_of_few, from, host_bytes(convert(few, to)), expected_of_few,
                               to) == "");
      }
    }
}

TEST_CASE("conversions in a row are done one by one, in one kernel too", "[engine][numbers]") {
  const Device device = cpu({.threads = 1});
  for (const DType from : all_dtypes)
    for (const DType through : all_dtypes)
      for (const DType to : all_dtypes) {
        const std::vector<std::byte> values = edges_of(from);
        const auto count = static_cast<std::int64_t>(values.size() / size_of(from));
        std::vector<std::byte> expected;
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i)
          with_element(values, i, from, [&](auto value) {
            std::vector<std::byte> middle;
            append_converted(middle, value, through);
            with_element(middle, 0, through,
                         [&](auto each) { append_converted(expected, each, to); });
          });
        const Tensor x = Tensor::from_bytes(values, {{count}, from}, device);
        INFO(to_string(from) << " to " << to_string(through) << " to " << to_string(to));
        CHECK(first_difference(values, from, host_bytes(convert(convert(x, through), to)), expected,
                               to) == "");
      }
}
