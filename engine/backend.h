// What the engine asks of a device. A backend implements Backend, Buffer, Executable and, if it is
// asynchronous, Timeline; the engine includes nothing else of it. docs/backends.md states the
// contract and who waits for what; tests/backend runs it against every backend.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <limits>
#include <memory>
#include <mutex>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "engine/cost_model.h"
#include "engine/event.h"
#include "engine/program/limits.h"
#include "engine/program/program.h"
#include "engine/program/storage.h"

namespace fluxion {

class Backend;

// Memory on a device. The last owner may release it at any time: the backend keeps the memory until
// the work that uses it is done.
class Buffer {
 public:
  virtual ~Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::size_t bytes() const { return bytes_; }
  // A pointer to the bytes if the host can read them in place and the device is synchronous, else
  // nullptr.
  virtual void* host() { return nullptr; }
  // The backend that allocated it. Only to compare: the backend may be gone.
  const Backend* owner() const { return owner_; }

  // Done when the last write is: the value is complete.
  Event written() const { return {timeline_, written_.load(std::memory_order_acquire)}; }
  // Done when all reads and writes are.
  Event idle() const;
  // Called by the functions of Executable and Backend below for the work that they start.
  void note_write(const Event& event) { note(written_, event); }
  void note_read(const Event& event) { note(read_, event); }

 protected:
  // Asynchronous backends pass their timeline.
  Buffer(std::size_t bytes, const Backend* owner, std::shared_ptr<Timeline> timeline = nullptr)
      : bytes_(bytes), owner_(owner), timeline_(std::move(timeline)) {}

 private:
  static void note(std::atomic<std::uint64_t>& last, const Event& event);

  const std::size_t bytes_;
  const Backend* const owner_;
  const std::shared_ptr<Timeline> timeline_;
  std::atomic<std::uint64_t> written_{0}, read_{0};
};

struct Capabilities {
  std::string name;  // "cpu (2 threads, AVX2)"
  KernelLimits limits{};
  CostModel costs{};
  Storage storage{};
  bool f64 = true;
  bool host_memory = true;  // buffers take the host's memory
};

// Bytes of a device's memory.
struct MemoryUse {
  std::size_t buffers = 0;  // of live buffers
  std::size_t arenas = 0;   // of calls in flight
  std::size_t kept = 0;     // free, kept for reuse: trim() gives it back
  std::size_t total() const { return buffers + arenas + kept; }
};

inline constexpr std::size_t no_limit = std::numeric_limits<std::size_t>::max();

struct RunOptions {
  // Once a stop is requested, the call throws Cancelled: before the work is submitted, or between
  // its parts on a backend that submits it in parts. Never after the commit point.
  std::stop_token cancel;
  // The call throws OutOfMemory, before it allocates, if Executable::workspace_bytes() is larger.
  std::size_t memory_limit = no_limit;
  // If given, holds the wall time of each kernel of the program once the event is done; it must
  // live until then.
  std::vector<double>* kernel_seconds = nullptr;
};

// Fills RunOptions::kernel_seconds: done(), called after each kernel, stores the time since the
// call before.
class KernelClock {
 public:
  KernelClock(const RunOptions& options, std::size_t kernels) : seconds_(options.kernel_seconds) {
    if (!seconds_) return;
    seconds_->assign(kernels, 0);
    last_ = std::chrono::steady_clock::now();
  }
  void done(std::size_t kernel) {
    if (!seconds_) return;
    const auto now = std::chrono::steady_clock::now();
    (*seconds_)[kernel] = std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }

 private:
  std::vector<double>* seconds_;
  std::chrono::steady_clock::time_point last_;
};

// The buffers and scalars of one call, in the program's order. An output may be the same buffer as
// the input that it takes over.
struct Bindings {
  std::span<Buffer* const> inputs;
  std::span<Buffer* const> outputs;
  std::span<const double> scalars;
};

class Executable {
 public:
  virtual ~Executable() = default;
  Executable(const Executable&) = delete;
  Executable& operator=(const Executable&) = delete;

