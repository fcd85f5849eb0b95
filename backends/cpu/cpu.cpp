#include "backends/cpu/cpu.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "backends/cpu/attention/attention.h"
#include "backends/cpu/gemm/contract_kernel.h"
#include "backends/cpu/index/op_kernel.h"
#include "backends/cpu/runtime/memory.h"
#include "backends/cpu/runtime/parallel.h"
#include "backends/cpu/runtime/with_f64.h"
#include "backends/cpu/tape/affine_runs.h"
#include "backends/cpu/tape/tape_kernel.h"
#include "backends/cpu/tape/tape_lanes.h"
#include "engine/divide.h"
#include "engine/error.h"
#include "engine/graph/expansion.h"
#include "engine/platform/machine.h"
#include "engine/platform/memory_size.h"

namespace fluxion {

namespace cpu_backend {
namespace {

constexpr std::size_t alignment = 64;

class CpuBuffer final : public Buffer {
 public:
  CpuBuffer(std::size_t bytes, const Backend* owner, std::shared_ptr<MemoryPool> pool)
      : Buffer(bytes, owner), pool_(std::move(pool)), memory_(pool_->buffer(bytes)) {}
  void* host() override { return memory_.data(); }

 private:
  std::shared_ptr<MemoryPool> pool_;
  MemoryPool::Lease memory_;
};

using Runner = std::variant<TapeRunner, ContractRunner, AttentionRunner, OpRunner>;

Runner make_runner(const Kernel& kernel) {
  if (const auto* tape = std::get_if<TapeKernel>(&kernel)) return TapeRunner(tape->tape);
  if (const auto* contract = std::get_if<ContractKernel>(&kernel)) return ContractRunner(*contract);
  const OpKernel& op = std::get<OpKernel>(kernel);
  if (is_attention(op.op)) return AttentionRunner(op);
  return OpRunner(op);
}

bool has_f64(const Tape& tape) {
  return std::any_of(tape.instructions.begin(), tape.instructions.end(),
                     [](const auto& instruction) { return instruction.dtype == DType::f64; });
}

// Throws DTypeError if a program computes in f64, whose kernels are left out.
void refuse_f64(const Program& program) {
  bool found = std::any_of(program.buffers.begin(), program.buffers.end(),
                           [](const auto& slot) { return slot.type.dtype == DType::f64; });
  for (const Kernel& kernel : program.kernels) {
    if (const auto* tape = std::get_if<TapeKernel>(&kernel)) found |= has_f64(tape->tape);
    if (const auto* contract = std::get_if<ContractKernel>(&kernel))
      found |= has_f64(contract->epilogue);
  }
  if (found)
    throw DTypeError("cpu: this build of the runtime can't compute with f64: convert to f32");
}

class CpuExecutable final : public Executable {
 public:
  CpuExecutable(const Program& program, const Backend& owner,
                std::shared_ptr<const ThreadPool> threads, std::shared_ptr<MemoryPool> pool)
      : Executable(program, owner),
        buffers_(program.buffers),
        arena_bytes_(memory_size(program.arena_bytes, "cpu: the arena")),
        commit_point_(program.commit_point),
        threads_(std::move(threads)),
        pool_(std::move(pool)) {
    runners_.reserve(program.kernels.size());
    for (const Kernel& kernel : program.kernels) {
      runners_.push_back(make_runner(kernel));
      scratch_bytes_ = std::max(
          scratch_bytes_,
          std::visit([&](const auto& runner) { return runner.scratch_bytes(threads_->threads()); },
                     runners_.back()));
    }
    arena_bytes_ = round_up(arena_bytes_, alignment);
    scratch_bytes_ = round_up(scratch_bytes_, alignment);
    memory_size(static_cast<std::int64_t>(arena_bytes_) +
                    static_cast<std::int64_t>(scratch_bytes_) +
                    static_cast<std::int64_t>(buffers_.size() * sizeof(std::byte*)),
                "cpu: the workspace of a program");
  }

  // The arena, then scratch, then where each buffer lies.
  std::size_t workspace_bytes() const override {
    return arena_bytes_ + scratch_bytes_ + buffers_.size() * sizeof(std::byte*);
  }

 private:
  Event start(const Bindings& bindings, const RunOptions& options) override {
    std::int64_t begun = -1;  // the last kernel that began
    try {
      run_kernels(bindings, options, begun);
    } catch (...) {
      rethrow_stating(begun < commit_point_ ? Aftermath::nothing_written : Aftermath::state_lost);
    }
    return {};
  }

