// Index ops, cumulative sums and random bits of the CPU backend against plain loops, with bit-equal
// results for all thread counts.
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "backends/cpu/index/op_kernel.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "engine/graph/philox.h"
#include "tests/catch.h"

namespace {

using namespace fluxion;
using namespace fluxion::cpu_backend;

// Runs one op on buffers 0, 1, .. (inputs) and the last (output), on one, two and five threads, and
// returns the output.
template <class Out>
std::vector<Out> run_op(Op op, Attributes attributes, std::vector<TensorType> types,
                        std::vector<const void*> inputs, const TensorType& out) {
  OpKernel kernel{
      op,   std::move(attributes), {}, {static_cast<std::int32_t>(inputs.size())}, std::move(types),
      {out}};
  std::vector<std::byte*> at;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    kernel.inputs.push_back(static_cast<std::int32_t>(i));
    at.push_back(static_cast<std::byte*>(const_cast<void*>(inputs[i])));
  }
  const OpRunner runner(kernel);
  std::vector<Out> first;
  for (const int threads : {1, 2, 5}) {
    std::vector<Out> result(static_cast<std::size_t>(out.shape.elements()), Out(77));
    at.resize(inputs.size());
    at.push_back(reinterpret_cast<std::byte*>(result.data()));
    std::vector<std::byte> scratch(runner.scratch_bytes(threads) + 64);
    void* aligned = scratch.data();
    std::size_t room = scratch.size();
    runner.run({at, {}}, ThreadPool(threads),
               static_cast<std::byte*>(std::align(64, room - 64, aligned, room)));
    if (threads == 1)
      first = result;
    else
      CHECK((result.empty() ||
             std::memcmp(result.data(), first.data(), result.size() * sizeof(Out)) == 0));
  }
  return first;
}

template <class T>
std::vector<T> random_values(std::int64_t count, std::uint32_t seed, int range = 2000) {
  std::mt19937 engine(seed);
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values)
    value = static_cast<T>(static_cast<double>(engine() % static_cast<unsigned>(range)) /
                           (std::is_integral_v<T> ? 1 : 64));
  return values;
}

// Some of them out of range on either side.
std::vector<std::int32_t> random_indices(std::int64_t count, std::int64_t size,
                                         std::uint32_t seed) {
  std::mt19937 engine(seed);
  std::vector<std::int32_t> values(static_cast<std::size_t>(count));
  for (std::int32_t& value : values)
    value = static_cast<std::int32_t>(engine() % static_cast<unsigned>(size + 4)) - 2;
  return values;
}

std::int64_t clamp_index(std::int32_t index, std::int64_t size) {
  return std::clamp<std::int64_t>(index, 0, size - 1);
}

struct Sizes {
  std::int64_t outer, axis, inner, count;
};
constexpr Sizes sizes[] = {{1, 1, 1, 1},         {1, 10, 1, 30},   {3, 5, 7, 11},
                           {1, 169, 3, 24010},   {2, 33, 64, 500}, {40, 1000, 1, 50},
                           {1, 20011, 1, 90007}, {1, 4, 128, 0},   {0, 4, 2, 3}};

template <class T>
void check_index_ops() {
  constexpr DType dtype = dtype_of<T>;
  std::uint32_t seed = 1;
  for (const Sizes size : sizes) {
    const auto [outer, axis, inner, count] = size;
    const TensorType x{{outer, axis, inner}, dtype}, list{{count}, DType::i32},
        along{{outer, count, inner}, DType::i32}, picked{{outer, count, inner}, dtype};
    const auto values = random_values<T>(outer * axis * inner, ++seed);
    const auto updates = random_values<T>(outer * count * inner, ++seed);
    const auto indices = random_indices(count, axis, ++seed);
    const auto positions = random_indices(outer * count * inner, axis, ++seed);
    const AxisAttributes attributes{1};
    const auto taken =
        run_op<T>(Op::take, attributes, {x, list}, {values.data(), indices.data()}, picked);
    const auto taken_along = run_op<T>(Op::take_along_axis, attributes, {x, along},
                                       {values.data(), positions.data()}, picked);
    const auto added = run_op<T>(Op::index_add, attributes, {x, list, picked},
                                 {values.data(), indices.data(), updates.data()}, x);
    const auto scattered = run_op<T>(Op::scatter_add, attributes, {x, along, picked},
                                     {values.data(), positions.data(), updates.data()}, x);
    std::vector<T> want_taken = taken, want_along = taken_along, want_added = values,
                   want_scattered = values;
    for (std::int64_t o = 0; o < outer; ++o)
      for (std::int64_t k = 0; k < count; ++k)
        for (std::int64_t i = 0; i < inner; ++i) {
          const std::size_t at = static_cast<std::size_t>((o * count + k) * inner + i);
          const auto source = [&](std::int32_t index) {
            return static_cast<std::size_t>((o * axis + clamp_index(index, axis)) * inner + i);
          };
          const std::size_t by_list = source(indices[static_cast<std::size_t>(k)]),
                            by_position = source(positions[at]);
          want_taken[at] = values[by_list];
          want_along[at] = values[by_position];
          want_added[by_list] += updates[at];
          want_scattered[by_position] += updates[at];
        }
    INFO("sizes " << outer << ", " << axis << ", " << inner << ", " << count);
    CHECK(taken == want_taken);
    CHECK(taken_along == want_along);
    CHECK(added == want_added);
    CHECK(scattered == want_scattered);
  }
}

}  // namespace

