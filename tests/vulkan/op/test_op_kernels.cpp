// Index ops, sorting, cumulative sums and random bits on a Vulkan device against the reference
// backend. What is moved, and integers, must be equal bit for bit. Sums of f32 are summed in f64 by
// the reference and rounded once: here they may differ by one rounding of the result, and by what
// remains of the intermediate sums at the square of f32's precision.
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "backends/reference/reference.h"
#include "tests/catch.h"
#include "tests/vulkan/op/devices.h"
#include "tests/vulkan/op/op_call.h"

namespace {

using namespace fluxion;
using namespace fluxion::testing;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_f32 = std::numeric_limits<float>::quiet_NaN();

struct Sizes {
  std::int64_t outer, axis, inner, count;
  Shape x() const { return {outer, axis, inner}; }
  Shape picked() const { return {outer, count, inner}; }
};
// The last ones have more updates than each element would look at.
constexpr Sizes op_sizes[] = {{1, 1, 1, 1},   {1, 10, 1, 30},   {3, 5, 7, 11}, {2, 33, 64, 50},
                              {4, 1, 3, 9},   {1, 4, 128, 0},   {0, 4, 2, 3},  {5, 3, 12, 1},
                              {2, 7, 3, 300}, {1, 169, 1, 2401}};

// Values of any dtype; floats among them NaN, infinities and zeros of both signs.
HostTensor random_tensor(const Shape& shape, DType dtype, std::uint32_t seed,
                         bool special = false) {
  std::mt19937 engine(seed);
  HostTensor tensor{{shape, dtype}, {}};
  tensor.bytes.resize(tensor.type.bytes());
  const auto count = static_cast<std::size_t>(shape.elements());
  const std::size_t size = size_of(dtype);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t drawn = engine();
    std::uint32_t bits = drawn;
    if (dtype == DType::boolean) bits = drawn & 1;
    if (is_floating(dtype)) {
      float value = static_cast<float>(static_cast<std::int32_t>(drawn)) * 0x1p-28f;
      constexpr float specials[] = {nan_f32, infinity, -infinity, 0.0f, -0.0f, 1.0f};
      if (special && drawn % 3 == 0) value = specials[engine() % 6];
      bits = dtype == DType::f32    ? std::bit_cast<std::uint32_t>(value)
             : dtype == DType::bf16 ? std::bit_cast<std::uint16_t>(to_bf16(value))
                                    : std::bit_cast<std::uint16_t>(to_f16(value));
    }
    std::memcpy(tensor.bytes.data() + i * size, &bits, size);
  }
  return tensor;
}

// Some of them outside the axis.
HostTensor random_indices(const Shape& shape, std::int64_t axis, std::uint32_t seed) {
  std::mt19937 engine(seed);
  std::vector<std::int32_t> values(static_cast<std::size_t>(shape.elements()));
  for (std::int32_t& value : values) {
    value = static_cast<std::int32_t>(engine() % static_cast<unsigned>(axis + 4)) - 2;
    if (engine() % 16 == 0) value = std::numeric_limits<std::int32_t>::max();
    if (engine() % 16 == 0) value = std::numeric_limits<std::int32_t>::min();
  }
  return HostTensor::of(shape, DType::i32, values);
}

const Device& reference_device() {
  static const Device device = reference();
  return device;
}

void check_equal(const Device& device, Op op, const Attributes& attributes,
                 const std::vector<HostTensor>& inputs, bool in_place = false) {
  const HostTensor got = run_op(device, op, attributes, inputs, in_place);
  const HostTensor want = run_op(reference_device(), op, attributes, inputs);
  INFO(to_string(inputs[0].type));
  CHECK(writes_outside() == "");
  CHECK(got.type == want.type);
  CHECK((got.bytes == want.bytes));
}

