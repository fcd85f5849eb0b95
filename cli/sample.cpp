// fluxion sample: model or sampler file in, picture and numbers out.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/command.h"
#include "cli/progress.h"
#include "cli/sampler_choice.h"
#include "embed/generator.h"
#include "engine/error.h"
#include "engine/export/stored_sampler.h"
#include "engine/number_text.h"
#include "engine/platform/file.h"
#include "models/data/class_names.h"
#include "models/files/lower_case.h"
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
  int columns = 0, scale = 0;
  std::string out, npy;
};

// What samples are drawn from: a model, or a sampler file.
struct SampleSource {
  Shape shape;                        // of a sample
  std::vector<std::int32_t> classes;  // to draw, one after the other; empty: left open
  std::vector<std::string> class_names;
  nlohmann::json how;  // they are drawn, as PNG files keep it and `fluxion inspect` shows it
  // One class for each sample, or none.
  std::function<std::vector<float>(const std::vector<std::int32_t>& labels,
                                   const std::function<void(std::int64_t done)>& progress)>
      draw;
  std::function<double()> evaluations;
  std::function<std::size_t()> traces;
};

// The classes that --class asks for.
std::vector<std::int32_t> chosen_classes(
    const SampleArguments& options, const std::vector<std::int32_t>& balanced,
    const std::function<void()>& check_open,
    const std::function<std::int32_t(const std::string& text)>& named) {
  if (options.chosen_class == "balanced") return balanced;
  if (options.chosen_class == "none") {
    check_open();
    return {};
  }
  try {
    return {named(options.chosen_class)};
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

// Whether --out names a folder, for a picture of each sample.
bool is_folder(const std::string& out) {
  return !out.empty() && (out.back() == '/' || std::filesystem::is_directory(out));
}

// Throws for names that promise what is not written.
void check_picture_name(const std::string& out) {
  if (out.empty() || is_folder(out) || is_standard_output(out)) return;
  if (std::filesystem::exists(out) && !std::filesystem::is_regular_file(out)) return;  // a pipe
  const std::string ending = lower_case(std::filesystem::path(out).extension().string());
  if (ending == ".png" || ending.empty()) return;
  for (const char* other :
       {".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".npy", ".npz", ".pdf"})
    if (ending == other)
      throw Error("sample: --out " + out + ": pictures are written as PNG; name the file .png" +
                  (ending == ".npy" ? ", or give it to --npy" : "") +
                  ", or a folder with a slash at its end for a file of each sample");
}

SampleSource model_source(const SampleArguments& options, const Device& device) {
  const Model model = read_model(options.model, device);
  const ModelInfo& info = model.info;
  const SamplerOptions chosen = chosen_sampler(options.sampler, options.guidance, info, "sample");
  SampleSource source;
  source.shape = sample_shape(info.network);
  source.classes = chosen_classes(
      options, trained_classes(info), [&] { check_open_class(info); },
      [&](const std::string& text) { return class_of(info, text); });
  source.class_names = info.class_names;
  source.how = {{"model", options.model},
                {"seed", options.seed},
                {"sampler", to_string(chosen.kind)},
                {"steps", chosen.steps}};
  if (num_classes(info.network) > 0) source.how["class"] = options.chosen_class;
  if (options.guidance != 1) source.how["guidance"] = options.guidance;
  if (!info.dataset.empty()) source.how["dataset"] = info.dataset;
  const Sampler sampler(with_precision(info.network, precision_from(options.precision)),
                        model.parameters, chosen);
  source.draw = [sampler, options](const std::vector<std::int32_t>& labels, const auto& progress) {
    return sampler.sample(options.count, std::min(options.batch, options.count), options.seed,
                          labels, {}, progress);
  };
  source.evaluations = [sampler] { return sampler.evaluations(); };
  source.traces = [sampler] { return sampler.traces(); };
  return source;
}

SampleSource file_source(const SampleArguments& options, const Device& device) {
  if (options.sampler != SamplerChoice{} || options.guidance != 1 || options.precision != "f32")
    throw Error("sample: " + options.model +
                " is a sampler file: its steps, sampler, guidance and precision were chosen by "
                "`fluxion export`");
  const Generator generator(load_sampler(options.model), device);
  const StoredSampler& stored = generator.sampler();
  SampleSource source;
  source.shape = stored.sample_shape;
  source.class_names = stored.class_names;
  const auto named = [&](const std::string& text) {
    if (stored.classes == 0) throw Error("class " + text + ": this sampler has no classes");
    std::vector<std::string> names = stored.class_names;
    for (std::int64_t i = std::ssize(names); i < stored.classes; ++i)
      names.push_back(std::to_string(i));
    const std::optional<std::int32_t> found = find_class_in_any_case(names, text);
    if (!found) throw Error("class " + text + ": the sampler has the classes " + class_list(names));
    return *found;
  };
  source.classes = chosen_classes(
      options, stored.usual_classes,
      [&] {
        if (!stored.open_class && stored.classes > 0)
          throw Error("sample: the sampler can't leave the class open");
      },
      named);
  source.how = {{"sampler file", options.model}, {"seed", options.seed}};
  if (stored.classes > 0) source.how["class"] = options.chosen_class;
  if (!stored.name.empty()) source.how["dataset"] = stored.name;
  source.draw = [generator, options](const std::vector<std::int32_t>& labels,
                                     const std::function<void(std::int64_t)>& progress) {
    const std::int64_t steps = std::ssize(generator.sampler().steps),
                       batch = std::min(options.batch, options.count);
    // Without labels the class is left open, not one of the usual ones.
    std::vector<std::int32_t> classes = labels;
    if (classes.empty() && generator.sampler().classes > 0)
      classes.assign(static_cast<std::size_t>(options.count), Generator::open_class);
    std::vector<float> values(
        static_cast<std::size_t>(options.count) *
        static_cast<std::size_t>(generator.sampler().sample_shape.elements()));
    generator.generate({.seed = options.seed,
                        .count = options.count,
                        .classes = classes,
                        .batch = batch,
                        .progress =
                            [&](std::int64_t done, std::int64_t) {
                              progress(std::min(options.count, done / steps * batch));
                              return true;
                            }},
                       values);
    return values;
  };
  source.evaluations = [generator] { return generator.sampler().evaluations; };
  source.traces = [generator] { return generator.sampler().forms.size(); };
  return source;
}

std::vector<ImageText> notes(const nlohmann::json& how) {
  return {{"Software", "fluxion " FLUXION_VERSION},
          {"fluxion", how.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)}};
}

// Columns of a grid where nobody says how many: nearly square and, where samples are of each class
// in turn, such that a column holds one class alone.
int usual_columns(std::int64_t count, std::int64_t classes) {
  constexpr std::int64_t most_classes = 20;
  if (classes < 2 || classes > most_classes || count <= classes) return 0;
  const double square = std::sqrt(static_cast<double>(count));
  const auto times = std::max<std::int64_t>(1, std::llround(square / static_cast<double>(classes)));
  return static_cast<int>(times * classes);
}

void write_each(const SampleArguments& options, const SampleSource& source,
                const std::vector<float>& values, const std::vector<std::int32_t>& labels) {
  const Shape& one = source.shape;
  nlohmann::json how = source.how;
  const std::filesystem::path folder = options.out;
  std::error_code refused;
  std::filesystem::create_directories(folder, refused);
  if (!std::filesystem::is_directory(folder))
    throw IoError("sample: " + options.out + ": the folder can't be made: " + refused.message());
  const auto elements = static_cast<std::size_t>(one.elements());
  const std::size_t digits = std::max<std::size_t>(4, std::to_string(options.count - 1).size());
  for (std::int64_t i = 0; i < options.count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    how["number"] = i;
    if (!labels.empty()) {
      const auto label = static_cast<std::size_t>(labels[at]);
      if (label < source.class_names.size())
        how["class"] = source.class_names[label];
      else
        how["class"] = label;
    }
    std::string name = std::to_string(i);
    name.insert(0, digits - std::min(digits, name.size()), '0');
    write_png(folder / (name + ".png"),
              image_grid(std::span(values).subspan(at * elements, elements), 1, one[0], one[1],
                         one[2], {.columns = 1, .padding = 0, .scale = std::max(options.scale, 1)}),
              notes(how));
  }
}

int sample(SampleArguments options, const Streams& streams) {
  if (options.out.empty() && options.npy.empty()) options.out = "samples.png";
  for (std::string* name : {&options.out, &options.npy})
    if (*name == "-") *name = "/dev/stdout";
  check_picture_name(options.out);
  const Device device = open_device(options, streams);
  const SampleSource source = is_sampler_file(MappedFile(options.model).bytes())
                                  ? file_source(options, device)
                                  : model_source(options, device);
  const Shape& one = source.shape;
  if (!options.out.empty() && !can_be_drawn(one))
    throw ShapeError("sample: samples of shape " + to_string(one) +
                     " can't be drawn; --npy writes their numbers");
  if (is_folder(options.out) && one.rank() != 3)
    throw ShapeError("sample: points are drawn into one picture, not into a folder: name a file");
  check_room_for_samples(options, one, options.count, options.batch);
  const std::vector<std::int32_t>& classes = source.classes;
  std::vector<std::int32_t> labels;
  for (std::int64_t i = 0; !classes.empty() && i < options.count; ++i)
    labels.push_back(classes[static_cast<std::size_t>(i % std::ssize(classes))]);

  const auto start = std::chrono::steady_clock::now();
  std::vector<float> values;
  {
    ProgressLine line(streams);
    const auto takes_long = [&] {
      return std::chrono::steady_clock::now() - start > std::chrono::seconds(1);
    };
    values = source.draw(labels, [&](std::int64_t done) {
      if (done < options.count && takes_long() && line.due())
        line.show(std::to_string(done) + "/" + std::to_string(options.count) + " samples");
    });
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  const Shape shape = with_leading_axis(options.count, one);
  check_finite(values, static_cast<std::size_t>(one.elements()), options.model);
  if (!options.npy.empty()) write_npy(options.npy, values, shape);
  if (is_folder(options.out)) {
    write_each(options, source, values, labels);
  } else if (!options.out.empty()) {
    const std::int64_t in_turn =
        options.chosen_class == "balanced" ? std::ssize(classes) : std::int64_t{0};
    const int columns =
        options.columns > 0 ? options.columns : usual_columns(options.count, in_turn);
    nlohmann::json about = source.how;
    about["count"] = options.count;
    write_png(options.out,
              sample_picture(one, values, {.columns = columns, .scale = options.scale}),
              notes(about));
  }
  if (options.json) {
    nlohmann::json object = {{"model", options.model},   {"count", options.count},
                             {"shape", shape.dims()},    {"evaluations", nullptr},
                             {"seed", options.seed},     {"seconds", seconds},
                             {"traces", source.traces()}};
    // The mean over the samples is whole but for samplers with error control.
    const double evaluations = source.evaluations();
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
    out << options.count << " samples, " << evaluations_text(source.evaluations())
        << (source.evaluations() == 1 ? " network evaluation" : " network evaluations") << " each, "
        << fixed_text(seconds, 2) << " s\n";
    if (!options.out.empty())
      out << (is_folder(options.out) ? "pictures " : "picture  ") << options.out << "\n";
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
      "  fluxion sample --model digits.fxn --class 7 --out sevens/\n"
      "  fluxion sample --model out/flow/model.safetensors --steps 20 --sampler heun --count 10000 "
      "--npy points.npy");
  parser.add_option("--model", options->model, "Model file (.safetensors) or sampler file (.fxn)")
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
                  "Picture to write (default: samples.png, unless --npy is given); a folder/ for a "
                  "file of each sample; - for standard output")
      .type_name("FILE.png");
  parser
      .add_number("--columns", options->columns, whole(0, 1000),
                  "Columns of the picture; 0: nearly square, a class a column")
      .type_name("N")
      .show_default();
  parser
      .add_number("--scale", options->scale, whole(0, 64),
                  "Enlarge images that many times; 0: small ones of a grid, those of a folder not")
      .type_name("N")
      .show_default();
  parser
      .add_option("--npy", options->npy,
                  "NumPy array to write, [count, ..], f32; - for standard output")
      .type_name("FILE.npy");
  add_device(parser, *options);
  add_memory_limit(parser, *options);
  add_json(parser, *options);
  return {parser, [options, &streams] { return sample(*options, streams); }};
}

}  // namespace fluxion::cli
