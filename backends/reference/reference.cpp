#include "backends/reference/reference.h"

#include <atomic>
#include <cstring>
#include <limits>
#include <new>

#include "backends/reference/kernels.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "engine/platform/memory_size.h"

namespace fluxion {
namespace reference_backend {
namespace {

// Host bytes, aligned to 64 as the offsets in an arena are.
struct Free {
  void operator()(std::byte* bytes) const { ::operator delete[](bytes, std::align_val_t{64}); }
};
using Bytes = std::unique_ptr<std::byte[], Free>;

Bytes allocate_bytes(std::size_t count, const char* what) {
  // Rounding a larger size up to the alignment would overflow.
  constexpr std::size_t most = std::numeric_limits<std::ptrdiff_t>::max();
  auto* bytes =
      count > most
          ? nullptr
          : static_cast<std::byte*>(::operator new[](count, std::align_val_t{64}, std::nothrow));
  if (!bytes)
    throw OutOfMemory("reference: could not allocate " + std::to_string(count) + " bytes for " +
                      what);
  return Bytes(bytes);
}

// Bytes of live buffers, and of the arenas of calls in flight.
struct Counts {
  std::atomic<std::size_t> buffers{0}, arenas{0};
};
class Counted {
 public:
  Counted(std::atomic<std::size_t>& total, std::size_t bytes) : total_(total), bytes_(bytes) {
    total_ += bytes_;
  }
  ~Counted() { total_ -= bytes_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  std::atomic<std::size_t>& total_;
  const std::size_t bytes_;
};

class HostBuffer : public Buffer {
 public:
  HostBuffer(std::size_t bytes, const Backend* owner, std::shared_ptr<Counts> counts)
      : Buffer(bytes, owner),
        bytes_(allocate_bytes(bytes, "a buffer")),
        counts_(std::move(counts)),
        counted_(counts_->buffers, bytes) {}
  void* host() override { return bytes_.get(); }

 private:
  Bytes bytes_;
  std::shared_ptr<Counts> counts_;
  Counted counted_;
};

std::byte* data(Buffer* buffer) { return static_cast<std::byte*>(buffer->host()); }

class ReferenceExecutable final : public Executable {
 public:
  ReferenceExecutable(const Program& program, const Backend& owner, std::shared_ptr<Counts> counts)
      : Executable(program, owner), program_(program), counts_(std::move(counts)) {
    for (const Kernel& kernel : program_.kernels)
      if (!std::holds_alternative<OpKernel>(kernel))
        throw Error("reference: runs programs of one op per kernel only");
  }

  std::size_t workspace_bytes() const override {
    return memory_size(program_.arena_bytes, "reference: the arena");
  }

 private:
  Event start(const Bindings& bindings, const RunOptions& options) override {
    std::int64_t begun = -1;  // the last kernel that was started
    try {
      run_kernels(bindings, options, begun);
    } catch (...) {
      rethrow_stating(begun < program_.commit_point ? Aftermath::nothing_written
                                                    : Aftermath::state_lost);
    }
    return {};
  }

  void run_kernels(const Bindings& bindings, const RunOptions& options, std::int64_t& begun) {
    const Bytes arena = allocate_bytes(workspace_bytes(), "the temporaries of a call");
    const Counted counted(counts_->arenas, workspace_bytes());

    std::vector<std::byte*> buffers;
    for (const BufferSlot& slot : program_.buffers) {
      switch (slot.kind) {
        case BufferKind::input:
          buffers.push_back(data(bindings.inputs[static_cast<std::size_t>(slot.index)]));
          break;
        case BufferKind::output:
          buffers.push_back(data(bindings.outputs[static_cast<std::size_t>(slot.index)]));
          break;
        case BufferKind::temporary:
          buffers.push_back(arena.get() + slot.offset);
          break;
      }
    }
    KernelClock clock(options, program_.kernels.size());
    for (std::size_t number = 0; number < program_.kernels.size(); ++number) {
      // Whether no donated memory has been written yet.
      const bool whole = number == 0 || number < static_cast<std::size_t>(program_.commit_point);
      if (whole && options.cancel.stop_requested())
        throw Cancelled("reference: cancelled before kernel " + std::to_string(number));
      OpKernel kernel = std::get<OpKernel>(program_.kernels[number]);
      // A constant with an index is a run-time scalar of this call.
      if (const auto* scalar = std::get_if<IndexAttributes>(&kernel.attributes);
          scalar && kernel.op == Op::constant)
        kernel.attributes =
            ValueAttributes{bindings.scalars[static_cast<std::size_t>(scalar->index)]};
      begun = static_cast<std::int64_t>(number);
      run_op(kernel, buffers);
      clock.done(number);
    }
  }

  const Program program_;
  const std::shared_ptr<Counts> counts_;
};

class ReferenceBackend : public Backend {
 public:
  ReferenceBackend() {
    capabilities_.name = "reference";
    capabilities_.limits = no_limits();
    capabilities_.limits.fuses = false;
  }
  const Capabilities& capabilities() const override { return capabilities_; }
  using Backend::allocate;
  std::shared_ptr<Buffer> allocate(std::size_t bytes) override {
    return std::make_shared<HostBuffer>(bytes, this, counts_);
  }
  MemoryUse in_use() const override { return {counts_->buffers, counts_->arenas, 0}; }
  Event write(Buffer& to, std::span<const std::byte> from) override {
    std::memcpy(data(&to), from.data(), from.size());
    return {};
  }
  Event read(std::span<const Transfer> transfers) override {
    for (const Transfer& transfer : transfers)
      if (!transfer.to.empty())
        std::memcpy(transfer.to.data(), data(transfer.from), transfer.to.size());
    return {};
  }
  std::unique_ptr<Executable> make_executable(const Program& program) override {
    return std::make_unique<ReferenceExecutable>(program, *this, counts_);
  }

 private:
  Capabilities capabilities_;
  const std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
};

}  // namespace
}  // namespace reference_backend

Device reference() { return Device(std::make_unique<reference_backend::ReferenceBackend>()); }

}  // namespace fluxion
