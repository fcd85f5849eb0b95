// Matrix products of the CPU backend against the processor's own limit: the rate of independent fused multiply-adds, measured in the same process.
//
//   bench-gemm [seconds per shape] [part of a shape's name]
//
// Shapes are those of small flow models: square, tall, gradients of weights, the two products of windowed attention.
#include <hwy/aligned_allocator.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "backends/cpu/contract_kernel.h"
#include "backends/cpu/gemm_kernel.h"

namespace {

using namespace fluxion;
using namespace fluxion::cpu_backend;

struct Product {
  std::string name;
  std::int64_t batch, m, k, n;
  bool transpose_lhs = false, transpose_rhs = false;  // in memory: lhs [k, m], rhs [n, k]
  bool epilogue = false;                              // adds a bias, through the tape
};

// The fastest of repeated runs, in seconds.
template <class F>
double fastest(double budget, F&& f) {
  using Clock = std::chrono::steady_clock;
  double best = 1e30;
  f();
  const auto start = Clock::now();
  do {
    const auto begin = Clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - begin).count());
  } while (std::chrono::duration<double>(Clock::now() - start).count() < budget);
  return best;
}

// Operations per second of the register tile on operands that stay in the first-level cache: what its multiply-adds can reach on one core.
double peak() {
  const GemmKernels<float>& kernels = gemm_kernels<float>();
  const std::int64_t inner = 128, columns = 2 * kernels.lanes;
  auto a = hwy::AllocateAligned<float>(static_cast<std::size_t>(inner * gemm_max_rows));
  auto b = hwy::AllocateAligned<float>(static_cast<std::size_t>(inner * columns));
  auto c = hwy::AllocateAligned<float>(static_cast<std::size_t>(gemm_max_rows * columns));
  std::fill_n(a.get(), inner * gemm_max_rows, 1.0f);
  std::fill_n(b.get(), inner * columns, 1.0f);
  const std::vector<GemmSegment<float>> segments(64, {a.get(), 1, gemm_max_rows, b.get(), columns});
  const GemmTile<float> tile{segments.data(), static_cast<std::int64_t>(segments.size()), inner, c.get(), columns, columns, false};
  const double seconds = fastest(0.5, [&] {
    for (int i = 0; i < 20; ++i) kernels.tile[1][kernels.rows - 1](tile);
  });
  return 20.0 * 2.0 * 64.0 * static_cast<double>(inner * columns * kernels.rows) / seconds;
}

ContractKernel product(const Product& s) {
  ContractKernel kernel;
  kernel.batch = s.batch, kernel.m = s.m, kernel.n = s.n, kernel.k = s.k;
  ContractTerm term;
  term.lhs.buffer = 0;
  term.lhs.batch = {{s.batch}, {s.m * s.k}};
  term.lhs.rows = {{s.m}, {s.transpose_lhs ? 1 : s.k}};
  term.lhs.columns = {{s.k}, {s.transpose_lhs ? s.m : 1}};
  term.rhs.buffer = 1;
  term.rhs.batch = {{s.batch}, {s.k * s.n}};
  term.rhs.rows = {{s.k}, {s.transpose_rhs ? 1 : s.n}};
  term.rhs.columns = {{s.n}, {s.transpose_rhs ? s.k : 1}};
  kernel.terms = {term};
  Tape& tape = kernel.epilogue;
  tape.extents = {s.batch, s.m, s.n};
  tape.streaming = true;
  TapeInstruction result;
  result.code = TapeCode::result;
  tape.instructions = {result};
  if (s.epilogue) {
    tape.loads = {{3, DType::f32, {0, {0, 0, 1}}, {}}};
    TapeInstruction load, add;
    load.code = TapeCode::load;
    add.code = TapeCode::apply;
    add.op = Op::add;
    add.operands = {0, 1, -1};
    tape.instructions = {result, load, add};
  }
  tape.stores = {{s.epilogue ? 2 : 0, 2, DType::f32, {0, {s.m * s.n, s.n, 1}}}};
  return kernel;
}

}  // namespace

