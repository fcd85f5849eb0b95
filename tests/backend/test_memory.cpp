// Backends: memory and data. What a buffer holds, what does not fit, what is given back.
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <thread>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "tests/backend/devices.h"
#include "tests/catch.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// Host elements of any dtype: booleans of 0 and 1, finite 16-bit floats, any bits elsewhere.
std::vector<std::byte> elements(DType dtype, std::size_t count, std::uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(count * size_of(dtype));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (dtype == DType::boolean) bytes[i] &= std::byte{1};
    if (size_of(dtype) == 2 && i % 2 == 1) bytes[i] &= std::byte{0xbf};  // no NaN
  }
  return bytes;
}

std::vector<std::byte> downloaded(const Device& device, Buffer& buffer, DType dtype,
                                  std::size_t bytes) {
  std::vector<std::byte> result(bytes);
  device.backend().download(buffer, dtype, result);
  return result;
}

}  // namespace

PROMISE("a buffer has the bytes that were asked for, none and odd numbers too", "[memory]") {
  for (const std::size_t bytes : {0, 1, 3, 17, 64, 4097})
    CHECK(subject.device.backend().allocate(bytes)->bytes() == bytes);
}

PROMISE("what is uploaded is what is downloaded, in every dtype and size", "[memory]") {
  const Storage& storage = subject.device.backend().capabilities().storage;
  for (const DType dtype : all_dtypes)
    for (const std::size_t count : {0, 1, 3, 7, 1001}) {
      INFO(count << " of " << to_string(dtype));
      const TensorType type{{static_cast<std::int64_t>(count)}, dtype};
      const std::vector<std::byte> bytes = elements(dtype, count);
      const Tensor tensor = Tensor::from_bytes(bytes, type, subject.device);
      CHECK(tensor.node()->value(0)->bytes() == bytes_of(type, storage));
      std::vector<std::byte> back(bytes.size());
      tensor.copy_to(back, dtype);
      CHECK(back == bytes);
    }
}

PROMISE("an upload writes its bytes and no others", "[memory]") {
  const auto buffer = subject.device.backend().allocate(TensorType{{9}, DType::f32});
  const std::vector<std::byte> all = elements(DType::f32, 9, 1), some = elements(DType::f32, 4, 2);
  subject.device.backend().upload(*buffer, DType::f32, all);
  subject.device.backend().upload(*buffer, DType::f32, some);
  std::vector<std::byte> expected = all;
  std::copy(some.begin(), some.end(), expected.begin());
  CHECK(downloaded(subject.device, *buffer, DType::f32, all.size()) == expected);
  CHECK(downloaded(subject.device, *buffer, DType::f32, some.size()) == some);
}

PROMISE("what was uploaded from may change at once", "[memory]") {
  const auto buffer = subject.device.backend().allocate(TensorType{{1000}, DType::u32});
  std::vector<std::byte> bytes = elements(DType::u32, 1000);
  const std::vector<std::byte> before = bytes;
  subject.device.backend().upload(*buffer, DType::u32, bytes);
  std::fill(bytes.begin(), bytes.end(), std::byte{0});
  CHECK(downloaded(subject.device, *buffer, DType::u32, before.size()) == before);
}

PROMISE("a copy that does not fit is refused and copies nothing", "[memory]") {
  Backend& backend = subject.device.backend();
  const auto buffer = backend.allocate(TensorType{{3}, DType::f32});
  const std::vector<std::byte> three = elements(DType::f32, 3, 1),
                               four = elements(DType::f32, 4, 2);
  backend.upload(*buffer, DType::f32, three);
  const std::size_t room = buffer->bytes() / 4 + 1;
  const std::vector<std::byte> large = elements(DType::f32, room, 2);
  CHECK_THROWS_AS(backend.upload(*buffer, DType::f32, large), DeviceError);
  CHECK_THROWS_AS(backend.upload(*buffer, DType::f32, std::span(four).first(6)), DeviceError);
  std::vector<std::byte> into(large.size());
  CHECK_THROWS_AS(backend.download(*buffer, DType::f32, into), DeviceError);
  CHECK(into == std::vector<std::byte>(large.size()));
  CHECK(downloaded(subject.device, *buffer, DType::f32, 12) == three);
}

PROMISE("another device's buffer is refused", "[memory]") {
  for (const Device& other : {cpu({.threads = 1}), reference()}) {
    const auto buffer = other.backend().allocate(TensorType{{3}, DType::f32});
    std::vector<std::byte> bytes(12);
    CHECK_THROWS_AS(subject.device.backend().upload(*buffer, DType::f32, bytes), DeviceError);
    CHECK_THROWS_AS(subject.device.backend().download(*buffer, DType::f32, bytes), DeviceError);
  }
}

PROMISE("an allocation beyond all memory is OutOfMemory, and the device goes on", "[memory]") {
  Backend& backend = subject.device.backend();
  const MemoryUse before = backend.in_use();
  for (const std::size_t bytes :
       {std::numeric_limits<std::size_t>::max(), std::numeric_limits<std::size_t>::max() / 4})
    CHECK_THROWS_AS(backend.allocate(bytes), OutOfMemory);
  CHECK(backend.in_use().buffers == before.buffers);
  CHECK(Tensor::from(std::vector<float>{1, 2}, {2}, subject.device).to_host<float>() ==
        std::vector<float>{1, 2});
}

