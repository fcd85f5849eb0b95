#include "backends/vulkan/tile_speed.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "backends/vulkan/backend.h"
#include "backends/vulkan/kernels/gemm.h"

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
  TimedProduct(const Device& device, std::int64_t n)
      : device_(device), program_(product_program(n)) {
    for (int i = 0; i < 3; ++i) buffers_.push_back(device_.backend().allocate(program_.outputs[0]));
    const std::vector<std::byte> zeros(program_.outputs[0].bytes());
    for (int i = 0; i < 2; ++i)
      device_.backend().upload(*buffers_[static_cast<std::size_t>(i)], DType::f32, zeros);
  }

  // Seconds of a call, the shortest of a few; the first does not count.
  double seconds(const GemmTile& tile) const {
    const LoweringContext context{program_, device_.backend().capabilities().storage,
                                  logical_device(device_)->facts().shaders};
    const auto& kernel = std::get<ContractKernel>(program_.kernels.front());
    const auto executable =
        compile(device_, program_, {lower_contraction(kernel, context, {tile, 1})});
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
  const Device device_;
  const Program program_;
  std::vector<std::shared_ptr<Buffer>> buffers_;
};

}  // namespace

std::vector<TileSpeed> tile_speeds(const Device& device, double seconds) {
  constexpr std::int64_t least = 128, most = 2048;
  constexpr double long_enough = 2e-3;
  const auto start = Clock::now();
  const ShaderTarget& target = logical_device(device)->facts().shaders;
  std::int64_t n = least;
  while (n < most && since(start) < seconds / 4) {
    const GemmTile tile = choose_tile({.m = n, .n = n, .k = n}, target).tile;
    if (TimedProduct(device, n).seconds(tile) >= long_enough) break;
    n *= 2;
  }
  const TimedProduct product(device, n);
  const double size = static_cast<double>(n), flops = 2 * size * size * size;
  std::vector<TileSpeed> speeds;
  for (const GemmTile& candidate : gemm_tiles()) {
    const std::optional<GemmTile> tile = suited(candidate, 1, target);
    if (!tile) continue;
    if (since(start) > seconds) break;
    speeds.push_back({*tile, flops / product.seconds(*tile)});
  }
  return speeds;
}

}  // namespace fluxion::vulkan_backend