// `terms`: for each element, the sum of the magnitudes that were added up.
void check_sums(const Device& device, Op op, const Attributes& attributes,
                const std::vector<HostTensor>& inputs, bool in_place = false) {
  if (inputs[0].type.dtype != DType::f32)
    return check_equal(device, op, attributes, inputs, in_place);
  const auto got = run_op(device, op, attributes, inputs, in_place).values<float>();
  const auto want = run_op(reference_device(), op, attributes, inputs).values<float>();
  std::vector<HostTensor> magnitudes = inputs;
  for (HostTensor& tensor : magnitudes)
    if (tensor.type.dtype == DType::f32) {
      auto values = tensor.values<float>();
      for (float& value : values) value = std::abs(value);
      tensor = HostTensor::of(tensor.type.shape, DType::f32, values);
    }
  const auto all = run_op(reference_device(), op, attributes, magnitudes).values<float>();
  CHECK(writes_outside() == "");
  REQUIRE(got.size() == want.size());
  INFO(to_string(inputs[0].type));
  std::int64_t wrong = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    // An f32 rounds to within 2^-24 of itself; 2^-40 is 2^-48 times a few hundred roundings.
    const float allowed = 0x1p-23f * std::abs(want[i]) + 0x1p-40f * all[i];
    const bool equal = std::isnan(want[i]) ? std::isnan(got[i])
                       : std::isinf(want[i])
                           ? got[i] == want[i]
                           : std::abs(got[i] - want[i]) <= allowed &&
                                 (want[i] != 0 || std::signbit(got[i]) == std::signbit(want[i]));
    if (!equal && ++wrong == 1) UNSCOPED_INFO(i << ": " << got[i] << ", not " << want[i]);
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("vulkan: take and take_along_axis move every dtype bit for bit", "[vulkan][op]") {
  for (const OpDevice& on : op_devices()) {
    INFO(on.name);
    std::uint32_t seed = 1;
    for (const Sizes& size : op_sizes)
      for (const DType dtype : {DType::f32, DType::boolean, DType::u8, DType::bf16}) {
        const HostTensor x = random_tensor(size.x(), dtype, ++seed, true);
        check_equal(on.device, Op::take, AxisAttributes{1},
                    {x, random_indices({size.count}, size.axis, ++seed)});
        check_equal(on.device, Op::take_along_axis, AxisAttributes{1},
                    {x, random_indices(size.picked(), size.axis, ++seed)});
      }
  }
}

TEST_CASE("vulkan: take gives the axis the axes of the indices", "[vulkan][op]") {
  for (const OpDevice& on : op_devices()) {
    INFO(on.name);
    const HostTensor x = random_tensor({4, 6}, DType::f32, 3);
    check_equal(on.device, Op::take, AxisAttributes{0}, {x, random_indices({2, 3}, 4, 4)});
    check_equal(on.device, Op::take, AxisAttributes{1}, {x, random_indices({}, 6, 5)});
    check_equal(on.device, Op::take, AxisAttributes{0},
                {random_tensor({0, 6}, DType::f32, 6), random_indices({0}, 1, 7)});
  }
}

TEST_CASE("vulkan: index_add and scatter_add sum what arrives, in place too", "[vulkan][op]") {
  for (const OpDevice& on : op_devices()) {
    INFO(on.name);
    std::uint32_t seed = 1;
    for (const Sizes& size : op_sizes)
      for (const DType dtype : {DType::f32, DType::i32}) {
        const HostTensor base = random_tensor(size.x(), dtype, ++seed),
                         updates = random_tensor(size.picked(), dtype, ++seed);
        const HostTensor list = random_indices({size.count}, size.axis, ++seed),
                         places = random_indices(size.picked(), size.axis, ++seed);
        for (const bool in_place : {false, true}) {
          if (in_place && dtype == DType::i32) continue;
          check_sums(on.device, Op::index_add, AxisAttributes{1}, {base, list, updates}, in_place);
          check_sums(on.device, Op::scatter_add, AxisAttributes{1}, {base, places, updates},
                     in_place);
        }
      }
  }
}

TEST_CASE("vulkan: sums keep NaN, infinities and the sign of zero", "[vulkan][op]") {
  for (const OpDevice& on : op_devices()) {
    INFO(on.name);
    for (const std::int64_t count : {3, 40, 400}) {
      const HostTensor base = random_tensor({5, 7}, DType::f32, 8, true),
                       updates = random_tensor({count, 7}, DType::f32, 9, true);
      check_sums(on.device, Op::index_add, AxisAttributes{0},
                 {base, random_indices({count}, 5, 10), updates});
      check_sums(on.device, Op::scatter_add, AxisAttributes{0},
                 {base, random_indices({count, 7}, 5, 11), updates});
      check_sums(on.device, Op::cumsum, AxisAttributes{0}, {updates});
    }
    const HostTensor zeros = HostTensor::of<float>({4}, DType::f32, {-0.0f, 0.0f, -0.0f, 0.0f});
    check_equal(on.device, Op::index_add, AxisAttributes{0},
                {zeros, HostTensor::of<std::int32_t>({2}, DType::i32, {0, 1}),
                 HostTensor::of<float>({2}, DType::f32, {-0.0f, -0.0f})});
    check_equal(on.device, Op::cumsum, AxisAttributes{0}, {zeros});
  }
}

TEST_CASE("vulkan: a sum of many small updates loses none", "[vulkan][op]") {
  for (const OpDevice& on : op_devices()) {
    INFO(on.name);
    // In f32 alone, 2^24 and ones stay 2^24.
    for (const std::int64_t count : {200, 5000}) {
      const std::vector<float> ones(static_cast<std::size_t>(count), 1.0f);
      const std::vector<std::int32_t> all_to_one(static_cast<std::size_t>(count), 1);
      const HostTensor base = HostTensor::of<float>({2}, DType::f32, {3.0f, 0x1p24f});
      const HostTensor places = HostTensor::of({count}, DType::i32, all_to_one),
                       updates = HostTensor::of({count}, DType::f32, ones);
      check_equal(on.device, Op::index_add, AxisAttributes{0}, {base, places, updates});
      check_equal(on.device, Op::scatter_add, AxisAttributes{0}, {base, places, updates});
      std::vector<float> steps(static_cast<std::size_t>(count), 1.0f);
      steps[0] = 0x1p24f;
      check_equal(on.device, Op::cumsum, AxisAttributes{0},
                  {HostTensor::of({count}, DType::f32, steps)});
    }
  }
}

TEST_CASE("vulkan: cumsum along any axis, of any length", "[vulkan][op]") {
  for (const OpDevice& on : op_devices()) {
    INFO(on.name);
    std::uint32_t seed = 1;
    for (const Shape& shape : {Shape{1, 1, 1}, Shape{2, 5, 3}, Shape{1, 256, 2}, Shape{3, 257, 2},
                               Shape{1, 5001, 1}, Shape{2, 0, 3}, Shape{0, 3, 1}, Shape{7, 40, 9}})
      for (const DType dtype : {DType::f32, DType::u32})
        for (const std::int64_t axis : {0, 1, 2})
          check_sums(on.device, Op::cumsum, AxisAttributes{axis},
                     {random_tensor(shape, dtype, ++seed)});
  }
}

TEST_CASE("vulkan: argmax is the first maximum, or the first NaN", "[vulkan][op]") {
  for (const OpDevice& on : op_devices()) {
    INFO(on.name);
    std::uint32_t seed = 1;
    for (const Shape& shape : {Shape{1, 1, 1}, Shape{2, 5, 3}, Shape{1, 700, 2}, Shape{3, 129, 1},
                               Shape{5, 64, 7}, Shape{1, 5001, 1}, Shape{0, 3, 1}})
      for (const DType dtype : {DType::f32, DType::i32, DType::u32})
        for (const bool special : {false, true})
          check_equal(on.device, Op::argmax, AxisAttributes{1},
                      {random_tensor(shape, dtype, ++seed, special)});
    // Many equal ones.
    std::vector<std::int32_t> few(1000);
    for (std::size_t i = 0; i < few.size(); ++i) few[i] = static_cast<std::int32_t>(i * 7 % 5);
    check_equal(on.device, Op::argmax, AxisAttributes{0},
                {HostTensor::of({1000}, DType::i32, few)});
    const std::vector<float> lowest(300, -infinity);
    check_equal(on.device, Op::argmax, AxisAttributes{0},
                {HostTensor::of({300}, DType::f32, lowest)});
  }
}

TEST_CASE("vulkan: argsort is stable, with NaN last in both directions", "[vulkan][op]") {
  for (const OpDevice& on : op_devices()) {
    INFO(on.name);
    std::uint32_t seed = 1;
    for (const Shape& shape :
         {Shape{1, 1, 1}, Shape{2, 5, 3}, Shape{100, 3, 1}, Shape{1, 128, 2}, Shape{2, 500, 1},
          Shape{1, 1024, 1}, Shape{1, 1025, 3}, Shape{2, 5001, 1}, Shape{2, 0, 3}, Shape{0, 3, 1}})
      for (const DType dtype : {DType::f32, DType::i32, DType::u32})
        for (const bool descending : {false, true})
          check_equal(on.device, Op::argsort, SortAttributes{.axis = 1, .descending = descending},
                      {random_tensor(shape, dtype, ++seed, true)});
    // Equal keys throughout, and the largest key of all.
    for (const std::int64_t length : {50, 3000}) {
      const std::vector<std::uint32_t> largest(static_cast<std::size_t>(length), ~0u);
      for (const bool descending : {false, true})
        check_equal(on.device, Op::argsort, SortAttributes{.axis = 0, .descending = descending},
                    {HostTensor::of({length}, DType::u32, largest)});
    }
  }
}

TEST_CASE("vulkan: random bits are those of the reference, bit for bit", "[vulkan][op]") {
  for (const OpDevice& on : op_devices()) {
    INFO(on.name);
    for (const std::int64_t count : {0, 1, 3, 4, 5, 511, 512, 4099})
      for (const std::int64_t domain : {0, 3})
        check_equal(on.device, Op::random_bits,
                    RandomAttributes{.shape = {count}, .domain = domain},
                    {HostTensor::of<std::uint32_t>({2}, DType::u32, {0xdeadbeefu, 0x12345678u}),
                     HostTensor::of<std::uint32_t>({}, DType::u32, {0x80000001u})});
  }
}

TEST_CASE("vulkan: after copies", "[vulkan][op]") {
  for (const OpDevice& on : op_devices()) {
    INFO(on.name);
    for (const DType dtype : {DType::f32, DType::boolean, DType::u8, DType::bf16})
      for (const std::int64_t count : {0, 1, 7, 400})
        check_equal(on.device, Op::after, NoAttributes{},
                    {random_tensor({count}, dtype, 5, true), random_tensor({3}, DType::f32, 6)});
  }
}
