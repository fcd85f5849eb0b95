#include <array>
#include <cmath>
#include <set>

#include "models/data/random.h"
#include "tests/catch.h"

using namespace fluxion;

TEST_CASE("random sequences: the same arguments give the same numbers, others give others",
          "[data]") {
  RandomSequence a(1, 2), b(1, 2), other_seed(2, 2), other_position(1, 3), other_purpose(1, 2, 1);
  std::set<std::uint32_t> first;
  for (int i = 0; i < 10; ++i) CHECK(a.bits() == b.bits());
  for (RandomSequence* sequence : {&a, &other_seed, &other_position, &other_purpose})
    first.insert(sequence->bits());
  CHECK(first.size() == 4);
}

TEST_CASE("random sequences: uniform, normal and below have their moments", "[data]") {
  RandomSequence random(5, 0);
  const int count = 200'000;
  double uniform = 0, normal = 0, square = 0, fourth = 0;
  std::array<int, 10> hits{};
  for (int i = 0; i < count; ++i) {
    const float u = random.uniform();
    const bool inside = u >= 0 && u < 1;
    REQUIRE(inside);
    uniform += u;
    const double z = random.normal();
    normal += z;
    square += z * z;
    fourth += z * z * z * z;
    ++hits[static_cast<std::size_t>(random.below(10))];
  }
  // Five standard errors each.
  const double root = std::sqrt(static_cast<double>(count));
  CHECK(std::abs(uniform / count - 0.5) < 5 * std::sqrt(1.0 / 12) / root);
  CHECK(std::abs(normal / count) < 5 / root);
  CHECK(std::abs(square / count - 1) < 5 * std::sqrt(2.0) / root);
  CHECK(std::abs(fourth / count - 3) < 5 * std::sqrt(96.0) / root);
  for (const int hit : hits) CHECK(std::abs(hit - count / 10) < 5 * std::sqrt(count * 0.09));
}

TEST_CASE("permuted: every index once, in an order of its own each round", "[data]") {
  for (const std::uint64_t count : {1, 2, 3, 7, 64, 1000, 4097}) {
    std::set<std::uint64_t> seen;
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t image = permuted(i, count, 9, 0);
      REQUIRE(image < count);
      seen.insert(image);
    }
    CHECK(seen.size() == count);
  }
  int same = 0, fixed = 0;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    same += permuted(i, 1000, 9, 0) == permuted(i, 1000, 9, 1);
    fixed += permuted(i, 1000, 9, 0) == i;
  }
  CHECK(same < 10);
  CHECK(fixed < 10);
}
