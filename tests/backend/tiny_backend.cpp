#include "tests/backend/tiny_backend.h"

#include "backends/cpu/cpu.h"

namespace fluxion::testing {

namespace {

class TinyBackend final : public Backend {
 public:
  explicit TinyBackend(const TinyOptions& options) : cpu_(cpu({options.threads})) {
    capabilities_ = cpu_.backend().capabilities();
    capabilities_.name = "tiny";
    capabilities_.limits = options.limits;
  }

  const Capabilities& capabilities() const override { return capabilities_; }
  std::shared_ptr<Buffer> allocate(std::size_t bytes) override {
    return cpu_.backend().allocate(bytes);
  }
  void upload(Buffer& to, std::span<const std::byte> from) override {
    cpu_.backend().upload(to, from);
  }
  void download(Buffer& from, std::span<std::byte> to) override {
    cpu_.backend().download(from, to);
  }
  std::unique_ptr<Executable> make_executable(const Program& program) override {
    require_fits(program, capabilities_.limits, capabilities_.name);
    return cpu_.backend().compile(program);
  }

 private:
  Device cpu_;
  Capabilities capabilities_;
};

}  // namespace

KernelLimits tiny_limits() {
  KernelLimits limits;
  limits.max_axes = 6;
  limits.max_guards = 2;
  limits.max_buffers = 8;
  limits.max_loads = 8;
  limits.max_stores = 4;
  limits.max_instructions = 32;
  limits.max_results = 2;
  limits.max_row_elements = 1024;
  limits.max_row_bytes = 4096;
  limits.max_attention_head = 8;
  limits.alignment = 256;
  limits.index_bits = 32;
  return limits;
}

Device tiny(const TinyOptions& options) { return Device(std::make_unique<TinyBackend>(options)); }

}  // namespace fluxion::testing
