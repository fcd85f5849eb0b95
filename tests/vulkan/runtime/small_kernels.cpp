#include "tests/vulkan/runtime/small_kernels.h"

#include <bit>

#include "backends/vulkan/spirv/module.h"

namespace fluxion::testing {

using namespace vulkan_backend;

namespace {

constexpr std::uint32_t width = 64;

Dispatch over(std::uint32_t count, std::vector<DispatchBinding> bindings) {
  Dispatch dispatch;
  dispatch.bindings = std::move(bindings);
  dispatch.groups = {(count + width - 1) / width, 1, 1};
  dispatch.moved_bytes = 8.0 * count;
  return dispatch;
}

}  // namespace

KernelWork doubling(std::uint32_t count) {
  KernelWork work;
  const ShaderTarget target;
  spirv::Module m(target, "double", {width, 1, 1});
  const auto x = m.buffer(0, spirv::F32), y = m.buffer(1, spirv::F32);
  const spirv::Value i = m.workgroup_id(0) * width + m.local_index();
  m.if_then(i < count, [&] { y.store(i, x.load(i) * 2); });
  work.shaders.push_back(m.finish());
  const std::int64_t bytes = 4 * static_cast<std::int64_t>(count);
  work.dispatches.push_back(over(count, {{BindingKind::buffer, 0, 0, bytes, true, false},
                                         {BindingKind::buffer, 1, 0, bytes, false, true}}));
  return work;
}

KernelWork doubling_in_place(std::uint32_t count, int steps) {
  KernelWork work;
  const ShaderTarget target;
  spirv::Module m(target, "double in place", {width, 1, 1});
  const auto x = m.buffer(0, spirv::F32);
  const spirv::Value i = m.workgroup_id(0) * width + m.local_index();
  m.if_then(i < count, [&] { x.store(i, x.load(i) * 2); });
  work.shaders.push_back(m.finish());
  const std::int64_t bytes = 4 * static_cast<std::int64_t>(count);
  for (int step = 0; step < steps; ++step)
    work.dispatches.push_back(over(count, {{BindingKind::buffer, 0, 0, bytes, true, true}}));
  return work;
}

KernelWork scalars_to(std::uint32_t index) {
  KernelWork work;
  const ShaderTarget target;
  spirv::Module m(target, "scalars", {4, 1, 1});
  const auto scalars = m.buffer(0, spirv::U32), y = m.buffer(1, spirv::U32);
  y.store(m.local_index(), scalars.load(m.local_index() + 4 * index));
  work.shaders.push_back(m.finish());
  Dispatch dispatch;
  dispatch.bindings = {{BindingKind::scalars, 0, 0, 16 * (std::int64_t{index} + 1), true, false},
                       {BindingKind::buffer, 0, 0, 16, false, true}};
  work.dispatches.push_back(dispatch);
  return work;
}

Words counting(std::uint32_t count) {
  Words words(count);
  for (std::uint32_t i = 0; i < count; ++i)
    words[i] = std::bit_cast<std::uint32_t>(static_cast<float>(i));
  return words;
}

bool is_doubled(const Words& words, float factor) {
  for (std::size_t i = 0; i < words.size(); ++i)
    if (std::bit_cast<float>(words[i]) != factor * static_cast<float>(i)) return false;
  return true;
}

}  // namespace fluxion::testing