TEST_CASE("take, take_along_axis, index_add and scatter_add agree with plain loops",
          "[cpu][index]") {
  check_index_ops<float>();
  check_index_ops<double>();
  check_index_ops<std::int32_t>();
  check_index_ops<std::uint32_t>();
}

TEST_CASE("index_add in place leaves the other elements alone", "[cpu][index]") {
  std::vector<float> base{1, 2, 3, 4};
  const std::vector<std::int32_t> indices{2, 2};
  const std::vector<float> updates{10, 100};
  const OpKernel kernel{Op::index_add,
                        AxisAttributes{0},
                        {0, 1, 2},
                        {3},
                        {{{4}, DType::f32}, {{2}, DType::i32}, {{2}, DType::f32}},
                        {{{4}, DType::f32}}};
  std::byte* const memory = reinterpret_cast<std::byte*>(base.data());
  std::byte* at[] = {memory,
                     reinterpret_cast<std::byte*>(const_cast<std::int32_t*>(indices.data())),
                     reinterpret_cast<std::byte*>(const_cast<float*>(updates.data())), memory};
  const OpRunner runner(kernel);
  std::vector<std::int64_t> scratch(runner.scratch_bytes(1) / sizeof(std::int64_t));
  runner.run({at, {}}, ThreadPool(1), reinterpret_cast<std::byte*>(scratch.data()));
  CHECK(base == std::vector<float>{1, 2, 113, 4});
}

TEST_CASE("sums of f32 numbers at one place are rounded once, however many they are",
          "[cpu][index]") {
  // 2^24 + 1 is no f32: a running sum would stay there.
  const std::vector<float> base{3, 0x1p24f}, updates(101, 1.0f);
  const std::vector<std::int32_t> places(101, 1);
  const std::vector<float> expected{3, 0x1p24f + 101};
  const AxisAttributes axis{0};
  const TensorType two{{2}, DType::f32}, many{{101}, DType::f32}, indices{{101}, DType::i32};
  for (const Op op : {Op::index_add, Op::scatter_add})
    CHECK(run_op<float>(op, axis, {two, indices, many},
                        {base.data(), places.data(), updates.data()}, two) == expected);
}

namespace {

template <class T>
void check_argsort(std::vector<T> values, std::int64_t outer, std::int64_t length,
                   std::int64_t inner, DType dtype) {
  for (const bool descending : {false, true}) {
    const TensorType type{{outer, length, inner}, dtype};
    const auto got = run_op<std::int32_t>(Op::argsort, SortAttributes{1, descending}, {type},
                                          {values.data()}, {type.shape, DType::i32});
    std::vector<std::int32_t> expected(values.size()), line(static_cast<std::size_t>(length));
    for (std::int64_t o = 0; o < outer; ++o)
      for (std::int64_t i = 0; i < inner; ++i) {
        const auto at = [&](std::int64_t k) {
          return static_cast<std::size_t>((o * length + k) * inner + i);
        };
        std::iota(line.begin(), line.end(), 0);
        std::stable_sort(line.begin(), line.end(), [&](std::int32_t a, std::int32_t b) {
          const T x = values[at(a)], y = values[at(b)];
          if (x != x || y != y) return x == x;
          return descending ? x > y : x < y;
        });
        for (std::int64_t k = 0; k < length; ++k)
          expected[at(k)] = line[static_cast<std::size_t>(k)];
      }
    INFO(to_string(type) << (descending ? " descending" : ""));
    CHECK(got == expected);
  }
}

// Every bit pattern may occur: NaN of either sign, infinities, subnormal numbers; and many ties.
template <class T, class Bits>
std::vector<T> wild_values(std::int64_t count, std::uint32_t seed) {
  std::mt19937_64 engine(seed);
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) {
    switch (engine() % 4) {
      case 0:
        value = std::bit_cast<T>(static_cast<Bits>(engine()));
        break;
      case 1:
        value = engine() % 2 ? T(0) : static_cast<T>(-T(0));
        break;
      case 2:
        value = std::numeric_limits<T>::has_quiet_NaN && engine() % 2
                    ? std::numeric_limits<T>::quiet_NaN()
                    : std::numeric_limits<T>::lowest();
        break;
      default:
        value = static_cast<T>(static_cast<int>(engine() % 7) - 3);
        break;
    }
  }
  return values;
}

}  // namespace

