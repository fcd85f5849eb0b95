// What the engine asks of a device. A backend is an implementation of Backend, Buffer and
// Executable; the engine includes nothing else of it.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "engine/cost_model.h"
#include "engine/program/limits.h"
#include "engine/program/program.h"

namespace fluxion {

// Memory on a device. Freed, or returned to the backend's pool, by the last owner.
class Buffer {
 public:
  virtual ~Buffer() = default;
  std::size_t bytes() const { return bytes_; }
  // The bytes themselves where the host can read them in place, else nullptr.
  virtual void* host() { return nullptr; }

 protected:
  explicit Buffer(std::size_t bytes) : bytes_(bytes) {}

 private:
  std::size_t bytes_;
};

struct Capabilities {
  std::string name;  // "cpu (2 threads, AVX2)"
  KernelLimits limits{};
  CostModel costs{};
  bool f64 = true;
};

struct RunOptions {
  std::stop_token cancel;  // throws Cancelled at the next kernel once a stop is requested
  std::size_t memory_limit =
      static_cast<std::size_t>(-1);  // of the arena, in bytes; throws OutOfMemory before allocating
  std::vector<double>* kernel_seconds =
      nullptr;  // filled, if given, with the wall time of each kernel of the program
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
  // Runs the program and returns when the outputs are written. Many threads may call it at once;
  // each call has its own arena.
  //
  // Throws Error, with nothing written, unless the bindings fit the program: a buffer for each
  // input and output, none missing or too small; a number for each scalar; each output in memory of
  // its own, or in that of the input which the program lets it take over.
  void run(const Bindings& bindings, const RunOptions& options);
  // Device bytes of one call beside its inputs and outputs: the arena and whatever scratch the
  // backend adds.
  virtual std::size_t workspace_bytes() const = 0;

 protected:
  explicit Executable(const Program& program);

 private:
  // Runs on bindings that fit. An exception that leaves it states its aftermath: "nothing written"
  // before the program's commit point, "state lost" after it, "device dead" if no later call can
  // succeed. One that states nothing counts as "state lost".
  virtual void run_checked(const Bindings& bindings, const RunOptions& options) = 0;
  void check(const Bindings& bindings) const;

  std::vector<TensorType> inputs_, outputs_;
  std::vector<std::int32_t> donations_;
  std::size_t scalars_;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const Capabilities& capabilities() const = 0;
  // Throws OutOfMemory. A zero-byte buffer is valid.
  virtual std::shared_ptr<Buffer> allocate(std::size_t bytes) = 0;
  virtual void upload(Buffer& to, std::span<const std::byte> from) = 0;
  virtual void download(Buffer& from, std::span<std::byte> to) = 0;
  // Verifies the program, which may come from a stranger, and makes it ready to run: what it touches
  // then lies inside its bindings, its arena and Executable::workspace_bytes(). Throws Error if it
  // is not sound, OutOfMemory if its workspace would be larger than any memory.
  std::unique_ptr<Executable> compile(const Program& program) {
    verify(program);
    return make_executable(program);
  }

 private:
  // Of a program that was verified.
  virtual std::unique_ptr<Executable> make_executable(const Program& program) = 0;
};

}  // namespace fluxion
