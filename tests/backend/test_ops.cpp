// Backends: every op gives what the reference backend gives, on odd, empty and size-1 shapes, and
// where values are NaN.
#include <limits>
#include <span>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/graph/ops.h"
#include "tests/backend/devices.h"
#include "tests/catch.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

PROMISE("every op in f32 is the reference's", "[ops]") {
  const Device expected = reference();
  for (const OpExample& example : op_examples())
    CHECK(difference(example, subject.device, expected, DType::f32) == "");
}

PROMISE("every op in f64 is the reference's, where the device has f64", "[ops]") {
  if (!subject.device.backend().capabilities().f64) {
    CHECK_THROWS_AS(eval(2.0 * full({3}, 2, DType::f64, subject.device)), Error);
    return;
  }
  const Device expected = reference();
  for (const OpExample& example : op_examples())
    CHECK(difference(example, subject.device, expected, DType::f64) == "");
}

PROMISE("every op passes NaN on as the reference does", "[ops]") {
  const Device expected = reference();
  for (const std::size_t first : {0, 1})
    for (OpExample example : op_examples()) {
      for (HostValue& input : example.inputs)
        if (input.dtype == DType::f64)
          for (std::size_t i = first; i < input.values.size(); i += 3)
            input.values[i] = std::numeric_limits<double>::quiet_NaN();
      CHECK(difference(example, subject.device, expected, DType::f32) == "");
    }
}

TEST_CASE("whole numbers beyond 2^53 become floats in one rounding", "[backend][ops]") {
  // A little above the middle between two floats: a double that is rounded first is the middle.
  const std::int64_t number = (std::int64_t{1} << 60) + (std::int64_t{1} << 36) + 1;
  for (const Device& device : {reference(), cpu({.threads = 1})}) {
    const Tensor x = Tensor::from(std::vector<std::int64_t>{number}, {}, device);
    CHECK(x.to(DType::f32).item<float>() == static_cast<float>(number));
  }
}

PROMISE("16-bit floats, booleans and bytes are stored and converted as the reference does",
        "[ops]") {
  const Device expected = reference();
  const HostValue x = random_value({3, 5}, -3, 3, 4);
  const auto f = [&](const Device& device) {
    const Tensor y = to_tensor(x, device, DType::f32);
    const Tensor positive = gt(y, 0.0);
    std::vector<Tensor> all = {positive, le(y, 0.0), y.to(DType::bf16), y.to(DType::f16),
                               abs(y).to(DType::u8)};
    // Views of what has a storage of its own, and back.
    for (std::size_t i = 0, stored = all.size(); i < stored; ++i)
      all.push_back(concat({flip(all[i], {1}), transpose(reshape(all[i], {5, 3}), {1, 0})}, 0));
    all.push_back(y.to(DType::bf16).to(DType::f32) + 1.0);
    all.push_back(where(positive, y.to(DType::f16).to(DType::f32), y));
    eval(all);
    return all;
  };
  const std::vector<Tensor> got = f(subject.device), wanted = f(expected);
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO("result " << i);
    CHECK(difference(got[i], wanted[i], 0, 0) == "");
  }
}

PROMISE("every byte of a boolean but 0 is true", "[ops]") {
  const std::vector<std::uint8_t> bytes{0, 1, 2, 255, 4, 0, 128, 3};
  const std::vector<std::int32_t> truth{0, 1, 1, 1, 1, 0, 1, 1};
  const Device& device = subject.device;
  const Tensor x =
      Tensor::from_bytes(std::as_bytes(std::span(bytes)), {{8}, DType::boolean}, device);
  const Tensor one = full({8}, 1, DType::i32, device), none = zeros({8}, DType::i32, device);
  CHECK(convert(x, DType::i32).to_host<std::int32_t>() == truth);
  CHECK(where(x, one, none).to_host<std::int32_t>() == truth);
  CHECK(convert(eq(x, gt(one, none)), DType::i32).to_host<std::int32_t>() == truth);
  CHECK(convert(convert(x, DType::f32), DType::i32).to_host<std::int32_t>() == truth);
  CHECK(convert(convert(x, DType::u8), DType::i32).to_host<std::int32_t>() == truth);
  // Every other element: another path of a device that loads several at once.
  CHECK(convert(slice(x, {1}, {8}, {2}), DType::i32).to_host<std::int32_t>() ==
        std::vector<std::int32_t>{1, 1, 0, 1});
}

PROMISE("an index of 16 bits is rounded, whatever it is fused with", "[ops]") {
  const Device expected = reference();
  for (const DType dtype : {DType::bf16, DType::f16}) {
    INFO(to_string(dtype));
    const auto f = [&](const Device& device) {
      const Tensor wide = convert(iota({70000}, 0, dtype, device), DType::f32);
      const Tensor along = convert(flip(iota({3, 300}, 1, dtype, device), {1}), DType::f32);
      return std::vector{wide, along * 2.0};
    };
    const std::vector<Tensor> got = f(subject.device), wanted = f(expected);
    for (std::size_t i = 0; i < got.size(); ++i)
      CHECK(got[i].to_host<float>() == wanted[i].to_host<float>());
  }
}
