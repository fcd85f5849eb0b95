// AMD's shader compiler on a machine without a card. RADV makes a device of a named family with
// nothing behind it: it compiles pipelines with the compiler of real cards, and runs nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "backends/vulkan/capabilities.h"

namespace fluxion::amd {

// What the driver states of a compiled shader. Registers are per lane (VGPRs) and per subgroup
// (SGPRs); latency and inverse throughput are the compiler's estimates in cycles.
struct Statistics {
  std::int64_t sgprs = 0, vgprs = 0;
  std::int64_t spilled_sgprs = 0, spilled_vgprs = 0;
  std::int64_t scratch_bytes = 0;  // of a subgroup
  std::int64_t shared_bytes = 0;
  std::int64_t subgroups_per_simd = 0;
  std::int64_t code_bytes = 0, instructions = 0;
  std::int64_t latency = 0, inverse_throughput = 0;
};

struct CompiledShader {
  Statistics statistics;
  std::string isa;  // the machine code as text
};

// What a pipeline needs to know of a module beside its words.
struct Interface {
  std::uint32_t bindings = 0, push_bytes = 0;
  std::uint32_t subgroup_size = 0;  // required; 0: any
};
// Found in the module itself: the highest binding, and whether there are push constants.
Interface interface_of(std::span<const std::uint32_t> words);

class Compiler {
 public:
  // Empty if RADV is not installed. The family ("gfx1030", "vega10", ..) is read once per process:
  // all compilers of a process are of the first one's family. Throws Error for an unknown one.
  static std::optional<Compiler> make(const std::string& family);
  Compiler(Compiler&&) noexcept;
  ~Compiler();

  const vulkan_backend::DeviceFacts& facts() const;
  // Throws Error if the driver refuses the shader.
  CompiledShader compile(std::span<const std::uint32_t> words, const Interface& interface) const;

 private:
  struct State;
  explicit Compiler(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace fluxion::amd