  // Starts the program; the event is done when the outputs are written. The work runs after all
  // earlier work that writes or reads its buffers. Many threads may submit one executable at once:
  // each call in flight has its own arena. Buffers, executable and scalars need not outlive this
  // call.
  //
  // Throws Error unless the bindings fit the program: a large enough buffer of this device
  // (DeviceError) for each input and output; a number for each scalar; each output in its own
  // memory, or in that of the input that the program lets it take over. Throws OutOfMemory beyond
  // the memory limit, and Cancelled. All of these state their aftermath: nothing written.
  Event submit(const Bindings& bindings, const RunOptions& options);
  // Returns when the outputs are written.
  void run(const Bindings& bindings, const RunOptions& options) {
    submit(bindings, options).wait();
  }

  // Device bytes of one call besides its inputs and outputs: the arena and the backend's scratch.
  virtual std::size_t workspace_bytes() const = 0;

 protected:
  // `owner` is the backend that allocates the bound buffers.
  Executable(const Program& program, const Backend& owner);

 private:
  // submit() after its checks: the bindings fit, the memory limit holds, no stop was requested. An
  // exception that leaves it states its aftermath: "nothing written" before the program's commit
  // point, "state lost" after it, "device dead" if no later call can succeed. One that states none
  // counts as "state lost". A failure after it has returned means that the device is dead.
  virtual Event start(const Bindings& bindings, const RunOptions& options) = 0;
  void check(const Bindings& bindings, const RunOptions& options) const;
  void check_overlaps(const Bindings& bindings) const;

  struct BoundBuffer {
    Buffer* buffer;
    std::int64_t output;  // or -1
    std::int64_t input;   // of an output: its donor, or -1
  };

  const Backend* owner_;
  std::vector<TensorType> inputs_, outputs_;
  std::vector<std::size_t> input_bytes_, output_bytes_;
  std::vector<std::int32_t> donations_;
  std::size_t scalars_;
  // Memory of check_overlaps, which allocates nothing: calls must not fail for want of it.
  mutable std::mutex checking_;
  mutable std::vector<BoundBuffer> bound_;
};

// A copy of the first to.size() bytes of a buffer to the host.
struct Transfer {
  Buffer* from;
  std::span<std::byte> to;
};

// Many threads may use a backend at once.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual const Capabilities& capabilities() const = 0;

  // ---- memory

  // A buffer of undefined content; zero bytes are valid. Throws OutOfMemory.
  virtual std::shared_ptr<Buffer> allocate(std::size_t bytes) = 0;
  // A buffer for a tensor, in this device's storage.
  std::shared_ptr<Buffer> allocate(const TensorType& type) {
    return allocate(bytes_of(type, capabilities().storage));
  }
  virtual MemoryUse in_use() const = 0;
  // What in_use().total() can grow to, as far as is known now. Default: unknown.
  virtual std::size_t budget() const { return no_limit; }
  // Gives free memory back to the system. Default: nothing is kept.
  virtual void trim() {}

  // ---- data

  // Copies host elements to the start of the buffer, after the earlier work that uses it. Does not
  // wait for that work; `from` may be reused as soon as this returns. Throws DeviceError if the
  // elements do not fit or the buffer belongs to another device.
  void upload(Buffer& to, DType dtype, std::span<const std::byte> from);
  // Copies the first elements of the buffer to the host. Waits for the value, and for nothing that
  // is submitted later. Throws as upload() does.
  void download(Buffer& from, DType dtype, std::span<std::byte> to);
  // Starts to copy stored bytes of several buffers. They have arrived once the event is done; until
  // then the destinations must live. Work that is submitted later does not change them.
  Event start_download(std::span<const Transfer> transfers);

  // ---- programs

  // Verifies the program, whoever made it, and makes it ready to run: it then touches only its
  // bindings, its arena and Executable::workspace_bytes() of memory. Throws Error if it is not
  // sound, or exceeds this backend's limits or ops; OutOfMemory if no memory could hold its
  // workspace.
  std::unique_ptr<Executable> compile(const Program& program);

  // ---- what a backend implements; the functions above check the arguments first

  // Default: whether it allocated the buffer. A backend that wraps another one asks that one.
  virtual bool owns(const Buffer& buffer) const { return buffer.owner() == this; }
  // Writes stored bytes to the buffer's start, in order with the work that uses it.
  virtual Event write(Buffer& to, std::span<const std::byte> from) = 0;
  virtual Event read(std::span<const Transfer> transfers) = 0;
  virtual std::unique_ptr<Executable> make_executable(const Program& program) = 0;
};

}  // namespace fluxion
