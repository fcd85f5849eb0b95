// fluxion inspect: what a safetensors file, a sampler file or a picture of samples holds.
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/command.h"
#include "engine/error.h"
#include "engine/export/stored_sampler.h"
#include "engine/number_text.h"
#include "engine/platform/file.h"
#include "models/data/class_names.h"
#include "models/files/safetensors.h"
#include "models/images/image.h"
#include "models/json_text.h"
#include "models/model_file.h"

namespace fluxion::cli {

namespace {

struct InspectArguments : CommonOptions {
  std::string file;
};

// The metadata as a Fluxion model, or the reason why it is none.
struct Reading {
  std::optional<ModelInfo> info;
  std::string reason;
};
Reading read_as_model(const std::string& file) {
  try {
    return {read_model_info(file), {}};
  } catch (const FormatError& error) {
    return {{}, error.what()};
  }
}

void print_model(std::ostream& out, const ModelInfo& info) {
  out << "model        " << family(info.network) << ", samples "
      << to_string(sample_shape(info.network)) << ", ";
  if (num_classes(info.network) > 0) {
    out << num_classes(info.network) << " classes";
    if (!info.class_names.empty()) out << ": " << printable(class_list(info.class_names), 500);
  } else {
    out << "no classes";
  }
  if (!info.method.empty()) out << "\nmethod       " << printable(info.method);
  out << "\npredicts     " << to_string(info.prediction) << "; drawn with "
      << printable(info.sampling.sampler) << ", " << counted(info.sampling.steps, "step");
  if (info.guidance)
    out << ", guidance trained in: omega " << info.guidance->omega << ", kappa "
        << info.guidance->kappa;
  if (!info.coupling.empty())
    out << "\ncoupling     of noise and data: " << printable(info.coupling);
  if (!info.source.empty())
    out << "\nsource       " << printable(info.source) << ", in place of noise";
  out << "\nweights      " << (info.ema ? "moving average" : "raw") << " after "
      << grouped(info.step) << " steps";
  if (!info.dataset.empty()) out << " on " << printable(info.dataset);
  if (info.precision && *info.precision != fluxion::Precision{})
    out << "\nprecision    trained in " << to_string(*info.precision);
  if (!info.untrained_classes.empty()) {
    std::vector<std::string> names;
    for (const std::int32_t number : info.untrained_classes)
      names.push_back(static_cast<std::size_t>(number) < info.class_names.size()
                          ? info.class_names[static_cast<std::size_t>(number)]
                          : std::to_string(number));
    out << "\nuntrained    class " << printable(class_list(names), 500)
        << ", of which there was no sample";
  }
  out << "\nnetwork      " << printable(network_to_json(info.network).dump(), 1000) << "\n\n";
}

std::string json_lines(const nlohmann::json& value, const std::string& indent) {
  std::string text = value.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
  for (auto at = text.find('\n'); at != text.npos; at = text.find('\n', at + 1))
    text.insert(at + 1, indent);
  return text;
}

// The object with the list "tensors", which comes last by its name. There may be a million of them:
// each is written before the next is made.
void write_json_with_tensors(std::ostream& out, const nlohmann::json& object,
                             const SafetensorsFile& file) {
  std::string text = json_lines(object, "");
  text.resize(text.size() - 2);  // "\n}"
  out << text << ",\n  \"tensors\": [";
  const char* separator = "";
  for (const SafetensorsEntry& entry : file.entries()) {
    const nlohmann::json tensor = {{"name", entry.name},
                                   {"dtype", to_string(entry.dtype)},
                                   {"shape", entry.shape.dims()},
                                   {"bytes", entry.bytes.size()}};
    out << separator << "\n    " << json_lines(tensor, "    ");
    separator = ",";
  }
  out << (file.entries().empty() ? "]" : "\n  ]") << "\n}\n" << std::flush;
}

// How a sampler file was made: what export writes is an object, others may write any text.
nlohmann::json read_origin(const StoredSampler& sampler) {
  constexpr std::size_t longest = 1 << 16;
  if (sampler.origin.empty()) return {};
  if (sampler.origin.size() <= longest) try {
      if (const nlohmann::json how = parse_json(sampler.origin, "origin"); how.is_object())
        return how;
    } catch (const FormatError&) {
    }
  return sampler.origin;
}

// "sampler heun, steps 20".
std::string origin_text(const nlohmann::json& origin) {
  const auto plain = [](const nlohmann::json& value) {
    return value.is_string() ? value.get<std::string>()
           : value.is_number_float()
               ? rounded_text(value.get<double>(), 6)
               : value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  };
  if (!origin.is_object()) return plain(origin);
  std::string text;
  for (const auto& [name, value] : origin.items())
    text += (text.empty() ? "" : ", ") + name + " " + plain(value);
  return text;
}

int inspect_sampler(const InspectArguments& options, const Streams& streams) {
  const StoredSampler sampler = load_sampler(options.file);
  std::int64_t elements = 0;
  std::uint64_t bytes = 0;
  for (const StoredWeight& weight : sampler.weights)
    elements += weight.shape.elements(), bytes += weight.bytes.size();
  if (options.json) {
    nlohmann::json tensors = nlohmann::json::array();
    for (const StoredWeight& weight : sampler.weights)
      tensors.push_back({{"name", weight.name},
                         {"dtype", to_string(weight.encoding)},
                         {"shape", weight.shape.dims()},
                         {"bytes", weight.bytes.size()}});
    write_json(
        streams.out,
        {{"file", options.file},
         {"parameters", elements},
         {"bytes", bytes},
         {"sampler",
          {{"name", sampler.name},
           {"shape", sampler.sample_shape.dims()},
           {"classes", sampler.classes},
           {"class_names", sampler.class_names},
           {"usual_classes", sampler.usual_classes},
           {"open_class", sampler.open_class},
           {"guidance", sampler.guidance ? nlohmann::json(*sampler.guidance) : nlohmann::json()},
           {"origin", read_origin(sampler)},
           {"steps", sampler.steps.size()},
           {"evaluations", sampler.evaluations}}},
         {"tensors", tensors}});
    return 0;
  }
  streams.out << "sampler      " << counted(std::ssize(sampler.steps), "step") << " of "
              << counted(std::ssize(sampler.forms), "form") << ", "
              << rounded_text(sampler.evaluations, 6)
              << (sampler.evaluations == 1 ? " network evaluation" : " network evaluations")
              << " each sample\n"
              << "samples      " << to_string(sampler.sample_shape);
  if (!sampler.name.empty()) streams.out << " of " << printable(sampler.name);
  if (sampler.classes > 0) {
    streams.out << ", " << sampler.classes << " classes";
    if (!sampler.class_names.empty())
      streams.out << ": " << printable(class_list(sampler.class_names), 500);
    streams.out << (sampler.open_class ? "; may be left open" : "");
  }
  if (sampler.guidance)
    streams.out << "\nguidance     " << rounded_text(*sampler.guidance, 6) << ", or as a call says";
  if (!sampler.origin.empty())
    streams.out << "\norigin       " << printable(origin_text(read_origin(sampler)), 1000);
  streams.out << "\n\n";
  for (const StoredWeight& weight : sampler.weights)
    streams.out << printable(weight.name, 60) << "  " << to_string(weight.encoding)
                << to_string(weight.shape) << "  " << bytes_text(weight.bytes.size()) << "\n";
  streams.out << counted(std::ssize(sampler.weights), "tensor") << ", "
              << counted(elements, "parameter") << ", " << bytes_text(bytes) << std::endl;
  return 0;
}

int inspect_picture(const InspectArguments& options, std::span<const std::byte> file,
                    const Streams& streams) {
  const std::vector<ImageText> texts = png_texts(file);
  if (options.json) {
    nlohmann::json notes = nlohmann::json::object();
    for (const ImageText& note : texts) notes[note.key] = note.text;
    write_json(streams.out, {{"file", options.file}, {"bytes", file.size()}, {"notes", notes}});
    return 0;
  }
  streams.out << "PNG picture, " << bytes_text(file.size()) << "\n";
  if (texts.empty()) streams.out << "without notes on how it was made\n";
  for (const ImageText& note : texts)
    streams.out << printable(note.key, 79) << "  " << printable(note.text, 2000) << "\n";
  streams.out << std::flush;
  return 0;
}

int inspect(InspectArguments options, const Streams& streams) {
  check_holds_model(options.file);
  options.file = model_file(options.file).string();
  {
    const MappedFile file(options.file);
    if (is_sampler_file(file.bytes())) return inspect_sampler(options, streams);
    if (is_png(file.bytes())) return inspect_picture(options, file.bytes(), streams);
  }
  const SafetensorsFile file{std::filesystem::path(options.file)};
  const Reading model = read_as_model(options.file);
  std::int64_t elements = 0;
  std::uint64_t bytes = 0;
  for (const SafetensorsEntry& entry : file.entries())
    elements += entry.shape.elements(), bytes += entry.bytes.size();

  if (options.json) {
    nlohmann::json object = {{"file", options.file},
                             {"parameters", elements},
                             {"bytes", bytes},
                             {"metadata", file.metadata()}};
    object["model"] = nullptr;
    if (model.info) {
      nlohmann::json& info = object["model"];
      info = {{"network", network_to_json(model.info->network)},
              {"method", model.info->method},
              {"prediction", to_string(model.info->prediction)},
              {"sampling",
               {{"sampler", model.info->sampling.sampler}, {"steps", model.info->sampling.steps}}},
              {"dataset", model.info->dataset},
              {"ema", model.info->ema},
              {"step", model.info->step},
              {"class_names", model.info->class_names},
              {"untrained_classes", model.info->untrained_classes}};
      info["precision"] = nullptr;
      if (model.info->precision) info["precision"] = to_string(*model.info->precision);
      info["guidance"] = nullptr;
      if (model.info->guidance)
        info["guidance"] = {{"omega", model.info->guidance->omega},
                            {"kappa", model.info->guidance->kappa}};
    }
    write_json_with_tensors(streams.out, object, file);
    return 0;
  }

  if (model.info) {
    print_model(streams.out, *model.info);
  } else {
    if (file.metadata().contains("fluxion.checkpoint"))
      streams.out << "a checkpoint of a training run, which `fluxion train --resume FILE` goes on "
                     "from\n";
    else
      streams.out << "not a model of this program (" << printable(model.reason) << ")\n";
    for (const auto& [key, text] : file.metadata())
      streams.out << "  " << printable(key, 40) << " = " << printable(text) << "\n";
    streams.out << "\n";
  }
  std::size_t width = 4;
  for (const SafetensorsEntry& entry : file.entries())
    width = std::max(width, std::min<std::size_t>(60, printable(entry.name, 60).size()));
  for (const SafetensorsEntry& entry : file.entries()) {
    std::string name = printable(entry.name, 60);
    name.resize(std::max(width, name.size()), ' ');
    streams.out << name << "  " << printable(to_string(entry)) << "  "
                << bytes_text(entry.bytes.size()) << "\n";
  }
  streams.out << counted(std::ssize(file.entries()), "tensor") << ", "
              << counted(elements, "parameter") << ", " << bytes_text(bytes) << std::endl;
  return 0;
}

}  // namespace

Command add_inspect(CommandLine& program, const Streams& streams) {
  auto options = std::make_shared<InspectArguments>();
  const Parser parser = program.add_subcommand(
      "inspect",
      "Show what a model, a sampler, any safetensors file, or a picture of samples holds");
  parser.footer(
      "Examples:\n  fluxion inspect out/digits/model.safetensors\n  fluxion inspect digits.fxn");
  parser.add_option("FILE", options->file, "The file, or the folder of a training run: its model")
      .required();
  add_json(parser, *options);
  return {parser, [options, &streams] { return inspect(*options, streams); }};
}

}  // namespace fluxion::cli
