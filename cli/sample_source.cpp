#include "cli/sample_source.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "embed/generator.h"
#include "engine/error.h"
#include "engine/export/stored_sampler.h"
#include "engine/platform/file.h"
#include "models/data/class_names.h"
#include "models/data/data_set.h"
#include "models/model_file.h"

namespace fluxion::cli {

namespace {

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
    throw Error(
        "sample: --" + std::string(error.what()) +
        (balanced.empty()
             ? "; leave --class out"
             : "; --class balanced takes each in turn, --class none leaves the class open"));
  }
}

// The sampler of --to-class: the labels of its samples are their places on the way.
Sampler sampler_between(const Model& model, const NetworkConfig& network, std::int32_t from,
                        const SampleArguments& options, const SamplerOptions& chosen,
                        const std::optional<Steering>& steering) {
  const Tensor& any = model.parameters.begin()->second;
  Predictor predictor = fluxion::predictor(model.info, bind_parameters(network, model.parameters));
  predictor.network =
      between_classes(predictor.network, from, class_of(model.info, *options.task.to_class),
                      num_classes(network), options.count);
  return Sampler(predictor, sample_shape(network), options.count, any.dtype(), any.device(), chosen,
                 steering);
}

SampleSource model_source(const SampleArguments& options, const Device& device) {
  const SampleTask& task = options.task;
  const Model model = read_model(options.model, device);
  const ModelInfo& info = model.info;
  SamplerOptions chosen =
      chosen_sampler(options.sampler, options.guidance.value_or(1), info, "sample");
  constexpr std::int64_t steered_steps = 50;
  if (task.steers() && !options.sampler.steps) chosen.steps = std::max(chosen.steps, steered_steps);
  if (chosen.kind == SamplerKind::ode_dopri5 && !task.animate.empty() && !task.interpolate &&
      !task.to_class) {
    // The device holds a state for each; between them frames are interpolated.
    constexpr std::int64_t most_shown = 60;
    chosen.shown_steps = std::min(frames_of(task) - 1, most_shown);
  }
  if (task.to_class && chosen.grid == GridKind::best)
    throw Error(
        "sample: best steps are those of one class at a time, --to-class mixes two; take another "
        "--grid");
  if (options.sampler.head_start) {
    if (!task.init_image.empty())
      throw Error(
          "sample: --head-start begins with noise, --init-image with a picture; leave one "
          "out");
    const std::string name = options.data.empty() ? info.dataset : options.data;
    if (name.empty())
      throw Error("sample: " + options.model +
                  " does not say what it was trained on; --data says whose mean and covariance "
                  "--head-start takes");
    const Shape shape = sample_shape(info.network);
    const bool image = shape.rank() == 3;
    take_head_start(options.sampler, chosen,
                    *make_data_set(name, {.image_size = image ? shape[0] : 0,
                                          .channels = image ? shape[2] : 0}),
                    shape);
  } else if (!options.data.empty()) {
    throw Error("sample: --data says whose mean and covariance --head-start takes; leave it out");
  }
  if (!task.init_image.empty()) chosen.begin = 1 - task.strength.value_or(usual_strength);
  if ((task.interpolate || task.to_class) && chosen.grid != GridKind::best &&
      make_stepper(chosen).draws_noise)
    throw Error(
        "sample: " + to_string(chosen.kind) +
        " draws noise on its way, so that neighbours on the way between two samples are not "
        "alike; take --sampler " +
        (info.prediction == Prediction::end_point ? "consistency with --steps 1" : "heun"));
  if ((task.interpolate || task.to_class) && !chosen.source.empty())
    throw Error("sample: the model begins with points of " + chosen.source +
                ", between which nothing is noise: --interpolate and --to-class want a model of "
                "noise");
  SampleSource source;
  source.shape = sample_shape(info.network);
  source.classes = chosen_classes(
      options, trained_classes(info), [&] { check_open_class(info); },
      [&](const std::string& text) { return class_of(info, text); });
  if (task.to_class && source.classes.size() != 1)
    throw Error("sample: --to-class wants --class, the one to go from");
  source.class_names = info.class_names;
  source.how = {
      {"model", options.model}, {"sampler", to_string(chosen.kind)}, {"steps", chosen.steps}};
  if (!task.interpolate) source.how["seed"] = options.seed;
  if (num_classes(info.network) > 0) source.how["class"] = options.chosen_class;
  if (options.guidance.value_or(1) != 1) source.how["guidance"] = *options.guidance;
  if (!info.dataset.empty()) source.how["dataset"] = data_name(info);
  if (!task.init_image.empty()) {
    source.how["init image"] = task.init_image;
    source.how["strength"] = 1 - chosen.begin;
  }
  for (const auto& [name, file] : {std::pair("inpaint", task.inpaint),
                                   {"mask", task.mask},
                                   {"enlarge", task.enlarge},
                                   {"deblur", task.deblur}})
    if (!file.empty()) source.how[name] = file;
  if (task.steering) source.how["steering"] = *task.steering;
  if (task.steering_scale) source.how["steering scale"] = *task.steering_scale;
  if (task.blur) source.how["blur"] = *task.blur;
  if (task.interpolate) source.how["interpolate"] = *task.interpolate;
  if (task.to_class) source.how["to class"] = *task.to_class;
  const NetworkConfig network = with_precision(info.network, precision_from(options.precision));
  const std::optional<Steering> steering = chosen_steering(task, source.shape, device);
  const Sampler sampler = task.to_class ? sampler_between(model, network, source.classes.front(),
                                                          options, chosen, steering)
                                        : Sampler(network, model.parameters, chosen, steering);
  source.steps = chosen.kind == SamplerKind::ode_dopri5 ? chosen.shown_steps : chosen.steps;
  source.best = sampler.best();
  if (source.best)
    for (const GridPoint& point : source.best->grid) source.how["times"].push_back(point.t);
  source.draw = [sampler, data = initial_data(task, source.shape),
                 between = task.to_class.has_value()](Sampler::Request request) {
    request.data = data;
    if (between) std::iota(request.labels.begin(), request.labels.end(), 0);
    return sampler.sample(request);
  };
  source.evaluations = [sampler] { return sampler.evaluations(); };
  source.traces = [sampler] { return sampler.traces(); };
  return source;
}

