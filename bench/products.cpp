// Matrix products of the shapes that small flow models have: square, tall, gradients of weights,
// the two products of attention.
#include <cstdint>
#include <memory>

#include "backends/cpu/cpu.h"
#include "bench/race.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "models/benchmark/bound_program.h"
#if FLUXION_BENCH_OPENBLAS
#include <cblas.h>
#endif
#if FLUXION_BENCH_ONEDNN
#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>
#endif

namespace fluxion::bench {
namespace {

// [batch, m, k] x [batch, k, n]; a transposed operand lies in memory as [batch, k, m], [batch, n,
// k].
struct Product {
  std::string name;
  std::int64_t batch, m, k, n;
  bool transpose_a = false, transpose_b = false;

  double flops() const { return 2.0 * static_cast<double>(batch * m * n * k); }
};

void fill(std::span<float> values) {
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(i * 2654435761u % 1000) / 1000.0f - 0.5f;
}

// The sums are f32; operands of 16 bits stay zeros, which cost the same.
std::function<void()> prepare_fluxion(const Product& p, DType operands, int threads) {
  const Device device = cpu({.threads = threads});
  const auto product = compile([p](const Tensor& a, const Tensor& b) {
    return matmul(p.transpose_a ? transpose(a, {0, 2, 1}) : a,
                  p.transpose_b ? transpose(b, {0, 2, 1}) : b);
  });
  const Shape a = p.transpose_a ? Shape{p.batch, p.k, p.m} : Shape{p.batch, p.m, p.k};
  const Shape b = p.transpose_b ? Shape{p.batch, p.n, p.k} : Shape{p.batch, p.k, p.n};
  const auto bound = std::make_shared<BoundProgram>(
      product.program(zeros(a, operands, device), zeros(b, operands, device)), device);
  if (operands == DType::f32) {
    fill(bound->input(0));
    fill(bound->input(1));
  }
  return [bound] { bound->run(); };
}

#if FLUXION_BENCH_OPENBLAS || FLUXION_BENCH_ONEDNN
struct Operands {
  explicit Operands(const Product& p)
      : a(static_cast<std::size_t>(p.batch * p.m * p.k)),
        b(static_cast<std::size_t>(p.batch * p.k * p.n)),
        c(static_cast<std::size_t>(p.batch * p.m * p.n)) {
    fill(a);
    fill(b);
  }
  std::vector<float> a, b, c;
};
#endif

#if FLUXION_BENCH_OPENBLAS
void multiply(const Product& p, const float* a, const float* b, float* c) {
  cblas_sgemm(CblasRowMajor, p.transpose_a ? CblasTrans : CblasNoTrans,
              p.transpose_b ? CblasTrans : CblasNoTrans, static_cast<int>(p.m),
              static_cast<int>(p.n), static_cast<int>(p.k), 1, a,
              static_cast<int>(p.transpose_a ? p.m : p.k), b,
              static_cast<int>(p.transpose_b ? p.k : p.n), 0, c, static_cast<int>(p.n));
}

// One product uses the library's own threads; of a batch, each thread takes its share, which is
// faster than sharing every small product.
std::function<void()> prepare_openblas(const Product& p, int threads) {
  const auto operands = std::make_shared<Operands>(p);
  openblas_set_num_threads(p.batch == 1 ? threads : 1);
  return [operands, p, threads] {
    Operands& o = *operands;
#pragma omp parallel for num_threads(threads) schedule(static) if (p.batch > 1 && threads > 1)
    for (std::int64_t i = 0; i < p.batch; ++i)
      multiply(p, o.a.data() + i * p.m * p.k, o.b.data() + i * p.k * p.n,
               o.c.data() + i * p.m * p.n);
  };
}
#endif

#if FLUXION_BENCH_ONEDNN
// The matmul primitive, which decides by the number of OpenMP threads when it is made.
std::function<void()> prepare_onednn(const Product& p, int threads) {
  omp_set_num_threads(threads);
  using dnnl::memory;
  const auto operands = std::make_shared<Operands>(p);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  const auto matrix = [&](std::int64_t rows, std::int64_t columns, bool transposed) {
    const memory::dims strides = transposed ? memory::dims{rows * columns, 1, rows}
                                            : memory::dims{rows * columns, columns, 1};
    return memory::desc({p.batch, rows, columns}, memory::data_type::f32, strides);
  };
  const memory::desc a = matrix(p.m, p.k, p.transpose_a), b = matrix(p.k, p.n, p.transpose_b),
                     c = matrix(p.m, p.n, false);
  const dnnl::matmul multiply(dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, c), engine));
  dnnl::stream stream(engine);
  const std::unordered_map<int, memory> bound = {
      {DNNL_ARG_SRC, memory(a, engine, operands->a.data())},
      {DNNL_ARG_WEIGHTS, memory(b, engine, operands->b.data())},
      {DNNL_ARG_DST, memory(c, engine, operands->c.data())}};
  return [operands, multiply, stream, bound]() mutable {
    multiply.execute(stream, bound);
    stream.wait();
  };
}

