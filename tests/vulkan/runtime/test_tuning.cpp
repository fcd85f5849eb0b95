// Vulkan: tiles of matrix products that were measured, by clocks of the tests' own.
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "backends/vulkan/backend.h"
#include "backends/vulkan/kernels/gemm.h"
#include "backends/vulkan/pipeline_cache.h"
#include "backends/vulkan/tile_speed.h"
#include "engine/error.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"
#include "tests/vulkan/gemm/contraction.h"
#include "tests/vulkan/gemm/run_kernel.h"
#include "tests/vulkan/run_work.h"
#include "tests/vulkan/runtime/environment.h"
#include "tests/vulkan/runtime/small_kernels.h"

using namespace fluxion;
using namespace fluxion::testing;
using namespace fluxion::vulkan_backend;

namespace {

// A device on which products take as long as the model says, times a factor for each tile, and
// whose clock goes on by `each` seconds for every product.
struct InventedSpeeds {
  double each = 1e-3;
  double unit = 1e-6;  // seconds
  std::vector<double> factors = std::vector<double>(gemm_tiles().size(), 1);
  std::vector<std::size_t> measured{};  // numbers of the tiles, in order
  double time = 0;
  std::size_t fails = gemm_tiles().size();  // the tile that can't run

  TileTiming timing(const ShaderTarget& target) {
    return {[this, target](const GemmTile& tile, std::int64_t n) {
              std::size_t number = 0;
              while (!(suited(gemm_tiles()[number], 1, target) == tile)) ++number;
              measured.push_back(number);
              time += each;
              if (number == fails) throw Error("no such tile");
              const GemmProblem problem{.m = n, .n = n, .k = n};
              return factors[number] * unit * modelled_cost(problem, tile, target);
            },
            [this] { return time; }};
  }
};

std::size_t number_of(const GemmTile& tile) {
  std::size_t number = 0;
  while (!(gemm_tiles()[number] == tile)) ++number;
  return number;
}

// The tile that the model takes for large products.
std::size_t models_choice(const ShaderTarget& target) {
  return number_of(choose_tile({.m = 2048, .n = 2048, .k = 2048}, target).tile);
}

}  // namespace

TEST_CASE("what is measured of a tile is how far it is from the model", "[vulkan][tuning]") {
  const ShaderTarget target = usual_target();
  InventedSpeeds speeds;
  const std::size_t best = models_choice(target), other = best == 3 ? 4 : 3;
  speeds.factors[other] = 0.25;
  speeds.factors[best == 5 ? 6 : 5] = 1000;
  const std::vector<float> factors = measure_factors(target, speeds.timing(target), 1);
  REQUIRE(factors.size() == gemm_tiles().size());
  for (std::size_t i = 0; i < factors.size(); ++i) {
    CAPTURE(i);
    CHECK(factors[i] == Approx(std::min<double>(speeds.factors[i], most_factor)));
  }
}

TEST_CASE("tiles are measured within the time, the likeliest first", "[vulkan][tuning]") {
  const ShaderTarget target = usual_target();
  InventedSpeeds speeds;
  speeds.unit = 1;  // one product is long enough
  speeds.each = 0.3;
  speeds.factors.assign(speeds.factors.size(), 0.5);
  speeds.factors[number_of(choose_tile({.m = 128, .n = 128, .k = 128}, target).tile)] = 1;
  const std::vector<float> factors = measure_factors(target, speeds.timing(target), 1);
  CHECK(speeds.measured.size() <= 5);
  CHECK(speeds.time <= 1 + 2 * 0.3);
  CHECK(std::count(factors.begin(), factors.end(), 1.0f) >= 14);
  CHECK(std::count(factors.begin(), factors.end(), 0.5f) >= 1);
}

TEST_CASE("a tile that can't run is avoided, and a device that is lost is not hidden",
          "[vulkan][tuning]") {
  const ShaderTarget target = usual_target();
  InventedSpeeds speeds;
  for (std::size_t fails = 0; fails < gemm_tiles().size(); ++fails) {
    CAPTURE(fails);
    speeds.fails = fails;
    const std::vector<float> factors = measure_factors(target, speeds.timing(target), 1);
    if (suited(gemm_tiles()[fails], 1, target)) CHECK(factors[fails] == most_factor);
    CHECK(std::ranges::count(factors, most_factor) <= 1);
  }
  TileTiming dead = speeds.timing(target);
  dead.product = [](const GemmTile&, std::int64_t) -> double {
    DeviceError lost("gone");
    lost.state_aftermath(Aftermath::device_dead);
    throw lost;
  };
  CHECK_THROWS_AS(measure_factors(target, dead, 1), DeviceError);
}

