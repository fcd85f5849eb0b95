#include "tests/vulkan/amd/step_shaders.h"

#include <algorithm>
#include <iterator>
#include <map>

#include "engine/device.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "models/benchmark/benchmark.h"
#include "tests/vulkan/op/op_call.h"

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

StepShaders shaders_of(const std::string& net, const Program& program, const Storage& storage,
                       const vulkan_backend::DeviceFacts& facts) {
  StepShaders step{net, static_cast<std::int64_t>(program.kernels.size()), 0, {}, {}};
  std::map<std::pair<std::vector<std::uint32_t>, std::uint32_t>, std::size_t> known;
  for (std::size_t k = 0; k < program.kernels.size(); ++k) {
    const std::string text = "kernel " + std::to_string(k) + ": " + text_of(program.kernels[k]);
    vulkan_backend::KernelWork work;
    try {
      work = vulkan_backend::lower(program.kernels[k], {program, storage, facts.shaders});
    } catch (const Error& error) {
      step.not_lowered.push_back(text + ": " + error.what());
      continue;
    }
    step.dispatches += static_cast<std::int64_t>(work.dispatches.size());
    for (const vulkan_backend::Dispatch& dispatch : work.dispatches) {
      const vulkan_backend::Shader& shader = work.shaders[dispatch.shader];
      const auto [place, is_new] =
          known.try_emplace({shader.words, shader.subgroup_size}, step.shaders.size());
      if (is_new) step.shaders.push_back({shader, 0, text});
      ++step.shaders[place->second].dispatches;
    }
  }
  return step;
}

}  // namespace

StepShaders shaders_of_step(const std::string& net, const vulkan_backend::DeviceFacts& facts) {
  constexpr std::string_view halved = " in bf16";
  const bool halves = net.ends_with(halved);
  const BenchmarkNetwork& network =
      benchmark_network(halves ? net.substr(0, net.size() - halved.size()) : net);
  const NetworkConfig config =
      halves ? with_precision(network.config, {DType::bf16, DType::bf16, DType::bf16})
             : network.config;
  const Device device(std::make_unique<PlannedDevice>(capabilities_of(facts)));
  const Benchmark benchmark(BenchmarkTask::meanflow, config, network.batch, device);
  const Program& program = benchmark.program();
  return shaders_of(net, program, device.backend().capabilities().storage, facts);
}

StepShaders shaders_of_index_ops(const vulkan_backend::DeviceFacts& facts) {
  struct Case {
    Op op;
    Attributes attributes;
    std::vector<TensorType> inputs;
  };
  const TensorType points{{4096, 64}, DType::f32}, line{{1 << 20}, DType::f32},
      table{{1000, 256}, DType::f32}, list{{8192}, DType::i32}, rows{{8192, 256}, DType::f32},
      places{{4096, 64}, DType::i32}, key{{2}, DType::u32}, stream{{}, DType::u32};
  const Case cases[] = {
      {Op::take, AxisAttributes{0}, {table, list}},
      {Op::take_along_axis, AxisAttributes{0}, {points, places}},
      {Op::index_add, AxisAttributes{0}, {table, list, rows}},
      {Op::scatter_add, AxisAttributes{0}, {points, places, points}},
      {Op::scatter_add, AxisAttributes{1}, {points, places, points}},
      {Op::cumsum, AxisAttributes{0}, {line}},
      {Op::cumsum, AxisAttributes{1}, {points}},
      {Op::argmax, AxisAttributes{0}, {line}},
      {Op::argmax, AxisAttributes{1}, {points}},
      {Op::argsort, SortAttributes{.axis = 0}, {line}},
      {Op::argsort, SortAttributes{.axis = 1, .descending = true}, {points}},
      {Op::random_bits, RandomAttributes{.shape = {1 << 20}}, {key, stream}},
      {Op::after, NoAttributes{}, {points, key}},
  };
  const Storage storage = capabilities_of(facts).storage;
  StepShaders all{"index ops", 0, 0, {}, {}};
  for (const Case& each : cases) {
    const Program program = testing::program_of_op(each.op, each.attributes, each.inputs);
    StepShaders step = shaders_of("index ops", program, storage, facts);
    all.kernels += step.kernels;
    all.dispatches += step.dispatches;
    std::ranges::move(step.shaders, std::back_inserter(all.shaders));
    std::ranges::move(step.not_lowered, std::back_inserter(all.not_lowered));
  }
  return all;
}

}  // namespace fluxion::amd
