#include "backends/cpu/cpu.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "backends/cpu/attention/attention.h"
#include "backends/cpu/gemm/contract_kernel.h"
#include "backends/cpu/index/op_kernel.h"
#include "backends/cpu/runtime/parallel.h"
#include "backends/cpu/tape/affine_runs.h"
#include "backends/cpu/tape/tape_kernel.h"
#include "backends/cpu/tape/tape_lanes.h"
#include "engine/error.h"
#include "engine/graph/expansion.h"
#include "engine/platform/machine.h"

namespace fluxion {

namespace cpu_backend {
namespace {

constexpr std::size_t alignment = 64;

// Large memory lies on large pages.
constexpr std::size_t large = 2 * huge_page_bytes;

struct AlignedDelete {
  std::align_val_t alignment{};
  void operator()(std::byte* memory) const { ::operator delete(memory, alignment); }
};
using Memory = std::unique_ptr<std::byte, AlignedDelete>;

Memory allocate_memory(std::size_t bytes, const char* what) {
  const std::align_val_t aligned{bytes >= large ? huge_page_bytes : alignment};
  void* memory = ::operator new(std::max<std::size_t>(bytes, 1), aligned, std::nothrow);
  if (!memory)
    throw OutOfMemory(std::string("cpu: can't allocate ") + std::to_string(bytes) + " bytes for " +
                      what);
  if (bytes >= large) advise_huge_pages(memory, bytes / huge_page_bytes * huge_page_bytes);
  return Memory(static_cast<std::byte*>(memory), {aligned});
}

// Freed memory that waits for the next buffer of about its size. Sizes are rounded up to an eighth
// of a power of two, so that nearly equal requests share blocks; what waits is at most as much as
// was ever in use at once, and a failing allocation frees it all first.
class MemoryPool {
 public:
  Memory take(std::size_t bytes) {
    {
      std::lock_guard lock(mutex_);
      in_use_ += bytes;
      most_in_use_ = std::max(most_in_use_, in_use_);
      const auto found = waiting_.find(bytes);
      if (found != waiting_.end()) {
        Memory memory = std::move(found->second);
        waiting_.erase(found);
        waiting_bytes_ -= bytes;
        return memory;
      }
    }
    try {
      return allocate_memory(bytes, "a buffer");
    } catch (const OutOfMemory&) {
      release();
    }
    try {
      return allocate_memory(bytes, "a buffer");
    } catch (const OutOfMemory&) {
      std::lock_guard lock(mutex_);
      in_use_ -= bytes;
      throw;
    }
  }

  // Frees the memory where there is none to note that it waits.
  void give(Memory memory, std::size_t bytes) noexcept {
    std::lock_guard lock(mutex_);
    in_use_ -= bytes;
    if (in_use_ + waiting_bytes_ + bytes > most_in_use_) return;
    try {
      waiting_.emplace(bytes, std::move(memory));
      waiting_bytes_ += bytes;
    } catch (const std::bad_alloc&) {
    }
  }

  static std::size_t rounded(std::size_t bytes) {
    std::size_t step = alignment;
    while (step * 16 <= bytes) step *= 2;
    return (bytes + step - 1) / step * step;
  }

 private:
  void release() {
    std::multimap<std::size_t, Memory> released;
    std::lock_guard lock(mutex_);
    released.swap(waiting_);
    waiting_bytes_ = 0;
  }

  std::mutex mutex_;
  std::multimap<std::size_t, Memory> waiting_;
  std::size_t in_use_ = 0, most_in_use_ = 0, waiting_bytes_ = 0;
};

class CpuBuffer final : public Buffer {
 public:
  CpuBuffer(std::size_t bytes, std::shared_ptr<MemoryPool> pool)
      : Buffer(bytes),
        pool_(std::move(pool)),
        held_(MemoryPool::rounded(bytes)),
        memory_(pool_->take(held_)) {}
  ~CpuBuffer() override { pool_->give(std::move(memory_), held_); }
  void* host() override { return memory_.get(); }

