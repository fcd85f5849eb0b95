#include "backends/reference/reference.h"

#include <cstring>
#include <new>

#include "backends/reference/kernels.h"
#include "engine/error.h"

namespace fluxion {
namespace reference_backend {
namespace {

// Host bytes aligned to 64, as the offsets within an arena are.
struct Free {
  void operator()(std::byte* bytes) const { ::operator delete[](bytes, std::align_val_t{64}); }
};
using Bytes = std::unique_ptr<std::byte[], Free>;

Bytes allocate_bytes(std::size_t count, const char* what) {
  auto* bytes =
      static_cast<std::byte*>(::operator new[](count, std::align_val_t{64}, std::nothrow));
  if (!bytes)
    throw OutOfMemory("reference: could not allocate " + std::to_string(count) + " bytes for " +
                      what);
  return Bytes(bytes);
}

class HostBuffer : public Buffer {
 public:
  explicit HostBuffer(std::size_t bytes)
      : Buffer(bytes), bytes_(allocate_bytes(bytes, "a buffer")) {}
  void* host() override { return bytes_.get(); }

 private:
  Bytes bytes_;
};

std::byte* data(Buffer& buffer) {
  auto* host = static_cast<std::byte*>(buffer.host());
  if (!host) throw DeviceError("reference: a buffer lies in memory that the host can't read");
  return host;
}

void require_room(const Buffer& buffer, std::size_t bytes) {
  if (buffer.bytes() < bytes)
    throw DeviceError("reference: " + std::to_string(bytes) +
                      " bytes are to be copied, the buffer has " + std::to_string(buffer.bytes()));
}

class ReferenceExecutable : public Executable {
 public:
  explicit ReferenceExecutable(const Program& program) : Executable(program), program_(program) {
    for (const Kernel& kernel : program_.kernels)
      if (!std::holds_alternative<OpKernel>(kernel))
        throw Error("reference: runs programs of one op per kernel only");
  }

  std::size_t workspace_bytes() const override {
    return static_cast<std::size_t>(program_.arena_bytes);
  }

 private:
  void run_checked(const Bindings& bindings, const RunOptions& options) override {
    std::int64_t begun = -1;  // the last kernel that began
    try {
      run_kernels(bindings, options, begun);
    } catch (...) {
      rethrow_stating(begun < program_.commit_point ? Aftermath::nothing_written
                                                    : Aftermath::state_lost);
    }
  }

  void run_kernels(const Bindings& bindings, const RunOptions& options, std::int64_t& begun) {
    if (workspace_bytes() > options.memory_limit)
      throw OutOfMemory("reference: the program needs an arena of " +
                        std::to_string(workspace_bytes()) + " bytes, the limit is " +
                        std::to_string(options.memory_limit));
    const Bytes arena = allocate_bytes(workspace_bytes(), "the temporaries of a call");

    std::vector<std::byte*> buffers;
    for (const BufferSlot& slot : program_.buffers) {
      switch (slot.kind) {
        case BufferKind::input:
          buffers.push_back(data(*bindings.inputs[static_cast<std::size_t>(slot.index)]));
          break;
        case BufferKind::output:
          buffers.push_back(data(*bindings.outputs[static_cast<std::size_t>(slot.index)]));
          break;
        case BufferKind::temporary:
          buffers.push_back(arena.get() + slot.offset);
          break;
      }
    }
    KernelClock clock(options, program_.kernels.size());
    for (std::size_t number = 0; number < program_.kernels.size(); ++number) {
      const bool whole =
          number == 0 || number < static_cast<std::size_t>(
                                      program_.commit_point);  // no donated memory was written yet
      if (whole && options.cancel.stop_requested())
        throw Cancelled("reference: cancelled before kernel " + std::to_string(number));
      OpKernel kernel = std::get<OpKernel>(program_.kernels[number]);
      // A constant named by number is a run-time scalar of this call.
      if (const auto* scalar = std::get_if<IndexAttributes>(&kernel.attributes);
          scalar && kernel.op == Op::constant)
        kernel.attributes =
            ValueAttributes{bindings.scalars[static_cast<std::size_t>(scalar->index)]};
      begun = static_cast<std::int64_t>(number);
      run_op(kernel, buffers);
      clock.done(number);
    }
  }

  Program program_;
};

class ReferenceBackend : public Backend {
 public:
  ReferenceBackend() {
    capabilities_.name = "reference";
    capabilities_.limits = no_limits();
    capabilities_.limits.fuses = false;
  }
  const Capabilities& capabilities() const override { return capabilities_; }
  std::shared_ptr<Buffer> allocate(std::size_t bytes) override {
    return std::make_shared<HostBuffer>(bytes);
  }
  void upload(Buffer& to, std::span<const std::byte> from) override {
    require_room(to, from.size());
    if (!from.empty()) std::memcpy(data(to), from.data(), from.size());
  }
  void download(Buffer& from, std::span<std::byte> to) override {
    require_room(from, to.size());
    if (!to.empty()) std::memcpy(to.data(), data(from), to.size());
  }
  std::unique_ptr<Executable> make_executable(const Program& program) override {
    return std::make_unique<ReferenceExecutable>(program);
  }

 private:
  Capabilities capabilities_;
};

}  // namespace
}  // namespace reference_backend

Device reference() { return Device(std::make_unique<reference_backend::ReferenceBackend>()); }

}  // namespace fluxion