TEST_CASE("the fastest tile is taken, and the split of the sums stays", "[vulkan][tuning]") {
  const ShaderTarget model = usual_target();
  ShaderTarget tuned = model;
  for (std::size_t fast = 0; fast < gemm_tiles().size(); ++fast) {
    tuned.tile_factors.assign(gemm_tiles().size(), most_factor);
    tuned.tile_factors[fast] = 1 / most_factor;
    for (const std::int64_t k : {64, 4096, 65536}) {
      const GemmProblem problem{.m = 512, .n = 512, .k = k};
      const GemmChoice before = choose_tile(problem, model), after = choose_tile(problem, tuned);
      CHECK(after.splits == before.splits);
      if (before.splits > 1) CHECK(after.tile.depth == before.tile.depth);
    }
    CHECK(number_of(choose_tile({.m = 2048, .n = 2048, .k = 512}, tuned).tile) == fast);
  }
  // A table of another length is no table.
  tuned.tile_factors.pop_back();
  const GemmProblem problem{.m = 512, .n = 512, .k = 64};
  CHECK(choose_tile(problem, tuned) == choose_tile(problem, model));
}

TEST_CASE("results are the same, bit for bit, whatever was measured", "[vulkan][tuning]") {
  if (!can_run_kernels()) return;
  const ShaderTarget model = usual_target();
  Storage storage;
  storage.write_together(4);
  RandomNumbers random(7);
  int others = 0, split = 0;
  for (std::uint32_t round = 0; round < 18; ++round) {
    ContractionCase c{.m = 5 + random.below(60), .n = 5 + random.below(60), .k = 7};
    // 660 / 4 is rounded up to another multiple of 8 than of 16.
    c.k = round % 3 == 0 ? 660 : 20 + random.below(100);
    c.results = static_cast<std::int32_t>(1 + random.below(2));
    c.terms = static_cast<int>(c.results + (round % 3 == 1 ? 2 : 0));
    ShaderTarget tuned = model;
    tuned.tile_factors.assign(gemm_tiles().size(), most_factor);
    tuned.tile_factors[round] = 1 / most_factor;
    Contraction a = random_contraction(c, round), b = random_contraction(c, round);
    const KernelWork plain = lower_contraction(a.kernel(), {a.memory.program, storage, model}),
                     chosen = lower_contraction(b.kernel(), {b.memory.program, storage, tuned});
    others += plain.shaders[0].words != chosen.shaders[0].words;
    split += plain.shaders.size() > 1;
    run_kernel(plain, a.memory, storage, {Contraction::scalar});
    run_kernel(chosen, b.memory, storage, {Contraction::scalar});
    INFO(c);
    for (std::size_t i = 0; i < a.memory.program.buffers.size(); ++i)
      CHECK(a.memory.values(static_cast<std::int32_t>(i)) ==
            b.memory.values(static_cast<std::int32_t>(i)));
  }
  CHECK(others >= 6);
  CHECK(split >= 2);
}

TEST_CASE("factors on disk are those of these tiles, or none", "[vulkan][tuning][cache]") {
  std::vector<float> factors(gemm_tiles().size(), 1);
  factors[2] = 0.5f;
  const std::vector<std::byte> data = encode_factors(factors);
  CHECK(decode_factors(data) == factors);
  for (std::size_t size = 0; size < data.size(); ++size)
    CHECK_FALSE(decode_factors(std::span(data).first(size)));
  std::vector<std::byte> longer = data;
  longer.push_back(std::byte{0});
  CHECK_FALSE(decode_factors(longer));
  // Another tile, and numbers that are no factors.
  std::vector<std::byte> changed = data;
  changed[0] ^= std::byte{1};
  CHECK_FALSE(decode_factors(changed));
  for (const float wrong : {0.0f, -1.0f, 17.0f, std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity()}) {
    changed = data;
    std::memcpy(changed.data() + 28, &wrong, sizeof(wrong));
    CHECK_FALSE(decode_factors(changed));
  }
  // A file of one kind is none of the other.
  const DeviceFacts facts;
  const std::vector<std::byte> file = encode_cache(data, facts, CacheKind::tiles);
  CHECK(decode_cache(file, facts, CacheKind::tiles) == data);
  CHECK_FALSE(decode_cache(file, facts, CacheKind::pipelines));
  for (std::size_t i = 0; i < file.size(); ++i) {
    std::vector<std::byte> damaged = file;
    damaged[i] ^= std::byte{16};
    CHECK_FALSE(decode_cache(damaged, facts, CacheKind::tiles));
  }
}