 private:
  std::shared_ptr<MemoryPool> pool_;
  std::size_t held_;
  Memory memory_;
};

using Runner = std::variant<TapeRunner, ContractRunner, AttentionRunner, OpRunner>;

Runner make_runner(const Kernel& kernel) {
  if (const auto* tape = std::get_if<TapeKernel>(&kernel)) return TapeRunner(tape->tape);
  if (const auto* contract = std::get_if<ContractKernel>(&kernel)) return ContractRunner(*contract);
  const OpKernel& op = std::get<OpKernel>(kernel);
  if (is_attention(op.op)) return AttentionRunner(op);
  return OpRunner(op);
}

class CpuExecutable final : public Executable {
 public:
  CpuExecutable(const Program& program, std::shared_ptr<const ThreadPool> threads)
      : Executable(program),
        buffers_(program.buffers),
        arena_bytes_(static_cast<std::size_t>(program.arena_bytes)),
        commit_point_(program.commit_point),
        threads_(std::move(threads)) {
    runners_.reserve(program.kernels.size());
    for (const Kernel& kernel : program.kernels) {
      runners_.push_back(make_runner(kernel));
      scratch_bytes_ = std::max(
          scratch_bytes_,
          std::visit([&](const auto& runner) { return scratch_of(runner); }, runners_.back()));
    }
    arena_bytes_ = (arena_bytes_ + alignment - 1) / alignment * alignment;
  }

  std::size_t workspace_bytes() const override { return arena_bytes_ + scratch_bytes_; }

 private:
  void run_checked(const Bindings& bindings, const RunOptions& options) override {
    std::int64_t begun = -1;  // the last kernel that began
    try {
      run_kernels(bindings, options, begun);
    } catch (...) {
      rethrow_stating(begun < commit_point_ ? Aftermath::nothing_written : Aftermath::state_lost);
    }
  }

  void run_kernels(const Bindings& bindings, const RunOptions& options, std::int64_t& begun) {
    if (arena_bytes_ > options.memory_limit)
      throw OutOfMemory("cpu: the program's temporaries take " + std::to_string(arena_bytes_) +
                        " bytes, the limit is " + std::to_string(options.memory_limit));
    const Lease lease(*this);
    Workspace& workspace = *lease.workspace;
    std::byte* const arena = workspace.memory.get();
    for (std::size_t i = 0; i < buffers_.size(); ++i) {
      const BufferSlot& slot = buffers_[i];
      switch (slot.kind) {
        case BufferKind::input:
          workspace.buffers[i] = bytes_of(*bindings.inputs[static_cast<std::size_t>(slot.index)]);
          break;
        case BufferKind::output:
          workspace.buffers[i] = bytes_of(*bindings.outputs[static_cast<std::size_t>(slot.index)]);
          break;
        case BufferKind::temporary:
          workspace.buffers[i] = arena + slot.offset;
          break;
      }
    }
    const CallMemory memory{workspace.buffers, bindings.scalars};
    std::byte* const scratch = arena + arena_bytes_;
    KernelClock clock(options, runners_.size());
    for (std::size_t k = 0; k < runners_.size(); ++k) {
      if (static_cast<std::int64_t>(k) <= commit_point_ && options.cancel.stop_requested())
        throw Cancelled("cpu: stopped before kernel " + std::to_string(k) + " of " +
                        std::to_string(runners_.size()));
      begun = static_cast<std::int64_t>(k);
      std::visit([&](const auto& runner) { run_one(runner, memory, scratch); }, runners_[k]);
      clock.done(k);
    }
  }

  // The memory of one call in flight: arena, then scratch; and the table of buffers.
  struct Workspace {
    Memory memory;
    std::vector<std::byte*> buffers;
  };

