#include "tests/vulkan/amd/step_shaders.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "engine/device.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "models/benchmark/benchmark.h"

namespace fluxion::amd {

namespace {

class HostBuffer final : public Buffer {
 public:
  HostBuffer(std::size_t bytes, const Backend* owner) : Buffer(bytes, owner), memory_(bytes) {}
  std::vector<std::byte>& memory() { return memory_; }

 private:
  std::vector<std::byte> memory_;
};

class NothingToRun final : public Executable {
 public:
  NothingToRun(const Program& program, const Backend& owner) : Executable(program, owner) {}
  std::size_t workspace_bytes() const override { return 0; }

 private:
  Event start(const Bindings&, const RunOptions&) override { return {}; }
};

// A device that is planned for, and whose programs do nothing.
class PlannedDevice final : public Backend {
 public:
  explicit PlannedDevice(Capabilities capabilities) : capabilities_(std::move(capabilities)) {}

  const Capabilities& capabilities() const override { return capabilities_; }
  using Backend::allocate;
  std::shared_ptr<Buffer> allocate(std::size_t bytes) override {
    return std::make_shared<HostBuffer>(bytes, this);
  }
  MemoryUse in_use() const override { return {}; }
  Event write(Buffer& to, std::span<const std::byte> from) override {
    std::ranges::copy(from, static_cast<HostBuffer&>(to).memory().begin());
    return {};
  }
  Event read(std::span<const Transfer> transfers) override {
    for (const Transfer& transfer : transfers)
      std::ranges::copy_n(static_cast<HostBuffer&>(*transfer.from).memory().begin(),
                          static_cast<std::ptrdiff_t>(transfer.to.size()), transfer.to.begin());
    return {};
  }
  std::unique_ptr<Executable> make_executable(const Program& program) override {
    return std::make_unique<NothingToRun>(program, *this);
  }

 private:
  Capabilities capabilities_;
};

std::string text_of(const Kernel& kernel) {
  if (const auto* op = std::get_if<OpKernel>(&kernel)) return std::string(to_string(op->op));
  const bool product = std::holds_alternative<ContractKernel>(kernel);
  const Tape& tape =
      product ? std::get<ContractKernel>(kernel).epilogue : std::get<TapeKernel>(kernel).tape;
  std::string text = product ? "product" : tape.reduced_axes > 0 ? "rows" : "map";
  if (product) {
    const auto& c = std::get<ContractKernel>(kernel);
    text += " " + std::to_string(c.batch) + " x " + std::to_string(c.m) + " x " +
            std::to_string(c.n) + " x " + std::to_string(c.k) + " of " +
            std::to_string(c.terms.size()) + " terms";
  }
  return text + " over " + to_string(tape.extents);
}

}  // namespace

StepShaders shaders_of_step(const std::string& net, const vulkan_backend::DeviceFacts& facts) {
  const BenchmarkNetwork& network = benchmark_network(net);
  const Device device(std::make_unique<PlannedDevice>(capabilities_of(facts)));
  const Benchmark benchmark(BenchmarkTask::meanflow, network.config, network.batch, device);
  const Program& program = benchmark.program();

  StepShaders step{net, static_cast<std::int64_t>(program.kernels.size()), 0, {}, {}};
  std::map<std::pair<std::vector<std::uint32_t>, std::uint32_t>, std::size_t> known;
  for (std::size_t k = 0; k < program.kernels.size(); ++k) {
    const std::string text = "kernel " + std::to_string(k) + ": " + text_of(program.kernels[k]);
    vulkan_backend::KernelWork work;
    try {
      work = vulkan_backend::lower(
          program.kernels[k], {program, device.backend().capabilities().storage, facts.shaders});
    } catch (const Error& error) {
      step.not_lowered.push_back(text + ": " + error.what());
      continue;
    }
    step.dispatches += static_cast<std::int64_t>(work.dispatches.size());
    for (const vulkan_backend::Dispatch& dispatch : work.dispatches) {
      vulkan_backend::Shader& shader = work.shaders[dispatch.shader];
      const auto [place, is_new] =
          known.try_emplace({shader.words, shader.subgroup_size}, step.shaders.size());
      if (is_new) step.shaders.push_back({shader, 0, text});
      ++step.shaders[place->second].dispatches;
    }
  }
  return step;
}

}  // namespace fluxion::amd