TEST_CASE("argsort equals a stable sort, NaN last, on lines of every length and stride",
          "[cpu][index][sort]") {
  std::uint32_t seed = 0;
  for (const auto& [outer, length, inner] : {std::array<std::int64_t, 3>{3, 17, 1},
                                             {1, 1, 5},
                                             {2, 100, 3},
                                             {1, 511, 2},
                                             {1, 512, 2},
                                             {2, 4001, 3},
                                             {1, 70000, 1},
                                             {0, 5, 2},
                                             {4, 0, 2},
                                             {3, 2, 0},
                                             {300, 40, 1}}) {
    const std::int64_t count = outer * length * inner;
    check_argsort(wild_values<float, std::uint32_t>(count, ++seed), outer, length, inner,
                  DType::f32);
    check_argsort(wild_values<double, std::uint64_t>(count, ++seed), outer, length, inner,
                  DType::f64);
    check_argsort(wild_values<std::int32_t, std::uint32_t>(count, ++seed), outer, length, inner,
                  DType::i32);
    check_argsort(wild_values<std::uint32_t, std::uint32_t>(count, ++seed), outer, length, inner,
                  DType::u32);
  }
}

TEST_CASE("take moves elements of every size", "[cpu][index]") {
  const std::vector<std::int32_t> indices{2, 0, 2};
  const auto x = random_values<std::uint16_t>(12, 3);
  const auto y =
      run_op<std::uint16_t>(Op::take, AxisAttributes{0}, {{{3, 4}, DType::bf16}, {{3}, DType::i32}},
                            {x.data(), indices.data()}, {{3, 4}, DType::bf16});
  for (int k = 0; k < 3; ++k)
    for (int i = 0; i < 4; ++i)
      CHECK(y[static_cast<std::size_t>(4 * k + i)] ==
            x[static_cast<std::size_t>(4 * indices[static_cast<std::size_t>(k)] + i)]);
}

TEST_CASE("cumsum sums upwards along its axis", "[cpu][index]") {
  for (const Sizes size : sizes) {
    const auto [outer, axis, inner, unused] = size;
    const TensorType type{{outer, axis, inner}, DType::f32};
    const auto x = random_values<float>(outer * axis * inner, 9);
    const auto y = run_op<float>(Op::cumsum, AxisAttributes{1}, {type}, {x.data()}, type);
    for (std::int64_t o = 0; o < outer; ++o)
      for (std::int64_t i = 0; i < inner; ++i) {
        double sum = 0;
        for (std::int64_t k = 0; k < axis; ++k) {
          const std::size_t at = static_cast<std::size_t>((o * axis + k) * inner + i);
          sum += x[at];
          REQUIRE(y[at] == static_cast<float>(sum));
        }
      }
  }
}

TEST_CASE("argmax gives the first maximum, and the first NaN before any number", "[cpu][index]") {
  const std::vector<float> x{1,        3, 3, 2, /**/ 5,         NAN,       7,  NAN,
                             /**/ NAN, 1, 2, 3, /**/ -INFINITY, -INFINITY, -1, -1};
  CHECK(run_op<std::int32_t>(Op::argmax, AxisAttributes{1}, {{{4, 4}, DType::f32}}, {x.data()},
                             {{4, 1}, DType::i32}) == std::vector<std::int32_t>{1, 1, 0, 2});
  const std::vector<std::int32_t> z{1, 9, 4, 2, 9, 8};
  CHECK(run_op<std::int32_t>(Op::argmax, AxisAttributes{0}, {{{2, 3}, DType::i32}}, {z.data()},
                             {{1, 3}, DType::i32}) == std::vector<std::int32_t>{1, 0, 1});
}

TEST_CASE("random bits are Philox words in order, whatever the count", "[cpu][random]") {
  const std::uint32_t key[2] = {0xDEADBEEFu, 42}, stream = 7;
  for (const std::int64_t count : {0, 1, 3, 64, 65, 1000, 100001}) {
    const auto bits = run_op<std::uint32_t>(Op::random_bits, RandomAttributes{{count}, 3},
                                            {{{2}, DType::u32}, {Shape{}, DType::u32}},
                                            {key, &stream}, {{count}, DType::u32});
    for (std::int64_t i = 0; i < count; ++i)
      REQUIRE(bits[static_cast<std::size_t>(i)] ==
              random_block(static_cast<std::uint64_t>(i / 4), stream, 3,
                           {key[0], key[1]})[static_cast<std::size_t>(i % 4)]);
  }
}

TEST_CASE("an op without a kernel, or of a dtype that it can't compute, is refused",
          "[cpu][index]") {
  CHECK_THROWS_WITH(
      OpRunner(OpKernel{
          Op::softmax, AxisAttributes{0}, {0}, {1}, {{{4}, DType::f32}}, {{{4}, DType::f32}}}),
      has_text("softmax"));
  CHECK_THROWS_AS(
      OpRunner(OpKernel{
          Op::cumsum, AxisAttributes{0}, {0}, {1}, {{{4}, DType::bf16}}, {{{4}, DType::bf16}}}),
      DTypeError);
}
