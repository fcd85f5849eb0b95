// fluxion sample: model or sampler file in, picture and numbers out.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/progress.h"
#include "cli/sample_source.h"
#include "engine/error.h"
#include "engine/number_text.h"
#include "engine/platform/file.h"
#include "models/files/npy.h"
#include "models/images/sample_picture.h"

namespace fluxion::cli {

namespace {

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

std::string name_of_picture(std::int64_t number, std::int64_t count) {
  std::string name = std::to_string(number);
  const std::size_t digits = std::max<std::size_t>(4, std::to_string(count - 1).size());
  return std::string(digits - std::min(digits, name.size()), '0') + name + ".png";
}

// Throws where a picture of the folder --out that is read would be written over.
void check_folder(const SampleArguments& options) {
  if (!is_folder(options.out)) return;
  const SampleTask& task = options.task;
  for (const std::string& read :
       {task.init_image, task.inpaint, task.mask, task.enlarge, task.deblur}) {
    const std::filesystem::path picture = read;
    std::error_code missing;
    if (read.empty() || !std::filesystem::equivalent(
                            std::filesystem::absolute(picture).parent_path(), options.out, missing))
      continue;
    for (std::int64_t i = 0; i < options.count; ++i)
      if (picture.filename() == name_of_picture(i, options.count))
        throw Error("sample: " + read +
                    " is read, and would be written over by a sample of --out " + options.out +
                    "; name another folder");
  }
}

// Makes the folder, and throws IoError for files that can't be written, before samples are drawn.
void check_results(const SampleArguments& options) {
  check_can_be_written({{"--npy", options.npy}, {"--animate", options.task.animate}});
  if (is_folder(options.out)) {
    std::error_code refused;
    std::filesystem::create_directories(options.out, refused);
    if (!std::filesystem::is_directory(options.out))
      throw IoError("sample: " + options.out + ": the folder can't be made: " + refused.message());
  }
  check_can_be_written({{"--out", is_folder(options.out) ? options.out + "/0.png" : options.out}});
}

void write_each(const SampleArguments& options, const SampleSource& source,
                const std::vector<float>& values, const std::vector<std::int32_t>& labels) {
  const Shape& one = source.shape;
  nlohmann::json how = source.how;
  const std::filesystem::path folder = options.out;
  const auto elements = static_cast<std::size_t>(one.elements());
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
    write_png(folder / name_of_picture(i, options.count),
              image_grid(std::span(values).subspan(at * elements, elements), 1, one[0], one[1],
                         one[2], {.columns = 1, .padding = 0, .scale = std::max(options.scale, 1)}),
              notes(how));
  }
}

// What goes into a pipe is one thing alone.
void check_standard_output(const SampleArguments& options) {
  std::vector<std::string> there;
  if (is_standard_output(options.out)) there.emplace_back("--out");
  if (is_standard_output(options.npy)) there.emplace_back("--npy");
  if (options.json) there.emplace_back("--json");
  if (there.size() > 1)
    throw Error("sample: " + there[0] + " and " + there[1] +
                " both go to standard output; give one of them a file, or leave it out");
}

int sample(SampleArguments options, const Parser& parser, const Streams& streams) {
  if (options.out.empty() && options.npy.empty() && options.task.animate.empty())
    options.out = "samples.png";
  for (std::string* name : {&options.out, &options.npy})
    if (*name == "-") *name = "/dev/stdout";
  if (!is_folder(options.out))
    check_picture_name("sample: --out", options.out,
                       ", or a folder with a slash at its end for a file of each sample; --npy "
                       "writes an array");
  check_standard_output(options);
  const SampleTask& task = options.task;
  check_files_differ("sample",
                     {{"--out", options.out}, {"--npy", options.npy}, {"--animate", task.animate}},
                     {{"--model", options.model},
                      {"--init-image", task.init_image},
                      {"--inpaint", task.inpaint},
                      {"--mask", task.mask},
                      {"--enlarge", task.enlarge},
                      {"--deblur", task.deblur},
                      {"--data", options.data}});
  check(task);
  const bool between = task.interpolate || task.to_class;
  if (between && task.frames && options.given_count)
    throw Error(
        "sample: --count and --frames both say how many samples lie on the way; leave one "
        "out");
  if (task.interpolate && parser.option("--seed").given())
    throw Error(
        "sample: --seed has no effect on --interpolate, which names its seeds; leave it out");
  if (options.chosen_class == "none" && options.guidance.value_or(1) != 1)
    throw Error(
        "sample: --guidance leads towards a class, and --class none leaves it open; leave "
        "one out");
  constexpr std::int64_t usual_count = 64, usual_between = 8;
  options.count = options.given_count    ? *options.given_count
                  : !between             ? usual_count
                  : task.animate.empty() ? usual_between
                                         : frames_of(task);
  check_holds_model(options.model);
  const Device device = open_device(options, streams);
  const SampleSource source = sample_source(options, device);
  const Shape& one = source.shape;
  if (!options.out.empty() && !can_be_drawn(one))
    throw ShapeError("sample: samples of shape " + to_string(one) +
                     " can't be drawn; --npy writes their numbers");
  if (is_folder(options.out) && one.rank() != 3)
    throw ShapeError("sample: points are drawn into one picture, not into a folder: name a file");
  const std::vector<std::int32_t>& classes = source.classes;
  // Between two seeds each class has a row of its own.
  const std::int64_t columns_between = options.count,
                     rows = between ? std::max<std::int64_t>(1, std::ssize(classes)) : 1;
  options.count *= rows;
  check_folder(options);
  const std::int64_t in_turn =
      options.chosen_class == "balanced" ? std::ssize(classes) : std::int64_t{0};
  const GridOptions grid{.columns = options.columns > 0 ? options.columns
                                    : between           ? static_cast<int>(columns_between)
                                                        : usual_columns(options.count, in_turn),
                         .scale = options.scale};
  GridOptions of_frame = grid;
  if (between) of_frame.columns = options.columns > 0 ? options.columns : static_cast<int>(rows);
  if (!task.animate.empty() && (!can_be_drawn(one) || (!between && one.rank() == 1 && one[0] != 2)))
    throw ShapeError(
        "sample: --animate draws images and points of the plane, not samples of shape " +
        to_string(one));
  // The noise that is gone on from; all states and frames, held until the last is there.
  std::uint64_t beside =
      between ? static_cast<std::uint64_t>(options.count * one.elements()) * sizeof(float) : 0;
  if (!options.out.empty() && !is_folder(options.out))
    beside += picture_bytes(one, options.count, grid);
  if (!task.animate.empty())
    beside +=
        between
            ? static_cast<std::uint64_t>(columns_between) * picture_bytes(one, rows, of_frame)
            : Animation::host_bytes(one, options.count, source.steps, frames_of(task), of_frame);
  check_room_for_samples(options, one, options.count, options.batch, beside);
  std::vector<std::int32_t> labels;
  for (std::int64_t i = 0; !classes.empty() && i < options.count; ++i)
    labels.push_back(
        classes[static_cast<std::size_t>(between ? i / columns_between : i % std::ssize(classes))]);
  Sampler::Request request{.count = options.count,
                           .batch = std::min(options.batch, options.count),
                           .seed = options.seed,
                           .labels = labels};
  if (between) {
    SampleNoise noise(one, DType::f32, device);
    const auto noise_of = [&](std::uint64_t seed) {
      std::vector<float> drawn(static_cast<std::size_t>(one.elements()));
      noise.draw(noise_keys(seed, device).of_start, 0, 1, drawn);
      return drawn;
    };
    if (task.interpolate) {
      const auto [from, to] = seeds_between(*task.interpolate);
      request.noise = noise_between(noise_of(from), noise_of(to), columns_between, rows);
    } else {
      const std::vector<float> same = noise_of(options.seed);
      for (std::int64_t i = 0; i < options.count; ++i)
        request.noise.insert(request.noise.end(), same.begin(), same.end());
    }
  }
  std::optional<Animation> animation;
  if (!task.animate.empty() && !between) {
    animation.emplace(one, options.count, source.steps, frames_of(task), grid);
    request.visit = [&](std::size_t state, std::int64_t first, std::span<const float> values) {
      animation->see(state, first, values);
    };
  }

  check_results(options);
  const auto start = std::chrono::steady_clock::now();
  std::vector<float> values;
  {
    ProgressLine line(streams);
    const auto takes_long = [&] {
      return std::chrono::steady_clock::now() - start > std::chrono::seconds(1);
    };
    request.progress = [&](std::int64_t done) {
      if (done < options.count && takes_long() && line.due())
        line.show(std::to_string(done) + "/" + std::to_string(options.count) + " samples");
    };
    values = source.draw(request);
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  const Shape shape = with_leading_axis(options.count, one);
  check_finite(values, static_cast<std::size_t>(one.elements()), options.model);
  if (!options.npy.empty()) write_npy(options.npy, values, shape);
  if (is_folder(options.out)) {
    write_each(options, source, values, labels);
  } else if (!options.out.empty()) {
    nlohmann::json about = source.how;
    about["count"] = options.count;
    write_png(options.out, sample_picture(one, values, grid), notes(about));
  }
  if (!task.animate.empty())
    write_animation(
        task.animate,
        animation ? animation->frames() : frames_of_rows(one, values, columns_between, of_frame),
        notes(source.how));
  if (options.json) {
    nlohmann::json object = {{"model", options.model},   {"count", options.count},
                             {"shape", shape.dims()},    {"evaluations", nullptr},
                             {"seed", nullptr},          {"seconds", seconds},
                             {"traces", source.traces()}};
    if (!task.interpolate) object["seed"] = options.seed;
    // The mean over the samples is whole but for samplers with error control.
    const double evaluations = source.evaluations();
    if (evaluations == std::round(evaluations))
      object["evaluations"] = static_cast<std::int64_t>(evaluations);
    else
      object["evaluations"] = evaluations;
    if (source.best) {
      object["times"] = source.how.at("times");
      object["cost"] = source.best->cost, object["equal_cost"] = source.best->equal_cost;
    }
    object["out"] = options.out.empty() ? nlohmann::json() : nlohmann::json(options.out);
    if (!task.animate.empty()) object["animation"] = task.animate;
    object["npy"] = options.npy.empty() ? nlohmann::json() : nlohmann::json(options.npy);
    write_json(streams.out, object);
  } else {
    // What goes into a pipe is the array or the picture alone.
    const bool taken = is_standard_output(options.npy) || is_standard_output(options.out);
    std::ostream& out = taken ? streams.error : streams.out;
    out << options.count << (options.count == 1 ? " sample, " : " samples, ")
        << evaluations_text(source.evaluations())
        << (source.evaluations() == 1 ? " network evaluation" : " network evaluations") << " each, "
        << fixed_text(seconds, 2) << " s\n";
    if (source.best) {
      out << "steps    from";
      for (const GridPoint& point : source.best->grid)
        out << (point.t == source.best->grid.front().t ? " " : ", ") << rounded_text(point.t, 3);
      out << "; cost " << rounded_text(source.best->cost, 3) << ", of equal steps "
          << rounded_text(source.best->equal_cost, 3) << "\n";
    }
    if (!options.out.empty())
      out << (is_folder(options.out) ? "pictures " : "picture  ") << options.out << "\n";
    if (!task.animate.empty()) out << "moving   " << task.animate << "\n";
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
      "  fluxion sample --model digits.fxn --interpolate 3:8 --out walk.png\n"
      "  fluxion sample --model out/faces/model.safetensors --inpaint me.png --mask hat.png\n"
      "  fluxion sample --model out/flow/model.safetensors --steps 20 --sampler heun --count 10000 "
      "--npy points.npy");
  parser
      .add_option("--model", options->model,
                  "Folder of a run, model file (.safetensors) or sampler file (.fxn)")
      .required()
      .type_name("FILE");
  parser
      .add_number(
          "--count", options->given_count, whole(1, most_samples),
          "Number of samples, any (default: 64; from one seed or class to another 8, or the "
          "frames of --animate)")
      .type_name("N");
  add_sampler_options(parser, options->sampler);
  parser
      .add_option("--data", options->data,
                  "Data set of --head-start: a built-in set or a path (default: what the model was "
                  "trained on)")
      .type_name("NAME|PATH")
      .group("Samplers");
  parser
      .add_option(
          "--class", options->chosen_class,
          "A class by name, or by number where there are no names; balanced: each in turn that "
          "training had samples of; none: left open")
      .type_name("C")
      .show_default();
  parser
      .add_number("--guidance", options->guidance, guidance_scales(),
                  "Scale of classifier-free guidance, for models trained without it; 1: none "
                  "(default: 1; that of a sampler file)")
      .type_name("W");
  parser.add_number("--seed", options->seed, seeds(), "Seed of the noise")
      .type_name("S")
      .show_default();
  parser.add_number("--batch", options->batch, whole(1, 1 << 20), "Samples computed at a time")
      .type_name("B")
      .show_default();
  add_precision(parser, options->precision);
  parser
      .add_option("--out", options->out,
                  "Picture to write (default: samples.png, unless --npy or --animate is given); a "
                  "folder/ for a "
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
  add_sample_task(parser, options->task);
  add_device(parser, *options);
  add_memory_limit(parser, *options);
  add_json(parser, *options);
  return {parser, [options, parser, &streams] { return sample(*options, parser, streams); }};
}

}  // namespace fluxion::cli
