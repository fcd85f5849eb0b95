#include "tests/backend/deferred_backend.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <thread>

#include "engine/error.h"

namespace fluxion::testing {

std::string to_string(const std::vector<DeviceLog::Entry>& entries) {
  std::string text;
  for (const DeviceLog::Entry& entry : entries) {
    constexpr const char* names[] = {"write", "submit", "read", "wait"};
    if (!text.empty()) text += ", ";
    text += names[static_cast<int>(entry.kind)] + (" " + std::to_string(entry.point));
  }
  return text;
}

namespace {

constexpr std::byte rubbish{0xa5};

// Runs work in the order in which it was added.
class WorkQueue final : public Timeline {
 public:
  WorkQueue(RunsWork runs, std::uint64_t dies_at, std::shared_ptr<DeviceLog> log)
      : dies_at_(dies_at), log_(std::move(log)) {
    if (runs == RunsWork::on_a_thread) worker_ = std::thread([this] { serve(); });
  }
  ~WorkQueue() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    if (worker_.joinable()) worker_.join();
  }

  Event add(DeviceLog::Kind kind, std::function<void()> work,
            const std::shared_ptr<WorkQueue>& self) {
    std::lock_guard lock(mutex_);
    if (dead_) throw_dead();
    work_.push_back(std::move(work));
    ++added_;
    if (log_) log_->add(kind, added_);
    changed_.notify_all();
    return {self, added_};
  }

  void check_alive() {
    std::lock_guard lock(mutex_);
    if (dead_) throw_dead();
  }

  bool reached(std::uint64_t point) override {
    std::lock_guard lock(mutex_);
    return done_ >= point;
  }

  void wait(std::uint64_t point) override {
    if (log_) log_->add(DeviceLog::Kind::wait, point);
    std::unique_lock lock(mutex_);
    while (done_ < point) {
      if (dead_) throw_dead();
      if (worker_.joinable() || running_) {
        changed_.wait(lock);
      } else {
        run_one(lock);
      }
    }
  }

 private:
  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stopping_ || (!work_.empty() && !dead_); });
      if (stopping_) return;
      run_one(lock);
    }
  }

  void run_one(std::unique_lock<std::mutex>& lock) {
    std::function<void()> work = std::move(work_.front());
    work_.pop_front();
    running_ = true;
    std::string failure;
    if (done_ + 1 == dies_at_) {
      failure = "the device was lost";
    } else {
      lock.unlock();
      try {
        work();
      } catch (const std::exception& error) {
        failure = error.what();
      }
      work = nullptr;
      lock.lock();
    }
    running_ = false;
    if (failure.empty()) {
      ++done_;
    } else {
      dead_ = true;
      failure_ = failure;
    }
    changed_.notify_all();
  }

  [[noreturn]] void throw_dead() const {
    DeviceError error("deferred: dead: " + failure_);
    error.state_aftermath(Aftermath::device_dead);
    throw error;
  }

  const std::uint64_t dies_at_;
  const std::shared_ptr<DeviceLog> log_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> work_;
  std::uint64_t added_ = 0, done_ = 0;
  bool running_ = false, stopping_ = false, dead_ = false;
  std::string failure_;
  std::thread worker_;  // starts last
};

// Device memory; work that uses it holds it.
struct DeviceMemory {
  DeviceMemory(std::size_t size, std::shared_ptr<std::atomic<std::size_t>> counter)
      : bytes(size, rubbish), in_use(std::move(counter)) {
    *in_use += size;
  }
  ~DeviceMemory() { *in_use -= bytes.size(); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  std::vector<std::byte> bytes;
  std::shared_ptr<std::atomic<std::size_t>> in_use;
};

class DeferredBuffer final : public Buffer {
 public:
  DeferredBuffer(std::shared_ptr<DeviceMemory> memory, const Backend* owner,
                 std::shared_ptr<Timeline> timeline)
      : Buffer(memory->bytes.size(), owner, std::move(timeline)), memory_(std::move(memory)) {}
  const std::shared_ptr<DeviceMemory>& memory() const { return memory_; }

 private:
  const std::shared_ptr<DeviceMemory> memory_;
};

const std::shared_ptr<DeviceMemory>& memory_of(Buffer& buffer) {
  return static_cast<DeferredBuffer&>(buffer).memory();
}

// Everything that a call needs, kept until it has run.
struct Call {
  Device inner;
  std::shared_ptr<Executable> executable;
  Storage storage;
  std::vector<TensorType> input_types, output_types;
  std::vector<std::shared_ptr<DeviceMemory>> inputs, outputs;
  std::vector<double> scalars;
  std::vector<double>* kernel_seconds = nullptr;

