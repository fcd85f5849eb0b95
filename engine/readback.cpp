#include "engine/readback.h"

#include <string>

namespace fluxion {

struct Readback::State {
  struct Part {
    TensorType type;
    std::size_t begin, bytes;  // in `kept`
  };
  Device device;
  std::vector<Part> parts;
  std::vector<std::byte> kept;  // in the device's storage
  Event event;
};

Readback::Readback() = default;

Readback::Readback(std::span<const Tensor> tensors) {
  eval(tensors);
  if (tensors.empty()) return;
  auto state = std::make_unique<State>();
  state->device = tensors.front().device();
  Backend& backend = state->device.backend();
  const Storage& storage = backend.capabilities().storage;
  std::size_t bytes = 0;
  state->parts.reserve(tensors.size());
  for (const Tensor& tensor : tensors) {
    const std::size_t part = kept_bytes(tensor.type().bytes(), tensor.dtype(), storage);
    state->parts.push_back({tensor.type(), bytes, part});
    bytes += part;
  }
  state->kept.resize(bytes);
  std::vector<std::shared_ptr<Buffer>> buffers;  // until the copy has started
  std::vector<Transfer> transfers;
  buffers.reserve(tensors.size());
  transfers.reserve(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    buffers.push_back(tensors[i].node()->value(tensors[i].output()));
    const State::Part& part = state->parts[i];
    transfers.push_back(
        {buffers.back().get(), std::span(state->kept).subspan(part.begin, part.bytes)});
  }
  state->event = backend.start_download(transfers);
  state_ = std::move(state);
}

Readback::~Readback() {
  if (!state_) return;
  try {
    state_->event.wait();
  } catch (...) {
    // A dead device writes nothing more.
  }
}

Readback::Readback(Readback&&) noexcept = default;

Readback& Readback::operator=(Readback&& other) noexcept {
  Readback old(std::move(*this));  // waits
  state_ = std::move(other.state_);
  return *this;
}

std::size_t Readback::size() const { return state_ ? state_->parts.size() : 0; }
bool Readback::done() const { return !state_ || state_->event.done(); }
void Readback::wait() const {
  if (state_) state_->event.wait();
}

std::size_t Readback::elements(std::size_t index) const {
  if (index >= size())
    throw Error("readback: there is no tensor " + std::to_string(index) + " of " +
                std::to_string(size()));
  return static_cast<std::size_t>(state_->parts[index].type.shape.elements());
}

void Readback::copy(std::size_t index, DType dtype, std::span<std::byte> to) const {
  const std::size_t count = elements(index);
  const State::Part& part = state_->parts[index];
  if (dtype != part.type.dtype)
    throw DTypeError("readback: the tensor is " + to_string(part.type) + ", asked for as " +
                     std::string(to_string(dtype)) + "; convert first");
  if (to.size() != count * size_of(dtype))
    throw ShapeError("readback: item wants a tensor of one element, got " + to_string(part.type));
  state_->event.wait();
  from_kept(std::span<const std::byte>(state_->kept).subspan(part.begin, part.bytes), dtype,
            state_->device.backend().capabilities().storage, to);
}

}  // namespace fluxion
