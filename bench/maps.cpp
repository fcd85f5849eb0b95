// Elementwise maps and row reductions against the speed of memory: a copy, and the triad a = b + s
// c. Bytes are those that must be read and written, each once.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>

#include "backends/cpu/cpu.h"
#include "backends/cpu/runtime/parallel.h"
#include "bench/race.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "models/benchmark/bound_program.h"
#include "models/layers/image.h"

namespace fluxion::bench {
namespace {

struct Pass {
  std::string name;
  Shape shape;
  std::function<Tensor(const Tensor&)> f;
};

std::function<void()> prepare_fluxion(const Pass& pass, int threads) {
  const Device device = cpu({.threads = threads});
  const auto bound = std::make_shared<BoundProgram>(
      compile(pass.f).program(zeros(pass.shape, DType::f32, device)), device);
  const std::span<float> x = bound->input(0);
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(i * 2654435761u % 1000) / 250.0f - 2.0f;
  return [bound] { bound->run(); };
}

double bytes_of(const Pass& pass) {
  const Device device = cpu({.threads = 1});
  const Shape result = pass.f(zeros(pass.shape, DType::f32, device)).shape();
  return 4.0 * static_cast<double>(pass.shape.elements() + result.elements());
}

// Memory passes over `bytes` in all, each thread on its own stretch. The compiler vectorises the
// triad.
std::function<void()> prepare_copy(double bytes, int threads) {
  const auto count = static_cast<std::size_t>(bytes / 4 / 2);
  const auto pool = std::make_shared<cpu_backend::ThreadPool>(threads);
  const auto from = std::make_shared<std::vector<float>>(count, 1.0f),
             to = std::make_shared<std::vector<float>>(count, 2.0f);
  return [=] {
    pool->parallel_for(threads, [&](std::int64_t task) {
      const std::size_t part = static_cast<std::size_t>(task),
                        parts = static_cast<std::size_t>(threads);
      const std::size_t begin = count * part / parts, end = count * (part + 1) / parts;
      std::memcpy(to->data() + begin, from->data() + begin, 4 * (end - begin));
    });
  };
}

std::function<void()> prepare_triad(double bytes, int threads) {
  const auto count = static_cast<std::size_t>(bytes / 4 / 3);
  const auto pool = std::make_shared<cpu_backend::ThreadPool>(threads);
  const auto a = std::make_shared<std::vector<float>>(count, 0.0f),
             b = std::make_shared<std::vector<float>>(count, 1.0f),
             c = std::make_shared<std::vector<float>>(count, 2.0f);
  return [=] {
    pool->parallel_for(threads, [&](std::int64_t task) {
      const std::size_t part = static_cast<std::size_t>(task),
                        parts = static_cast<std::size_t>(threads);
      float* __restrict to = a->data();
      const float* first = b->data();
      const float* second = c->data();
      for (std::size_t i = count * part / parts; i < count * (part + 1) / parts; ++i)
        to[i] = first[i] + 3.0f * second[i];
    });
  };
}

std::vector<Pass> passes() {
  const Shape large{16 << 20}, small{64 << 10};
  std::vector<Pass> list;
  for (const auto& [size, shape] : {std::pair("16 Mi", large), std::pair("64 Ki", small)}) {
    const std::string suffix = std::string(" of ") + size;
    list.push_back({"exp" + suffix, shape, [](const Tensor& x) { return exp(x); }});
    list.push_back({"silu" + suffix, shape, [](const Tensor& x) { return silu(x); }});
    list.push_back({"gelu (erf)" + suffix, shape, [](const Tensor& x) { return gelu_erf(x); }});
    list.push_back({"gelu (tanh)" + suffix, shape, [](const Tensor& x) { return gelu_tanh(x); }});
  }
  list.push_back(
      {"softmax of rows [12544, 49]", {12544, 49}, [](const Tensor& x) { return softmax(x); }});
  list.push_back({"layer norm of rows [3136, 128]", {3136, 128}, [](const Tensor& x) {
                    return layer_norm(x, 1e-6);
                  }});
  list.push_back({"layer norm of rows [50176, 128]", {50176, 128}, [](const Tensor& x) {
                    return layer_norm(x, 1e-6);
                  }});
  list.push_back({"group norm of [16, 32, 32, 64] in 8", {16, 32, 32, 64}, [](const Tensor& x) {
                    return group_norm(x, 8, 1e-5);
                  }});
  list.push_back({"group norm of [16, 16, 16, 128] in 32", {16, 16, 16, 128}, [](const Tensor& x) {
                    return group_norm(x, 32, 1e-5);
                  }});
  list.push_back({"2 x 2 means of [16, 32, 32, 64]", {16, 32, 32, 64}, [](const Tensor& x) {
                    return avg_pool2d(x, {2, 2}, {2, 2});
                  }});
  list.push_back({"twofold enlarged [16, 16, 16, 128]", {16, 16, 16, 128}, [](const Tensor& x) {
                    return upsample_nearest2d(x, {2, 2});
                  }});
  list.push_back(
      {"column sums of [3136, 512]", {3136, 512}, [](const Tensor& x) { return sum(x, {0}); }});
  list.push_back(
      {"column sums of [50176, 512]", {50176, 512}, [](const Tensor& x) { return sum(x, {0}); }});
  return list;
}

}  // namespace

std::vector<Event> maps_and_rows() {
  std::vector<Event> events;
  for (const Pass& pass : passes()) {
    const double bytes = bytes_of(pass);
    for (const int threads : {1, 2})
      events.push_back({"maps and rows",
                        pass.name,
                        threads,
                        bytes,
                        {{"fluxion", [pass, threads] { return prepare_fluxion(pass, threads); }},
                         {"memcpy", [bytes, threads] { return prepare_copy(bytes, threads); }},
                         {"triad", [bytes, threads] { return prepare_triad(bytes, threads); }}}});
  }
  return events;
}

}  // namespace fluxion::bench
