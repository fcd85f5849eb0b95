#include "backends/vulkan/tile_speed.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "backends/vulkan/backend.h"
#include "backends/vulkan/kernels/gemm.h"
#include "backends/vulkan/program.h"
#include "engine/error.h"

namespace fluxion::vulkan_backend {

namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// y = a b, all [n, n] and row-major: buffers 2, 0 and 1.
Program product_program(std::int64_t n) {
  const TensorType type{{n, n}, DType::f32};
  Program program;
  program.inputs = {type, type};
  program.outputs = {type};
  program.donations = {-1};
  program.buffers = {{BufferKind::input, type, 0, 0},
                     {BufferKind::input, type, 1, 0},
                     {BufferKind::output, type, 0, 0}};
  const auto operand = [&](std::int32_t buffer) {
    ContractOperand made;
    made.buffer = buffer;
    made.batch = {{1}, {0}};
    made.rows = {{n}, {n}};
    made.columns = {{n}, {1}};
    return made;
  };
  ContractKernel kernel;
  kernel.m = kernel.n = kernel.k = n;
  ContractTerm term;
  term.lhs = operand(0), term.rhs = operand(1), term.result = 0;
  kernel.terms = {term};
  TapeInstruction result;
  result.code = TapeCode::result;
  kernel.epilogue.extents = {n, n};
  kernel.epilogue.streaming = true;
  kernel.epilogue.instructions = {result};
  Affine address;
  address.coefficients = {n, 1};
  kernel.epilogue.stores = {{0, 2, DType::f32, address}};
  program.kernels = {kernel};
  return program;
}

// A product of one size with tiles of choice.
class TimedProduct {
 public:
  TimedProduct(Backend& backend, std::shared_ptr<LogicalDevice> device, std::int64_t n)
      : backend_(backend), device_(std::move(device)), n_(n), program_(product_program(n)) {
    for (int i = 0; i < 3; ++i) buffers_.push_back(backend_.allocate(program_.outputs[0]));
    const std::vector<std::byte> zeros(program_.outputs[0].bytes());
    for (int i = 0; i < 2; ++i)
      backend_.upload(*buffers_[static_cast<std::size_t>(i)], DType::f32, zeros);
  }
  std::int64_t n() const { return n_; }

  // Seconds of a call, the shortest of a few; the first does not count.
  double seconds(const GemmTile& tile) const {
    const LoweringContext context{program_, backend_.capabilities().storage,
                                  device_->facts().shaders};
    const auto& kernel = std::get<ContractKernel>(program_.kernels.front());
    const auto executable = make_executable(device_, backend_, program_,
                                            {lower_contraction(kernel, context, {tile, 1})});
    Buffer* const inputs[] = {buffers_[0].get(), buffers_[1].get()};
    Buffer* const outputs[] = {buffers_[2].get()};
    double least = std::numeric_limits<double>::infinity();
    for (int call = 0; call < 4; ++call) {
      const auto start = Clock::now();
      executable->run({inputs, outputs, {}}, {});
      if (call > 0) least = std::min(least, since(start));
    }
    return least;
  }

 private:
  Backend& backend_;
  const std::shared_ptr<LogicalDevice> device_;
  const std::int64_t n_;
  const Program program_;
  std::vector<std::shared_ptr<Buffer>> buffers_;
};

struct Candidate {
  std::size_t number = 0;  // in gemm_tiles()
  GemmTile tile;
  double modelled = 0;  // cost of an n x n x n product
};

// The tiles that the device may run, the best of the model first.
std::vector<Candidate> candidates(std::int64_t n, const ShaderTarget& target) {
  const std::span<const GemmTile> tiles = gemm_tiles();
  const GemmProblem problem{.m = n, .n = n, .k = n};
  std::vector<Candidate> result;
  for (std::size_t i = 0; i < tiles.size(); ++i)
    if (const std::optional<GemmTile> tile = suited(tiles[i], 1, target))
      result.push_back({i, *tile, modelled_cost(problem, *tile, target)});
  std::ranges::stable_sort(result, {}, &Candidate::modelled);
  return result;
}

// Seconds of a product, or nothing: a driver that can't run this tile may well run the others.
std::optional<double> seconds_of(const GemmTile& tile, std::int64_t n, const TileTiming& timing) {
  try {
    return timing.product(tile, n);
  } catch (const OutOfMemory&) {  // says nothing of the tile
    throw;
  } catch (const Error& error) {
    if (error.aftermath() == Aftermath::device_dead) throw;
    return std::nullopt;
  }
}

// The size whose product takes a few milliseconds, found in about `seconds`.
std::int64_t size_to_time(const ShaderTarget& target, const TileTiming& timing, double seconds) {
  constexpr std::int64_t least = 128, most = 2048;
  constexpr double long_enough = 2e-3;
  const double start = timing.now();
  std::int64_t n = least;
  for (;;) {
    std::optional<double> measured;
    try {
      for (const Candidate& each : candidates(n, target))
        if (measured = seconds_of(each.tile, n, timing); measured) break;
    } catch (const OutOfMemory&) {  // a budget may leave room for less
      if (n == least) throw;
      return n / 2;
    }
    if (!measured || *measured >= long_enough || n == most || timing.now() - start >= seconds)
      return n;
    n *= 2;
  }
}

}  // namespace

