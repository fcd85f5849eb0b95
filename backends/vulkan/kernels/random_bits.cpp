// Philox-4x32-10, bit for bit that of engine/graph/philox.h.
#include <array>

#include "backends/vulkan/kernels/index_op.h"

namespace fluxion::vulkan_backend {

using spirv::Value;

namespace {

std::array<Value, 4> philox_block(std::array<Value, 4> counter, std::array<Value, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const spirv::Product a = multiply_extended(counter[0], counter[0].module().u32(0xD2511F53u)),
                         b = multiply_extended(counter[2], counter[2].module().u32(0xCD9E8D57u));
    counter = {b.high ^ counter[1] ^ key[0], b.low, a.high ^ counter[3] ^ key[1], a.low};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

}  // namespace

// One invocation draws a block of four words.
void lower_random_bits(OpWork& work) {
  const OpKernel& kernel = work.kernel();
  const std::int64_t count = kernel.output_types[0].shape.elements();
  const std::int64_t blocks = (count + 3) / 4;
  if (count == 0) return;
  const auto domain =
      static_cast<std::uint32_t>(std::get<RandomAttributes>(kernel.attributes).domain);

  OpShader shader(work, "random bits", Items{blocks});
  spirv::Module& m = shader.module();
  const spirv::Buffer key = shader.reads(work.input(0), spirv::U32),
                      stream = shader.reads(work.input(1), spirv::U32),
                      words = shader.writes(work.output(), spirv::U32);
  const spirv::Buffer quads = m.buffer(2, spirv::U32x4);  // of the same output
  shader.for_each_item([&](Value block) {
    const std::array<Value, 4> drawn =
        philox_block({block, m.u32(0), stream.load(m.u32(0)), m.u32(domain)},
                     {key.load(m.u32(0)), key.load(m.u32(1))});
    const std::int64_t whole = count / 4;
    const auto store_quad = [&] { quads.store(block, compose(drawn)); };
    if (whole == blocks) return store_quad();
    m.if_else(block < whole, store_quad, [&] {
      for (std::int64_t i = 0; i < count % 4; ++i)
        words.store(m.u32(static_cast<std::uint32_t>(4 * whole + i)),
                    drawn[static_cast<std::size_t>(i)]);
    });
  });
  shader.finish(100.0 * static_cast<double>(blocks), 4.0 * static_cast<double>(count));
}

}  // namespace fluxion::vulkan_backend
