#include <cmath>
#include <limits>

#include "engine/graph/dtype.h"
#include "tests/catch.h"

using namespace fluxion;

namespace {

// The nearest representable value by search over all 65536, ties to the even bit pattern: what
// conversion means, without its tricks.
template <class Half>
Half nearest(float value, std::uint16_t infinity_bits) {
  Half best{};
  double best_distance = std::numeric_limits<double>::infinity();
  for (std::uint32_t bits = 0; bits <= infinity_bits; ++bits) {
    // Infinity counts as the next power of two, as rounding to nearest has it.
    const Half candidate{static_cast<std::uint16_t>(bits)};
    const Half below{static_cast<std::uint16_t>(bits - 1)},
        further{static_cast<std::uint16_t>(bits - 2)};
    const double represented =
        bits == infinity_bits ? 2.0 * to_f32(below) - to_f32(further) : to_f32(candidate);
    const double distance = std::abs(represented - std::abs(static_cast<double>(value)));
    if (distance < best_distance || (distance == best_distance && bits % 2 == 0)) {
      best_distance = distance;
      best = candidate;
    }
  }
  if (std::signbit(value)) best.bits |= 0x8000;
  return best;
}

const float samples[] = {
    0.0f,          -0.0f,    1.0f,      -1.0f,     0.1f,          3.14159265f, 65504.0f,
    65519.99f,     65520.0f, -70000.0f, 1e-3f,     6.1035156e-5f, 6.1e-5f,     5.9604645e-8f,
    2.9802322e-8f, 2.99e-8f, 1e-8f,     1e-40f,    1.00048828f,   1.0014648f,  1.00390625f,
    1.01171875f,   2049.0f,  2051.0f,   -0.33333f, 1e30f,         3.3e38f};

}  // namespace

TEST_CASE("conversion to f16 rounds to the nearest value, ties to even", "[engine][dtype]") {
  for (const float value : samples) {
    INFO("value " << value);
    CHECK(to_f16(value).bits == nearest<Float16>(value, 0x7C00).bits);
  }
}

TEST_CASE("conversion to bf16 rounds to the nearest value, ties to even", "[engine][dtype]") {
  for (const float value : samples) {
    INFO("value " << value);
    CHECK(to_bf16(value).bits == nearest<BFloat16>(value, 0x7F80).bits);
  }
}

TEST_CASE("every 16-bit float survives the way to f32 and back", "[engine][dtype]") {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Float16 half{static_cast<std::uint16_t>(bits)};
    const BFloat16 brain{static_cast<std::uint16_t>(bits)};
    if (std::isnan(to_f32(half)))
      REQUIRE(std::isnan(to_f32(to_f16(to_f32(half)))));
    else
      REQUIRE(to_f16(to_f32(half)) == half);
    if (std::isnan(to_f32(brain)))
      REQUIRE(std::isnan(to_f32(to_bf16(to_f32(brain)))));
    else
      REQUIRE(to_bf16(to_f32(brain)) == brain);
  }
}

TEST_CASE("infinities and every kind of NaN keep their nature in 16 bits", "[engine][dtype]") {
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(to_f32(to_f16(infinity)) == infinity);
  CHECK(to_f32(to_f16(-infinity)) == -infinity);
  CHECK(to_f32(to_bf16(infinity)) == infinity);
  CHECK(to_f32(to_bf16(-infinity)) == -infinity);
  for (const std::uint32_t bits :
       {0x7FC00000u, 0x7F800001u, 0xFF800001u, 0x7FFFFFFFu, 0xFFFFFFFFu}) {
    const auto nan = std::bit_cast<float>(bits);
    CHECK(std::isnan(to_f32(to_f16(nan))));
    CHECK(std::isnan(to_f32(to_bf16(nan))));
  }
}

TEST_CASE("the largest floats overflow to infinity in 16 bits", "[engine][dtype]") {
  const float largest = std::numeric_limits<float>::max();
  CHECK(to_f16(largest).bits == 0x7C00);
  CHECK(to_bf16(largest).bits == 0x7F80);
  CHECK(to_bf16(-largest).bits == 0xFF80);
}

TEST_CASE("dtypes have names and sizes", "[engine][dtype]") {
  CHECK(to_string(DType::boolean) == "bool");
  CHECK(to_string(DType::bf16) == "bf16");
  CHECK(to_string(DType::f64) == "f64");
  CHECK(size_of(DType::boolean) == 1);
  CHECK(size_of(DType::f16) == 2);
  CHECK(size_of(DType::i64) == 8);
  CHECK(is_floating(DType::bf16));
  CHECK_FALSE(is_floating(DType::i64));
  CHECK(is_integer(DType::u8));
  CHECK_FALSE(is_integer(DType::boolean));
}
