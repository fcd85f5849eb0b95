// Vulkan: maps and rows of 16-bit numbers, which are taken in eights where memory allows it,
// against the reference backend on every device.
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "backends/reference/reference.h"
#include "backends/vulkan/kernels/tape_rows.h"
#include "engine/compile.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/vulkan/op/devices.h"
#include "tests/vulkan/valid_spirv.h"

namespace {

using namespace fluxion;
using namespace fluxion::testing;
using vulkan_backend::KernelWork;

// What f gives for x, which lies in memory as `dtype`, and for its elements in f32.
using OfHalves = std::function<Tensor(const Tensor& halves, const Tensor& floats)>;
std::vector<float> result_of_halves(const OfHalves& f, const std::vector<float>& x,
                                    const Shape& shape, DType dtype, const Device& device) {
  const auto rounded = compile([=](const Tensor& t) { return convert(t, dtype); });
  const auto widened = compile([](const Tensor& t) { return convert(t, DType::f32); });
  const Tensor floats = Tensor::from(x, shape, device);
  return widened(compile(f)(rounded(floats), floats)).to_host<float>();
}

// On every device as on the reference one; `tolerance` is relative to 1 + |want|.
void compare_halves(const OfHalves& f, const Shape& shape, double tolerance, bool special = false) {
  std::mt19937 engine(7);
  std::uniform_real_distribution<float> uniform(-3, 3);
  std::vector<float> x(static_cast<std::size_t>(shape.elements()));
  for (float& value : x) value = uniform(engine);
  constexpr float endless = std::numeric_limits<float>::infinity();
  if (special)
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (i % 11 == 3) x[i] = std::numeric_limits<float>::quiet_NaN();
      if (i % 13 == 5) x[i] = i % 2 ? endless : -endless;
      if (i % 17 == 7) x[i] = -0.0f;
    }
  if (op_devices().empty()) WARN("skipped: no software device");
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const std::vector<float> want = result_of_halves(f, x, shape, dtype, reference());
    for (const OpDevice& each : op_devices()) {
      const std::vector<float> got = result_of_halves(f, x, shape, dtype, each.device);
      INFO(each.name << ", " << to_string(dtype) << " " << to_string(shape));
      REQUIRE(got.size() == want.size());
      std::size_t wrong = 0, first = 0;
      for (std::size_t i = want.size(); i-- > 0;) {
        const bool same =
            std::isnan(want[i])   ? std::isnan(got[i])
            : std::isinf(want[i]) ? got[i] == want[i]
            : tolerance == 0
                ? std::bit_cast<std::uint32_t>(got[i]) == std::bit_cast<std::uint32_t>(want[i])
                : std::abs(got[i] - want[i]) <= tolerance * (1 + std::abs(want[i]));
        if (!same) ++wrong, first = i;
      }
      if (wrong > 0)
        FAIL(wrong << " wrong, the first is element " << first << ": " << got[first] << ", want "
                   << want[first]);
      CHECK(writes_outside().empty());
    }
  }
}

Tensor f32_of(const Tensor& t) { return convert(t, DType::f32); }
Tensor negated(const Tensor& t) { return convert(-f32_of(t), t.dtype()); }

// A map of 16-bit numbers: buffer 1 = buffer 0, both of `points` elements.
Tape copy_of(std::int64_t points, DType dtype) {
  Tape tape;
  tape.extents = {points};
  tape.loads.push_back({0, dtype, {0, {1}}, {}});
  tape.instructions.push_back({TapeCode::load, Op::identity, DType::f32, false, 0, {-1, -1, -1}});
  tape.stores.push_back({0, 1, dtype, {0, {1}}});
  return tape;
}

std::string family_of(const Tape& tape, DType dtype, std::int64_t elements,
                      const Storage& storage = {}, bool storage_16 = true) {
  Program program;
  for (std::int64_t i = 0; i < 2; ++i)
    program.buffers.push_back({BufferKind::output, {{elements}, dtype}, i, 0});
  vulkan_backend::ShaderTarget target;
  target.storage_16 = storage_16;
  const KernelWork work = vulkan_backend::lower_tape({tape}, {program, storage, target});
  require_valid(work, target);
  return work.shaders.front().name;
}