int main(int argc, char** argv) {
  const double budget = argc > 1 ? std::atof(argv[1]) : 0.5;
  const std::string filter = argc > 2 ? argv[2] : "";
  const double limit = peak();
  std::printf("%s: %.1f GFLOP/s of multiply-adds on one core\n\n", gemm_kernels<float>().target, limit / 1e9);
  std::printf("%-44s %8s %10s %8s %10s\n", "product (batch: m x k x n)", "threads", "GFLOP/s", "of peak", "scratch");
  const std::vector<Product> shapes = {
      {"1024 x 1024 x 1024", 1, 1024, 1024, 1024},
      {"1024 x 1024 x 1024, rhs transposed", 1, 1024, 1024, 1024, false, true},
      {"2048 x 2048 x 2048", 1, 2048, 2048, 2048},
      {"512 x 1024 x 4096", 1, 512, 1024, 4096},
      {"6272 x 128 x 512", 1, 6272, 128, 512},
      {"6272 x 512 x 128", 1, 6272, 512, 128},
      {"6272 x 128 x 512, rhs transposed", 1, 6272, 128, 512, false, true},
      {"6272 x 512 x 128, rhs transposed", 1, 6272, 512, 128, false, true},
      {"6272 x 128 x 512, bias", 1, 6272, 128, 512, false, false, true},
      {"512 x 4096 x 512, lhs transposed", 1, 512, 4096, 512, true},
      {"128 x 6272 x 128, lhs transposed", 1, 128, 6272, 128, true},
      {"128 x 6272 x 512, lhs transposed", 1, 128, 6272, 512, true},
      {"256: 49 x 32 x 49, rhs transposed", 256, 49, 32, 49, false, true},
      {"256: 49 x 49 x 32", 256, 49, 49, 32},
      {"256: 49 x 49 x 32, lhs transposed", 256, 49, 49, 32, true},
      {"64 x 128 x 768", 1, 64, 128, 768},
      {"64 x 128 x 768, rhs transposed", 1, 64, 128, 768, false, true},
      {"3136 x 16 x 128", 1, 3136, 16, 128},
  };
  for (const Product& s : shapes) {
    if (s.name.find(filter) == std::string::npos) continue;
    const auto elements = [&](std::int64_t a, std::int64_t b) { return static_cast<std::size_t>(s.batch * a * b); };
    std::vector<hwy::AlignedFreeUniquePtr<float[]>> arrays;
    std::vector<std::byte*> buffers;
    for (const std::size_t count : {elements(s.m, s.k), elements(s.k, s.n), elements(s.m, s.n), static_cast<std::size_t>(s.n)}) {
      arrays.push_back(hwy::AllocateAligned<float>(count));
      for (std::size_t i = 0; i < count; ++i) arrays.back()[i] = static_cast<float>(i * 2654435761u % 1000) / 1000.0f - 0.5f;
      buffers.push_back(reinterpret_cast<std::byte*>(arrays.back().get()));
    }
    const ContractRunner runner(product(s));
    for (const int threads : {1, 2}) {
      const ThreadPool pool(threads);
      const std::size_t bytes = runner.scratch_bytes(threads);
      auto scratch = hwy::AllocateAligned<std::uint8_t>(bytes + 64);
      const double seconds = fastest(budget, [&] { runner.run({buffers, {}}, pool, reinterpret_cast<std::byte*>(scratch.get())); });
      const double rate = 2.0 * static_cast<double>(s.batch * s.m * s.n * s.k) / seconds;
      std::printf("%-44s %8d %10.1f %7.0f%% %7zu KiB\n", s.name.c_str(), threads, rate / 1e9, 100 * rate / (limit * threads), bytes / 1024);
    }
  }
}
