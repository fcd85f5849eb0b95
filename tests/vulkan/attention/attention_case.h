// Attention, its dual and its backward over random views, and what they should give, by plain loops
// in f64.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "engine/graph/op_names.h"
#include "tests/vulkan/gemm/host_memory.h"

namespace fluxion::testing {

enum class MaskKind : std::uint8_t { none, finite, holes };

struct AttentionShape {
  Op op = Op::attention;
  std::int64_t batch = 1, queries = 1, keys = 1, features = 1;
  bool plain_views = true;
  MaskKind mask = MaskKind::none;
  bool causal = false;
  double size = 1;  // of the operands: scores grow with its square
};
std::ostream& operator<<(std::ostream& out, const AttentionShape& shape);

struct AttentionCall {
  AttentionShape shape;
  HostMemory memory;  // whose program has the kernel

  const OpKernel& kernel() const { return std::get<OpKernel>(memory.program.kernels.front()); }
  // The buffer of operand i, to change what it holds.
  std::vector<double>& operand(std::size_t i) { return memory.values(kernel().inputs[i]); }
};

// Operands as the op takes them.
AttentionCall random_attention(const AttentionShape& shape, std::uint32_t seed);

// "" if the outputs, read back from a device, are right, else the first that is not. `lenient`:
// sums that hold an infinity may or may not have met its opposite.
std::string first_wrong(const AttentionCall& call, bool lenient = false);

}  // namespace fluxion::testing
