#include "models/benchmark/device_speed.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>

#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "models/benchmark/bound_program.h"

namespace fluxion {
namespace {

using SpeedClock = std::chrono::steady_clock;
double seconds_since(SpeedClock::time_point start) {
  return std::chrono::duration<double>(SpeedClock::now() - start).count();
}

// The shortest of some calls after one that does not count.
double shortest(const std::function<void()>& call, double seconds) {
  call();
  double least = std::numeric_limits<double>::infinity();
  const auto start = SpeedClock::now();
  for (int calls = 0; calls < 3 || (calls < 100 && seconds_since(start) < seconds); ++calls) {
    const auto began = SpeedClock::now();
    call();
    least = std::min(least, seconds_since(began));
    if (least > seconds) break;
  }
  return least;
}

// rate(size) is work per second at a size. Sizes grow fourfold as long as they take little time, up
// to `most`; the best rate counts.
double best_rate(std::int64_t first, std::int64_t most, std::int64_t growth, double seconds,
                 const std::function<double(std::int64_t size, double seconds)>& rate) {
  double best = 0;
  const auto start = SpeedClock::now();
  for (std::int64_t size = first; size <= most; size *= growth) {
    best = std::max(best, rate(size, seconds / 8));
    if (seconds_since(start) > seconds / 2) break;
  }
  return best;
}

// Elements of f32 that an eighth of the memory holds.
std::int64_t elements_that_fit(const Device& device) {
  constexpr std::size_t most = std::size_t{1} << 26;
  return static_cast<std::int64_t>(std::min(device.backend().budget() / sizeof(float) / 8, most));
}

// Gigabytes per second of a map over `count` elements.
double map_rate(const Device& device, std::int64_t count, double seconds) {
  const auto twice = compile([](const Tensor& x) { return x * 2.0 + 1.0; });
  BoundProgram call(twice.program(zeros({count}, DType::f32, device)), device);
  return 2e-9 * sizeof(float) * static_cast<double>(count) / shortest([&] { call.run(); }, seconds);
}

double map_rate(const Device& device, double seconds) {
  return best_rate(
      1 << 16, elements_that_fit(device), 4, seconds,
      [&](std::int64_t count, double share) { return map_rate(device, count, share); });
}

double copy_rate(const Device& device, double seconds, bool up) {
  return best_rate(1 << 16, elements_that_fit(device), 4, seconds,
                   [&](std::int64_t count, double share) {
                     std::vector<std::byte> host(static_cast<std::size_t>(count) * sizeof(float));
                     const auto buffer = device.backend().allocate(host.size());
                     device.backend().upload(*buffer, DType::f32, host);
                     const double took = shortest(
                         [&] {
                           if (!up) return device.backend().download(*buffer, DType::f32, host);
                           device.backend().upload(*buffer, DType::f32, host);
                           buffer->idle().wait();
                         },
                         share);
                     return 1e-9 * static_cast<double>(host.size()) / took;
                   });
}

double call_microseconds(const Device& device, double seconds) {
  const auto more = compile([](const Tensor& x) { return x + 1.0; });
  BoundProgram call(more.program(zeros({16}, DType::f32, device)), device);
  return 1e6 * shortest([&] { call.run(); }, seconds);
}

}  // namespace

const std::vector<SpeedName>& device_speeds() {
  static const std::vector<SpeedName> names{
      {"memory, read and written by a map", "GB/s"},
      {"copies to the device", "GB/s"},
      {"copies from the device", "GB/s"},
      {"a small call, waited for", "us"},
      {"products of f32", "GFLOP/s"},
      {"products of bf16, summed in f32", "GFLOP/s"},
  };
  return names;
}

double device_speed(std::size_t number, const Device& device, double seconds) {
  switch (number) {
    case 0:
      return map_rate(device, seconds);
    case 1:
      return copy_rate(device, seconds, true);
    case 2:
      return copy_rate(device, seconds, false);
    case 3:
      return call_microseconds(device, seconds);
    case 4:
      return 1e-9 * product_rate(device, seconds, DType::f32);
    default:
      return 1e-9 * product_rate(device, seconds, DType::bf16);
  }
}

double product_rate(const Device& device, double seconds, DType operands) {
  return best_rate(64, 4096, 2, seconds, [&](std::int64_t n, double share) {
    const auto product =
        compile([](const Tensor& a, const Tensor& b) { return matmul(a, b, DType::f32); });
    const Tensor a = zeros({n, n}, operands, device), b = zeros({n, n}, operands, device);
    BoundProgram call(product.program(a, b), device);
    const double size = static_cast<double>(n);
    return 2 * size * size * size / shortest([&] { call.run(); }, share);
  });
}

double memory_rate(const Device& device, double seconds) {
  constexpr std::int64_t beyond_caches = 1 << 25;
  return 1e9 * map_rate(device, std::min(beyond_caches, elements_that_fit(device)), seconds);
}

}  // namespace fluxion
