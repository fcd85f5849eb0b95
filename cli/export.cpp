// fluxion export: a trained model becomes a sampler file for embed/.
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/sampler_choice.h"
#include "engine/error.h"
#include "engine/number_text.h"
#include "models/samplers/export_sampler.h"

namespace fluxion::cli {

namespace {

struct ExportArguments : CommonOptions {
  std::string model, out = "model.fxn", dtype = "f32";
  SamplerChoice sampler;
  double guidance = 1;
  bool free_guidance = false;
};

WeightEncoding encoding_from(const std::string& name) {
  return weight_encoding_from(name == "int8-weights" ? "int8" : name);
}

// How the file is made, as pictures of samples say it. Of a path the last two parts, as the folder
// names the run: what is passed on should not tell where its author keeps files.
nlohmann::json origin_of(const ExportArguments& options, const ModelInfo& info,
                         const SamplerOptions& chosen) {
  const std::filesystem::path file = std::filesystem::absolute(model_file(options.model));
  nlohmann::json how = {{"software", "fluxion " FLUXION_VERSION},
                        {"model", (file.parent_path().filename() / file.filename()).string()},
                        {"training steps", info.step},
                        {"weights", info.ema ? "moving average" : "raw"},
                        {"sampler", to_string(chosen.kind)},
                        {"steps", chosen.steps},
                        {"grid", to_string(grid_of(chosen))}};
  if (!info.method.empty()) how["method"] = info.method;
  if (info.guidance)
    how["guidance trained in"] = {{"omega", info.guidance->omega}, {"kappa", info.guidance->kappa}};
  if (num_classes(info.network) > 0 && !info.guidance) how["guidance"] = options.guidance;
  const SamplerChoice& given = options.sampler;
  for (const auto& [name, value] : {std::pair("eta", given.eta),
                                    {"churn", given.churn},
                                    {"churn min", given.churn_min},
                                    {"churn max", given.churn_max},
                                    {"churn noise", given.churn_noise},
                                    {"shift", given.shift},
                                    {"rho", given.rho},
                                    {"sigma min", given.sigma_min},
                                    {"sigma max", given.sigma_max},
                                    {"snr", given.signal_to_noise},
                                    {"guidance low", given.guidance_low},
                                    {"guidance high", given.guidance_high}})
    if (value) how[name] = *value;
  if (given.corrections) how["corrections"] = *given.corrections;
  return how;
}

int run_export(const ExportArguments& options, const Streams& streams) {
  check_files_differ("export", {{"--out", options.out}}, {{"--model", options.model}});
  check_can_be_written({{"--out", options.out}});
  const Model model = read_model(options.model, open_device(options, streams));
  const SamplerOptions chosen = chosen_sampler(options.sampler, options.guidance, model.info,
                                               "export", options.free_guidance);
  if (options.sampler.head_start)
    throw Error("export: a head start is made of data, which a sampler file does not hold");
  StoredSampler sampler =
      export_sampler(model, chosen, encoding_from(options.dtype), options.free_guidance);
  sampler.origin = origin_of(options, model.info, chosen)
                       .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  save_sampler(options.out, sampler);
  const std::uint64_t bytes = std::filesystem::file_size(options.out);
  const Shape shape = sampler.sample_shape;
  if (options.json) {
    write_json(streams.out, {{"model", options.model},
                             {"out", options.out},
                             {"bytes", bytes},
                             {"dtype", options.dtype},
                             {"parameters", parameter_count(model.info.network)},
                             {"shape", shape.dims()},
                             {"classes", sampler.classes},
                             {"sampler", to_string(chosen.kind)},
                             {"steps", sampler.steps.size()},
                             {"guidance", options.guidance},
                             {"free_guidance", options.free_guidance},
                             {"evaluations", sampler.evaluations}});
    return 0;
  }
  streams.out << "sampler  " << to_string(chosen.kind) << ", " << sampler.steps.size()
              << (sampler.steps.size() == 1 ? " step, " : " steps, ")
              << evaluations_text(sampler.evaluations)
              << (sampler.evaluations == 1 ? " network evaluation" : " network evaluations")
              << " each sample\n"
              << (options.free_guidance
                      ? "guidance " + rounded_text(options.guidance, 6) + ", or as a call says\n"
                      : "")
              << "samples  " << to_string(shape);
  if (sampler.classes > 0) streams.out << " of " << sampler.classes << " classes";
  streams.out << "\nfile     " << options.out << ", " << grouped(static_cast<std::int64_t>(bytes))
              << " bytes, " << grouped(parameter_count(model.info.network)) << " parameters as "
              << options.dtype << std::endl;
  return 0;
}

}  // namespace

Command add_export(CommandLine& program, const Streams& streams) {
  auto options = std::make_shared<ExportArguments>();
  const Parser parser =
      program.add_subcommand("export", "Make a file that applications draw samples from");
  parser.footer(
      "The file holds the sampler with its steps and its guidance, for a batch of any size; the "
      "runtime library runs it without network or training code: docs/embedding.md.\n\n"
      "Examples:\n"
      "  fluxion export --model out/digits/model.safetensors --out digits.fxn\n"
      "  fluxion export --model out/digits/model.safetensors --dtype f16 --out digits.fxn\n"
      "  fluxion export --model out/flow/model.safetensors --steps 20 --sampler heun --out "
      "flow.fxn");
  parser.add_option("--model", options->model, "Folder of a run, or model file (.safetensors)")
      .required()
      .type_name("FILE");
  parser.add_option("--out", options->out, "File to write").type_name("FILE.fxn").show_default();
  parser
      .add_option("--dtype", options->dtype,
                  "How the file keeps the weights: f32, f16, bf16 or int8-weights (8 bits each, "
                  "and a scale for 32 of them); samples are computed in f32")
      .check(one_of({"f32", "f16", "bf16", "int8-weights"}))
      .type_name("TYPE")
      .show_default();
  add_sampler_options(parser, options->sampler);
  parser
      .add_number("--guidance", options->guidance, guidance_scales(),
                  "Scale of classifier-free guidance, for models trained without it; 1: none")
      .type_name("W")
      .show_default();
  parser.add_flag("--free-guidance", options->free_guidance,
                  "Let each call choose another scale, for twice the network evaluations whatever "
                  "the scale");
  add_device(parser, *options);
  add_json(parser, *options);
  return {parser, [options, &streams] { return run_export(*options, streams); }};
}

}  // namespace fluxion::cli