SampleSource file_source(const SampleArguments& options, const Device& device) {
  if (options.sampler != SamplerChoice{} || options.precision != "f32")
    throw Error("sample: " + options.model +
                " is a sampler file: its steps, sampler and precision were chosen by `fluxion "
                "export`");
  const std::string wants_model = options.task.wants_model();
  if (!wants_model.empty())
    throw Error("sample: " + wants_model + " wants a model; " + options.model +
                " is a sampler file, whose steps are fixed");
  const Generator generator(load_sampler(options.model), device);
  const StoredSampler& stored = generator.sampler();
  if (!options.data.empty())
    throw Error("sample: --data is for a head start, which wants a model; " + options.model +
                " is a sampler file");
  if (options.guidance && !stored.guidance)
    throw Error("sample: " + options.model +
                " is a sampler file whose guidance was chosen by `fluxion export`; its "
                "--free-guidance leaves the choice to each call");
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
  source.how = {{"sampler file", options.model}};
  if (options.task.interpolate)
    source.how["interpolate"] = *options.task.interpolate;
  else
    source.how["seed"] = options.seed;
  if (stored.classes > 0) source.how["class"] = options.chosen_class;
  if (!stored.name.empty()) source.how["dataset"] = stored.name;
  if (options.guidance) source.how["guidance"] = *options.guidance;
  source.draw = [generator, guidance = options.guidance](const Sampler::Request& request) {
    const std::int64_t steps = std::ssize(generator.sampler().steps);
    // Without labels the class is left open, not one of the usual ones.
    std::vector<std::int32_t> classes = request.labels;
    if (classes.empty() && generator.sampler().classes > 0 && generator.sampler().open_class)
      classes.assign(static_cast<std::size_t>(request.count), Generator::open_class);
    std::vector<float> values(
        static_cast<std::size_t>(request.count) *
        static_cast<std::size_t>(generator.sampler().sample_shape.elements()));
    generator.generate(
        {.seed = request.seed,
         .count = request.count,
         .classes = classes,
         .batch = request.batch,
         .noise = request.noise,
         .guidance = guidance,
         .progress =
             [&](std::int64_t done, std::int64_t) {
               request.progress(std::min(request.count, done / steps * request.batch));
               return true;
             }},
        values);
    return values;
  };
  source.evaluations = [generator] { return generator.sampler().evaluations; };
  source.traces = [generator] { return generator.sampler().forms.size(); };
  return source;
}

}  // namespace

SampleSource sample_source(const SampleArguments& options, const Device& device) {
  return is_sampler_file(MappedFile(model_file(options.model)).bytes())
             ? file_source(options, device)
             : model_source(options, device);
}

}  // namespace fluxion::cli