PROMISE("memory in use counts what is held, and trim gives the rest back", "[memory]") {
  Backend& backend = subject.device.backend();
  backend.trim();
  const MemoryUse before = backend.in_use();
  {
    const auto buffer = backend.allocate(1 << 20);
    const MemoryUse held = backend.in_use();
    CHECK(held.buffers >= before.buffers + (1 << 20));
    CHECK(held.buffers <= before.buffers + (1 << 20) + (1 << 18));
    CHECK(held.total() <= backend.budget());
  }
  CHECK(backend.in_use().buffers == before.buffers);
  backend.trim();
  CHECK(backend.in_use().kept == 0);
  CHECK(backend.in_use().total() == before.total());
}

PROMISE("resting programs hold one arena between them, not one each", "[memory]") {
  const Device& device = subject.device;
  device.backend().trim();
  const auto f = compile([](const Tensor& x) { return matmul(matmul(x, x) + 1.0, x); },
                         {.donate = {}, .max_signatures = 1000});
  std::size_t largest = 0;
  for (std::int64_t n = 1; n <= 200; ++n) {
    const Tensor x = full({n % 50 + 1, n % 50 + 1}, 0.5, DType::f32, device) +
                     zeros({n / 50 + 1, 1, 1}, DType::f32, device);  // 200 signatures
    eval(x);
    largest = std::max(largest, f.memory_report(x).workspace_bytes);
    f(x).to_host<float>();
  }
  CHECK(f.traces() == 200);
  const MemoryUse use = device.backend().in_use();
  CHECK(use.arenas == 0);
  CHECK(use.kept <= 2 * largest + (1 << 20));  // buffers that wait are small
  device.backend().trim();
  CHECK(device.backend().in_use().kept == 0);
  const Tensor x = full({3, 3}, 0.5, DType::f32, device);
  CHECK(f(x).to_host<float>()[0] == Approx((3 * 0.25 + 1) * 0.5 * 3));
}

TEST_CASE("the CPU's budget bounds buffers and arenas together", "[backend][memory]") {
  const Device device = cpu({.threads = 1, .memory_budget = 1 << 20});
  Backend& backend = device.backend();
  CHECK(backend.budget() <= std::size_t{1} << 20);
  CHECK_THROWS_AS(backend.allocate((1 << 20) + 1), OutOfMemory);
  {
    const auto half = backend.allocate(1 << 19);
    CHECK_THROWS_AS(backend.allocate((1 << 19) + 1), OutOfMemory);
    CHECK_NOTHROW(backend.allocate(1 << 19));
  }
  // What waits is given back before anything is refused.
  CHECK_NOTHROW(backend.allocate(1 << 20));
  const auto f = compile([](const Tensor& x) { return matmul(matmul(x, x), x); });
  const Tensor x = zeros({300, 300}, DType::f32, device);
  eval(x);
  CHECK_THROWS_AS(f(x).to_host<float>(), OutOfMemory);
  CHECK(backend.in_use().arenas == 0);
}

TEST_CASE("threads within the CPU's budget are never refused for what waits", "[backend][memory]") {
  constexpr std::size_t piece = 1 << 16;
  const Device device = cpu({.threads = 1, .memory_budget = 4 * piece});
  std::atomic<int> refused{0};
  {
    std::vector<std::jthread> threads;
    for (unsigned t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        std::mt19937 random(t);
        for (int round = 0; round < 20'000; ++round) {
          try {
            const auto held = device.backend().allocate((random() % 4 + 13) * piece / 16);
            std::this_thread::yield();
          } catch (const OutOfMemory&) {
            ++refused;
          }
        }
      });
  }
  CHECK(refused == 0);
}

TEST_CASE("storage keeps the same numbers, and refuses what can't hold them", "[backend][memory]") {
  Storage storage;
  CHECK_THROWS_AS(storage.keep(DType::f32, DType::f16), DTypeError);
  CHECK_THROWS_AS(storage.keep(DType::i32, DType::f32), DTypeError);
  CHECK_THROWS_AS(storage.write_together(3), Error);
  storage.keep(DType::boolean, DType::u32).keep(DType::bf16, DType::f32).write_together(16);
  CHECK(bytes_of({{5}, DType::boolean}, storage) == 32);
  CHECK(bytes_of({{5}, DType::bf16}, storage) == 32);
  CHECK(bytes_of({{5}, DType::f32}, storage) == 32);
  CHECK(bytes_of({{0}, DType::f32}, storage) == 0);
  CHECK(bytes_of({{}, DType::f64}, storage) == 16);
  CHECK(bytes_of({{5}, DType::boolean}, Storage()) == 5);
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  CHECK_THROWS_AS(bytes_of({{most}, DType::boolean}, storage), ShapeError);
  const std::vector<BFloat16> host = {to_bf16(1.5f), to_bf16(-0.0f), to_bf16(INFINITY)};
  std::vector<float> kept(3);
  to_kept(std::as_bytes(std::span(host)), DType::bf16, storage,
          std::as_writable_bytes(std::span(kept)));
  CHECK(kept == std::vector<float>{1.5f, 0, INFINITY});
  CHECK(std::signbit(kept[1]));
}
