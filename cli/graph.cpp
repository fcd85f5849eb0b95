// fluxion graph: a function, its derivatives and its plan, as pictures.
#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/command.h"
#include "cli/graph_functions.h"
#include "cli/nearest_name.h"
#include "engine/error.h"
#include "engine/plan/plan.h"
#include "engine/platform/file.h"
#include "engine/show/fold.h"
#include "engine/show/memory_picture.h"
#include "engine/show/program_picture.h"

namespace fluxion::cli {

namespace {

struct GraphArguments : CommonOptions {
  std::string function, model, transform, stage = "graph", format, fold, out, save, load;
  std::vector<std::string> along, wrt;
  GraphSizes sizes;
  bool list = false;
};

GraphTransform transform_from(const std::string& name) {
  if (name == "none") return GraphTransform::none;
  if (name == "jvp") return GraphTransform::jvp;
  if (name == "vjp") return GraphTransform::vjp;
  return GraphTransform::grad_of_jvp;
}

int list(const GraphArguments& options, const Streams& streams) {
  if (options.json) {
    nlohmann::json entries = nlohmann::json::array();
    for (const GraphFunctionEntry& entry : graph_functions())
      entries.push_back({{"name", entry.name}, {"says", entry.says}, {"sizes", entry.sizes}});
    write_json(streams.out, entries);
    return 0;
  }
  for (const GraphFunctionEntry& entry : graph_functions()) {
    std::string name = entry.name;
    name.resize(20, ' ');
    streams.out << "  " << name << entry.says << "  (" << entry.sizes << ")\n";
  }
  streams.out << std::flush;
  return 0;
}

// svg, dot or text: as asked for, or as the name of the file says.
std::string format_of(const GraphArguments& options) {
  if (!options.format.empty()) return options.format;
  const std::string extension = std::filesystem::path(options.out).extension().string();
  if (extension.empty() || extension == ".svg") return "svg";
  if (extension == ".dot" || extension == ".gv") return "dot";
  if (extension == ".txt") return "text";
  throw Error("graph: --out " + options.out +
              ": there are .svg, .dot, .gv and .txt; --format svg, dot or text writes one of them "
              "under any name");
}

// The options of sizes, as they were given.
std::vector<std::pair<std::string, std::int64_t>> given_sizes(const GraphSizes& sizes) {
  std::vector<std::pair<std::string, std::int64_t>> given = {{"--batch", sizes.batch},
                                                             {"--width", sizes.width},
                                                             {"--depth", sizes.depth},
                                                             {"--tokens", sizes.tokens},
                                                             {"--heads", sizes.heads}};
  std::erase_if(given, [](const auto& size) { return size.second == 0; });
  return given;
}

// Refuses what would have no effect. `sizes` are those that the function heeds: "--batch --width".
void check_heeded(const GraphArguments& options, const std::string& name, const std::string& sizes,
                  const std::string& transform) {
  for (const auto& [option, value] : given_sizes(options.sizes))
    if (sizes.find(option) == std::string::npos)
      throw Error("graph: " + option + " has no effect on " + name + ", which heeds " + sizes);
  const auto belongs = [&](const char* option, const std::vector<std::string>& arguments,
                           const std::string& own) {
    if (!arguments.empty() && transform != own && transform != "grad-of-jvp")
      throw Error("graph: " + std::string(option) + " belongs to --transform " + own +
                  " and grad-of-jvp, not to " + transform);
  };
  belongs("--along", options.along, "jvp");
  belongs("--wrt", options.wrt, "vjp");
}

// Refuses sizes whose tensors and products are beyond what a program may hold (2^50 points). The
// largest have a few times the product of all sizes, with tokens or width once more; sizes that
// were not given are small.
void check_sizes(const GraphSizes& sizes) {
  constexpr double most = 0x1p46;
  double points = static_cast<double>(std::max<std::int64_t>({sizes.tokens, sizes.width, 8}));
  std::string together;
  for (const auto& [option, value] : given_sizes(sizes)) {
    if (option == "--depth") continue;
    points *= static_cast<double>(value);
    together += (together.empty() ? "" : ", ") + option + " " + std::to_string(value);
  }
  if (points > most)
    throw Error(
        "graph: " + together +
        " are together more than can be planned for; the pictures of smaller sizes look the same");
}

GraphFunction function_of(const GraphArguments& options, const std::string& transform,
                          const Device& device) {
  if (!options.model.empty()) {
    check_heeded(options, "--model", "--batch", transform);
    return model_function(read_model(options.model, device), options.sizes);
  }
  const std::string name = options.function.empty() ? "silu-product" : options.function;
  std::string known;
  std::vector<std::string> names;
  for (const GraphFunctionEntry& entry : graph_functions()) {
    if (entry.name == name) {
      check_heeded(options, name, entry.sizes, transform);
      return entry.make(options.sizes, device);
    }
    names.emplace_back(entry.name);
    known += (known.empty() ? "" : ", ") + names.back();
  }
  const std::optional<std::string> meant = nearest_name(name, names);
  throw Error("graph: there is no function '" + name + "'; " +
              (meant ? "did you mean '" + *meant + "'? " : "") + "there are " + known);
}

struct Picture {
  std::string text;
  std::size_t boxes = 0;  // nodes, or kernels and buffers
  std::string says;       // "14 nodes"
  std::string fold = "none";
};

constexpr std::array folds = {"none", "ops", "layers", "blocks"};  // as show::Fold

// A picture in SVG is folded until it can be read in a page; DOT is for viewers that zoom.
show::Fold fold_of(const std::string& name, const std::string& format,
                   const show::Diagram& diagram) {
  if (name.empty() || name == "auto")
    return format == "svg" ? show::fold_for_page(diagram) : show::Fold::none;
  return static_cast<show::Fold>(std::find(folds.begin(), folds.end(), name) - folds.begin());
}

Picture in_format(const GraphArguments& options, const std::string& format,
                  const show::Diagram& diagram, const std::string& text, const std::string& says) {
  if (format == "text") return {text, 0, says};
  const show::Fold fold = fold_of(options.fold, format, diagram);
  const show::Diagram shown = show::folded(diagram, fold).diagram;
  Picture picture{format == "svg" ? show::to_svg(shown) : show::to_dot(shown), shown.boxes.size(),
                  says};
  if (fold != show::Fold::none && shown.boxes.size() < diagram.boxes.size()) {
    const char* name = folds[static_cast<std::size_t>(fold)];
    picture.fold = name;
    picture.says += ", in " + std::to_string(shown.boxes.size()) + " boxes (--fold " + name +
                    "; --fold none draws each)";
  }
  return picture;
}

// "inputs: x, w, dx\noutputs: y, dy\n\n": what the text of a graph or a program only numbers.
std::string names_text(const show::PictureLabels& labels) {
  std::string text;
  for (const auto& [what, values] :
       {std::pair("inputs: ", &labels.inputs), std::pair("outputs: ", &labels.outputs)}) {
    std::string line;
    for (const show::NamedValue& value : *values) line += (line.empty() ? "" : ", ") + value.name;
    text += what + line + "\n";
  }
  return text + "\n";
}

// On the CPU, what depends on the machine is how fast a kernel runs, not what it may hold, so the
// picture is the same everywhere.
Picture draw(TracedFunction traced, const GraphArguments& options, const std::string& format,
             const Capabilities& capabilities) {
  const std::string& stage = options.stage;
  if (stage == "graph" || stage == "simplified") {
    if (stage == "simplified") {
      std::vector<double> more;
      traced.graph = plan::pair_duals(plan::simplify(traced.graph, capabilities, more));
      traced.labels.scalars.insert(traced.labels.scalars.end(), more.begin(), more.end());
    }
    const std::size_t nodes = traced.graph.nodes.size();
    return in_format(options, format, show::graph_diagram(traced.graph, traced.labels),
                     names_text(traced.labels) + plan::to_string(traced.graph),
                     counted(nodes, "node"));
  }
  const Plan plan = plan::make_plan(traced.graph, capabilities);
  // The program has one output for each distinct value, under the name it is first asked for.
  std::vector<show::NamedValue> outputs(plan.program.outputs.size());
  for (std::size_t k = plan.outputs.size(); k-- > 0;)
    if (!plan.outputs[k].from_input)
      outputs[static_cast<std::size_t>(plan.outputs[k].index)] = traced.labels.outputs[k];
  traced.labels.outputs = outputs;
  const std::string says = counted(plan.program.kernels.size(), "kernel");
  if (stage == "memory") {
    if (format == "dot")
      throw Error("graph: memory is a picture over time and has no DOT form; --format svg or text");
    return {format == "svg" ? show::memory_svg(plan.program, traced.labels)
                            : show::memory_text(plan.program, traced.labels),
            0, says};
  }
  return in_format(options, format, show::program_diagram(plan.program, traced.labels),
                   names_text(traced.labels) + to_string(plan.program), says);
}

// What was written, for --save.
int report_saved(const GraphArguments& options, const StoredGraph& kept, const Streams& streams) {
  if (options.json) {
    write_json(streams.out, {{"function", kept.name},
                             {"saved", options.save},
                             {"nodes", kept.graph.nodes.size()},
                             {"inputs", kept.inputs.size()},
                             {"constants", kept.constants.size()},
                             {"outputs", kept.outputs.size()}});
    return 0;
  }
  streams.out << kept.name << ": " << counted(kept.graph.nodes.size(), "node") << ", "
              << counted(kept.inputs.size(), "input") << ", "
              << counted(kept.constants.size(), "constant") << ", "
              << counted(kept.outputs.size(), "output") << "\n"
              << options.save << std::endl;
  return 0;
}

int graph(const GraphArguments& options, const Streams& streams) {
  if (options.list) return list(options, streams);
  const std::string format = format_of(options);
  const std::string transform = !options.transform.empty() ? options.transform
                                : options.model.empty()    ? "jvp"
                                                           : "none";
  check_sizes(options.sizes);
  check_files_differ("graph", {{"--out", options.out}, {"--save", options.save}},
                     {{"--model", options.model}, {"--load", options.load}});
  if (!options.fold.empty() && (options.stage == "memory" || format == "text"))
    throw Error("graph: --fold folds pictures of graphs and plans; it has no effect on " +
                std::string(format == "text" ? "text, which has every node" : "memory"));
  const Device device = open_device(options, streams);
  std::string function_name, name, file_name;  // of what is drawn, and of its pictures
  TracedFunction traced;
  StoredGraph kept;
  if (!options.load.empty()) {
    kept = load_graph(options.load);
    traced = read_back(kept);
    function_name = name = printable(traced.labels.title);
    file_name = std::filesystem::path(options.load).stem().string();
  } else {
    const GraphFunction function = function_of(options, transform, device);
    traced = trace(function, transform_from(transform), options.along, options.wrt);
    function_name = function.name;
    name = function.name + (transform == "none" ? "" : ", " + transform);
    file_name = function.name + (transform == "none" ? "" : "-" + transform);
    if (!options.save.empty()) kept = stored(traced, name);
  }
  if (!options.save.empty()) {
    save_graph(options.save, kept);
    return report_saved(options, kept, streams);
  }
  traced.labels.title = name + (options.stage == "graph" ? "" : ": " + options.stage);
  const Picture picture = draw(std::move(traced), options, format, device.backend().capabilities());

  std::string out = options.out;
  if (out.empty() && format == "svg") out = file_name + "-" + options.stage + ".svg";
  if (out.empty() || out == "-") {
    if (!options.json) {
      streams.out << picture.text << std::flush;
      return 0;
    }
  } else {
    replace_file(out, picture.text);
  }
  if (options.json) {
    nlohmann::json object = {{"function", function_name},
                             {"stage", options.stage},
                             {"format", format},
                             {"fold", picture.fold}};
    if (options.load.empty()) object["transform"] = transform;
    object["out"] = out.empty() || out == "-" ? nlohmann::json() : nlohmann::json(out);
    if (object["out"].is_null()) object["text"] = picture.text;
    write_json(streams.out, object);
    return 0;
  }
  streams.out << name << ", " << options.stage << ": " << picture.says << "\n" << out << std::endl;
  if (format == "svg" && picture.boxes > show::comfortable_boxes)
    streams.error << "fluxion: " << picture.boxes << " boxes make a large picture; "
                  << (options.fold == "none" ? "--fold auto, or " : "")
                  << "--format dot, Graphviz and a viewer that zooms may serve better\n";
  return 0;
}

}  // namespace

Command add_graph(CommandLine& program, const Streams& streams) {
  auto options = std::make_shared<GraphArguments>();
  const Parser parser =
      program.add_subcommand("graph", "Draw a function, its derivatives, its plan or its memory");
  parser.footer(
      "Transforms: jvp, the function with its tangents; vjp, with its cotangents; grad-of-jvp, the "
      "gradient of an inner product with the tangents.\n"
      "Stages: graph, as it was traced; simplified, with fused ops expanded and equal nodes "
      "merged; plan, the kernels; memory, the arena over "
      "time.\n"
      "Folding: none, a box for each node; ops, for an op and those that only it uses; layers, for "
      "what lies between the parameters of two layers; blocks, the same for blocks.0 instead of "
      "blocks.0.attn.qkv. docs/pictures.md shows how to read them.\n\n"
      "Examples:\n"
      "  fluxion graph\n"
      "  fluxion graph softmax --transform vjp --stage simplified\n"
      "  fluxion graph dit-block --transform vjp --fold blocks\n"
      "  fluxion graph dit-block --stage plan --out block.svg\n"
      "  fluxion graph mlp --transform grad-of-jvp --format dot | dot -Tpdf -o mlp.pdf\n"
      "  fluxion graph --model out/digits/model.safetensors --stage memory\n"
      "  fluxion graph softmax --transform vjp --save softmax.graph\n"
      "  fluxion graph --load softmax.graph --stage plan --format text");
  const Option function =
      parser.add_option("FUNCTION", options->function, "One of --list (default: silu-product)");
  const Option model =
      parser.add_option("--model", options->model, "Draw the network of a model file instead")
          .excludes(function)
          .type_name("FILE");
  const Option load = parser.add_option("--load", options->load, "Draw what --save wrote instead")
                          .excludes(function)
                          .excludes(model)
                          .type_name("FILE");
  parser
      .add_option("--save", options->save,
                  "Keep the function in a file (docs/graph-files.md) and draw nothing")
      .type_name("FILE");
  parser
      .add_option("--transform", options->transform,
                  "none, jvp, vjp or grad-of-jvp (default: jvp; none with --model)")
      .check(one_of({"none", "jvp", "vjp", "grad-of-jvp"}))
      .type_name("NAME");
  parser.add_option("--stage", options->stage, "graph, simplified, plan or memory")
      .check(one_of({"graph", "simplified", "plan", "memory"}))
      .type_name("NAME")
      .show_default();
  parser
      .add_option("--format", options->format,
                  "svg, dot or text (default: as --out says, else svg)")
      .check(one_of({"svg", "dot", "text"}))
      .type_name("NAME");
  parser
      .add_option(
          "--fold", options->fold,
          "auto, none, ops, layers or blocks: what a box stands for (default: auto, as much "
          "as an SVG needs to be read in a page)")
      .check(one_of({"auto", "none", "ops", "layers", "blocks"}))
      .type_name("NAME");
  parser
      .add_option("--out", options->out,
                  "File to write, - for standard output (default: FUNCTION-TRANSFORM-STAGE.svg; "
                  "dot and text are printed)")
      .type_name("FILE");
  parser
      .add_option("--along", options->along,
                  "Arguments that have a tangent (default: all but parameters)")
      .delimiter(',')
      .type_name("NAME,..");
  parser
      .add_option("--wrt", options->wrt,
                  "Arguments that get a cotangent (default: parameters, if any, else the others)")
      .delimiter(',')
      .type_name("NAME,..");
  const auto size = [&](const char* name, std::int64_t& value, const char* says,
                        std::uint64_t most = 1 << 16) {
    parser.add_number(name, value, whole(1, most), says).type_name("N");
  };
  size("--batch", options->sizes.batch, "Samples");
  size("--width", options->sizes.width, "Channels");
  size("--depth", options->sizes.depth, "Layers", 256);
  size("--tokens", options->sizes.tokens, "Tokens");
  size("--heads", options->sizes.heads, "Attention heads");
  for (const char* option :
       {"--transform", "--along", "--wrt", "--batch", "--width", "--depth", "--tokens", "--heads"})
    load.excludes(parser.option(option));
  const std::vector<Option> others = parser.options();
  const Option list_them = parser.add_flag("--list", options->list, "List the functions");
  for (const Option& option : others) list_them.excludes(option);
  add_device(parser, *options);
  add_json(parser, *options);
  return {parser, [options, &streams] { return graph(*options, streams); }};
}

}  // namespace fluxion::cli
