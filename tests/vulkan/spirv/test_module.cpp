// The shader builder: what it emits is sound SPIR-V and does what it says on the software device.
#include <random>

#include "backends/vulkan/backend.h"
#include "backends/vulkan/spirv/module.h"
#include "tests/catch.h"
#include "tests/vulkan/run_work.h"
#include "tests/vulkan/valid_spirv.h"

namespace {

using namespace fluxion;
using namespace fluxion::testing;
using namespace fluxion::vulkan_backend::spirv;
namespace vk = fluxion::vulkan_backend;

vk::ShaderTarget target_of(const Device& device) {
  return vk::logical_device(device)->facts().shaders;
}

// Runs one workgroup of the shader on the buffers.
std::vector<Words> run_shader(const Device& device, vk::Shader shader,
                              const std::vector<Words>& buffers, std::uint32_t groups = 1,
                              std::vector<std::uint32_t> push = {}) {
  vk::KernelWork work;
  vk::Dispatch dispatch;
  dispatch.groups = {groups, 1, 1};
  dispatch.push = std::move(push);
  for (std::size_t k = 0; k < buffers.size(); ++k)
    dispatch.bindings.push_back({vk::BindingKind::buffer, static_cast<std::int32_t>(k), 0,
                                 4 * static_cast<std::int64_t>(buffers[k].size()), true, true});
  work.shaders.push_back(std::move(shader));
  work.dispatches.push_back(std::move(dispatch));
  require_valid(work, vk::logical_device(device)->facts().shaders);
  return run_work(device, work, buffers);
}

TEST_CASE("a u32 divided by a known number is exact for every divisor", "[vulkan][spirv]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) {
    WARN("skipped: no software device");
    return;
  }
  std::mt19937 engine(1);
  for (const std::uint32_t divisor :
       {1u, 2u, 3u, 5u, 7u, 10u, 12u, 196u, 384u, 641u, 1000u, 65535u, 65537u, 0x7FFFFFFFu,
        0x80000000u, 0x80000001u, 0xFFFFFFFEu, 0xFFFFFFFFu}) {
    Words x(1024);
    for (std::uint32_t& each : x) each = static_cast<std::uint32_t>(engine()) >> engine() % 32;
    std::copy_n(Words{0, ~0u, divisor, divisor - 1, 0x7FFFFFFF, 0x80000000}.begin(), 6, x.begin());
    Module m(target_of(*device), "divide", {64, 1, 1});
    const Value i = m.global_id(0), number = m.buffer(0, U32).load(i);
    m.buffer(1, U32).store(i, number / divisor);
    m.buffer(2, U32).store(i, number % divisor);
    const Split parts = split(number, divisor);
    m.buffer(3, U32).store(i, parts.quotient);
    m.buffer(4, U32).store(i, parts.remainder);
    const Words none(x.size());
    const std::vector<Words> got = run_shader(*device, m.finish(), {x, none, none, none, none}, 16);
    int wrong = 0;
    for (std::size_t k = 0; k < x.size(); ++k) {
      wrong += got[1][k] != x[k] / divisor || got[2][k] != x[k] % divisor;
      if (x[k] < 0x80000000u) wrong += got[3][k] != x[k] / divisor || got[4][k] != x[k] % divisor;
    }
    INFO("by " << divisor);
    CHECK(wrong == 0);
  }
}