  void run() const {
    Backend& backend = inner.backend();
    // Memory that an output takes over is one buffer there, too.
    std::map<const DeviceMemory*, std::shared_ptr<Buffer>> buffers;
    const auto buffer_for = [&](const DeviceMemory& memory, const TensorType& type) {
      auto [found, fresh] = buffers.try_emplace(&memory);
      if (fresh) found->second = backend.allocate(type);
      return std::pair(found->second.get(), fresh);
    };
    std::vector<Buffer*> in, out;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const TensorType& type = input_types[i];
      const auto [buffer, fresh] = buffer_for(*inputs[i], type);
      in.push_back(buffer);
      if (!fresh) continue;
      std::vector<std::byte> host(type.bytes());
      const std::size_t kept = kept_bytes(host.size(), type.dtype, storage);
      from_kept(std::span(inputs[i]->bytes).first(kept), type.dtype, storage, host);
      backend.upload(*buffer, type.dtype, host);
    }
    for (std::size_t o = 0; o < outputs.size(); ++o)
      out.push_back(buffer_for(*outputs[o], output_types[o]).first);
    RunOptions options;
    options.kernel_seconds = kernel_seconds;
    executable->run({in, out, scalars}, options);
    for (std::size_t o = 0; o < outputs.size(); ++o) {
      const TensorType& type = output_types[o];
      std::vector<std::byte> host(type.bytes());
      backend.download(*out[o], type.dtype, host);
      const std::size_t kept = kept_bytes(host.size(), type.dtype, storage);
      // What lies beyond the last element is nobody's.
      std::fill(outputs[o]->bytes.begin(), outputs[o]->bytes.end(), rubbish);
      to_kept(host, type.dtype, storage, std::span(outputs[o]->bytes).first(kept));
    }
  }
};

class DeferredExecutable final : public Executable {
 public:
  DeferredExecutable(const Program& program, const Backend& owner, const Device& inner,
                     std::shared_ptr<WorkQueue> queue)
      : Executable(program, owner), queue_(std::move(queue)) {
    call_.inner = inner;
    call_.executable = inner.backend().compile(program);
    call_.storage = owner.capabilities().storage;
    call_.input_types = program.inputs;
    call_.output_types = program.outputs;
  }
  std::size_t workspace_bytes() const override { return call_.executable->workspace_bytes(); }

 private:
  Event start(const Bindings& bindings, const RunOptions& options) override {
    Call call = call_;
    for (Buffer* input : bindings.inputs) call.inputs.push_back(memory_of(*input));
    for (Buffer* output : bindings.outputs) call.outputs.push_back(memory_of(*output));
    call.scalars.assign(bindings.scalars.begin(), bindings.scalars.end());
    call.kernel_seconds = options.kernel_seconds;
    return queue_->add(
        DeviceLog::Kind::submit, [call = std::move(call)] { call.run(); }, queue_);
  }

  const std::shared_ptr<WorkQueue> queue_;
  Call call_;
};

class DeferredBackend final : public Backend {
 public:
  DeferredBackend(const Device& inner, const DeferredOptions& options)
      : inner_(inner),
        queue_(std::make_shared<WorkQueue>(options.runs, options.dies_at, options.log)) {
    capabilities_ = inner.backend().capabilities();
    capabilities_.name = "deferred " + capabilities_.name;
    if (options.wide_storage)
      capabilities_.storage.keep(DType::boolean, DType::u32)
          .keep(DType::u8, DType::u32)
          .keep(DType::bf16, DType::f32)
          .keep(DType::f16, DType::f32)
          .write_together(16);
  }

  const Capabilities& capabilities() const override { return capabilities_; }

  using Backend::allocate;
  std::shared_ptr<Buffer> allocate(std::size_t bytes) override {
    queue_->check_alive();
    std::shared_ptr<DeviceMemory> memory;
    try {
      memory = std::make_shared<DeviceMemory>(bytes, in_use_);
    } catch (const std::exception&) {  // bad_alloc, length_error
      throw OutOfMemory("deferred: can't allocate " + std::to_string(bytes) + " bytes");
    }
    return std::make_shared<DeferredBuffer>(std::move(memory), this, queue_);
  }
  MemoryUse in_use() const override {
    MemoryUse use = inner_.backend().in_use();
    use.buffers = *in_use_;
    return use;
  }
  void trim() override { inner_.backend().trim(); }

  Event write(Buffer& to, std::span<const std::byte> from) override {
    return queue_->add(
        DeviceLog::Kind::write,
        [memory = memory_of(to), bytes = std::vector<std::byte>(from.begin(), from.end())] {
          std::copy(bytes.begin(), bytes.end(), memory->bytes.begin());
        },
        queue_);
  }
  Event read(std::span<const Transfer> transfers) override {
    struct Piece {
      std::shared_ptr<DeviceMemory> memory;
      std::span<std::byte> to;
    };
    std::vector<Piece> pieces;
    for (const Transfer& transfer : transfers)
      pieces.push_back({memory_of(*transfer.from), transfer.to});
    return queue_->add(
        DeviceLog::Kind::read,
        [pieces = std::move(pieces)] {
          for (const Piece& piece : pieces)
            if (!piece.to.empty())
              std::memcpy(piece.to.data(), piece.memory->bytes.data(), piece.to.size());
        },
        queue_);
  }
  std::unique_ptr<Executable> make_executable(const Program& program) override {
    return std::make_unique<DeferredExecutable>(program, *this, inner_, queue_);
  }

 private:
  const Device inner_;
  const std::shared_ptr<WorkQueue> queue_;
  const std::shared_ptr<std::atomic<std::size_t>> in_use_ =
      std::make_shared<std::atomic<std::size_t>>(0);
  Capabilities capabilities_;
};

}  // namespace

Device deferred(const Device& inner, const DeferredOptions& options) {
  return Device(std::make_unique<DeferredBackend>(inner, options));
}

}  // namespace fluxion::testing
