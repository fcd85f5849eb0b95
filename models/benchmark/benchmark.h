// The networks and steps that speed is judged by: small enough for a desk, built like the large
// ones, and the same, number for number, as those of the PyTorch programs they are compared with
// (docs/performance.md).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/compile.h"
#include "models/networks/network.h"
#include "models/objectives/flow.h"

namespace fluxion {

// "mlp2d": 2 -> 512 five times -> 2, silu, 64 sinusoidal features of t and of t - r added to the
// first layer; 1,119,234 parameters. "dit28": 28 x 28 x 1, patch 4 (49 tokens), width 128, 6 blocks
// of 4 heads, 10 classes, exact gelu, learned positions; 1,924,752 parameters. "unet32": 32 x 32 x
// 3, base 64, levels 1, 2, 2 of two residual blocks, attention of 4 heads at 16 x 16 and 8 x 8;
// 7,461,443 parameters. "ditb2": DiT-B/2 on latents 32 x 32 x 4, as of ImageNet: patch 2 (256
// tokens), width 768, 12 blocks of 12 heads, 1,000 classes, for GPUs. Throws Error for another
// name.
struct BenchmarkNetwork {
  std::string name;
  NetworkConfig config;
  std::int64_t batch = 0;  // what it is usually measured with
};
const std::vector<BenchmarkNetwork>& benchmark_networks();
const BenchmarkNetwork& benchmark_network(const std::string& name);

enum class BenchmarkTask {
  flow_matching,    // a training step: forward, backward, Adam
  meanflow,         // the same with the JVP over all rows; a random quarter of them has r != t
  meanflow_subset,  // the JVP over a fixed quarter of the rows, the others having r = t: the same
                    // expected loss
  forward,          // one evaluation of the network
  sample,           // noise, one evaluation, one subtraction
};

// Floating-point operations (a multiply-add is two) of the matrix products of one forward pass:
// those with a weight, and those of one activation with another (attention).
struct ProductFlops {
  double weight = 0, activation = 0;
  double forward() const { return weight + activation; }
};
ProductFlops product_flops(const NetworkConfig& network, std::int64_t batch);

// What a step has to compute, however it does it. Backward costs two products for each of the
// forward pass; the tangent costs one for a product with a weight (which rests) and two for a
// product of activations; the subset's tangent is needed for a quarter of the rows.
double necessary_flops(BenchmarkTask task, const NetworkConfig& network, std::int64_t batch);

// The loss of the training steps: MeanFlow with adaptive weight p = 1, c = 1e-3 on the mean squared
// error per element. Flow matching is the same with r = t, where the target is the velocity itself;
// the mask of `draws` is then ignored.
MeanFlowResult benchmark_loss(BenchmarkTask task, const NetworkConfig& network,
                              const Parameters& parameters, const FlowDraws& draws);

// One task on one network with made-up data, compiled. Training uses Adam at 1e-4 without clipping,
// decay or averaging, and draws anew at each step. With cotangents in f16 the loss is not scaled.
class Benchmark {
 public:
  // Throws Error for a batch below 1.
  Benchmark(BenchmarkTask task, const NetworkConfig& network, std::int64_t batch,
            const Device& device, std::uint64_t seed = 0);
  ~Benchmark();

  // Traced and planned at the first of these calls.
  const Program& program() const;
  MemoryReport memory_report() const;
  // Returns when the result is there: the loss, or the network's output.
  Tensor step(const RunOptions& options = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fluxion