TEST_CASE("loops, branches and shared memory do what they say", "[vulkan][spirv]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) {
    WARN("skipped: no software device");
    return;
  }
  Module m(target_of(*device), "flow", {64, 1, 1});
  const Value lane = m.local_index();
  const SharedArray partial = m.shared(U32, 64);
  const vk::spirv::Buffer x = m.buffer(0, U32x4), y = m.buffer(1, U32);

  const Variable sum = m.variable(m.u32(0));
  m.for_range(lane, m.u32(250), 64, [&](Value i) {
    const Value four = x.load(i);
    for (std::uint32_t k = 0; k < 4; ++k) sum.set(sum.get() + part(four, k));
  });
  partial.store(lane, sum.get());
  for (std::uint32_t half = 32; half > 0; half /= 2) {
    m.barrier();
    m.if_then(lane < half,
              [&] { partial.store(lane, partial.load(lane) + partial.load(lane + half)); });
  }
  // 0 + 1 + .. while below 10, left at 7
  const std::vector<Value> carried =
      m.loop(m.u32(0), m.u32(10), 1, {m.u32(0)}, [&](Value i, const std::vector<Value>& so_far) {
        m.break_if(i == 7);
        return std::vector<Value>{so_far[0] + i};
      });
  const Variable halvings = m.variable(m.u32(0)), rest = m.variable(lane + 1);
  m.while_true([&] { return rest.get() > 1; },
               [&] {
                 rest.set(rest.get() >> 1);
                 halvings.set(halvings.get() + 1);
               });
  const Value chosen = m.choose(
      lane < 3, [&] { return lane * 10; }, [&] { return m.u32(7); });
  const Variable side = m.variable(U32);
  m.if_else((lane & 1) == 0, [&] { side.set(m.u32(100)); }, [&] { side.set(m.u32(200)); });
  m.if_then(m.boolean(false), [&] { y.store(m.u32(0), m.u32(99)); });
  y.store(lane * 4, halvings.get());
  y.store(lane * 4 + 1, chosen);
  y.store(lane * 4 + 2, side.get() + carried[0]);
  y.store(lane * 4 + 3, partial.load(m.u32(0)) + m.push_constant(1));

  Words numbers(1000);
  std::uint32_t total = 0;
  for (std::size_t i = 0; i < numbers.size(); ++i)
    total += numbers[i] = static_cast<std::uint32_t>(3 * i + 1);
  const Words got = run_shader(*device, m.finish(), {numbers, Words(256)}, 1, {5, 11})[1];
  for (std::uint32_t i = 0; i < 64; ++i) {
    INFO("invocation " << i);
    CHECK(got[4 * i] == static_cast<std::uint32_t>(std::bit_width(i + 1) - 1));
    CHECK(got[4 * i + 1] == (i < 3 ? 10 * i : 7));
    CHECK(got[4 * i + 2] == (i % 2 ? 200u : 100u) + 21);
    CHECK(got[4 * i + 3] == total + 11);
  }
}

TEST_CASE("known numbers fold while a shader is built", "[vulkan][spirv]") {
  Module m({}, "folds", {1, 1, 1});
  const Value x = m.buffer(0, U32).load(m.u32(0));
  CHECK((m.u32(6) * 7 + 1).is(43));
  CHECK((m.u32(100) / 7).is(14));
  CHECK((m.u32(100) % 7).is(2));
  CHECK((m.i32(-6) < 1).is(1));
  CHECK((m.u32(0xFFFFFFFF) < 1).is(0));
  CHECK((x * 0).is(0));
  CHECK((x * 1).id() == x.id());
  CHECK((x + 0).id() == x.id());
  CHECK(select(m.boolean(true), x, m.u32(3)).id() == x.id());
  CHECK(multiply_high(m.u32(0x80000000), m.u32(4)).is(2));
  CHECK(max(m.i32(-1), m.i32(2)).is(2));
}

TEST_CASE("small elements and subgroup sums", "[vulkan][spirv]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) {
    WARN("skipped: no software device");
    return;
  }
  const vk::ShaderTarget target = target_of(*device);
  if (!target.storage_16 || !target.storage_8 || !target.subgroup_arithmetic) {
    WARN("skipped: the software device lacks a capability");
    return;
  }
  Module m(target, "small", {32, 1, 1});
  const Value i = m.local_index();
  const Value halves = convert(U32, m.buffer(0, U16).load(i)),
              bytes = convert(U32, m.buffer(1, U8).load(i));
  const Value sum = m.subgroup_reduce(SubgroupReduction::add, halves);
  m.barrier();
  m.buffer(2, U32).store(i, halves + bytes);
  m.buffer(0, U16).store(i, convert(U16, bytes));
  m.buffer(1, U8).store(i, convert(U8, halves));
  m.if_then(m.subgroup_lane() == 0, [&] { m.buffer(3, U32).atomic_add(m.u32(0), sum); });
  Words x(16), y(8);
  std::uint32_t total = 0;
  for (std::uint32_t k = 0; k < 32; ++k) {
    x[k / 2] |= (300 + k) << (k % 2 * 16);
    y[k / 4] |= k << (k % 4 * 8);
    total += 300 + k;
  }
  const std::vector<Words> got = run_shader(*device, m.finish(), {x, y, Words(32), Words(1)});
  for (std::uint32_t k = 0; k < 32; ++k) {
    CHECK(got[2][k] == 300 + 2 * k);
    CHECK((got[0][k / 2] >> (k % 2 * 16) & 0xFFFF) == k);
    CHECK((got[1][k / 4] >> (k % 4 * 8) & 0xFF) == ((300 + k) & 0xFF));
  }
  CHECK(got[3][0] == total);
}

}  // namespace
