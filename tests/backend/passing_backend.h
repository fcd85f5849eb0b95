// A backend that passes everything on to another device: a base for those that change one thing.
// Its buffers and executables are the other's.
#pragma once

#include <memory>
#include <utility>

#include "engine/device.h"

namespace fluxion::testing {

class PassingBackend : public Backend {
 public:
  explicit PassingBackend(Device inner) : inner_(std::move(inner)) {}
  Backend& inner() const { return inner_.backend(); }

  const Capabilities& capabilities() const override { return inner().capabilities(); }
  using Backend::allocate;
  std::shared_ptr<Buffer> allocate(std::size_t bytes) override { return inner().allocate(bytes); }
  MemoryUse in_use() const override { return inner().in_use(); }
  std::size_t budget() const override { return inner().budget(); }
  void trim() override { inner().trim(); }
  bool owns(const Buffer& buffer) const override { return inner().owns(buffer); }
  Event write(Buffer& to, std::span<const std::byte> from) override {
    return inner().write(to, from);
  }
  Event read(std::span<const Transfer> transfers) override { return inner().read(transfers); }
  std::unique_ptr<Executable> make_executable(const Program& program) override {
    return inner().make_executable(program);
  }

 private:
  Device inner_;
};

}  // namespace fluxion::testing
