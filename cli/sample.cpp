// fluxion sample: model file in, picture and numbers out.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/command.h"
#include "cli/progress.h"
#include "cli/sampler_choice.h"
#include "engine/error.h"
#include "engine/number_text.h"
#include "engine/platform/file.h"
#include "models/files/npy.h"
#include "models/images/sample_picture.h"
#include "models/model_file.h"
#include "models/samplers/default_sampler.h"

namespace fluxion::cli {

namespace {

struct SampleArguments : CommonOptions {
  std::string model;
  std::int64_t count = 64;
  SamplerChoice sampler;
  std::string chosen_class = "balanced";
  double guidance = 1;
  std::uint64_t seed = 0;
  std::int64_t batch = 64;
  std::string precision = "f32";
  int columns = 0;
  std::string out, npy;
};

// The classes to draw, one after the other. Empty: left open.
std::vector<std::int32_t> classes_for(const SampleArguments& options, const ModelInfo& info) {
  if (options.chosen_class == "balanced") return trained_classes(info);
  if (options.chosen_class == "none") {
    check_open_class(info);
    return {};
  }
  try {
    return {class_of(info, options.chosen_class)};
  } catch (const Error& error) {
    throw Error("sample: --" + std::string(error.what()) +
                "; --class balanced takes each in turn, --class none leaves the class open");
  }
}

// Exploded or damaged weights make samples that nothing can be drawn from.
void check_finite(const std::vector<float>& values, std::size_t per_sample,
                  const std::string& model) {
  const auto wrong =
      std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  if (wrong != values.end())
    throw Error("sample: " + model + ": sample " +
                std::to_string(static_cast<std::size_t>(wrong - values.begin()) / per_sample) +
                " holds a number that is not finite: training may have diverged, or the file be "
                "damaged");
}

int sample(SampleArguments options, const Streams& streams) {
  if (options.out.empty() && options.npy.empty()) options.out = "samples.png";
  const Device device = open_device(options, streams);
  const Model model = read_model(options.model, device);
  if (!options.out.empty() && !can_be_drawn(sample_shape(model.info.network)))
    throw ShapeError("sample: samples of shape " + to_string(sample_shape(model.info.network)) +
                     " can't be drawn; --npy writes their numbers");
  check_room_for_samples(options, sample_shape(model.info.network), options.count, options.batch);
  const std::vector<std::int32_t> classes = classes_for(options, model.info);
  std::vector<std::int32_t> labels;
  for (std::int64_t i = 0; !classes.empty() && i < options.count; ++i)
    labels.push_back(classes[static_cast<std::size_t>(i % std::ssize(classes))]);
  const Sampler sampler(with_precision(model.info.network, precision_from(options.precision)),
                        model.parameters,
                        chosen_sampler(options.sampler, options.guidance, model.info, "sample"));

  const auto start = std::chrono::steady_clock::now();
  std::vector<float> values;
  {
    ProgressLine line(streams);
    const auto takes_long = [&] {
      return std::chrono::steady_clock::now() - start > std::chrono::seconds(1);
    };
    values = sampler.sample(
        options.count, std::min(options.batch, options.count), options.seed, labels, {},
        [&](std::int64_t done) {
          if (done < options.count && takes_long() && line.due())
            line.show(std::to_string(done) + "/" + std::to_string(options.count) + " samples");
        });
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  Dims shape{options.count};
  const Shape one = sample_shape(model.info.network);
  check_finite(values, static_cast<std::size_t>(one.elements()), options.model);
  shape.insert(shape.end(), one.begin(), one.end());
  if (!options.npy.empty()) write_npy(options.npy, values, Shape(shape));
  if (!options.out.empty()) {
    const std::int64_t columns = std::ssize(classes);
    const bool a_column_a_class = options.columns == 0 && options.chosen_class == "balanced" &&
                                  columns > 0 && columns <= 20 && options.count > columns;
    write_png(options.out,
              sample_picture(one, values,
                             a_column_a_class ? static_cast<int>(columns) : options.columns));
  }
  if (options.json) {
    nlohmann::json object = {
        {"model", options.model},    {"count", options.count}, {"shape", shape},
        {"evaluations", nullptr},    {"seed", options.seed},   {"seconds", seconds},
        {"traces", sampler.traces()}};
    // The mean over the samples is whole but for samplers with error control.
    const double evaluations = sampler.evaluations();
    if (evaluations == std::round(evaluations))
      object["evaluations"] = static_cast<std::int64_t>(evaluations);
    else
      object["evaluations"] = evaluations;
    object["out"] = options.out.empty() ? nlohmann::json() : nlohmann::json(options.out);
    object["npy"] = options.npy.empty() ? nlohmann::json() : nlohmann::json(options.npy);
    write_json(streams.out, object);
  } else {
    // What goes into a pipe is the array or the picture alone.
    const bool taken = is_standard_output(options.npy) || is_standard_output(options.out);
    std::ostream& out = taken ? streams.error : streams.out;
    out << options.count << " samples, " << evaluations_text(sampler.evaluations())
        << (sampler.evaluations() == 1 ? " network evaluation" : " network evaluations")
        << " each, " << fixed_text(seconds, 2) << " s\n";
    if (!options.out.empty()) out << "picture  " << options.out << "\n";
    if (!options.npy.empty()) out << "array    " << options.npy << "\n";
    out << std::flush;
  }
  return 0;
}

}  // namespace

Command add_sample(CommandLine& program, const Streams& streams) {
  auto options = std::make_shared<SampleArguments>();
  const Parser parser = program.add_subcommand("sample", "Draw samples from a trained model");
  parser.footer(
      "Sample number i depends on the seed and on i alone, not on --count, --batch or "
      "the device's threads.\n\n"
      "Examples:\n"
      "  fluxion sample --model out/digits/model.safetensors --out grid.png\n"
      "  fluxion sample --model out/digits/model.safetensors --class 7 --count 25 --seed 3 --out "
      "sevens.png\n"
      "  fluxion sample --model out/flow/model.safetensors --steps 20 --sampler heun --count 10000 "
      "--npy points.npy");
  parser.add_option("--model", options->model, "Model file (.safetensors)")
      .required()
      .type_name("FILE");
  parser.add_number("--count", options->count, whole(1, most_samples), "Number of samples, any")
      .type_name("N")
      .show_default();
  add_sampler_options(parser, options->sampler);
  parser
      .add_option("--class", options->chosen_class,
                  "A class by name, or by number where names are none; balanced: each in turn that "
                  "training had samples of; none: left open")
      .type_name("C")
      .show_default();
  parser
      .add_number("--guidance", options->guidance, guidance_scales(),
                  "Scale of classifier-free guidance, for models trained without it; 1: none")
      .type_name("W")
      .show_default();
  parser.add_number("--seed", options->seed, seeds(), "Seed of the noise")
      .type_name("S")
      .show_default();
  parser.add_number("--batch", options->batch, whole(1, 1 << 20), "Samples computed at a time")
      .type_name("B")
      .show_default();
  add_precision(parser, options->precision);
  parser
      .add_option("--out", options->out,
                  "Picture to write (default: samples.png, unless --npy is given)")
      .type_name("FILE.png");
  parser
      .add_number("--columns", options->columns, whole(0, 1000),
                  "Columns of the picture; 0: one for each class, else nearly square")
      .type_name("N")
      .show_default();
  parser.add_option("--npy", options->npy, "NumPy array to write, [count, ..], f32")
      .type_name("FILE.npy");
  add_device(parser, *options);
  add_memory_limit(parser, *options);
  add_json(parser, *options);
  return {parser, [options, &streams] { return sample(*options, streams); }};
}

}  // namespace fluxion::cli
