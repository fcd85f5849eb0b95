#include "backends/cpu/tape/tape_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/index/op_kernel_lanes.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "backends/cpu/index/op_kernel_lanes.h"

HWY_BEFORE_NAMESPACE();
namespace fluxion::cpu_backend {
namespace HWY_NAMESPACE {

// Philox-4x32-10 in plain loops that the compiler vectorises for the target. A round multiplies to
// 64 bits, so each counter word has a 64-bit lane.
void RandomWords(std::int64_t begin, std::int64_t end, std::uint32_t stream, std::uint32_t domain,
                 std::uint32_t key0, std::uint32_t key1, std::uint32_t* out) {
  constexpr std::uint64_t low = 0xFFFFFFFFu;
  for (std::int64_t group = begin; group < end; ++group) {
    std::uint64_t c0[philox_width], c1[philox_width], c2[philox_width], c3[philox_width];
    for (int i = 0; i < philox_width; ++i) {
      const std::uint64_t block =
          static_cast<std::uint64_t>(group) * philox_width + static_cast<std::uint64_t>(i);
      c0[i] = block & low;
      c1[i] = block >> 32;
      c2[i] = stream;
      c3[i] = domain;
    }
    std::uint32_t k0 = key0, k1 = key1;
    for (int round = 0; round < 10; ++round) {
      for (int i = 0; i < philox_width; ++i) {
        const std::uint64_t a = (c0[i] & low) * 0xD2511F53u;
        const std::uint64_t b = (c2[i] & low) * 0xCD9E8D57u;
        c0[i] = (b >> 32) ^ c1[i] ^ k0;
        c1[i] = b & low;
        c2[i] = (a >> 32) ^ c3[i] ^ k1;
        c3[i] = a & low;
      }
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    std::uint32_t* words = out + group * 4 * philox_width;
    for (int i = 0; i < philox_width; ++i) {
      words[4 * i] = static_cast<std::uint32_t>(c0[i]);
      words[4 * i + 1] = static_cast<std::uint32_t>(c1[i]);
      words[4 * i + 2] = static_cast<std::uint32_t>(c2[i]);
      words[4 * i + 3] = static_cast<std::uint32_t>(c3[i]);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fluxion::cpu_backend
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fluxion::cpu_backend {

HWY_EXPORT(RandomWords);

void random_words(std::int64_t begin, std::int64_t end, std::uint32_t stream, std::uint32_t domain,
                  std::uint32_t key0, std::uint32_t key1, std::uint32_t* out) {
  HWY_DYNAMIC_DISPATCH(RandomWords)(begin, end, stream, domain, key0, key1, out);
}

}  // namespace fluxion::cpu_backend
#endif
