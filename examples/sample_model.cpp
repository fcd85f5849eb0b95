// Draw samples from a model file. Nothing here needs autograd/: this is what an application that
// ships a generator does.
#include <cstdio>

#include "backends/cpu/cpu.h"
#include "engine/error.h"
#include "models/images/sample_picture.h"
#include "models/model_file.h"
#include "models/samplers/default_sampler.h"

using namespace fluxion;

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: sample_model MODEL.safetensors PICTURE.png\n");
    return 2;
  }
  try {
    const Model model = read_model(argv[1], cpu());
    const Sampler sampler(model.info.network, model.parameters, default_sampler(model.info));

    // Three rows with one sample of each class; models without classes take no labels.
    const std::vector<std::int32_t> classes = trained_classes(model.info);
    const std::int64_t columns = std::ssize(classes), count = columns > 0 ? 3 * columns : 2000;
    std::vector<std::int32_t> labels;
    for (std::int64_t i = 0; columns > 0 && i < count; ++i)
      labels.push_back(classes[static_cast<std::size_t>(i % columns)]);

    const std::vector<float> samples = sampler.sample(count, 32, /*seed=*/0, labels);
    write_png(argv[2],
              sample_picture(sample_shape(model.info.network), samples, {.columns = static_cast<int>(columns)}));
    std::printf("%lld samples, %lld network evaluations each\n", static_cast<long long>(count),
                static_cast<long long>(sampler.evaluations()));
  } catch (const Error& error) {
    std::fprintf(stderr, "sample_model: %s\n", error.what());
    return 1;
  }
}
