// Draws samples from a model file into a NumPy array, each class in turn.
#include <fluxion/backends/cpu/cpu.h>
#include <fluxion/engine/error.h>
#include <fluxion/models/files/npy.h>
#include <fluxion/models/model_file.h>
#include <fluxion/models/samplers/default_sampler.h>

#include <cstdio>
#include <cstdlib>

using namespace fluxion;

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: sample MODEL.safetensors COUNT SAMPLES.npy\n");
    return 2;
  }
  try {
    const Model model = read_model(argv[1], cpu());
    const Sampler sampler(model.info.network, model.parameters, default_sampler(model.info));
    const std::int64_t count = std::atoll(argv[2]);
    const std::vector<std::int32_t> classes = trained_classes(model.info);
    std::vector<std::int32_t> labels;
    for (std::int64_t i = 0; !classes.empty() && i < count; ++i)
      labels.push_back(classes[static_cast<std::size_t>(i % std::ssize(classes))]);

    const std::vector<float> samples = sampler.sample(count, count, /*seed=*/0, labels);
    Dims shape{count};
    for (const std::int64_t size : sample_shape(model.info.network)) shape.push_back(size);
    write_npy(argv[3], samples, Shape(shape));
    std::printf("%lld samples\n", static_cast<long long>(count));
  } catch (const Error& error) {
    std::fprintf(stderr, "sample: %s\n", error.what());
    return 1;
  }
}