  void run_kernels(const Bindings& bindings, const RunOptions& options, std::int64_t& begun) {
    const MemoryPool::Lease workspace = pool_->arena(workspace_bytes());
    std::byte* const arena = workspace.data();
    const std::span<std::byte*> buffers(
        reinterpret_cast<std::byte**>(arena + arena_bytes_ + scratch_bytes_), buffers_.size());
    for (std::size_t i = 0; i < buffers_.size(); ++i) {
      const BufferSlot& slot = buffers_[i];
      switch (slot.kind) {
        case BufferKind::input:
          buffers[i] = data_of(*bindings.inputs[static_cast<std::size_t>(slot.index)]);
          break;
        case BufferKind::output:
          buffers[i] = data_of(*bindings.outputs[static_cast<std::size_t>(slot.index)]);
          break;
        case BufferKind::temporary:
          buffers[i] = arena + slot.offset;
          break;
      }
    }
    const CallMemory memory{buffers, bindings.scalars};
    std::byte* const scratch = arena + arena_bytes_;
    KernelClock clock(options, runners_.size());
    for (std::size_t k = 0; k < runners_.size(); ++k) {
      if (static_cast<std::int64_t>(k) <= commit_point_ && options.cancel.stop_requested())
        throw Cancelled("cpu: stopped before kernel " + std::to_string(k) + " of " +
                        std::to_string(runners_.size()));
      begun = static_cast<std::int64_t>(k);
      std::visit([&](const auto& runner) { runner.run(memory, *threads_, scratch); }, runners_[k]);
      clock.done(k);
    }
  }

  static std::byte* data_of(Buffer& buffer) { return static_cast<std::byte*>(buffer.host()); }

  const std::vector<BufferSlot> buffers_;
  std::size_t arena_bytes_ = 0, scratch_bytes_ = 0;
  const std::int64_t commit_point_;
  const std::shared_ptr<const ThreadPool> threads_;
  const std::shared_ptr<MemoryPool> pool_;
  std::vector<Runner> runners_;
};

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuOptions& options)
      : threads_(std::make_shared<const ThreadPool>(options.threads)),
        pool_(std::make_shared<MemoryPool>(options.memory_budget)) {
    const int count = threads_->threads();
    capabilities_.name = "cpu (" + std::to_string(count) +
                         (count == 1 ? " thread, " : " threads, ") + vector_target() + ")";
    capabilities_.f64 = with_f64;
    capabilities_.limits.max_attention_head = max_attention_head;
    capabilities_.limits.max_axes = AffineRuns::max_axes;
    capabilities_.limits.max_guards = AffineRuns::max_functions - 1;  // beside the address
  }

  const Capabilities& capabilities() const override { return capabilities_; }

  using Backend::allocate;
  std::shared_ptr<Buffer> allocate(std::size_t bytes) override {
    return std::make_shared<CpuBuffer>(bytes, this, pool_);
  }
  MemoryUse in_use() const override { return pool_->in_use(); }
  std::size_t budget() const override {
    const std::optional<std::uint64_t> free = available_memory_bytes();
    if (!free) return pool_->budget();
    return std::min<std::uint64_t>(pool_->budget(), pool_->in_use().total() + *free);
  }
  void trim() override { pool_->trim(); }

  // The caller's thread runs everything, so whatever uses a buffer is done.
  Event write(Buffer& to, std::span<const std::byte> from) override {
    std::memcpy(to.host(), from.data(), from.size());
    return {};
  }
  Event read(std::span<const Transfer> transfers) override {
    for (const Transfer& transfer : transfers)
      if (!transfer.to.empty())
        std::memcpy(transfer.to.data(), transfer.from->host(), transfer.to.size());
    return {};
  }
  std::unique_ptr<Executable> make_executable(const Program& program) override {
    if constexpr (!with_f64) refuse_f64(program);
    return std::make_unique<CpuExecutable>(program, *this, threads_, pool_);
  }

 private:
  std::shared_ptr<const ThreadPool> threads_;
  std::shared_ptr<MemoryPool> pool_;
  Capabilities capabilities_;
};

}  // namespace
}  // namespace cpu_backend

Device cpu(const CpuOptions& options) {
  return Device(std::make_unique<cpu_backend::CpuBackend>(options));
}

}  // namespace fluxion
