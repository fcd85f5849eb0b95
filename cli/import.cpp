// fluxion import: a checkpoint with the public names becomes a model file.
#include "models/import.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/command.h"

namespace fluxion::cli {

namespace {

struct ImportArguments : CommonOptions {
  std::string file, out = "model.safetensors", predicts, second_time = "t-r", data_at = "0",
                    config = "{}", open_class;
  std::optional<std::int64_t> heads, image_size, classes;
  bool drop_variance = false;
  std::vector<std::string> fill, rename, ignore;
};

ImportOptions import_options(const ImportArguments& options) {
  ImportOptions result;
  result.num_heads = options.heads;
  result.image_size = options.image_size;
  result.num_classes = options.classes;
  result.second_time = second_time_from(options.second_time);
  result.config = options.config;
  result.data_at_one = options.data_at == "1";
  result.drop_variance = options.drop_variance;
  for (const Fill fill : {Fill::second_time, Fill::positions, Fill::null_class})
    if (std::find(options.fill.begin(), options.fill.end(), to_string(fill)) != options.fill.end())
      result.fill.insert(fill);
  for (const std::string& rename : options.rename) {
    const std::size_t equals = rename.find('=');
    if (equals == std::string::npos || equals == 0)
      throw Error("import: --rename " + rename + ": wants FROM=TO, prefixes of keys");
    result.rename.emplace_back(rename.substr(0, equals), rename.substr(equals + 1));
  }
  result.ignore = options.ignore;
  if (!options.open_class.empty()) result.open_class = options.open_class == "yes";
  result.prediction = prediction_from(options.predicts);
  return result;
}

int run_import(const ImportArguments& options, const Streams& streams) {
  check_files_differ("import", {{"--out", options.out}}, {{"FILE", options.file}});
  check_can_be_written({{"--out", options.out}});
  ImportedModel imported;
  try {
    imported = import_network(options.file, import_options(options), open_device(options, streams));
  } catch (const MismatchError& error) {
    // A line each, as their number is the point.
    std::istringstream lines(error.what());
    std::string line;
    for (bool first = true; std::getline(lines, line); first = false)
      streams.error << (first ? "fluxion: " : "") << printable(line, 1000) << "\n";
    return 1;
  }
  write_model(options.out, imported.model);
  const NetworkConfig& network = imported.model.info.network;
  if (options.json) {
    write_json(streams.out, {{"file", options.file},
                             {"out", options.out},
                             {"network", network_to_json(network)},
                             {"prediction", to_string(imported.model.info.prediction)},
                             {"parameters", parameter_count(network)},
                             {"notes", imported.notes}});
    return 0;
  }
  for (const std::string& note : imported.notes)
    streams.out << "note     " << printable(note) << "\n";
  streams.out << "network  " << network_to_json(network).dump() << "\n"
              << "model    " << options.out << ", " << grouped(parameter_count(network))
              << " parameters" << std::endl;
  return 0;
}

}  // namespace

Command add_import(CommandLine& program, const Streams& streams) {
  auto options = std::make_shared<ImportArguments>();
  const Parser parser = program.add_subcommand(
      "import", "Make a model file of somebody else's DiT, U-Net or SongUNet checkpoint");
  parser.footer(
      "FILE is a safetensors file with the parameter names of the public DiT code or of "
      "guided-diffusion's U-Net and EDM's SongUNet;\nscripts/convert_checkpoint.py "
      "makes one of a PyTorch checkpoint.\n"
      "What does not fit is listed key by key, and nothing is written.\n\n"
      "Examples:\n"
      "  fluxion import meanflow-b4.safetensors --predicts average-velocity --out "
      "model.safetensors\n"
      "  fluxion import sit-xl2.safetensors --predicts velocity --data-at 1 --drop-variance --fill "
      "second-time --out model.safetensors\n"
      "  fluxion import cfm-cifar10.safetensors --predicts velocity --data-at 1 --fill second-time "
      "--heads 4 --image-size 32\n"
      "  fluxion import edm-cifar10.safetensors --predicts F --fill second-time");
  parser.add_option("FILE", options->file, "The checkpoint (.safetensors)").required();
  parser
      .add_option("--predicts", options->predicts,
                  "What the network was trained to predict: velocity, average-velocity (MeanFlow), "
                  "noise (diffusion) or F (EDM)")
      .required()
      .check(one_of({"average-velocity", "noise", "velocity", "F"}))
      .type_name("WHAT");
  parser.add_option("--out", options->out, "Model file to write").type_name("FILE").show_default();
  parser
      .add_number("--heads", options->heads, whole(1, 1 << 20),
                  "Attention heads (default for a DiT: 6, 12, 16, 16 for the widths 384, 768, "
                  "1024, 1152; else one for 64 channels)")
      .type_name("N");
  parser
      .add_number("--image-size", options->image_size, whole(1, 65536),
                  "Height and width (default for a DiT: from the position table)")
      .type_name("N");
  parser
      .add_number("--classes", options->classes, whole(0, 1 << 30),
                  "Classes without the null class (default: from the class table)")
      .type_name("N");
  parser
      .add_option("--second-time", options->second_time,
                  "What the second time embedder is fed with: t-r or r")
      .check(one_of({"t-r", "r"}))
      .type_name("WHAT")
      .show_default();
  parser
      .add_option("--config", options->config,
                  "Members of the network's configuration that shapes can't tell, e.g. "
                  "'{\"time_scale\": 1000}'")
      .type_name("JSON")
      .show_default();
  parser
      .add_option("--data-at", options->data_at,
                  "Time of the data, 0 or 1; 1 as in SiT: time and velocity are reversed")
      .check(one_of({"0", "1"}))
      .type_name("T")
      .show_default();
  parser.add_flag("--drop-variance", options->drop_variance,
                  "Keep the first half of doubled output channels (learn_sigma)");
  parser
      .add_option("--fill", options->fill,
                  "What may be missing: second-time (zeros; not of an average velocity), positions "
                  "(computed), null-class (zeros); may be repeated")
      .check(one_of({"second-time", "positions", "null-class"}))
      .type_name("WHAT");
  parser
      .add_option("--open-class", options->open_class,
                  "Whether samples without a class were trained, too, which guidance is between "
                  "(default: no for a SongUNet and with --fill null-class, else yes)")
      .check(one_of({"yes", "no"}))
      .type_name("yes|no");
  parser.add_option("--rename", options->rename, "Replace a prefix of keys; may be repeated")
      .type_name("FROM=TO");
  parser.add_option("--ignore", options->ignore, "Leave out keys with this prefix; may be repeated")
      .type_name("PREFIX");
  add_device(parser, *options);
  add_json(parser, *options);
  return {parser, [options, &streams] { return run_import(*options, streams); }};
}

}  // namespace fluxion::cli
