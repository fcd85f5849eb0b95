#include "engine/backend.h"

#include <algorithm>
#include <functional>

#include "engine/error.h"

namespace fluxion {

namespace {

void require_count(const char* what, std::size_t wanted, std::size_t bound) {
  if (wanted != bound)
    throw Error("run: the program has " + std::to_string(wanted) + " " + what + ", " +
                std::to_string(bound) + " are bound");
}

void require_room(const char* what, const std::vector<TensorType>& types,
                  std::span<Buffer* const> buffers) {
  for (std::size_t i = 0; i < types.size(); ++i) {
    const auto fail = [&](const std::string& bound) {
      throw Error("run: " + std::string(what) + " " + std::to_string(i) + " is " +
                  to_string(types[i]) + " of " + std::to_string(types[i].bytes()) + " bytes, " +
                  bound + " is bound");
    };
    if (!buffers[i]) fail("no buffer");
    if (buffers[i]->bytes() < types[i].bytes())
      fail("a buffer of " + std::to_string(buffers[i]->bytes()) + " bytes");
  }
}

}  // namespace

Executable::Executable(const Program& program)
    : inputs_(program.inputs),
      outputs_(program.outputs),
      donations_(program.donations),
      scalars_(static_cast<std::size_t>(program.scalars)) {
  donations_.resize(outputs_.size(), -1);
}

void Executable::run(const Bindings& bindings, const RunOptions& options) {
  try {
    check(bindings);
  } catch (...) {
    rethrow_stating(Aftermath::nothing_written);
  }
  run_checked(bindings, options);
}

void Executable::check(const Bindings& bindings) const {
  require_count("inputs", inputs_.size(), bindings.inputs.size());
  require_count("outputs", outputs_.size(), bindings.outputs.size());
  require_count("run-time scalars", scalars_, bindings.scalars.size());
  require_room("input", inputs_, bindings.inputs);
  require_room("output", outputs_, bindings.outputs);

  // Who lies where, sorted by memory: an output that shares it may share it with its donor alone.
  struct Binding {
    Buffer* buffer;
    std::int64_t output;  // or -1
    std::int64_t input;   // of an output: its donor, or -1
  };
  std::vector<Binding> all;
  all.reserve(inputs_.size() + outputs_.size());
  for (std::size_t i = 0; i < inputs_.size(); ++i)
    all.push_back({bindings.inputs[i], -1, static_cast<std::int64_t>(i)});
  for (std::size_t o = 0; o < outputs_.size(); ++o)
    if (outputs_[o].bytes() > 0)
      all.push_back({bindings.outputs[o], static_cast<std::int64_t>(o), donations_[o]});
  std::sort(all.begin(), all.end(), [](const Binding& a, const Binding& b) {
    return a.buffer != b.buffer ? std::less<>()(a.buffer, b.buffer) : a.output > b.output;
  });
  for (std::size_t i = 0; i + 1 < all.size(); ++i) {
    const Binding &one = all[i], &next = all[i + 1];  // outputs come first among those of a buffer
    if (one.output < 0 || one.buffer != next.buffer) continue;
    const bool third = i + 2 < all.size() && all[i + 2].buffer == one.buffer;
    if (next.output >= 0 || next.input != one.input || third)
      throw Error(
          "run: output " + std::to_string(one.output) +
          " is bound to memory of another output, or of an input that it may not take over");
  }
}

}  // namespace fluxion