  // A workspace from the free list, or a new one, until the end of the call.
  struct Lease {
    explicit Lease(CpuExecutable& owner) : owner(owner) {
      {
        std::lock_guard lock(owner.mutex_);
        if (!owner.free_.empty()) {
          workspace = std::move(owner.free_.back());
          owner.free_.pop_back();
        }
      }
      if (workspace) return;
      workspace = std::make_unique<Workspace>();
      workspace->memory = allocate_memory(owner.workspace_bytes(), "the temporaries of a program");
      workspace->buffers.resize(owner.buffers_.size());
      std::lock_guard lock(owner.mutex_);
      owner.free_.reserve(++owner.workspaces_);  // so that returning one can't fail
    }
    ~Lease() {
      std::lock_guard lock(owner.mutex_);
      owner.free_.push_back(std::move(workspace));
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    CpuExecutable& owner;
    std::unique_ptr<Workspace> workspace;
  };

  static std::byte* bytes_of(Buffer& buffer) { return static_cast<std::byte*>(buffer.host()); }

  std::size_t scratch_of(const TapeRunner& runner) const {
    return runner.scratch_bytes(threads_->threads());
  }
  std::size_t scratch_of(const ContractRunner& runner) const {
    return runner.scratch_bytes(threads_->threads());
  }
  std::size_t scratch_of(const AttentionRunner& runner) const {
    return runner.scratch_bytes(threads_->threads());
  }
  std::size_t scratch_of(const OpRunner& runner) const {
    return runner.scratch_bytes(threads_->threads());
  }

  void run_one(const TapeRunner& runner, const CallMemory& memory, std::byte* scratch) const {
    runner.run(memory, *threads_, scratch);
  }
  void run_one(const ContractRunner& runner, const CallMemory& memory, std::byte* scratch) const {
    runner.run(memory, *threads_, scratch);
  }
  void run_one(const AttentionRunner& runner, const CallMemory& memory, std::byte* scratch) const {
    runner.run(memory, *threads_, scratch);
  }
  void run_one(const OpRunner& runner, const CallMemory& memory, std::byte* scratch) const {
    runner.run(memory, *threads_, scratch);
  }

  const std::vector<BufferSlot> buffers_;
  std::size_t arena_bytes_ = 0, scratch_bytes_ = 0;
  const std::int64_t commit_point_;
  const std::shared_ptr<const ThreadPool> threads_;
  std::vector<Runner> runners_;

  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> free_;
  std::size_t workspaces_ = 0;
};

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuOptions& options)
      : threads_(std::make_shared<const ThreadPool>(options.threads)),
        pool_(std::make_shared<MemoryPool>()) {
    const int count = threads_->threads();
    capabilities_.name = "cpu (" + std::to_string(count) +
                         (count == 1 ? " thread, " : " threads, ") + vector_target() + ")";
    capabilities_.f64 = true;
    capabilities_.limits.max_attention_head = max_attention_head;
    capabilities_.limits.max_axes = AffineRuns::max_axes;
    capabilities_.limits.max_guards = AffineRuns::max_functions - 1;  // beside the address
  }

  const Capabilities& capabilities() const override { return capabilities_; }

  std::shared_ptr<Buffer> allocate(std::size_t bytes) override {
    return std::make_shared<CpuBuffer>(bytes, pool_);
  }

  void upload(Buffer& to, std::span<const std::byte> from) override {
    if (from.size() > to.bytes())
      throw DeviceError("cpu: can't upload " + std::to_string(from.size()) +
                        " bytes into a buffer of " + std::to_string(to.bytes()));
    if (!from.empty()) std::memcpy(to.host(), from.data(), from.size());
  }

  void download(Buffer& from, std::span<std::byte> to) override {
    if (to.size() > from.bytes())
      throw DeviceError("cpu: can't download " + std::to_string(to.size()) +
                        " bytes from a buffer of " + std::to_string(from.bytes()));
    if (!to.empty()) std::memcpy(to.data(), from.host(), to.size());
  }

  std::unique_ptr<Executable> make_executable(const Program& program) override {
    require_fits(program, capabilities_.limits, capabilities_.name);
    return std::make_unique<CpuExecutable>(program, threads_);
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