TileTiming timing_of(Backend& backend, const std::shared_ptr<LogicalDevice>& device) {
  const auto product = std::make_shared<std::optional<TimedProduct>>();
  return {[product, &backend, device](const GemmTile& tile, std::int64_t n) {
            if (!*product || (*product)->n() != n) product->emplace(backend, device, n);
            return (*product)->seconds(tile);
          },
          [start = Clock::now()] { return since(start); }};
}

std::vector<TileSpeed> tile_speeds(const Device& device, double seconds) {
  const std::shared_ptr<LogicalDevice>& logical = logical_device(device);
  const TileTiming timing = timing_of(device.backend(), logical);
  const ShaderTarget& target = logical->facts().shaders;
  const double start = timing.now();
  const std::int64_t n = size_to_time(target, timing, seconds / 4);
  const double size = static_cast<double>(n), flops = 2 * size * size * size;
  std::vector<TileSpeed> speeds;
  for (const GemmTile& candidate : gemm_tiles()) {
    const std::optional<GemmTile> tile = suited(candidate, 1, target);
    if (!tile) continue;
    if (timing.now() - start > seconds) break;
    if (const auto measured = seconds_of(*tile, n, timing))
      speeds.push_back({*tile, flops / *measured});
  }
  return speeds;
}

std::vector<float> measure_factors(const ShaderTarget& target, const TileTiming& timing,
                                   double seconds) {
  std::vector<float> factors(gemm_tiles().size(), 1);
  const double start = timing.now();
  const std::int64_t n = size_to_time(target, timing, seconds / 4);
  double unit = 0;  // seconds of the model's unit, by its best tile
  for (const Candidate& each : candidates(n, target)) {
    if (unit > 0 && timing.now() - start > seconds) break;
    const std::optional<double> measured = seconds_of(each.tile, n, timing);
    if (!measured) {
      factors[each.number] = most_factor;
      continue;
    }
    if (unit == 0) unit = *measured / each.modelled;
    const double factor = *measured / (each.modelled * unit);
    factors[each.number] = std::clamp(static_cast<float>(factor), 1 / most_factor, most_factor);
  }
  return factors;
}

// ---- on disk: each tile, so that those of another version are seen, and its factor

namespace {

struct StoredFactor {
  std::array<std::uint32_t, 7> tile{};
  float factor = 0;
};
static_assert(std::is_trivially_copyable_v<StoredFactor> && sizeof(StoredFactor) == 32);

std::array<std::uint32_t, 7> numbers_of(const GemmTile& tile) {
  return {tile.rows,           tile.columns, tile.depth, tile.thread_rows,
          tile.thread_columns, tile.unroll,  tile.stages};
}

}  // namespace

std::vector<std::byte> encode_factors(std::span<const float> factors) {
  std::vector<std::byte> data(factors.size() * sizeof(StoredFactor));
  for (std::size_t i = 0; i < factors.size(); ++i) {
    const StoredFactor stored{numbers_of(gemm_tiles()[i]), factors[i]};
    std::memcpy(data.data() + i * sizeof(stored), &stored, sizeof(stored));
  }
  return data;
}

std::optional<std::vector<float>> decode_factors(std::span<const std::byte> data) {
  const std::span<const GemmTile> tiles = gemm_tiles();
  if (data.size() != tiles.size() * sizeof(StoredFactor)) return std::nullopt;
  std::vector<float> factors;
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    StoredFactor stored;
    std::memcpy(&stored, data.data() + i * sizeof(stored), sizeof(stored));
    // (NaN is in no interval.)
    if (stored.tile != numbers_of(tiles[i]) ||
        !(stored.factor >= 1 / most_factor && stored.factor <= most_factor))
      return std::nullopt;
    factors.push_back(stored.factor);
  }
  return factors;
}

}  // namespace fluxion::vulkan_backend
