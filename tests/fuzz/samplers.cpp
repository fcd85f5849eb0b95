// Fuzz target: sampler files of strangers. What is read is checked, written again and, where it is
// small, planned and run on the CPU backend for batches of up to five samples.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "backends/cpu/cpu.h"
#include "embed/generator.h"
#include "engine/error.h"
#include "tests/files/seal.h"

using namespace fluxion;

namespace {

using Bytes = std::vector<std::byte>;

// Whether a run takes little memory and time: few nodes of few elements.
bool is_small(const StoredSampler& sampler, std::int64_t batch) {
  constexpr std::size_t most_bytes = 1 << 14, most_nodes = 400;
  if (sampler.steps.size() > 16 || sampler.sample_shape.elements() > (1 << 12)) return false;
  for (const auto* forms : {&sampler.forms, &sampler.start})
    for (const StoredForm& form : *forms) {
      const StoredGraph graph = at_batch(form.graph, batch);
      if (graph.graph.nodes.size() > most_nodes || form.draws.size() > 16) return false;
      for (const plan::GraphNode& node : graph.graph.nodes)
        for (const TensorType& output : node.outputs)
          if (output.bytes() > most_bytes) return false;
    }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Device device = cpu({.threads = 1});
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto file = std::make_shared<Bytes>(bytes.begin(), bytes.end());
  testing::seal(*file);
  try {
    StoredSampler sampler = parse_sampler(*file, file);
    if (serialise(sampler).empty()) std::abort();
    if (!is_small(sampler, 2)) return 0;
    const std::size_t elements = static_cast<std::size_t>(sampler.sample_shape.elements());
    const Generator generator(std::move(sampler), device);
    std::vector<float> samples(5 * elements);
    // Sizes of other batches than one and two are checked when they are drawn.
    for (const std::int64_t batch : {1, 2, 3, 5}) {
      const std::int64_t count = batch == 2 ? 3 : batch;
      try {
        if (!is_small(generator.sampler(), batch)) return 0;
        generator.generate({.seed = 1, .count = count, .batch = batch},
                           std::span(samples).first(static_cast<std::size_t>(count) * elements));
      } catch (const Error&) {
      }
    }
    // With what a call may choose: the classes, the noise, the scale of guidance.
    samples.resize(3 * elements);
    std::vector<float> noise(samples.size());
    generator.noise({.seed = 2, .first = 61, .count = 3}, noise);
    const std::int32_t last = static_cast<std::int32_t>(generator.sampler().classes) - 1;
    const std::int32_t open = generator.sampler().open_class ? Generator::open_class : last;
    const std::int32_t classes[] = {0, last, open};
    SampleRequest request{.seed = 2, .first = 61, .count = 3, .batch = 2, .noise = noise};
    if (last >= 0) request.classes = classes;
    if (generator.sampler().guidance) request.guidance = -2.5;
    generator.generate(request, samples);
  } catch (const Error&) {
  }
  return 0;
}
