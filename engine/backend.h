// What the engine asks of a device. A backend implements Backend, Buffer, Executable and, if it
// runs behind the caller's back, Timeline; the engine includes nothing else of it. The contract,
// with who waits for what, is docs/backends.md; tests/backend runs it against every backend.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <limits>
#include <memory>
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

// Memory on a device. The last owner may let go of it at any time: the backend keeps the memory
// until the work that uses it is done.
class Buffer {
 public:
  virtual ~Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::size_t bytes() const { return bytes_; }
  // The bytes themselves where the host can read them in place and the device is synchronous, else
  // nullptr.
  virtual void* host() { return nullptr; }
  // The backend that allocated it. For comparing only: it may be gone.
  const Backend* owner() const { return owner_; }

  // Done when the last write is, so that the value is there.
  Event written() const { return {timeline_, written_.load(std::memory_order_acquire)}; }
  // Done when nobody reads or writes it any more.
  Event idle() const;
  // The functions of Executable and Backend below note what they start.
  void note_write(const Event& event) { note(written_, event); }
  void note_read(const Event& event) { note(read_, event); }

 protected:
  // Asynchronous backends give their timeline.
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
};

// Bytes of a device's memory.
struct MemoryUse {
  std::size_t buffers = 0;  // of live buffers
  std::size_t arenas = 0;   // of calls in flight
  std::size_t kept = 0;     // free, waiting to be used again: what trim() gives back
  std::size_t total() const { return buffers + arenas + kept; }
};

inline constexpr std::size_t no_limit = std::numeric_limits<std::size_t>::max();

struct RunOptions {
  // Throws Cancelled once a stop is requested: before the work is submitted, or between kernels on
  // a backend that submits them one by one; never from the commit point on.
  std::stop_token cancel;
  // Of Executable::workspace_bytes(); throws OutOfMemory before anything is allocated.
  std::size_t memory_limit = no_limit;
  // Filled, if given, with the wall time of each kernel of the program once the event is done; it
  // must live until then.
  std::vector<double>* kernel_seconds = nullptr;
};

// Fills RunOptions::kernel_seconds: called after each kernel, notes the time since the call before.
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

// The buffers and scalars of one call, in the program's order. An output may be the very buffer of
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

  // Starts the program; the event is done when the outputs are written. Work follows whatever
  // writes or reads its buffers already. Many threads may submit one executable at once: each call
  // in flight has an arena of its own. Buffers, executable and scalars need not outlive this call.
  //
  // Throws Error unless the bindings fit the program: a buffer of this device for each input and
  // output, none missing or too small; a number for each scalar; each output in memory of its own,
  // or in that of the input which the program lets it take over. Throws OutOfMemory beyond the
  // memory limit, and Cancelled. All of these state their aftermath: nothing written.
  Event submit(const Bindings& bindings, const RunOptions& options);
  // Returns when the outputs are written.
  void run(const Bindings& bindings, const RunOptions& options) {
    submit(bindings, options).wait();
  }

  // Device bytes of one call beside its inputs and outputs: the arena and whatever scratch the
  // backend adds.
  virtual std::size_t workspace_bytes() const = 0;

 protected:
  // `owner` is the backend that allocates the buffers that will be bound.
  Executable(const Program& program, const Backend& owner);

 private:
  // submit() with bindings that fit, within the memory limit, not cancelled yet. An exception that
  // leaves it states its aftermath: "nothing written" before the program's commit point, "state
  // lost" after it, "device dead" if no later call can succeed. One that states nothing counts as
  // "state lost". What fails after it returned takes the device with it.
  virtual Event start(const Bindings& bindings, const RunOptions& options) = 0;
  void check(const Bindings& bindings, const RunOptions& options) const;

  const Backend* owner_;
  std::vector<TensorType> inputs_, outputs_;
  std::vector<std::size_t> input_bytes_, output_bytes_;
  std::vector<std::int32_t> donations_;
  std::size_t scalars_;
};

// Bytes that go from a buffer's start to the host.
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

  // Throws OutOfMemory. A zero-byte buffer is valid. The content is anything.
  virtual std::shared_ptr<Buffer> allocate(std::size_t bytes) = 0;
  // Room for a tensor in this device's storage.
  std::shared_ptr<Buffer> allocate(const TensorType& type) {
    return allocate(bytes_of(type, capabilities().storage));
  }
  virtual MemoryUse in_use() const = 0;
  // What in_use().total() can grow to, as far as can be told now. Default: unknown.
  virtual std::size_t budget() const { return no_limit; }
  // Gives free memory back to the system. Default: nothing is kept.
  virtual void trim() {}

  // ---- data

  // Copies host elements into the buffer, from its start, after the work that uses it. Does not
  // wait for that; `from` may be reused as soon as this returns. Throws DeviceError if they do not
  // fit or the buffer is another device's.
  void upload(Buffer& to, DType dtype, std::span<const std::byte> from);
  // The same the other way. Waits for the value, and for nothing that is submitted later.
  void download(Buffer& from, DType dtype, std::span<std::byte> to);
  // Starts copying stored bytes, several buffers in one go. The bytes are at their places when a
  // wait on the event has returned, or done() has said so; until then the places must live. What
  // is submitted later does not change them.
  Event start_download(std::span<const Transfer> transfers);

  // ---- programs

  // Verifies the program, which may come from a stranger, and makes it ready to run: what it
  // touches then lies inside its bindings, its arena and Executable::workspace_bytes(). Throws
  // Error if it is not sound, or beyond this backend's limits or ops; OutOfMemory if its workspace
  // would be larger than any memory.
  std::unique_ptr<Executable> compile(const Program& program);

  // ---- what a backend implements; called by the functions above, with checked arguments

  // Default: it allocated the buffer itself. One that passes on to another asks that one.
  virtual bool owns(const Buffer& buffer) const { return buffer.owner() == this; }
  // Writes stored bytes to the buffer's start, in order with the work that uses it.
  virtual Event write(Buffer& to, std::span<const std::byte> from) = 0;
  virtual Event read(std::span<const Transfer> transfers) = 0;
  virtual std::unique_ptr<Executable> make_executable(const Program& program) = 0;
};

}  // namespace fluxion
