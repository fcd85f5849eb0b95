// Runs shaders by themselves on a Vulkan device, for tests of those that emit them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "backends/vulkan/backend.h"
#include "backends/vulkan/kernel.h"
#include "engine/device.h"

namespace fluxion::testing {

// The software device that every test machine has, or nothing. It is chosen by name: the number of
// the first software device in vulkan_devices().
std::optional<int> software_device();
// A device on it, without a cache on disk, and with the kernels that a GPU gets; empty if there is
// none.
std::optional<Device> software_vulkan(vulkan_backend::DeviceOptions options = {});

using Words = std::vector<std::uint32_t>;

// A call of the dispatches, whose buffers stay. Buffer i of their bindings holds `buffers[i]`. With
// `commits` it can't be cancelled once it has begun, like a program that writes to what it was
// given.
class Call {
 public:
  Call(const Device& device, const vulkan_backend::KernelWork& work,
       const std::vector<Words>& buffers, const std::vector<double>& scalars = {},
       bool commits = false);
  Event submit(const RunOptions& options = {}) const;
  void run(const RunOptions& options = {}) const { submit(options).wait(); }
  Words read(std::size_t buffer) const;
  const Executable& executable() const { return *executable_; }

 private:
  const Device device_;
  const std::vector<double> scalars_;
  std::vector<std::size_t> sizes_;
  std::vector<std::shared_ptr<Buffer>> memory_;
  std::vector<Buffer*> outputs_;
  std::unique_ptr<Executable> executable_;
};

// Runs the dispatches once. Buffer i of their bindings holds `buffers[i]`, and what it holds
// afterwards is returned.
std::vector<Words> run_work(const Device& device, const vulkan_backend::KernelWork& work,
                            const std::vector<Words>& buffers,
                            const std::vector<double>& scalars = {});

}  // namespace fluxion::testing
