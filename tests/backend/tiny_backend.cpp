#include "tests/backend/tiny_backend.h"

#include "backends/cpu/cpu.h"
#include "tests/backend/passing_backend.h"

namespace fluxion::testing {

namespace {

class TinyBackend final : public PassingBackend {
 public:
  explicit TinyBackend(const TinyOptions& options)
      : PassingBackend(cpu({.threads = options.threads})), capabilities_(inner().capabilities()) {
    capabilities_.name = "tiny";
    capabilities_.limits = options.limits;
  }
  const Capabilities& capabilities() const override { return capabilities_; }

 private:
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