TEST_CASE("a map takes eight 16-bit numbers at once, or four where they are kept as f32",
          "[vulkan][tape][halves]") {
  Storage wide;
  wide.keep(DType::bf16, DType::f32).write_together(4);
  for (const std::int64_t points : {64, 72, 1000, 1003, 4099}) {
    CHECK(family_of(copy_of(points, DType::bf16), DType::bf16, points) == "map of eights");
    CHECK(family_of(copy_of(points, DType::f16), DType::f16, points) == "map of eights");
    CHECK(family_of(copy_of(points, DType::f32), DType::f32, points) == "map of fours");
    CHECK(family_of(copy_of(points, DType::bf16), DType::bf16, points, wide, false) ==
          "map of fours");
  }
  // Addresses that are multiples of four only, or of less.
  Tape shifted = copy_of(64, DType::bf16);
  shifted.loads[0].address.constant = 4;
  shifted.stores[0].address.constant = 4;
  CHECK(family_of(shifted, DType::bf16, 68) == "map of fours");
  shifted.stores[0].address.constant = 8;
  CHECK(family_of(shifted, DType::bf16, 72) == "map of eights");
  shifted.stores[0].address.constant = 3;
  CHECK(family_of(shifted, DType::bf16, 68) == "map of fours");
  shifted.loads[0].address.constant = 1;
  CHECK(family_of(shifted, DType::bf16, 68) == "map");
}

TEST_CASE("rows of 16-bit numbers are taken in eights", "[vulkan][tape][halves]") {
  const auto width_of = [](DType dtype, std::int64_t rows, std::int64_t length, bool across) {
    Tape tape;
    tape.extents = {rows, length};
    tape.reduced_axes = 1;
    tape.loads.push_back({0, dtype, {0, across ? Dims{1, rows} : Dims{length, 1}}, {}});
    tape.instructions.push_back({TapeCode::load, Op::identity, DType::f32, false, 0, {-1, -1, -1}});
    tape.instructions.push_back({TapeCode::reduce, Op::sum, DType::f32, true, 0, {0, -1, -1}});
    tape.stores.push_back({1, 1, DType::f32, {0, {1, 0}}});
    const auto plan = vulkan_backend::plan_rows(tape, vulkan_backend::stages_of(tape), {}, {});
    CHECK(plan.across == across);
    return plan.width;
  };
  CHECK(width_of(DType::bf16, 100, 96, false) == 8);
  CHECK(width_of(DType::f16, 100, 100, false) == 4);
  CHECK(width_of(DType::f32, 100, 96, false) == 4);
  // Across, where there is work for many.
  CHECK(width_of(DType::bf16, 96, 4000, true) == 8);
  CHECK(width_of(DType::bf16, 100, 4000, true) == 4);
  CHECK(width_of(DType::f32, 96, 4000, true) == 4);
  CHECK(width_of(DType::bf16, 96, 100, true) == 4);
}

TEST_CASE("maps of 16-bit numbers of every size, on Vulkan", "[vulkan][tape][halves]") {
  for (const std::int64_t size : {0, 1, 2, 7, 8, 9, 15, 16, 24, 63, 64, 65, 68, 71, 72, 512, 1027})
    for (const bool special : {false, true}) {
      compare_halves([](const Tensor& t, const Tensor&) { return negated(t); }, {size}, 0, special);
      compare_halves(
          [](const Tensor& t, const Tensor&) { return convert(f32_of(t) * 1.5, t.dtype()); },
          {size}, 0, special);
      compare_halves([](const Tensor& t, const Tensor&) { return f32_of(t) + 1; }, {size}, 0,
                     special);
      compare_halves(
          [](const Tensor& t, const Tensor& x) { return convert(f32_of(t) - x, t.dtype()); },
          {size}, 0, special);
    }
}