// The library's gemm call.
std::function<void()> prepare_onednn_gemm(const Product& p, int threads) {
  omp_set_num_threads(threads);
  const auto operands = std::make_shared<Operands>(p);
  return [operands, p] {
    dnnl_sgemm(p.transpose_a ? 'T' : 'N', p.transpose_b ? 'T' : 'N', p.m, p.n, p.k, 1,
               operands->a.data(), p.transpose_a ? p.m : p.k, operands->b.data(),
               p.transpose_b ? p.k : p.n, 0, operands->c.data(), p.n);
  };
}
#endif

const std::vector<Product>& shapes() {
  static const std::vector<Product> list = {
      {"1024 x 1024 x 1024", 1, 1024, 1024, 1024},
      {"6272 x 128 x 512", 1, 6272, 128, 512},
      {"6272 x 512 x 128", 1, 6272, 512, 128},
      {"512 x 4096 x 512, a transposed", 1, 512, 4096, 512, true},
      {"256: 49 x 32 x 49, b transposed", 256, 49, 32, 49, false, true},
      {"256: 49 x 49 x 32", 256, 49, 49, 32},
      {"6272 x 128 x 512, b transposed", 1, 6272, 128, 512, false, true},
      {"4096 x 512 x 512, b transposed", 1, 4096, 512, 512, false, true},
      {"3136 x 128 x 384, b transposed", 1, 3136, 128, 384, false, true},
      {"128 x 6272 x 512, a transposed", 1, 128, 6272, 512, true},
      {"256: 49 x 49 x 32, a transposed", 256, 49, 49, 32, true},
      {"64 x 128 x 768, b transposed", 1, 64, 128, 768, false, true},
      {"3136 x 16 x 128, b transposed", 1, 3136, 16, 128, false, true},
  };
  return list;
}

}  // namespace

std::vector<Event> products() {
  std::vector<Event> events;
  for (const Product& p : shapes())
    for (const int threads : {1, 2}) {
      Event event{"products (batch: m x k x n)", p.name, threads, p.flops(), {}};
      event.contenders.push_back(
          {"fluxion", [p, threads] { return prepare_fluxion(p, DType::f32, threads); }});
#if FLUXION_BENCH_OPENBLAS
      event.contenders.push_back(
          {"openblas", [p, threads] { return prepare_openblas(p, threads); }});
#endif
#if FLUXION_BENCH_ONEDNN
      event.contenders.push_back({"onednn", [p, threads] { return prepare_onednn(p, threads); }});
      if (p.batch == 1)
        event.contenders.push_back(
            {"onednn gemm", [p, threads] { return prepare_onednn_gemm(p, threads); }});
#endif
      events.push_back(std::move(event));
    }
  // The same with operands of 16 bits, which are converted while they are packed.
  for (const Product& p : shapes())
    for (const int threads : {1, 2})
      for (const DType dtype : {DType::bf16, DType::f16})
        events.push_back(
            {.table = "products of 16-bit operands (batch: m x k x n)",
             .name = p.name + ", " + std::string(to_string(dtype)),
             .threads = threads,
             .amount = p.flops(),
             .contenders = {
                 {"fluxion", [=] { return prepare_fluxion(p, dtype, threads); }},
                 {"f32 operands", [=] { return prepare_fluxion(p, DType::f32, threads); }}}});
  return events;
}

}  // namespace fluxion::bench
