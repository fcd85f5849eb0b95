#include "engine/backend.h"

#include <algorithm>
#include <functional>

#include "engine/error.h"

namespace fluxion {

// ---- Buffer

Event Buffer::idle() const {
  return {timeline_, std::max(written_.load(std::memory_order_acquire),
                              read_.load(std::memory_order_acquire))};
}

void Buffer::note(std::atomic<std::uint64_t>& last, const Event& event) {
  const std::uint64_t point = event.point();
  std::uint64_t seen = last.load(std::memory_order_relaxed);
  while (seen < point && !last.compare_exchange_weak(seen, point, std::memory_order_release,
                                                     std::memory_order_relaxed)) {
  }
}

// ---- Executable

namespace {

void require_count(const char* what, std::size_t wanted, std::size_t bound) {
  if (wanted != bound)
    throw Error("run: the program has " + std::to_string(wanted) + " " + what + ", " +
                std::to_string(bound) + " are bound");
}

}  // namespace

Executable::Executable(const Program& program, const Backend& owner)
    : owner_(&owner),
      inputs_(program.inputs),
      outputs_(program.outputs),
      donations_(program.donations),
      scalars_(static_cast<std::size_t>(program.scalars)) {
  const Storage& storage = owner.capabilities().storage;
  for (const TensorType& type : inputs_) input_bytes_.push_back(bytes_of(type, storage));
  for (const TensorType& type : outputs_) output_bytes_.push_back(bytes_of(type, storage));
  donations_.resize(outputs_.size(), -1);
  bound_.reserve(inputs_.size() + outputs_.size());
}

Event Executable::submit(const Bindings& bindings, const RunOptions& options) {
  try {
    check(bindings, options);
  } catch (...) {
    rethrow_stating(Aftermath::nothing_written);
  }
  Event event = start(bindings, options);
  if (event.point() != 0) {
    for (Buffer* input : bindings.inputs) input->note_read(event);
    for (Buffer* output : bindings.outputs) output->note_write(event);
  }
  return event;
}

void Executable::check(const Bindings& bindings, const RunOptions& options) const {
  require_count("inputs", inputs_.size(), bindings.inputs.size());
  require_count("outputs", outputs_.size(), bindings.outputs.size());
  require_count("run-time scalars", scalars_, bindings.scalars.size());
  const auto require_room = [&](const char* what, const std::vector<TensorType>& types,
                                const std::vector<std::size_t>& bytes,
                                std::span<Buffer* const> buffers) {
    for (std::size_t i = 0; i < types.size(); ++i) {
      const auto wanted = [&] {
        return "run: " + std::string(what) + " " + std::to_string(i) + " is " +
               to_string(types[i]) + " of " + std::to_string(bytes[i]) + " bytes, ";
      };
      if (!buffers[i]) throw Error(wanted() + "no buffer is bound");
      if (buffers[i]->owner() != owner_)
        throw DeviceError(wanted() + "a buffer of another device is bound");
      if (buffers[i]->bytes() < bytes[i])
        throw Error(wanted() + "a buffer of " + std::to_string(buffers[i]->bytes()) +
                    " bytes is bound");
    }
  };
  require_room("input", inputs_, input_bytes_, bindings.inputs);
  require_room("output", outputs_, output_bytes_, bindings.outputs);

  check_overlaps(bindings);

  if (workspace_bytes() > options.memory_limit)
    throw OutOfMemory("run: the program's temporaries and scratch take " +
                      std::to_string(workspace_bytes()) + " bytes, the limit is " +
                      std::to_string(options.memory_limit));
  if (options.cancel.stop_requested()) throw Cancelled("run: stopped before the first kernel");
}

void Executable::check_overlaps(const Bindings& bindings) const {
  // All bindings sorted by buffer: an output may share its buffer with its donor alone.
  const std::lock_guard lock(checking_);
  bound_.clear();
  for (std::size_t i = 0; i < inputs_.size(); ++i)
    bound_.push_back({bindings.inputs[i], -1, static_cast<std::int64_t>(i)});
  for (std::size_t o = 0; o < outputs_.size(); ++o)
    if (output_bytes_[o] > 0)
      bound_.push_back({bindings.outputs[o], static_cast<std::int64_t>(o), donations_[o]});
  std::sort(bound_.begin(), bound_.end(), [](const BoundBuffer& a, const BoundBuffer& b) {
    return a.buffer != b.buffer ? std::less<>()(a.buffer, b.buffer) : a.output > b.output;
  });
  for (std::size_t i = 0; i + 1 < bound_.size(); ++i) {
    const BoundBuffer &one = bound_[i], &next = bound_[i + 1];  // a buffer's outputs come first
    if (one.output < 0 || one.buffer != next.buffer) continue;
    const bool third = i + 2 < bound_.size() && bound_[i + 2].buffer == one.buffer;
    if (next.output >= 0 || next.input != one.input || third)
      throw Error(
          "run: output " + std::to_string(one.output) +
          " is bound to memory of another output, or of an input that it may not take over");
  }
}

// ---- Backend

namespace {

void check_transfer(const Backend& backend, const Buffer& buffer, std::size_t bytes,
                    const char* doing) {
  if (!backend.owns(buffer))
    throw DeviceError(backend.capabilities().name + ": can't " + doing +
                      " a buffer of another device");
  if (bytes > buffer.bytes())
    throw DeviceError(backend.capabilities().name + ": can't " + doing + " a buffer of " +
                      std::to_string(buffer.bytes()) + " bytes: " + std::to_string(bytes) +
                      " are to be copied");
}

void check_whole(const Backend& backend, DType dtype, std::size_t bytes) {
  if (bytes % size_of(dtype) != 0)
    throw DeviceError(backend.capabilities().name + ": " + std::to_string(bytes) +
                      " bytes are no whole number of " + std::string(to_string(dtype)) +
                      " elements");
}

}  // namespace

void Backend::upload(Buffer& to, DType dtype, std::span<const std::byte> from) {
  const Storage& storage = capabilities().storage;
  check_whole(*this, dtype, from.size());
  const std::size_t bytes = kept_bytes(from.size(), dtype, storage);
  check_transfer(*this, to, bytes, "upload into");
  if (bytes == 0) return;
  if (storage.kept(dtype) == dtype) {
    to.note_write(write(to, from));
    return;
  }
  std::vector<std::byte> kept(bytes);
  to_kept(from, dtype, storage, kept);
  to.note_write(write(to, kept));
}

void Backend::download(Buffer& from, DType dtype, std::span<std::byte> to) {
  const Storage& storage = capabilities().storage;
  check_whole(*this, dtype, to.size());
  const std::size_t bytes = kept_bytes(to.size(), dtype, storage);
  if (storage.kept(dtype) == dtype) {
    const Transfer transfer{&from, to};
    start_download({&transfer, 1}).wait();
    return;
  }
  std::vector<std::byte> kept(bytes);
  const Transfer transfer{&from, kept};
  start_download({&transfer, 1}).wait();
  from_kept(kept, dtype, storage, to);
}

Event Backend::start_download(std::span<const Transfer> transfers) {
  bool any = false;
  for (const Transfer& transfer : transfers) {
    check_transfer(*this, *transfer.from, transfer.to.size(), "download from");
    any = any || !transfer.to.empty();
  }
  if (!any) return {};
  const Event event = read(transfers);
  for (const Transfer& transfer : transfers) transfer.from->note_read(event);
  return event;
}

std::unique_ptr<Executable> Backend::compile(const Program& program) {
  verify(program, capabilities().storage);
  require_fits(program, capabilities().limits, capabilities().storage, capabilities().name);
  return make_executable(program);
}

}  // namespace fluxion