TEST_CASE("views of 16-bit numbers that begin anywhere, on Vulkan", "[vulkan][tape][halves]") {
  for (const std::int64_t begin : {1, 4, 8, 12, 16})
    for (const std::int64_t length : {4, 8, 24, 64}) {
      compare_halves(
          [=](const Tensor& t, const Tensor&) {
            return negated(slice_axis(t, 1, begin, begin + length));
          },
          {3, 96}, 0);
      compare_halves(
          [=](const Tensor& t, const Tensor& x) {
            const Tensor part = slice_axis(t, 1, begin, begin + length);
            return concat({f32_of(part), x, f32_of(t)}, 1);
          },
          {3, 96}, 0);
      compare_halves(
          [=](const Tensor& t, const Tensor&) {
            const Tensor part = slice_axis(t, 1, begin, begin + length);
            return concat({part, t, part}, 1);
          },
          {2, 96}, 0);
    }
  for (const std::int64_t low : {0, 3, 4, 8})
    for (const std::int64_t high : {0, 4, 5, 16})
      compare_halves(
          [=](const Tensor& t, const Tensor&) {
            return pad(t, {0, low}, {1, high}, 0.5);
          },
          {3, 32}, 0);
  for (const Shape& shape : {Shape{8, 16}, Shape{16, 8}, Shape{24, 40}, Shape{2, 8, 8}}) {
    const std::int64_t last = shape.rank() - 1;
    compare_halves([=](const Tensor& t, const Tensor&) { return swap_axes(t, last - 1, last); },
                   shape, 0);
    compare_halves([=](const Tensor& t, const Tensor& x) { return f32_of(flip(t, {last})) - x; },
                   shape, 0);
    compare_halves(
        [=](const Tensor& t, const Tensor& x) {
          return f32_of(swap_axes(t, last - 1, last)) + swap_axes(x, last - 1, last);
        },
        shape, 0);
  }
}

TEST_CASE("rows of 16-bit numbers of every length, on Vulkan", "[vulkan][tape][halves]") {
  const OfHalves softmax_of = [](const Tensor& t, const Tensor&) {
    const std::int64_t last = t.shape().rank() - 1;
    const Tensor x = f32_of(t), e = exp(x - max(x, {last}, true));
    return convert(e / sum(e, {last}, true), t.dtype());
  };
  const OfHalves sums_of = [](const Tensor& t, const Tensor& x) {
    const std::int64_t last = t.shape().rank() - 1;
    return sum(f32_of(t) * x, {last}) + max(f32_of(t), {last});
  };
  for (const std::int64_t length : {1, 4, 8, 12, 16, 24, 96, 100, 384, 1000, 2048, 5000}) {
    INFO("rows of " << length);
    compare_halves(softmax_of, {5, length}, 0.01);
    compare_halves(sums_of, {5, length}, 1e-5);
  }
  compare_halves(sums_of, {1, 1 << 17}, 1e-5);  // in parts
  compare_halves(sums_of, {2, 16, 8}, 1e-5);
  // Across the memory; the long ones in parts.
  for (const Shape& shape : {Shape{300, 64}, Shape{50, 16}, Shape{50, 24}, Shape{50, 20},
                             Shape{4000, 72}, Shape{1500, 384}, Shape{20, 16384}, Shape{7, 40}}) {
    compare_halves([](const Tensor& t, const Tensor&) { return sum(f32_of(t), {0}); }, shape, 1e-4);
    compare_halves(
        [](const Tensor& t, const Tensor& x) {
          return convert(sum(f32_of(t) * x, {0}) * 0.01 + max(x, {0}), t.dtype());
        },
        shape, 0.01);
    compare_halves(
        [](const Tensor& t, const Tensor& x) {
          const Tensor each = f32_of(t);
          return sum(each, {0}) + max(each, {0}) + sum(each * x, {0});
        },
        shape, 1e-4);
  }
  // NaN and infinities stay in their rows.
  compare_halves([](const Tensor& t, const Tensor&) { return max(f32_of(t), {1}); }, {40, 8}, 0,
                 true);
}

}  // namespace
