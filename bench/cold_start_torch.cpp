// What cold_start.c does, with libtorch and a network of torch.jit.trace; cold_start.sh builds and
// runs it.
//
//   cold_start_torch NETWORK.pt THREADS [CALLS]
#include <ATen/Parallel.h>
#include <torch/script.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

namespace {

double now() {  // the monotonic clock's, on Linux
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

int main(int argc, char** argv) try {
  const double begun = now();
  if (argc != 3 && argc != 4) return 2;
  at::set_num_threads(std::atoi(argv[2]));
  const c10::InferenceMode inference;
  torch::jit::Module network = torch::jit::load(argv[1]);
  const double opened = now();
  const auto draw = [&](std::int64_t count) {
    return network
        .forward({torch::randn({count, 1, 28, 28}), torch::full({count}, 3, torch::kLong)})
        .toTensor();
  };
  draw(1);
  std::printf("{\"begun\": %.6f, \"opened\": %.6f, \"image\": %.6f", begun, opened, now());
  const int calls = argc == 4 ? std::atoi(argv[3]) : 0;
  for (const int count : {1, 64}) {
    if (!calls) break;
    for (int i = 0; i < 3; ++i) draw(count);  // it compiles in its first calls
    std::printf(", \"batch %d\": [", count);
    for (int i = 0; i < calls; ++i) {
      const double start = now();
      draw(count);
      std::printf("%s%.4f", i ? ", " : "", 1e3 * (now() - start));
    }
    std::printf("]");
  }
  std::printf("}\n");
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "cold_start_torch: %s\n", error.what());
  return 1;
}