TEST_CASE("a device is tuned at its first large product, once, and finds that again on disk",
          "[vulkan][tuning][cache]") {
  const ScratchFolder folder;
  InventedSpeeds speeds;
  speeds.factors[3] = 1.0 / 16;
  const auto open = [&](std::optional<bool> tune, bool keep = true) {
    DeviceOptions options;
    options.choice.cache = keep ? folder.path() : "";
    options.choice.tune = tune;
    options.tile_timing = speeds.timing(usual_target());
    options.adjust = [](DeviceFacts& facts) { facts.shaders = usual_target(); };
    return software_vulkan(options);
  };
  const auto multiply = [](const Device& device, std::int64_t n) {
    const Tensor x = full({n, n}, 0.5, DType::f32, device);
    return matmul(x, x).to_host<float>()[0];
  };
  const auto file_of = [&](const Device& device) {
    return cache_file(folder.path(), logical_device(device)->facts(), CacheKind::tiles);
  };
  std::filesystem::path file;
  {
    const std::optional<Device> device = open(true);
    if (!device) return;
    file = file_of(*device);
    CHECK(multiply(*device, 32) == 8);  // too small to be worth it
    CHECK(speeds.measured.empty());
    CHECK(multiply(*device, 256) == 64);
    CHECK_FALSE(speeds.measured.empty());
    CHECK(std::filesystem::exists(file));
    const std::size_t calls = speeds.measured.size();
    CHECK(multiply(*device, 260) == 65);
    CHECK(speeds.measured.size() == calls);
    const ShaderTarget& target = logical_device(*device)->shaders(device->backend(), true);
    CHECK(target.tile_factors[3] == Approx(1.0 / 16));
    speeds.measured.clear();
  }
  {
    const std::optional<Device> device = open(true);
    const ShaderTarget& target = logical_device(*device)->shaders(device->backend(), false);
    CHECK(target.tile_factors[3] == Approx(1.0 / 16));
    CHECK(multiply(*device, 256) == 64);
    CHECK(speeds.measured.empty());
  }
  {
    const std::optional<Device> device = open(false);
    CHECK(logical_device(*device)->shaders(device->backend(), true).tile_factors.empty());
    CHECK(multiply(*device, 256) == 64);
    CHECK(speeds.measured.empty());
  }
  std::filesystem::resize_file(file, 40);
  {
    const std::optional<Device> device = open(true);
    CHECK(multiply(*device, 256) == 64);
    CHECK_FALSE(speeds.measured.empty());
    CHECK(std::filesystem::file_size(file) > 40);
    speeds.measured.clear();
  }
  {  // nowhere to keep it: measured all the same, where that is asked for
    const std::optional<Device> device = open(true, false);
    CHECK(multiply(*device, 256) == 64);
    CHECK_FALSE(speeds.measured.empty());
  }
}

TEST_CASE("shaders of tiles that are tried are not among those that an application hears of",
          "[vulkan][tuning]") {
  std::optional<Device> device;
  int told = 0, tried = 0, told_meanwhile = 0;
  DeviceOptions options;
  options.choice.cache = "";
  options.choice.tune = true;
  options.choice.compiling = [&](std::size_t, std::size_t) { ++told; };
  InventedSpeeds speeds;
  TileTiming timing = speeds.timing(usual_target());
  options.tile_timing = timing;
  options.tile_timing->product = [&](const GemmTile& tile, std::int64_t n) {
    const int before = told;
    const auto count = static_cast<std::uint32_t>(64 + ++tried);
    CHECK(is_doubled(run_work(*device, doubling(count), {counting(count), Words(count)})[1]));
    told_meanwhile += told - before;
    return timing.product(tile, n);
  };
  options.adjust = [](DeviceFacts& facts) { facts.shaders = usual_target(); };
  device = software_vulkan(options);
  if (!device) return;
  const Tensor x = full({256, 256}, 0.5, DType::f32, *device);
  CHECK(matmul(x, x).to_host<float>()[0] == 64);
  CHECK(tried > 5);
  CHECK(told_meanwhile == 0);
  CHECK(told > 0);
}

TEST_CASE("tiles are measured on GPUs that keep it, unless options or environment say otherwise",
          "[vulkan][tuning]") {
  DeviceFacts gpu, software;
  gpu.kind = DeviceKind::discrete, software.kind = DeviceKind::software;
  {
    const Environment none("FLUXION_VULKAN_TUNE", nullptr);
    CHECK(tunes({}, "folder", gpu));
    CHECK_FALSE(tunes({}, "", gpu));
    CHECK_FALSE(tunes({}, "folder", software));
    CHECK(tunes({.tune = true}, "", software));
    CHECK_FALSE(tunes({.tune = false}, "folder", gpu));
  }
  {
    const Environment off("FLUXION_VULKAN_TUNE", "off");
    CHECK_FALSE(tunes({}, "folder", gpu));
    CHECK(tunes({.tune = true}, "folder", gpu));
  }
  {
    const Environment on("FLUXION_VULKAN_TUNE", "on");
    CHECK(tunes({}, "", software));
  }
  const Environment wrong("FLUXION_VULKAN_TUNE", "yes");
  CHECK_THAT(message_of<DeviceError>([&] { tunes({}, "", gpu); }), has_text("on or off"));
}
